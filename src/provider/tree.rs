//! JSON as a tolerant tree: numbers stay text, so that none is too large; a lone surrogate becomes U+FFFD; of two keys of
//! one name the last wins; what nests too deeply stays text, and so does what has far more in it than a message has. Beside it
//! [`Walk`], which finds elements without reading them.
//!
//! Both work on text that `serde_json` has checked; on other text they end early, and never panic.

use std::borrow::Cow;

use prost_types::value::Kind;

use super::members::Members;
use super::split::document;

/// Containers below this depth are not read but kept as text: it bounds the recursion.
const MAX_DEPTH: usize = 16;

/// Values that are read of what a document's members have in them: one takes many times its bytes in memory.
const CROWD: usize = 16_384;

/// What a value takes once it is read and part of an event, on top of its bytes, and what a container does.
const OF_VALUE: usize = 96;
const OF_CONTAINER: usize = 768;

/// How deeply a field's value may nest in an event; decoders of protobuf refuse depth.
pub(crate) const MAX_STRUCT_DEPTH: usize = 8;

/// Doubles hold every integer up to this one, 2^53; beyond it consumers get text.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
const MAX_EXACT_DIGITS: &str = "9007199254740992";

/// A JSON value, borrowed from its text as far as it stands there as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Members<'a>),
    /// JSON text that nests too deeply.
    Deep(String),
}

impl<'a> Value<'a> {
    /// Reads one document; none where the bytes are not JSON.
    pub(crate) fn parse(raw: &'a [u8]) -> Option<Self> {
        Self::of(document(raw)?)
    }

    /// Reads one document that was checked.
    pub(crate) fn of(document: &'a str) -> Option<Self> {
        let mut walk = Walk::of(document);
        if document.len() > CROWD && Count::of(document.as_bytes()).values() > CROWD {
            walk.left = Some(CROWD);
        }
        walk.value(0)
    }

