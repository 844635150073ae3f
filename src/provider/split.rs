//! A request's body into its elements, each to be decoded for itself: one that cannot be read costs the others nothing.
//!
//! Works on the text, never on values: lone surrogates, `1e999`, huge numbers and deep nesting pass through unread.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::tree::Walk;

/// The most elements of one body.
pub const MAX_ELEMENTS: usize = 10_000;

/// Why a body has no elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// No bytes, or only blanks.
    #[error("the body is empty")]
    Empty,
    /// Not JSON, or not UTF-8; perhaps a truncated copy.
    #[error("not json: line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// More than [`MAX_ELEMENTS`].
    #[error("more than {MAX_ELEMENTS} elements")]
    TooMany,
}

/// The elements of a body: those of an array, or of `{"messages": […]}`, else the one value that it is. A byte-order mark
/// is skipped. Each slice is valid JSON, and lies within `body`.
///
/// # Errors
/// See [`SplitError`].
pub fn split(body: &[u8]) -> Result<Vec<&str>, SplitError> {
    let text = text(body)?;
    // An array is checked and taken apart in one pass.
    if text.trim_start().starts_with('[') {
        let values: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|problem| not_json(1, 1, &problem))?;
        let within = values.len() <= MAX_ELEMENTS;
        return if within {
            Ok(values.into_iter().map(RawValue::get).collect())
        } else {
            Err(SplitError::TooMany)
        };
    }
    let value: &RawValue = serde_json::from_str(text).map_err(|problem| not_json(1, 1, &problem))?;
    elements(value.get())
}

/// One element of a request, or one row of an answer: its bytes, and whether they have been checked to be JSON, so that none is
/// checked twice.
#[derive(Debug, Clone)]
pub struct Element {
    bytes: Bytes,
    is_json: bool,
}

impl Element {
    /// The elements of a body, as [`split`] finds them.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn all_of(body: &Bytes) -> Result<Vec<Self>, SplitError> {
        let element = |text: &str| Self { bytes: body.slice_ref(text.as_bytes()), is_json: true };
        split(body).map(|found| found.into_iter().map(element).collect())
    }

    /// As it came.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its text; none where it is not JSON.
    pub(super) fn document(&self) -> Option<&str> {
        if self.is_json { std::str::from_utf8(&self.bytes).ok() } else { document(&self.bytes) }
    }
}

/// Bytes that may be anything.
impl From<Bytes> for Element {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, is_json: false }
    }
}

/// The text of one document; none where the bytes are not JSON.
pub(super) fn document(raw: &[u8]) -> Option<&str> {
    serde_json::from_slice::<&RawValue>(raw).ok().map(RawValue::get)
}

/// The JSON documents of an input that may have several, one after the other (NDJSON, or concatenated files), and what could
/// not be read. After the first such place each line that begins as a document does is one, or is broken by itself.
#[must_use]
pub fn documents(input: &[u8]) -> (Vec<&str>, Vec<SplitError>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut rest = after_blanks(input);
    while !rest.is_empty() {
        let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        match documents.next() {
            Some(Ok(document)) => found.push(document.get()),
            Some(Err(problem)) => {
                let (line, column) = place(&input[..input.len() - rest.len()]);
                problems.push(not_json(line, column, &problem));
                for (line, text) in (line..).zip(rest.split(|byte| *byte == b'\n')).skip(1) {
                    let text = after_blanks(text);
                    if matches!(text.first(), Some(b'{' | b'[')) {
                        match serde_json::from_slice::<&RawValue>(text) {
                            Ok(document) => found.push(document.get()),
                            Err(problem) => problems.push(not_json(line, 1, &problem)),
                        }
                    }
                }
                break;
            }
            None => break,
        }
        rest = after_blanks(&rest[documents.byte_offset()..]);
    }
    if found.is_empty() && problems.is_empty() {
        problems.push(SplitError::Empty);
    }
    (found, problems)
}

