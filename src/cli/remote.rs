//! A running bridge as the command line meets it: the operator's port, by HTTP. Invariants: the token is never printed, and
//! a bridge that does not answer, or says no, becomes one sentence.

use std::borrow::Cow;
use std::env::VarError;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::Exit;
use crate::{logs, outbound};

/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For an answer that is not a stream; a discard of a full store takes its time.
const ANSWER: Duration = Duration::from_secs(120);
/// The most rows that the bridge gives at once.
const PAGE: usize = 1_000;
/// What stays as it is in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a bridge is.
#[derive(Debug, clap::Args)]
pub struct Admin {
    /// The operator's port of the bridge: its admin.address.
    #[arg(
        long,
        value_name = "URL",
        env = "FLEETBUS_ADMIN",
        hide_env_values = true,
        default_value = "http://127.0.0.1:9090"
    )]
    admin: String,
}

/// Which bridge.
#[derive(Debug, clap::Args)]
pub struct At {
    #[command(flatten)]
    admin: Admin,
    /// A file that holds the admin token; without it, that is read from FLEETBUS_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What is asked for of what is parked: every part narrows it.
#[derive(Debug, Clone, Default, clap::Args, serde::Serialize)]
pub struct Filter {
    /// An account's id.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// An event type, such as position.
    #[arg(long = "type", value_name = "TYPE")]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    /// A subject: mostly an IMEI.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Reasons: unavailable, refused, unfit, unrecognized, undecodable, not-json.
    #[arg(long, value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reason: Vec<String>,
    /// Parked at or after this time, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Parked before this time.
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Text of the error, in any case.
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Admin {
    /// The address, without a trailing slash. Not a parser of clap's, which repeats what it refuses: there may be a secret in it.
    ///
    /// # Errors
    /// What is expected, where it is none.
    pub fn address(&self) -> Result<String, Mistake> {
        base(&self.admin).map_err(|why| Mistake::Misuse(format!("--admin, or FLEETBUS_ADMIN: {why}")))
    }
}

fn base(text: &str) -> Result<String, &'static str> {
    match reqwest::Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err("it holds a user or a secret: the token comes from FLEETBUS_ADMIN_TOKEN or --token-file")
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        Ok(_) | Err(_) => Err("it is not a URL such as http://127.0.0.1:9090"),
    }
}

impl Filter {
    /// As a query.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let reason = (!self.reason.is_empty()).then(|| self.reason.join(","));
        let pairs = [
            ("account", self.account.clone()),
            ("type", self.event_type.clone()),
            ("subject", self.subject.clone()),
            ("reason", reason),
            ("from", self.from.clone()),
            ("until", self.until.clone()),
            ("error", self.error.clone()),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// A bridge that can be asked.
pub struct Remote {
    client: reqwest::Client,
    base: String,
    token: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<WrongLine>,
}

#[derive(Deserialize)]
struct WrongLine {
    line: u64,
    error: String,
}

impl Problem {
    fn words(self) -> String {
        let line = |WrongLine { line, error }: &WrongLine| format!("line {line}: {}\n", plain(error));
        let lines = self.errors.iter().map(line).collect::<String>();
        format!("{lines}{}", plain(&self.detail))
    }
}

/// What is sent.
struct Body {
    content_type: &'static str,
    bytes: Vec<u8>,
}

impl Default for Body {
    fn default() -> Self {
        Self { content_type: "application/json", bytes: Vec::new() }
    }
}

impl Body {
    fn json(value: &impl serde::Serialize) -> anyhow::Result<Self> {
        Ok(Self { bytes: serde_json::to_vec(value)?, ..Self::default() })
    }
}

impl Remote {
    /// Reads the address and the token; nothing is asked yet.
    ///
    /// # Errors
    /// Where the address is none, or the token cannot be read.
    pub fn new(at: &At) -> anyhow::Result<Self> {
        let base = at.admin.address()?;
        let token = match &at.token_file {
            Some(path) => {
                let unreadable = |source| Mistake::NoInput { name: path.display().to_string(), source };
                Some(std::fs::read_to_string(path).map_err(unreadable)?)
            }
            None => match std::env::var("FLEETBUS_ADMIN_TOKEN") {
                Ok(token) => Some(token),
                Err(VarError::NotPresent) => None,
                Err(VarError::NotUnicode(_)) => {
                    return Err(Mistake::Misuse("FLEETBUS_ADMIN_TOKEN is not UTF-8 text".to_owned()).into());
                }
            },
        };
        let header = |token: String| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                .map_err(|_| anyhow::anyhow!("the admin token has characters that no header takes"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        let token = token.filter(|token| !token.trim().is_empty()).map(header).transpose()?;
        // The operator's port is not behind a proxy, whatever the environment says about the world outside.
        let builder = || reqwest::Client::builder().connect_timeout(CONNECT).no_proxy();
        let client = outbound::build_for(&base, builder)?;
        Ok(Self { client, base, token })
    }

    /// Asks for a value.
    ///
    /// # Errors
    /// Where there is no answer, or it says no.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<T> {
        self.ask(Method::GET, path, query, Body::default()).await
    }

    /// Asks for a list page by page, up to a limit. `place` is where a page begins, and the query's name for it; `split` takes
    /// a page apart into its rows and the next place. All rows, and where the next page would begin.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn pages<P: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
        (name, mut place): (&'static str, Option<u64>),
        limit: usize,
        split: impl Fn(P) -> (Vec<Value>, Option<u64>),
    ) -> anyhow::Result<(Vec<Value>, Option<u64>)> {
        let mut all = Vec::new();
        loop {
            let mut query = query.to_vec();
            query.extend(place.map(|place| (name, place.to_string())));
            query.push(("limit", (limit - all.len()).clamp(1, PAGE).to_string()));
            let (rows, next) = split(self.get(path, &query).await?);
            all.extend(rows);
            place = next;
            if place.is_none() || all.len() >= limit {
                return Ok((all, place));
            }
        }
    }

    /// Sends a value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.ask(Method::POST, path, &[], Body::json(body)?).await
    }

    /// Sends a value in place of what is there.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.ask(Method::PUT, path, &[], Body::json(body)?).await
    }

    /// Sends a merge patch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        self.ask(Method::PATCH, path, &[], Body::json(body)?).await
    }