    /// The value as protobuf has it. `depth` counts it and the structures around it, but for the outermost.
    pub(crate) fn to_proto(&self, depth: usize) -> prost_types::Value {
        let kind = match self {
            Self::Null => Kind::NullValue(0),
            Self::Bool(value) => Kind::BoolValue(*value),
            Self::Number(text) => match exact(text) {
                Some(number) => Kind::NumberValue(number),
                None => Kind::StringValue((*text).to_owned()),
            },
            Self::Text(text) => Kind::StringValue(text.clone().into_owned()),
            Self::Deep(text) => Kind::StringValue(text.clone()),
            Self::List(_) | Self::Object(_) if depth > MAX_STRUCT_DEPTH => {
                let mut text = String::new();
                self.write(&mut text);
                Kind::StringValue(text)
            }
            Self::List(values) => Kind::ListValue(prost_types::ListValue {
                values: values.iter().map(|value| value.to_proto(depth + 1)).collect(),
            }),
            Self::Object(members) => Kind::StructValue(members.to_struct(depth, |_, _| true)),
        };
        prost_types::Value { kind: Some(kind) }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::Deep(text) => out.push_str(text),
            Self::Text(text) => write_text(text, out),
            Self::List(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (key, value)) in members.in_order().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// How many values are in a text, about: what stands in its strings may be counted, too.
#[derive(Debug, Clone, Copy)]
struct Count {
    containers: usize,
    commas: usize,
}

impl Count {
    fn of(text: &[u8]) -> Self {
        let count = |wanted: fn(u8) -> bool| text.iter().filter(|byte| wanted(**byte)).count();
        Self { containers: count(|byte| matches!(byte, b'{' | b'[')), commas: count(|byte| byte == b',') }
    }

    const fn values(self) -> usize {
        self.containers + self.commas
    }
}

/// What a document takes in memory once it is read and an event, about, on top of its bytes.
pub(crate) fn read_bytes(document: &[u8]) -> usize {
    let count = Count::of(document);
    count.commas * OF_VALUE + count.containers.min(CROWD) * OF_CONTAINER
}

fn write_text(text: &str, out: &mut String) {
    // A string always has a JSON form.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// The number as a double, where that loses nothing that its writer meant: a fraction is always an approximation, an integer
/// beyond 2^53, however it is written, or a number beyond a double's range is not for doubles.
fn exact(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", integer.trim_start_matches('-'));
    let significant = digits.trim_matches('0');
    if number == 0.0 {
        return significant.is_empty().then_some(number);
    }
    if number.abs() < MAX_EXACT {
        return Some(number);
    }
    let zeros = i64::try_from(digits.len() - digits.trim_end_matches('0').len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    let is_integer = exponent.parse::<i64>().ok()?.checked_add(zeros)? >= places;
    let is_limit = number.abs() == MAX_EXACT && significant == MAX_EXACT_DIGITS;
    (number.is_finite() && (is_limit || !is_integer)).then_some(number)
}

/// The bytes that end a number, `true`, `false` or `null`.
const ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        ends[byte] = (byte as u8).is_ascii_whitespace() || matches!(byte as u8, b',' | b']' | b'}' | b':');
        byte += 1;
    }
    ends
};

/// A walk over one valid document.
pub(crate) struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// How many values may still be read below the outermost container, where that is bounded.
    left: Option<usize>,
}

impl<'a> Walk<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, at: 0, left: None }
    }

    /// The elements of an array, unread; none where it is no array.
    pub(crate) fn elements(self) -> Vec<&'a str> {
        self.first_elements(usize::MAX)
    }

    /// The same, so many at most.
    pub(crate) fn first_elements(mut self, most: usize) -> Vec<&'a str> {
        let mut found = Vec::new();
        if self.open(b'[') {
            while let Some(element) = self.skip() {
                found.push(element);
                if found.len() >= most || !self.another() {
                    break;
                }
            }
        }
        found
    }

    /// The members of an object in the order of the text, their values unread; none where it is no object.
    pub(crate) fn members(mut self) -> Vec<(Cow<'a, str>, &'a str)> {
        let mut found = Vec::new();
        if self.open(b'{') {
            while let Some((key, value)) = self.key().zip(self.skip()) {
                found.push((key, value));
                if !self.another() {
                    break;
                }
            }
        }
        found
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        match self.peek()? {
            b'{' if depth < MAX_DEPTH && self.has_left(depth) => {
                let mut members = Members::default();
                if self.open(b'{') {
                    members = Members::with_room(depth);
                    while let Some(key) = self.key() {
                        members.read(key, self.value(depth + 1)?);
                        if !self.another() {
                            break;
                        }
                    }
                }
                self.close();
                members.settle();
                Some(Value::Object(members))
            }
            b'[' if depth < MAX_DEPTH && self.has_left(depth) => {
                let mut values = Vec::new();
                if self.open(b'[') {
                    loop {
                        values.push(self.value(depth + 1)?);
                        if !self.another() {
                            break;
                        }
                    }
                }
                self.close();
                Some(Value::List(values))
            }
            b'{' | b'[' => Some(Value::Deep(compact(self.skip()?))),
            b'"' => self.string().map(Value::Text),
            b't' => self.skip().map(|_| Value::Bool(true)),
            b'f' => self.skip().map(|_| Value::Bool(false)),
            b'n' => self.skip().map(|_| Value::Null),
            _ => Some(Value::Number(self.skip()?)),
        }
    }

    /// Whether the container that begins here is read, as far as it is for the number of its values.
    fn has_left(&mut self, depth: usize) -> bool {
        let Some(left) = self.left.filter(|_| depth == 1) else { return true };
        let start = self.at;
        let values = self.skip().map_or(0, |text| Count::of(text.as_bytes()).values());
        self.at = start;
        let rest = left.checked_sub(values);
        self.left = rest.or(self.left);
        rest.is_some()
    }

    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Goes into a container; false where there is none or nothing in it.
    fn open(&mut self, bracket: u8) -> bool {
        if self.peek() != Some(bracket) {
            return false;
        }
        self.at += 1;
        !matches!(self.peek(), None | Some(b']' | b'}'))
    }

    /// Goes past the end of a container.
    fn close(&mut self) {
        if matches!(self.peek(), Some(b']' | b'}')) {
            self.at += 1;
        }
    }

    /// Goes past a comma; false at the end of the container.
    fn another(&mut self) -> bool {
        let comma = self.peek() == Some(b',');
        if comma {
            self.at += 1;
        }
        comma
    }

    fn key(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let key = self.string()?;
        if self.peek() == Some(b':') {
            self.at += 1;
        }
        Some(key)
    }

    /// Goes past the string that begins here, and reads it: mostly it stands there as it is meant.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
            let plain = plain_bytes(*eight);
            at += plain;
            if plain < eight.len() {
                break;
            }
        }
        while !matches!(bytes.get(at)?, b'"' | b'\\') {
            at += 1;
        }
        if bytes.get(at) == Some(&b'"') {
            self.at = at + 1;
            return self.text.get(start..at).map(Cow::Borrowed);
        }
        self.skip().map(unescape)
    }

    /// Goes past one value, at any depth, and gives its text.
    fn skip(&mut self) -> Option<&'a str> {
        let first = self.peek()?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        match first {
            b'"' => self.at = past_string(bytes, start),
            b'{' | b'[' => {
                let mut open = 0_usize;
                while let Some(byte) = bytes.get(self.at) {
                    match byte {
                        b'"' => {
                            self.at = past_string(bytes, self.at);
                            continue;
                        }
                        b'{' | b'[' => open += 1,
                        b'}' | b']' => open = open.saturating_sub(1),
                        _ => {}
                    }
                    self.at += 1;
                    if open == 0 {
                        break;
                    }
                }
            }
            _ => {
                while bytes.get(self.at).is_some_and(|byte| !ENDS[usize::from(*byte)]) {
                    self.at += 1;
                }
            }
        }
        if self.at == start { None } else { self.text.get(start..self.at) }
    }
}

