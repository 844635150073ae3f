//! YAML as a tree in which every node knows its line, and a walk over it that collects every problem instead of stopping at
//! the first. Neighbours: `load` walks; the parser crate is used here alone. Aliases, anchors, tags and merge keys are
//! refused: a configuration is read by people.

use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Where a node begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

/// Something wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands in the file.
    pub place: Place,
    /// Which key, e.g. `accounts[0].poll[1].feeds.trips`; empty for the file itself.
    pub path: String,
    /// What is wrong; never a value that could be a secret.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.place.line, self.place.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

impl Node {
    /// Where a path of keys leads, as far as it does: to a single value, else to the last key.
    #[must_use]
    pub fn place_of(&self, path: &str) -> Place {
        let (mut place, mut at) = (self.place, self);
        for part in path.split('.') {
            let Value::Map(entries) = &at.value else { break };
            let Some((key, _, node)) = entries.iter().find(|(_, name, _)| name == part) else { break };
            place = if matches!(node.value, Value::Scalar(_)) { node.place } else { key.place };
            at = node;
        }
        place
    }
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing was written.
    Null,
    /// A word, number or text, as written.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in order.
    Map(Vec<(Node, String, Node)>),
}

/// Deepest nesting that a configuration may have.
const DEPTH: usize = 16;

/// Parses a file.
///
/// # Errors
/// The first place where it is not YAML, or is not the YAML that is taken here.
pub fn parse(text: &str) -> Result<Node, Problem> {
    let mut parser = Parser::new_from_str(text);
    let mut root = None;
    while let Some((event, span)) = next(&mut parser)? {
        match event {
            Event::DocumentStart(..) if root.is_some() => {
                return Err(problem(
                    &span,
                    "a second document begins here",
                    "a configuration is one document",
                ));
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            other => root = Some(node(&mut parser, other, &span, 0)?),
        }
    }
    Ok(root.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Value::Null }))
}

type Input<'a> = Parser<'a, granit_parser::StrInput<'a>>;

fn next<'a>(parser: &mut Input<'a>) -> Result<Option<(Event<'a>, Span)>, Problem> {
    match parser.next() {
        None => Ok(None),
        Some(Ok(event)) => Ok(Some(event)),
        Some(Err(error)) => {
            let marker = error.marker();
            let place = Place { line: marker.line(), column: marker.col() + 1 };
            Err(Problem {
                place,
                path: String::new(),
                what: format!("this is not YAML: {}", error.info()),
                fix: "mend it here or in the line before; other problems are found after that".to_owned(),
            })
        }
    }
}