    /// Sends a file.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        content_type: &'static str,
        bytes: Vec<u8>,
    ) -> anyhow::Result<T> {
        self.ask(Method::POST, path, query, Body { content_type, bytes }).await
    }

    /// Removes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        self.ask(Method::DELETE, path, query, Body::default()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Body,
    ) -> anyhow::Result<T> {
        let answer = self.send(method, path, query, body, Some(ANSWER)).await?;
        answer.json().await.with_context(|| format!("{} does not answer like a bridge", self.base))
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn lines(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Lines> {
        let answer = self.send(Method::GET, path, query, Body::default(), None).await?;
        Ok(Lines { answer, rest: Vec::new() })
    }

    /// Asks for bytes, and gives each piece of them to `take`. None are missing where this returns.
    ///
    /// # Errors
    /// As [`get`](Self::get); where the answer breaks off; and those of `take`.
    pub async fn bytes(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut answer = self.send(Method::POST, path, &[], Body::default(), None).await?;
        let mut missing = answer.content_length();
        while let Some(piece) = answer.chunk().await.context("the answer broke off")? {
            missing = missing.map(|missing| missing.saturating_sub(piece.len() as u64));
            take(&piece)?;
        }
        if missing.is_some_and(|missing| missing > 0) {
            bail!("the answer broke off");
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Body,
        within: Option<Duration>,
    ) -> anyhow::Result<Response> {
        let encoded =
            query.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, PLAIN)));
        let query = encoded.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = self.client.request(method, format!("{}{path}{mark}{query}", self.base));
        request = request.header(CONTENT_TYPE, body.content_type).body(body.bytes);
        request = request.header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(within) = within {
            request = request.timeout(within);
        }
        // Where the answer may go on for long, its beginning may not.
        let late = |_| NoAnswer(format!("{} does not answer: nothing came in time", self.base));
        let answer = timeout(within.unwrap_or_default().max(ANSWER), request.send()).await.map_err(late)?;
        let answer = answer.map_err(|error| self.unanswered(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem = answer.json::<Problem>().await.ok();
        // What is wrong in the lines of a file is not wrong in the command.
        let in_lines = problem.as_ref().is_some_and(|problem| !problem.errors.is_empty());
        let detail = problem.map_or_else(|| "it gives no reason".to_owned(), Problem::words);
        match status.as_u16() {
            401 => bail!("{detail}: set FLEETBUS_ADMIN_TOKEN, or name a file with --token-file"),
            400 | 422 if !in_lines => Err(Mistake::Misuse(format!("{detail} ({status})")).into()),
            _ => bail!("{detail} ({status})"),
        }
    }

    fn unanswered(&self, error: &reqwest::Error) -> anyhow::Error {
        let base = &self.base;
        let cause = logs::innermost(error);
        let sentence = if error.is_connect() {
            format!(
                "no bridge answers at {base} ({cause}); start one, or name its admin.address with --admin URL"
            )
        } else {
            format!("{base} does not answer: {cause}")
        };
        NoAnswer(sentence).into()
    }
}

/// Whoever typed the command can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// It cannot be meant so, by what the bridge or this side of it says.
    #[error("{0}")]
    Misuse(String),
    /// A file that it names cannot be read.
    #[error("{name} cannot be read")]
    NoInput {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl Mistake {
    /// How the process ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Misuse(_) => Exit::Usage,
            Self::NoInput { .. } => Exit::NoInput,
        }
    }
}