/// How many of these are before the first quote or backslash.
fn plain_bytes(eight: [u8; 8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let text = u64::from_le_bytes(eight);
    // The highest bit of each byte that is `byte`, and perhaps of some after the first.
    let of = |byte: u8| {
        let differs = text ^ (ONES * u64::from(byte));
        differs.wrapping_sub(ONES) & !differs & (ONES << 7)
    };
    ((of(b'"') | of(b'\\')).trailing_zeros() / 8) as usize
}

/// The place after the string that begins at `start`.
fn past_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The text of a quoted string; half of a surrogate pair becomes U+FFFD.
fn unescape(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(quoted);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(escape) = rest.chars().next() else { break };
        rest = &rest[escape.len_utf8()..];
        match escape {
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'u' => {
                let (unit, after) = unit(rest);
                rest = after;
                let mut character = char::from_u32(unit);
                if (0xd800..0xdc00).contains(&unit)
                    && let Some(low) = rest.strip_prefix("\\u")
                {
                    let (second, after) = self::unit(low);
                    if (0xdc00..0xe000).contains(&second) {
                        rest = after;
                        character = char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (second - 0xdc00));
                    }
                }
                text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => text.push(other),
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The code unit of four hexadecimal digits, and what follows them.
fn unit(text: &str) -> (u32, &str) {
    let digits = text.get(..4).unwrap_or_default();
    let unit = u32::from_str_radix(digits, 16).unwrap_or(0xfffd);
    (unit, text.get(digits.len()..).unwrap_or_default())
}

/// JSON text without the blanks between its tokens.
fn compact(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'"' {
            let end = past_string(bytes, at);
            out.push_str(text.get(at..end).unwrap_or_default());
            at = end;
        } else {
            if !byte.is_ascii_whitespace() {
                out.push(char::from(*byte));
            }
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> String {
        let mut text = String::new();
        Value::parse(json.as_bytes()).expect("json").write(&mut text);
        text
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        for (json, expected) in [
            (
                r#" { "b" : [ 1 , -2.50, true, null ] , "a" : "x\n\"" } "#,
                r#"{"a":"x\n\"","b":[1,-2.50,true,null]}"#,
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"[1e999,123456789012345678901234567890]"#, "[1e999,123456789012345678901234567890]"),
            (r#""\ud83d\ude9a \ud800 \udc00x \ud800\u0041 \/""#, "\"🚚 \u{fffd} \u{fffd}x \u{fffd}A /\""),
            (r#"{"\ud800":{}}"#, "{\"\u{fffd}\":{}}"),
            ("[]", "[]"),
            (r#"[[],[{}]]"#, "[[],[{}]]"),
        ] {
            assert_eq!(written(json), expected, "{json}");
        }
        assert_eq!(Value::parse(b"{"), None);
        assert_eq!(Value::parse(b"\"\xff\""), None);
    }

    #[test]
    fn numbers_that_a_double_would_bend_are_text() {
        for (number, kept) in [
            ("9007199254740992", true),
            ("9007199254740993", false),
            ("-9007199254740993", false),
            ("9007199254740992.0", true),
            ("9007199254740993.0", false),
            ("-9.007199254740993e15", false),
            ("90071992547409930e-1", false),
            ("9007199254740991.00", true),
            ("9007199254740993.5", true),
            ("1e23", false),
            ("1e3", true),
            ("0.000", true),
            ("1e999", false),
            ("-1e-999", false),
            ("0.1", true),
            ("0e5", true),
            ("-0", true),
        ] {
            assert_eq!(exact(number).is_some(), kept, "{number}");
        }
    }

    #[test]
    fn what_has_far_more_in_it_than_a_message_has_stays_text() {
        for (count, is_read) in [(CROWD / 2, true), (CROWD / 2 + 1, false)] {
            let list = vec![r#"{"":0}"#; count].join(",");
            let json = format!(r#"{{"x":[{list}],"tracker":{{"imei":[1]}},"date":1}}"#);
            let Some(Value::Object(members)) = Value::parse(json.as_bytes()) else { panic!("an object") };
            assert_eq!(members.get("date"), Some(&Value::Number("1")));
            match members.get("x") {
                Some(Value::List(values)) => assert!(is_read && values.len() == count),
                Some(Value::Deep(text)) => assert!(!is_read && **text == format!("[{list}]")),
                other => panic!("{other:?}"),
            }
            let tracker = members.get("tracker");
            assert_eq!(
                matches!(tracker, Some(Value::Object(_))),
                !is_read,
                "what is small goes on being read"
            );
        }
        assert!(read_bytes(br#"{"a":{"b":1},"c":[1,2]}"#) > 3 * OF_CONTAINER);
    }

    #[test]
    fn depth_becomes_text_and_loses_nothing() {
        let json = format!("{}\"x y\" , 1{}", "[ ".repeat(50), "] ".repeat(50));
        let proto = Value::parse(json.as_bytes()).expect("json").to_proto(1);
        let mut inner = proto.kind;
        let mut lists = 0;
        while let Some(Kind::ListValue(list)) = inner {
            lists += 1;
            inner = list.values.into_iter().next().and_then(|value| value.kind);
        }
        assert_eq!(lists, MAX_STRUCT_DEPTH);
        let expected = format!("{}\"x y\",1{}", "[".repeat(42), "]".repeat(42));
        assert_eq!(inner, Some(Kind::StringValue(expected)));
    }
}