/// Without blanks and marks of byte order before it: files that were put together have one each.
fn after_blanks(input: &[u8]) -> &[u8] {
    let mut rest = input.trim_ascii_start();
    while let Some(after) = rest.strip_prefix(b"\xef\xbb\xbf") {
        rest = after.trim_ascii_start();
    }
    rest
}

/// The elements of one valid document.
///
/// # Errors
/// [`SplitError::TooMany`] alone.
pub fn elements(document: &str) -> Result<Vec<&str>, SplitError> {
    let elements = if document.starts_with('[') {
        Walk::of(document).elements()
    } else if let Some(messages) = messages(document) {
        Walk::of(messages).elements()
    } else {
        vec![document]
    };
    if elements.len() > MAX_ELEMENTS { Err(SplitError::TooMany) } else { Ok(elements) }
}

/// What tells or places a message, at its outermost: who it is about, when, where, what. An envelope has none of them.
const OF_A_MESSAGE: [&str; 32] = [
    "pushType",
    "tracker",
    "trackerId",
    "deviceNumber",
    "imei",
    "deviceNbr",
    "deviceUUID",
    "deviceSerialNumber",
    "trackedItem",
    "itemId",
    "toolTracker",
    "geofenceId",
    "mediaId",
    "alertId",
    "alertCode",
    "alertDateTime",
    "eventType",
    "enterDateTime",
    "exitDateTime",
    "statusChangeType",
    "stopType",
    "leftBehindTimestamp",
    "date",
    "positionDate",
    "reportDateTime",
    "startDateTime",
    "endDateTime",
    "startDate",
    "endDate",
    "distanceMiles",
    "latitude",
    "longitude",
];

/// The array of an envelope `{"messages": […]}`. A message that has such a field among its own is no envelope, and neither is
/// what has a second list of objects, also within an object, or another message beside it, or in whose list nothing is a message: taken
/// apart, what stands beside would be gone, and nobody would be told. Of two keys of that name the last counts, as everywhere.
fn messages(document: &str) -> Option<&str> {
    // Mostly there is no such key, however it may be spelt.
    if !document.contains("messages") && !document.contains('\\') {
        return None;
    }
    let members = Walk::of(document).members();
    let (_, found) = members.iter().rev().find(|(key, _)| key == "messages")?;
    if !found.starts_with('[') {
        return None;
    }
    let mut beside = members.iter().filter(|(key, _)| key != "messages").peekable();
    if beside.peek().is_none() {
        return Some(*found);
    }
    let stays = |(key, value): &(Cow<'_, str>, &str)| {
        OF_A_MESSAGE.contains(&&**key)
            || is_of_a_message(value)
            || is_list_of_some(value)
            || value.starts_with('{')
                && Walk::of(value).members().iter().any(|(_, inner)| is_list_of_some(inner))
    };
    if beside.any(stays) {
        return None;
    }
    Walk::of(found).elements().iter().any(|element| is_of_a_message(element)).then_some(*found)
}

/// Whether it is a list of which some may be messages.
fn is_list_of_some(value: &str) -> bool {
    Walk::of(value).elements().iter().any(|element| element.starts_with(['{', '[']))
}

/// Whether it is an object that tells or places a message.
fn is_of_a_message(value: &str) -> bool {
    value.starts_with('{') && Walk::of(value).members().iter().any(|(key, _)| OF_A_MESSAGE.contains(&&**key))
}

fn text(body: &[u8]) -> Result<&str, SplitError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|problem| {
        let (line, column) = place(&body[..problem.valid_up_to()]);
        SplitError::NotJson { line, column }
    })?;
    if text.trim().is_empty() { Err(SplitError::Empty) } else { Ok(text) }
}

/// Line and column of what comes next.
fn place(before: &[u8]) -> (usize, usize) {
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, before.len() - line_start + 1)
}