/// The bridge did not answer; it may do so later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

/// Lines of a stream.
pub struct Lines {
    answer: Response,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line of a stream that has an end; none there.
    ///
    /// # Errors
    /// Where it broke off before.
    pub async fn whole(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(line) = self.held() {
                return Ok(Some(line));
            }
            match self.answer.chunk().await.context("the bridge broke off: this is not all")? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.is_empty() => return Ok(None),
                None => bail!("the bridge broke off in a line: this is not all"),
            }
        }
    }

    /// A whole line of what came.
    fn held(&mut self) -> Option<String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// Runs a command's requests to their end.
///
/// # Errors
/// The command's own, and where no runtime can be made.
pub fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    runtime.block_on(work)
}

/// Whether who reads wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Go on.
    Reads,
    /// It has enough: a pipe was closed.
    Left,
}

/// Writes a line to standard output.
///
/// # Errors
/// Where it cannot be written for another reason than that nobody reads.
pub fn say(line: &str) -> anyhow::Result<Reader> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Left),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Writes JSON to standard output, [escaped].
///
/// # Errors
/// As [`say`].
pub fn say_json(json: &str) -> anyhow::Result<Reader> {
    say(&escaped(json))
}

/// Text as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Text for a terminal: without characters that would steer it.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// JSON for a terminal, or for whoever reads it again: it means what it meant, and what would steer a terminal is escaped. JSON has some
/// control characters escaped already, but not DEL and those from U+0080 on.
#[must_use]
pub fn escaped(json: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            // They stand between values only.
            '\t' | '\r' => text.push(' '),
            c if steers(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_what_it_meant_and_does_not_steer_the_terminal() {
        let value = serde_json::json!({"a\u{9b}": ["\u{7f}\u{1b}[2J\t\n", "\u{85}ü\u{2028}\u{1f69a}"]});
        for json in [value.to_string(), format!("{value:#}"), value.to_string().replace(':', "\t:\r")] {
            let escaped = escaped(&json);
            assert_eq!(serde_json::from_str::<Value>(&escaped).ok(), Some(value.clone()));
            assert!(!escaped.contains(|c: char| c.is_control() && c != '\n'), "{escaped}");
        }
        assert_eq!(escaped("{\"a\": \"\u{9b}\"}"), r#"{"a": "\u009b"}"#);
        assert!(matches!(escaped("{\n}"), Cow::Borrowed(_)), "mostly there is none");
    }

    #[test]
    fn a_filter_becomes_a_query_of_what_is_set() {
        let filter = Filter {
            account: Some("acme".to_owned()),
            reason: vec!["unfit".to_owned(), "not-json".to_owned()],
            ..Filter::default()
        };
        let expected = [("account", "acme".to_owned()), ("reason", "unfit,not-json".to_owned())];
        assert_eq!(filter.pairs(), expected);
    }

    #[test]
    fn an_address_is_a_url_with_a_host() {
        assert_eq!(base("http://127.0.0.1:9090/"), Ok("http://127.0.0.1:9090".to_owned()));
        assert_eq!(base("https://bridge"), Ok("https://bridge".to_owned()));
        for wrong in ["", "garbage", "127.0.0.1:9090", "localhost:9090", "ftp://bridge", "http://"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_sender_wrote_does_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
