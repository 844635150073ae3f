//! A request's body into its elements, each to be decoded for itself: one that cannot be read costs the others nothing.
//!
//! Works on the text, never on values: lone surrogates, `1e999`, huge numbers and deep nesting pass through unread.

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
        let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|problem| not_json(&problem))?;
        let within = values.len() <= MAX_ELEMENTS;
        return if within {
            Ok(values.into_iter().map(RawValue::get).collect())
        } else {
            Err(SplitError::TooMany)
        };
    }
    let value: &RawValue = serde_json::from_str(text).map_err(|problem| not_json(&problem))?;
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

/// The JSON documents of an input that may have several, one after the other (NDJSON, or concatenated files), and why what
/// follows the last of them could not be read.
#[must_use]
pub fn documents(input: &[u8]) -> (Vec<&str>, Option<SplitError>) {
    let text = match text(input) {
        Ok(text) => text,
        Err(problem) => return (Vec::new(), Some(problem)),
    };
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match value {
            Ok(value) => found.push(value.get()),
            Err(problem) => return (found, Some(not_json(&problem))),
        }
    }
    (found, None)
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

/// The array of an envelope `{"messages": […]}`. A message that has such a field among its own is no envelope: it has other
/// content, and what its `messages` are is not known. Of two keys of that name the last counts, as everywhere.
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
    let alone = members.iter().all(|(key, _)| key == "messages");
    let of_objects = || {
        let inner = Walk::of(found).elements();
        !inner.is_empty() && inner.iter().all(|element| element.starts_with('{'))
    };
    (alone || of_objects()).then_some(*found)
}

fn text(body: &[u8]) -> Result<&str, SplitError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|problem| {
        let before = &body[..problem.valid_up_to()];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        SplitError::NotJson { line, column: before.len() - line_start + 1 }
    })?;
    if text.trim().is_empty() { Err(SplitError::Empty) } else { Ok(text) }
}

fn not_json(problem: &serde_json::Error) -> SplitError {
    SplitError::NotJson { line: problem.line().max(1), column: problem.column().max(1) }
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
        check(br#"{"count":1,"messages":[{"a":1}]}"#, Ok(&[r#"{"a":1}"#]));
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
        assert_eq!(documents(b"{}\n[1]\n\n{}"), (vec!["{}", "[1]", "{}"], None));
        let cut = SplitError::NotJson { line: 2, column: 1 };
        assert_eq!(documents(b"{}\n{"), (vec!["{}"], Some(cut)));
    }
}