/// Of what begins at this line and column.
fn not_json(line: usize, column: usize, problem: &serde_json::Error) -> SplitError {
    let (lines, within) = (problem.line().max(1) - 1, problem.column().max(1));
    let column = if lines == 0 { column - 1 + within } else { within };
    SplitError::NotJson { line: line + lines, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], expected: Result<&[&str], SplitError>) {
        assert_eq!(
            split(body).as_deref(),
            expected.as_ref().map(|e| *e),
            "{}",
            String::from_utf8_lossy(body)
        );
    }

    #[test]
    fn bodies_become_elements() {
        check(br#" {"a":1} "#, Ok(&[r#"{"a":1}"#]));
        check(b"\xef\xbb\xbf[{\"a\":1}, 2 ,\"x\"]", Ok(&[r#"{"a":1}"#, "2", r#""x""#]));
        check(br#"{"messages":[{"a":[1]},{}]}"#, Ok(&[r#"{"a":[1]}"#, "{}"]));
        check(br#"{"count":1,"messages":[{"date":1}]}"#, Ok(&[r#"{"date":1}"#]));
        check(
            br#"{"count":1,"messages":[null,{"date":1},{"a":1}]}"#,
            Ok(&["null", r#"{"date":1}"#, r#"{"a":1}"#]),
        );
        let paged = br#"{"company":{"companyId":1},"pages":[1,2],"more":[],"messages":[{"date":1}]}"#;
        check(paged, Ok(&[r#"{"date":1}"#]));
        check(br#"{"messages":[]}"#, Ok(&[]));
        check(b"[]", Ok(&[]));
        check(b"null", Ok(&["null"]));
    }

    #[test]
    fn a_message_with_a_field_of_that_name_is_no_envelope() {
        check(br#"{"date":1,"messages":[]}"#, Ok(&[r#"{"date":1,"messages":[]}"#]));
        check(br#"{"date":1,"messages":["x"]}"#, Ok(&[r#"{"date":1,"messages":["x"]}"#]));
        check(br#"{"messages":"x"}"#, Ok(&[r#"{"messages":"x"}"#]));
        check(br#"{"messages":[{}],"messages":null}"#, Ok(&[r#"{"messages":[{}],"messages":null}"#]));
        check(br#"{"messages":null,"messages":[{}]}"#, Ok(&["{}"]));
        check(br#"{"m\u0065ssages":[{}]}"#, Ok(&["{}"]));
        let bad = br#"{"batchId":"x","messages":[{"date":1},"oops",[{"date":2}],7]}"#;
        check(bad, Ok(&[r#"{"date":1}"#, r#""oops""#, r#"[{"date":2}]"#, "7"]));
    }

    #[test]
    fn what_tells_or_places_a_message_beside_the_list_makes_it_one_message() {
        for key in OF_A_MESSAGE {
            let body = format!(r#"{{"{key}":1,"messages":[{{"text":"low battery"}}]}}"#);
            check(body.as_bytes(), Ok(&[&*body]));
            let body = format!(r#"{{"messages":[{{"text":"low battery"}}],"{key}":null}}"#);
            check(body.as_bytes(), Ok(&[&*body]));
        }
    }

    #[test]
    fn a_second_list_of_objects_is_not_left_behind() {
        for list in [r#"[{"b":1}]"#, r#"[null,{"b":1}]"#, r#"[[{"b":1}]]"#] {
            let body = format!(r#"{{"messages":[{{"date":1}}],"positions":{list}}}"#);
            check(body.as_bytes(), Ok(&[&*body]));
        }
        let nested = br#"{"messages":[{"date":1}],"data":{"positions":[{"date":2}]}}"#;
        check(nested, Ok(&[std::str::from_utf8(nested).unwrap()]));
        let last = r#"{"messages":[{"date":1}],"last":{"date":2,"tracker":{"deviceNumber":"2"}}}"#;
        check(last.as_bytes(), Ok(&[last]));
        let chat = r#"{"type":"CHAT","threadId":7,"from":{"personId":5},"messages":[{"text":"hi"}]}"#;
        check(chat.as_bytes(), Ok(&[chat]));
        check(br#"{"messages":[{"a":1}],"messages":[{"b":1}]}"#, Ok(&[r#"{"b":1}"#]));
    }

    #[test]
    fn what_no_reader_takes_passes_unread() {
        check(
            br#"[{"a":"\ud800"},{"b":1e999},{"\ud800":0}]"#,
            Ok(&[r#"{"a":"\ud800"}"#, r#"{"b":1e999}"#, r#"{"\ud800":0}"#]),
        );
        check(br#"["a,]\"[",[1,{"x":"}"}]]"#, Ok(&[r#""a,]\"[""#, r#"[1,{"x":"}"}]"#]));
        let deep = format!("[{}{},1]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(split(deep.as_bytes()).map(|e| e.len()), Ok(2));
    }

    #[test]
    fn what_is_no_json_says_where() {
        check(b"", Err(SplitError::Empty));
        check(b"\xef\xbb\xbf \n", Err(SplitError::Empty));
        check(b"{\n\"a\":}", Err(SplitError::NotJson { line: 2, column: 5 }));
        check(b"[1,\n\"\xff\"]", Err(SplitError::NotJson { line: 2, column: 2 }));
        check(b"{} {}", Err(SplitError::NotJson { line: 1, column: 4 }));
        let many = format!("[{}0]", "0,".repeat(MAX_ELEMENTS));
        check(many.as_bytes(), Err(SplitError::TooMany));
    }

    #[test]
    fn an_element_is_its_part_of_the_body_and_other_bytes_are_checked() {
        let body = Bytes::from_static(b"\xef\xbb\xbf[ {\"a\":1} , 2]");
        let elements = Element::all_of(&body).expect("json");
        assert_eq!(
            elements.iter().map(Element::document).collect::<Vec<_>>(),
            [Some("{\"a\":1}"), Some("2")]
        );
        assert_eq!(elements[0].bytes(), "{\"a\":1}");
        let document =
            |bytes: &'static [u8]| Element::from(Bytes::from_static(bytes)).document().map(str::len);
        assert_eq!((document(b" {} "), document(b"{"), document(b"\"\xff\"")), (Some(2), None, None));
    }

    #[test]
    fn an_input_may_hold_several_documents() {
        let broken = |line, column| SplitError::NotJson { line, column };
        assert_eq!(documents(b"{}\n[1]\n\n{}"), (vec!["{}", "[1]", "{}"], vec![]));
        assert_eq!(documents(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}"), (vec!["{}", "{}"], vec![]));
        assert_eq!(documents(b" \n"), (vec![], vec![SplitError::Empty]));
        assert_eq!(documents(b"{}\n{"), (vec!["{}"], vec![broken(2, 1)]));
        assert_eq!(documents(b"{} {\"a\":}\n{}"), (vec!["{}", "{}"], vec![broken(1, 9)]));
        assert_eq!(
            documents(b"{\"a\":\n{}\n{\n {}\r\n[\"\xff\"]\n[1]"),
            (vec!["{}", "{}", "[1]"], vec![broken(3, 1), broken(3, 1), broken(5, 3)])
        );
        assert_eq!(documents(b"x\n\xef\xbb\xbf{}"), (vec!["{}"], vec![broken(1, 1)]));
        assert_eq!(documents(b"{\n  \"a\": ,\n  \"b\": 1\n}\n"), (vec![], vec![broken(2, 8)]));
    }

    #[test]
    fn what_is_broken_everywhere_is_read_once() {
        let broken = "[\n".repeat(200_000);
        let (found, problems) = documents(broken.as_bytes());
        assert_eq!((found.len(), problems.len()), (0, 200_000));
    }
}
