//! The forms of single values: each is read, or yields one problem that says what is taken. Invariant: what could be a
//! secret is in no problem.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::Walk;
use crate::config::tree::{Fields, Node, Place, Value};
use crate::config::{Create, SHORTEST_SENT, Secret, SecretError, SecretSource, units};
use crate::outbound::Way;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// The longest interval or age that makes sense anywhere.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

const SECRETS_ARE: &str = "write { env: NAME } or { file: PATH }";

/// A value's place in the file and in the tree.
#[derive(Debug, Clone)]
pub(super) struct At {
    /// Line and column.
    pub(super) place: Place,
    /// Path of keys.
    pub(super) path: String,
}

impl At {
    /// The place of a key of `map`: its value where it is written, else the map.
    pub(super) fn in_map(map: &Fields<'_>, name: &str) -> Self {
        Self { place: map.place_of(name), path: map.path_of(name) }
    }
}

/// What goes over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// A secret.
    Secret,
    /// None.
    Open,
}

impl Walk<'_> {
    pub(super) fn map<'a>(&mut self, fields: &mut Fields<'a>, name: &'static str) -> Option<Fields<'a>> {
        let at = At::in_map(fields, name);
        let node = fields.take(name)?;
        if matches!(node.value, Value::Null) {
            self.add(&at, "has no value", "write keys below it, or leave it out");
            return None;
        }
        Fields::of(node, &at.path, &mut self.problems)
    }

    pub(super) fn scalar<'a>(&mut self, node: &'a Node, at: &At) -> Option<&'a str> {
        match &node.value {
            Value::Scalar(text) if text.contains("${") => {
                let fix = "write the value itself; { env: NAME } is taken where a secret is expected";
                self.add(at, "holds `${`, and variables are not filled in", fix);
            }
            Value::Scalar(text) if text.trim().is_empty() => {
                self.add(at, "is empty", "write a value, or leave the key out");
            }
            Value::Scalar(text) => return Some(text),
            Value::Null => self.add(at, "has no value", "write one, or leave the key out"),
            Value::List(_) | Value::Map(_) => {
                self.add(at, "is not a single value", "write one value after the key");
            }
        }
        None
    }

    /// A text with its place.
    pub(super) fn text(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<(String, At)> {
        let at = At::in_map(fields, name);
        let node = fields.take(name)?;
        self.scalar(node, &at).map(str::to_owned).map(|text| (text, at))
    }

    /// A text that must be there.
    pub(super) fn required(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        fix: &str,
    ) -> Option<(String, At)> {
        if !fields.has(name) {
            self.add(&At::in_map(fields, name), "is missing", fix);
        }
        self.text(fields, name)
    }

    pub(super) fn duration(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (text, at) = self.text(fields, name)?;
        self.duration_of(&text, &at, bounds)
    }

    pub(super) fn duration_of(
        &mut self,
        text: &str,
        at: &At,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        match units::duration(text) {
            Ok(value) if bounds.contains(&value) => return Some(value),
            Ok(value) => {
                let what = if value < *bounds.start() { "is too short" } else { "is too long" };
                let (least, most) =
                    (units::say_duration(*bounds.start()), units::say_duration(*bounds.end()));
                self.add(at, what, format!("write {least} to {most}"));
            }
            Err((what, fix)) => self.add(at, what, fix),
        }
        None
    }

    pub(super) fn size(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        least: u64,
    ) -> Option<(u64, At)> {
        let (text, at) = self.text(fields, name)?;
        match units::size(&text) {
            Ok(value) if value >= least => return Some((value, at)),
            Ok(_) => self.add(&at, "is too small", format!("write {} or more", units::say_size(least))),
            Err((what, fix)) => self.add(&at, what, fix),
        }
        None
    }

    pub(super) fn rate(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<u32> {
        let (text, at) = self.text(fields, name)?;
        units::rate(&text).map_err(|(what, fix)| self.add(&at, what, fix)).ok()
    }

    /// Whether what is missing is made.
    pub(super) fn create(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Create {
        self.either(fields, name, Create::Missing, Create::Never)
    }

    /// What `true` means, and what `false`, which is the default.
    pub(super) fn either<T>(&mut self, fields: &mut Fields<'_>, name: &'static str, yes: T, no: T) -> T {
        let Some((text, at)) = self.text(fields, name) else { return no };
        match text.as_str() {
            "true" => yes,
            "false" => no,
            _ => {
                self.add(&at, "is neither true nor false", "write one of them");
                no
            }
        }
    }

    pub(super) fn address(&mut self, fields: &mut Fields<'_>) -> Option<(SocketAddr, At)> {
        let (text, at) = self.text(fields, "address")?;
        let parsed = text.replace("localhost:", "127.0.0.1:").parse();
        let address = parsed.map_err(|_| {
            let what = format!("`{text}` is not an address with a port");
            self.add(&at, what, "write e.g. 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080");
        });
        Some((address.ok()?, at))
    }

    /// A URL under which requests are made, without a trailing slash. `secrets` are the keys beside it that hold what it
    /// must not hold itself.
    pub(super) fn base(
        &mut self,
        text: &str,
        at: &At,
        wire: Wire,
        example: &str,
        secrets: &str,
    ) -> Option<String> {
        let Ok(url) = Url::parse(text) else {
            self.add(at, "is not a URL", format!("write e.g. {example}"));
            return None;
        };
        let is_open = url.scheme() == "http" && wire == Wire::Open;
        if !(carries_secrets(&url) || is_open) {
            let (what, fix) = match wire {
                Wire::Secret => {
                    ("is neither https, nor http on loopback", "write https: it carries the secret")
                }
                Wire::Open => ("is neither https nor http", "write one of them"),
            };
            self.add(at, what, fix);
        } else if !url.username().is_empty() || url.password().is_some() {
            self.add(at, "holds a user or a secret", format!("secrets are {secrets}"));
        } else if url.query().is_some() || url.fragment().is_some() {
            self.add(at, "holds a query or a fragment", "end it after the path");
        }
        Some(text.trim_end_matches('/').to_owned())
    }

    /// A file that can be read.
    pub(super) fn file(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<PathBuf> {
        let (text, at) = self.text(fields, name)?;
        let path = PathBuf::from(text);
        // A bundle of certificates may be larger than any secret: whoever uses it reads it.
        if let Err(why) = self.world.read(&path)
            && why.kind() != io::ErrorKind::FileTooLarge
        {
            let what = format!("{} cannot be read ({why})", path.display());
            self.add(&at, what, "name a file that this process may read");
        }
        Some(path)
    }

    pub(super) fn secret(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<SecretSource> {
        let at = At::in_map(fields, name);
        let node = fields.take(name)?;
        self.secret_source(node, &at)
    }

    /// A secret that must be there.
    pub(super) fn required_secret(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
    ) -> Option<SecretSource> {
        if !fields.has(name) {
            self.add(&At::in_map(fields, name), "is missing", SECRETS_ARE);
        }
        self.secret(fields, name)
    }

    /// `{ env: NAME }` or `{ file: PATH }`, and that there is something in it. What stands there instead is not repeated:
    /// it may be the secret.
    pub(super) fn secret_source(&mut self, node: &Node, at: &At) -> Option<SecretSource> {
        let Value::Map(entries) = &node.value else {
            let what = match node.value {
                Value::Null => "has no value",
                Value::Scalar(_) | Value::List(_) | Value::Map(_) => "is a secret written out",
            };
            self.add(at, what, format!("{SECRETS_ARE}, never the value"));
            return None;
        };
        if !matches!(&entries[..], [(_, name, _)] if name == "env" || name == "file") {
            self.add(at, "is neither an `env` nor a `file`", format!("{SECRETS_ARE}, and nothing else"));
            return None;
        }
        let mut map = Fields::of(node, &at.path, &mut self.problems)?;
        if let Some((name, at)) = self.text(&mut map, "env") {
            return self.variable(name, &at);
        }
        let (text, at) = self.text(&mut map, "file")?;
        let source = SecretSource::File(PathBuf::from(&text));
        let file_fix = "name a file that this process may read, with the secret alone in it";
        match self.world.read(text.as_ref()) {
            // The secret itself may stand there.
            Err(why) if !text.starts_with(['/', '.']) => {
                self.add(&at, format!("the file that is named here cannot be read ({why})"), file_fix);
            }
            Err(why) => self.add(&at, format!("{text} cannot be read ({why})"), file_fix),
            Ok(bytes) => match str::from_utf8(&bytes).map(|text| source.parse(text)) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => self.add(&at, format!("{text} is empty"), file_fix),
                Err(_) => self.add(&at, format!("{text} is not UTF-8 text"), file_fix),
            },
        }
        Some(source)
    }

    /// Whether two sources hold one secret, as who sends it in a header would see it.
    pub(super) fn is_one_secret(&self, one: &SecretSource, other: &SecretSource) -> bool {
        // What cannot be read is a problem of its own.
        self.as_sent(one).is_some_and(|one| self.as_sent(other) == Some(one))
    }

    /// A secret that others send in a header: one that is short is noted, for they may not be who should.
    pub(super) fn comes_in_a_header(&mut self, source: &SecretSource, at: &At) {
        let Some(secret) = self.goes_in_a_header(source, at) else { return };
        if secret.reveal().len() < SHORTEST_SENT {
            self.notes.push(format!(
                "{}: the secret has fewer than {SHORTEST_SENT} characters: it can be guessed",
                at.path
            ));
        }
    }

    /// A secret that somebody sends in a header: one that no header carries is a problem, for it opens nothing, and who has the right
    /// one is told that it is wrong. A file with a line for each of two secrets is such a one.
    pub(super) fn goes_in_a_header(&mut self, source: &SecretSource, at: &At) -> Option<Secret> {
        let secret = self.as_sent(source).map(Secret::new)?;
        if !secret.can_be_sent() {
            let what = format!("cannot be sent: {}", SecretError::Unsendable(source.clone()));
            self.add(at, what, "name one secret, alone and on one line");
        }
        Some(secret)
    }

    fn as_sent(&self, source: &SecretSource) -> Option<String> {
        let text = match source {
            SecretSource::Env(name) => self.world.variable(name)?,
            SecretSource::File(path) => String::from_utf8(self.world.read(path).ok()?).ok()?,
        };
        Some(source.parse(&text).ok()?.reveal().trim_ascii().to_owned())
    }

    fn variable(&mut self, name: String, at: &At) -> Option<SecretSource> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal) {
            self.add(
                at,
                "is not the name of an environment variable",
                "letters, digits and underscores only",
            );
            return None;
        }
        let source = SecretSource::Env(name.clone());
        let wrong = match self.world.variable(&name).map(|value| source.parse(&value)) {
            Some(Ok(_)) => None,
            Some(Err(_)) => Some(("is empty", "set it before the start")),
            None if self.world.is_no_text(&name) => Some(("is not UTF-8 text", "set it to text")),
            None => Some(("is not set", "set it before the start")),
        };
        let is_usual = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        match wrong {
            Some((what, fix)) if name.chars().all(is_usual) => {
                self.add(at, format!("the environment variable {name} {what}"), fix);
            }
            // The secret itself may stand there.
            Some((what, _)) => {
                let what = format!("the environment variable that is named here {what}");
                self.add(
                    at,
                    what,
                    "write the name of a variable that is set before the start, never the secret",
                );
            }
            None => {}
        }
        Some(source)
    }
}

/// Whether nobody on the way reads what is sent there.
pub(super) fn carries_secrets(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && Way::to_host_of(url) == Way::Loopback)
}