fn problem(span: &Span, what: &str, fix: &str) -> Problem {
    Problem { place: place(span), path: String::new(), what: what.to_owned(), fix: fix.to_owned() }
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

fn node<'a>(parser: &mut Input<'a>, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Problem> {
    if depth > DEPTH {
        return Err(problem(
            span,
            "this is nested too deep",
            "no key of a configuration is that deep: look at the brackets",
        ));
    }
    let unfinished = || problem(span, "the file ends in the middle of this", "close it");
    let value = match event {
        Event::Scalar(text, style, _, tag) => {
            if tag.is_some() {
                return Err(problem(span, "a YAML tag", "write the value without `!…`"));
            }
            let plain = style == ScalarStyle::Plain;
            if plain && matches!(&*text, "" | "~" | "null") {
                Value::Null
            } else {
                Value::Scalar(text.into_owned())
            }
        }
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next(parser)?.ok_or_else(unfinished)? {
                    (Event::SequenceEnd, _) => break Value::List(list),
                    (event, span) => list.push(node(parser, event, &span, depth + 1)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Vec::new();
            loop {
                let (event, key_span) = next(parser)?.ok_or_else(unfinished)?;
                if matches!(event, Event::MappingEnd) {
                    break Value::Map(map);
                }
                let key = node(parser, event, &key_span, depth + 1)?;
                let Value::Scalar(name) = &key.value else {
                    return Err(problem(&key_span, "a key that is no word", "write `key: value`"));
                };
                let name = name.clone();
                let (event, span) = next(parser)?.ok_or_else(unfinished)?;
                let value = node(parser, event, &span, depth + 1)?;
                map.push((key, name, value));
            }
        }
        _ => return Err(problem(span, "an alias", "write the value out: aliases are not taken")),
    };
    Ok(Node { place: place(span), value })
}

/// Collects problems.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    /// Adds one.
    pub fn add(&mut self, place: Place, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.found.push(Problem { place, path: path.to_owned(), what: what.into(), fix: fix.into() });
    }

    /// All of them, in the order of the file; the first of each key, as the others follow from it.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Problem> {
        self.found.sort_by(|a, b| (a.place, &a.path).cmp(&(b.place, &b.path)));
        self.found.dedup_by(|later, first| (later.place, &later.path) == (first.place, &first.path));
        self.found
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

/// A map being read: each key is taken once, and what is left over is unknown.
pub struct Fields<'a> {
    /// Where the map begins.
    pub place: Place,
    /// Its path.
    pub path: String,
    entries: Vec<(Place, &'a str, &'a Node)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of a map; none, and a problem, where it is not one. Nothing written is an empty map.
    pub fn of(node: &'a Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut entries: Vec<(Place, &'a str, &'a Node)> = Vec::new();
        match &node.value {
            Value::Null => {}
            Value::Map(map) => {
                for (key, name, value) in map {
                    if let Some((first, ..)) = entries.iter().find(|(_, known, _)| known == name) {
                        let what = format!("is written twice, first in line {}", first.line);
                        problems.add(key.place, &join(path, name), what, "keep one of them");
                    } else {
                        entries.push((key.place, name, value));
                    }
                }
            }
            Value::Scalar(_) | Value::List(_) => {
                problems.add(
                    node.place,
                    path,
                    "is not a map",
                    "write `key: value` pairs below it, or in { }",
                );
                return None;
            }
        }
        Some(Self { place: node.place, path: path.to_owned(), entries, known: Vec::new() })
    }

    /// Takes the value of a key; `Null` where it was written without one.
    pub fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        let at = self.entries.iter().position(|(_, key, _)| *key == name)?;
        let (.., node) = self.entries.remove(at);
        Some(node)
    }

    /// Whether a key was written and is not yet taken.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(_, key, _)| *key == name)
    }

    /// Where a key's value stands; the map, where it is not written.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Place {
        let written = self.entries.iter().find(|(_, key, _)| *key == name);
        written.map_or(
            self.place,
            |(key, _, node)| {
                if matches!(node.value, Value::Scalar(_)) { node.place } else { *key }
            },
        )
    }

    /// Whether a key is left over that was never asked for.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.entries.iter().any(|(_, key, _)| !self.known.contains(key))
    }

    /// Takes all that is left: the keys are the user's own.
    pub fn rest(&mut self) -> Vec<(Place, &'a str, &'a Node)> {
        std::mem::take(&mut self.entries)
    }

    /// The path of a key in this map.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// What is left over is unknown: each is a problem.
    pub fn finish(self, problems: &mut Problems) {
        for (place, name, _) in &self.entries {
            let near = nearest(name, &self.known);
            let fix = near.map_or_else(
                || format!("known here: {}", self.known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            problems.add(*place, &self.path_of(name), "is an unknown key", fix);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The known word that is at most two letters away from what was written, if one is.
#[must_use]
pub fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|known| (distance(known, written), *known));
    let near = distances.filter(|(distance, known)| *distance <= 2 && *distance < known.chars().count());
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// How many letters are added, left out or changed.
fn distance(known: &str, written: &str) -> usize {
    let written: Vec<char> = written.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=written.len()).collect();
    for (i, k) in known.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, w) in written.iter().enumerate() {
            let cost = usize::from(k != *w);
            let best = (diagonal + cost).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    row[written.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_told_from_another_word() {
        let known = ["brokers", "topic", "create", "id", "env"];
        let check = |written: &str, expected: Option<&str>| assert_eq!(nearest(written, &known), expected);
        check("broker", Some("brokers"));
        check("topics", Some("topic"));
        check("craete", Some("create"));
        check("compression", None);
        check("xy", None);
    }

    #[test]
    fn a_path_of_keys_leads_to_a_place_as_far_as_it_is_written() {
        let root = parse("bus:\n  nats: { url: x }\n").expect("YAML");
        let check = |path: &str, line: usize, column: usize| {
            assert_eq!(root.place_of(path), Place { line, column }, "{path}");
        };
        check("bus.nats.url", 2, 16);
        check("bus.nats.ca", 2, 3);
        check("bus.nats", 2, 3);
        check("listen.tls", 1, 1);
    }

    #[test]
    fn what_is_not_taken_says_where() {
        let check = |text: &str, expected: &str| {
            let problem = parse(text).expect_err("refused").to_string();
            assert!(problem.starts_with(expected), "{problem}");
        };
        check("a: [1, 2", "1:");
        check("a: &x 1\nb: *x\n", "2:4: an alias");
        check("a: !!int 1\n", "1:10: a YAML tag");
        check("a: 1\n---\nb: 2\n", "2:1: a second document");
        check("? [a]\n: 1\n", "1:3: a key that is no word");
        check(&"[".repeat(40), "1:");
    }
}
