//! How a command prints what it found: a table for people, JSON or NDJSON for programs. Invariants: what a sender wrote never
//! steers the terminal; a closed pipe ends the printing and is no error; nothing is coloured, so `NO_COLOR` has nothing to undo.

use std::fmt::Write as _;

use serde_json::Value;

use super::complain;
use super::remote::{Reader, escaped, plain, say, say_json};

/// The most characters of a cell.
const CELL: usize = 500;

/// `--output`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Output {
    /// How to print it.
    #[arg(long = "output", value_enum, value_name = "FORM", default_value_t = Form::Table)]
    form: Form,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
}

/// A column: its title, and where its value is in a row. A path such as `events/received` goes into objects; of several,
/// parted by `|`, the first that is there.
pub type Column = (&'static str, &'static str);

impl Output {
    /// Prints a list.
    ///
    /// # Errors
    /// Where it cannot be printed.
    pub fn list(self, rows: &[Value], columns: &[Column], if_none: &str) -> anyhow::Result<()> {
        match self.form {
            Form::Table if rows.is_empty() => complain(if_none),
            Form::Table => {
                say(&table(rows, columns))?;
            }
            Form::Json => {
                say_json(&serde_json::to_string_pretty(rows)?)?;
            }
            Form::Ndjson => {
                for row in rows {
                    if say_json(&row.to_string())? == Reader::Left {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether people read it: else nothing may stand beside it.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        self.form == Form::Table
    }

    /// Prints one thing: its fields, each on a line.
    ///
    /// # Errors
    /// Where it cannot be printed.
    pub fn one(self, row: &Value) -> anyhow::Result<()> {
        match self.form {
            Form::Table => say(&lines(row))?,
            Form::Json => say_json(&serde_json::to_string_pretty(row)?)?,
            Form::Ndjson => say_json(&row.to_string())?,
        };
        Ok(())
    }
}

/// A value in a line of its own.
#[must_use]
pub fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => plain(text),
        Some(other) => escaped(&other.to_string()).into_owned(),
    }
}

/// What fits a table: all of it is in the other forms.
fn cell(row: &Value, paths: &str) -> String {
    let at = |path: &str| path.split('/').try_fold(row, |value, part| value.get(part));
    let mut text = text(paths.split('|').find_map(at));
    if let Some((end, _)) = text.char_indices().nth(CELL) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn table(rows: &[Value], columns: &[Column]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>();
    let cells = rows.iter().map(|row| columns.iter().map(|(_, paths)| cell(row, paths)).collect());
    let all: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let widest = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(widest).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            write!(line, "{cell:<width$}  ").unwrap_or_default();
        }
        line.trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn lines(row: &Value) -> String {
    let fields: Vec<_> = row.as_object().into_iter().flatten().collect();
    let width = fields.iter().map(|(name, _)| name.len() + 2).max().unwrap_or(0).max(12);
    let whole = |name: &str, value: &Value| format!("{name}:\n{}", escaped(&format!("{value:#}")));
    let line = |(name, value): &(&String, &Value)| match value {
        Value::Object(_) => whole(name, value),
        Value::Array(list) if list.iter().any(Value::is_object) => whole(name, value),
        other => format!("{:<width$}{}", format!("{name}:"), text(Some(other))),
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_takes_the_first_path_that_is_there() {
        let columns =
            [("SEQ", "seq"), ("TYPE", "type|source"), ("IN", "events/received"), ("ERROR", "error")];
        let rows = [
            json!({"seq": 7, "type": "position", "events": {"received": 10}, "error": "too\u{1b} large"}),
            json!({"seq": 12, "source": "push/stop", "error": null}),
        ];
        let expected = "\
SEQ  TYPE       IN  ERROR
7    position   10  too\u{fffd} large
12   push/stop";
        assert_eq!(table(&rows, &columns), expected);
    }

    #[test]
    fn one_thing_is_a_line_a_field() {
        let shown = lines(&json!({"id": "acme", "expires": null, "parked": {"messages": 1}}));
        assert_eq!(shown, "expires:    \nid:         acme\nparked:\n{\n  \"messages\": 1\n}");
        let shown = lines(&json!({"event": {"name": "\u{9b}"}, "list": ["\u{7f}"]}));
        assert_eq!(shown, "event:\n{\n  \"name\": \"\\u009b\"\n}\nlist:       [\"\\u007f\"]");
    }

    #[test]
    fn a_cell_that_is_too_long_for_a_table_is_cut() {
        let row = json!({ "body": "ü".repeat(100_000) });
        let cut = format!("BODY\n{}…", "ü".repeat(CELL));
        assert_eq!(table(&[row], &[("BODY", "body")]), cut);
    }
}
