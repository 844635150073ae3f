//! A file of objects, as NDJSON or CSV: all of it is good, or each line that is not is named. Pure.
//!
//! NDJSON has `{"kind": …, "id": …, "data": {…}}` a line. CSV has a heading with `kind` and `id`; a column `data` holds an
//! object as JSON, every other column is a key of it whose values are text, and an empty cell says nothing.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Kind, Object, ObjectError, Put};
use crate::event::AccountId;

/// Wrong lines that are named; the rest are counted.
const NAMED: usize = 100;
/// The longest id of an object.
const LONGEST_ID: usize = 256;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// A heading and rows.
    Csv,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongLine {
    /// Which, from 1.
    pub line: u64,
    /// What to do about it.
    pub error: String,
}

/// What is wrong with a file: the first lines, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wrong {
    /// In order.
    pub lines: Vec<WrongLine>,
    /// With those that are not named.
    pub count: u64,
}

impl Wrong {
    /// One more.
    pub fn add(&mut self, line: u64, error: impl Into<String>) {
        self.count += 1;
        if self.lines.len() < NAMED {
            self.lines.push(WrongLine { line, error: error.into() });
        }
    }
}

/// An object's id, where it can be one.
///
/// # Errors
/// What is wrong with it.
pub fn id(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("the id is empty"),
        text if text.len() > LONGEST_ID => Err("the id is longer than 256 bytes"),
        text if text.chars().any(char::is_control) => Err("the id has control characters"),
        text => Ok(text.to_owned()),
    }
}

/// A kind of object.
///
/// # Errors
/// Which there are.
pub fn kind(text: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    Kind::parse(text).ok_or_else(|| format!("kind {text:?} is unknown; there are {}", known()))
}

/// Reads a file of an account's objects.
///
/// # Errors
/// Every line that is wrong.
pub fn read(account: &AccountId, format: Format, bytes: &[u8]) -> Result<Vec<Put>, Wrong> {
    let mut file = File { account, puts: Vec::new(), wrong: Wrong::default(), lines: HashMap::new() };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match format {
        Format::Ndjson => file.ndjson(bytes),
        Format::Csv => file.csv(bytes),
    }
    if file.wrong.count > 0 { Err(file.wrong) } else { Ok(file.puts) }
}

struct File<'a> {
    account: &'a AccountId,
    puts: Vec<Put>,
    wrong: Wrong,
    /// Where each object was set.
    lines: HashMap<(Kind, String), u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kind: String,
    id: String,
    data: Value,
    /// A list has it, so that it can be read again.
    #[serde(rename = "saved_at")]
    _saved_at: Option<serde::de::IgnoredAny>,
}

impl File<'_> {
    fn ndjson(&mut self, bytes: &[u8]) {
        for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if text.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Row>(text) {
                Ok(row) => self.add(line, &row.kind, &row.id, Object::of(row.data)),
                Err(error) => self.wrong.add(line, error.to_string()),
            }
        }
    }

    fn csv(&mut self, bytes: &[u8]) {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let heading = match reader.headers() {
            Ok(heading) => heading.clone(),
            Err(error) => return self.wrong.add(1, error.to_string()),
        };
        let column = |name: &str| heading.iter().position(|title| title == name);
        let (Some(kind), Some(id)) = (column("kind"), column("id")) else {
            return self.wrong.add(1, "the first line is a heading with the columns kind and id");
        };
        let mut titles: Vec<&str> = heading.iter().collect();
        titles.sort_unstable();
        if titles.windows(2).any(|pair| pair.first() == pair.get(1)) || titles.contains(&"") {
            return self.wrong.add(1, "every column of the heading has a name of its own");
        }
        // Of quotes around cells and of doubled ones there is an even number. One that is not closed takes the lines behind it for
        // its cell.
        let odd = bytes.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
        for record in reader.records() {
            match record {
                Ok(record) if odd && record.iter().any(|cell| cell.contains('\n')) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    self.wrong.add(line, "a quote is not closed: the lines behind it are in one cell");
                }
                Ok(record) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    let cell = |at: usize| record.get(at).unwrap_or_default();
                    self.add(line, cell(kind), cell(id), object(&heading, &record));
                }
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    self.wrong.add(line, csv_words(&error));
                }
            }
        }
    }

    fn add(&mut self, line: u64, kind_text: &str, id_text: &str, object: Result<Object, ObjectError>) {
        let named = kind(kind_text).and_then(|kind| Ok((kind, id(id_text)?)));
        let (kind, id, object) = match (named, object) {
            (Ok((kind, id)), Ok(object)) => (kind, id, object),
            (Err(error), _) => return self.wrong.add(line, error),
            (_, Err(error)) => return self.wrong.add(line, format!("data: {error}")),
        };
        match self.lines.insert((kind, id.clone()), line) {
            None => self.puts.push(Put { account: self.account.clone(), kind, id, object }),
            Some(first) => self.wrong.add(line, format!("line {first} has this {} already", kind.as_str())),
        }
    }
}

