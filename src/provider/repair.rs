//! What lax writers put into JSON, made readable: bytes that are no UTF-8, raw control characters in strings, NaN and infinities. A
//! row that has them in one answer would else keep all rows of its window from everyone. Pure. Neighbour: polls ask for it where an
//! answer is not JSON; what is sent is parked raw as it came.

use std::borrow::Cow;

/// Words for numbers that JSON has none for.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// The same in which bytes of another encoding are replacement characters, control characters in strings blanks, and what is no
/// number null. None where there is nothing of that.
#[must_use]
pub fn repaired(body: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(body);
    let mut is_other = matches!(text, Cow::Owned(_));
    let mut repaired = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text.as_bytes();
    while let Some((byte, later)) = rest.split_first() {
        let no_number = NO_NUMBERS.iter().find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = no_number {
            repaired.extend(b"null");
            rest = rest.get(word.len()..).unwrap_or_default();
            is_other = true;
            continue;
        }
        rest = later;
        let is_raw = in_string && *byte < b' ';
        repaired.push(if is_raw { b' ' } else { *byte });
        is_other |= is_raw;
        if *byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && *byte == b'\\' && !escaped;
    }
    is_other.then_some(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], expected: Option<&str>) {
        let found = repaired(body);
        assert_eq!(found.as_deref().map(String::from_utf8_lossy).as_deref(), expected);
        if let Some(found) = found {
            serde_json::from_slice::<serde_json::Value>(&found).expect("json");
        }
    }

    #[test]
    fn what_is_no_json_becomes_so_and_what_is_stays() {
        check(br#"{"name":"M\u00fcller \"x\" NaN","n":-1.5e3,"t":true}"#, None);
        check(b"[{\"name\":\"M\xfcller\"}]", Some("[{\"name\":\"M\u{fffd}ller\"}]"));
        check(b"[\"a\tb\nc\",\n\t1]", Some("[\"a b c\",\n\t1]"));
        check(b"[NaN,-Infinity,Infinity,\"NaN\",\"\\\"NaN\"]", Some(r#"[null,null,null,"NaN","\"NaN"]"#));
        check(b"[\"\\\\\",NaN]", Some(r#"["\\",null]"#));
    }
}