fn object(heading: &csv::StringRecord, record: &csv::StringRecord) -> Result<Object, ObjectError> {
    let mut members = serde_json::Map::new();
    for (title, cell) in heading.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        match title {
            "kind" | "id" | "saved_at" => {}
            "data" => {
                let error = |error: serde_json::Error| ObjectError::NotJson { column: error.column() };
                let Value::Object(more) = serde_json::from_str(cell).map_err(error)? else {
                    return Err(ObjectError::NotAnObject);
                };
                members.extend(more);
            }
            title => {
                members.insert(title.to_owned(), Value::String(cell.to_owned()));
            }
        }
    }
    Object::of(Value::Object(members))
}

/// Without the places that the crate's words begin with: the line is told beside them.
fn csv_words(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} cells, and the heading has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, text: &str, expected: &[(&str, &str, &str)]) {
        let puts = read(&AccountId::new("acme"), format, text.as_bytes()).unwrap();
        let got: Vec<_> =
            puts.iter().map(|put| (put.kind.as_str(), put.id.as_str(), put.object.text())).collect();
        let expected: Vec<_> =
            expected.iter().map(|(kind, id, data)| (*kind, *id, (*data).to_owned())).collect();
        assert_eq!(got, expected);
    }

    #[track_caller]
    fn refuse(format: Format, text: &str, expected: &[(u64, &str)]) {
        let wrong = read(&AccountId::new("acme"), format, text.as_bytes()).unwrap_err();
        let got: Vec<_> = wrong.lines.iter().map(|wrong| (wrong.line, wrong.error.as_str())).collect();
        assert_eq!(got, expected);
        assert_eq!(wrong.count, expected.len() as u64);
    }

    #[test]
    fn a_quote_that_is_not_closed_takes_no_lines_with_it() {
        let unclosed = "kind,id,depot\ntracker,1,\"north\ntracker,2,south\n";
        refuse(Format::Csv, unclosed, &[(2, "a quote is not closed: the lines behind it are in one cell")]);
        let inches = "kind,id,width\ntracker,1,6\"\n";
        check(Format::Csv, inches, &[("tracker", "1", r#"{"width":"6\""}"#)]);
        let lines = "kind,id,note\ntracker,1,\"one\ntwo\"\n";
        check(Format::Csv, lines, &[("tracker", "1", r#"{"note":"one\ntwo"}"#)]);
    }

    #[test]
    fn ndjson_is_read_line_by_line() {
        let text = "\u{feff}{\"kind\":\"tracker\",\"id\":\"1\",\"data\":{\"a\":1}}\r\n\n{\"kind\":\"item\",\"id\":\"x y\",\"data\":{},\"saved_at\":\"then\"}";
        check(Format::Ndjson, text, &[("tracker", "1", r#"{"a":1}"#), ("item", "x y", "{}")]);
        refuse(
            Format::Ndjson,
            "{\"kind\":\"tracker\",\"id\":\"1\",\"data\":{}}\n{\"kind\":\"car\",\"id\":\"1\",\"data\":{}}\n{\"kind\":\"tracker\",\"id\":\"1\",\"data\":{}}\n\
             {\"kind\":\"tracker\",\"id\":\"\",\"data\":{}}\n{\"kind\":\"tracker\",\"id\":\"2\",\"data\":[]}\n",
            &[
                (
                    2,
                    "kind \"car\" is unknown; there are tracker, vehicle, person, fleet, company, geofence, item",
                ),
                (3, "line 1 has this tracker already"),
                (4, "the id is empty"),
                (5, "data: it is not a JSON object, such as {\"depot\":\"north\"}"),
            ],
        );
    }

    #[test]
    fn csv_has_a_heading_whose_columns_are_keys() {
        check(
            Format::Csv,
            "kind,id,depot,data,team\ntracker, 1 ,north,\"{\"\"axles\"\":3}\",\nfleet,2,,,\"a, b\"\n",
            &[("tracker", "1", r#"{"axles":3,"depot":"north"}"#), ("fleet", "2", r#"{"team":"a, b"}"#)],
        );
        refuse(
            Format::Csv,
            "id,depot\n1,north\n",
            &[(1, "the first line is a heading with the columns kind and id")],
        );
        refuse(Format::Csv, "kind,id,a,a\n", &[(1, "every column of the heading has a name of its own")]);
        refuse(
            Format::Csv,
            "kind,id,data\ntracker,1\ntracker,2,\"{\"\ntracker,3,\"[\n]\"\ncar,4,\n",
            &[
                (2, "it has 2 cells, and the heading has 3"),
                (3, "data: it is not JSON (column 1)"),
                (4, "data: it is not a JSON object, such as {\"depot\":\"north\"}"),
                (
                    6,
                    "kind \"car\" is unknown; there are tracker, vehicle, person, fleet, company, geofence, item",
                ),
            ],
        );
    }

    #[test]
    fn so_many_wrong_lines_are_named_and_all_are_counted() {
        let wrong =
            read(&AccountId::new("acme"), Format::Ndjson, "x\n".repeat(NAMED + 5).as_bytes()).unwrap_err();
        assert_eq!((wrong.lines.len(), wrong.count), (NAMED, NAMED as u64 + 5));
    }
}
