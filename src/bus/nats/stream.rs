//! The stream: looked up at start and by `check --connect`, made where that is configured; and again where nobody answers for a subject,
//! as only the servers can tell a stream that has no leader from one that is gone. Invariant: what they do not say changes nothing.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{ContextBuilder, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::errors::is_unavailability;
use super::subjects::everything;
use super::{NatsBus, WINDOW, millis, promise};
use crate::bus::Finding;
use crate::config;
use crate::event::Text;

/// How long a question about the stream may take.
const ASK: Duration = Duration::from_secs(5);
/// The same about the account, which not everybody may ask.
const ASK_ACCOUNT: Duration = Duration::from_secs(1);
/// How many addresses may lead nowhere before one that answers: the client tries each for as long as a question may take.
const TRIES: u32 = 3;
/// How long after a question about a stream for which nobody answers the next one is asked.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The last subject for which nobody answered.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    topic: Mutex<Text>,
    rung: Notify,
}

impl Unanswered {
    pub(super) fn is(&self, topic: &Text) {
        self.topic.lock().clone_from(topic);
        self.rung.notify_one();
    }
}

/// What the servers say of the stream.
enum Said {
    There { subjects: Vec<String> },
    Gone,
    Nothing,
}

impl NatsBus {
    pub(in crate::bus) async fn check(&self, topics: &[Text]) -> Vec<Finding> {
        let unreachable = |why: String| {
            vec![Finding::Unreachable(format!("NATS at {} cannot be reached: {why}", self.config.url))]
        };
        let client = match timeout(ASK, self.connect()).await {
            Ok(Ok(connection)) => connection.client.clone(),
            Ok(Err(why)) => return unreachable(why),
            Err(_) => return unreachable("it does not answer".to_owned()),
        };
        let connected = timeout(ASK * TRIES, async {
            while client.connection_state() != State::Connected {
                sleep(Duration::from_millis(20)).await;
            }
        });
        if connected.await.is_err() {
            if self.shared.turned_away.load(Ordering::Relaxed) {
                return vec![Finding::Barred {
                    what: format!("NATS at {} refuses the login", self.config.url),
                    fix: "look at the credentials, and at the user's rights on the server".to_owned(),
                }];
            }
            let why = self.shared.why_not.lock().clone();
            if let Some(why) = why.as_ref().filter(|why| is_about_tls(why)) {
                return vec![Finding::Barred {
                    what: format!("there is no TLS with NATS at {}: {why}", self.config.url),
                    fix: "look at the server's certificate (until when it is valid, for which names, by whom) and at bus.nats.ca; where it asks for its clients' certificates, at bus.nats.cert".to_owned(),
                }];
            }
            return unreachable(why.unwrap_or_else(|| "it does not answer".to_owned()));
        }
        let context = ContextBuilder::new().timeout(ASK).build(client);
        let name = &self.config.stream;
        let wanted = everything(topics);
        let info = match timeout(ASK * 2, context.get_stream(name)).await {
            Ok(Ok(stream)) => stream.cached_info().clone(),
            // Else one that has no leader would be made, or called missing.
            Ok(Err(error)) if cannot_be_asked(&error) => {
                return unreachable(format!("stream {name} cannot be asked: {error}"));
            }
            Ok(Err(error)) if is_not_answered(&error) => {
                let what = format!("stream {name} cannot be asked for: {error}");
                return match self.config.create {
                    config::Create::Missing => unreachable(what),
                    config::Create::Never => vec![Finding::Unusable {
                        what,
                        fix: format!(
                            "wait for the servers to elect a leader; or enable JetStream on them and for the account, and let the user publish on $JS.API.STREAM.INFO.{name} and subscribe on _INBOX.>"
                        ),
                    }],
                };
            }
            Ok(Err(_)) if self.config.create == config::Create::Missing => {
                let stream = jetstream::stream::Config {
                    name: name.clone(),
                    subjects: wanted.clone(),
                    storage: jetstream::stream::StorageType::File,
                    ..Default::default()
                };
                return match timeout(ASK, context.create_stream(stream)).await {
                    Ok(Ok(made)) => {
                        self.shared.seen.lock().holds(name, &wanted);
                        let weak = promise::findings(name, made.cached_info(), topics).into_iter();
                        let weak = weak.filter(|found| matches!(found, Finding::Weak(_)));
                        let made = Finding::Made(format!("stream {name} on {}", wanted.join(", ")));
                        std::iter::once(made).chain(weak).collect()
                    }
                    Ok(Err(error)) => unreachable(format!("stream {name} cannot be made: {error}")),
                    Err(_) => unreachable("it does not answer".to_owned()),
                };
            }
            Ok(Err(_)) => {
                return vec![Finding::Missing {
                    what: format!("stream {name}"),
                    command: format!(
                        "nats stream add {name} --subjects '{}' --storage file --defaults",
                        wanted.join(",")
                    ),
                }];
            }
            Err(_) => return unreachable("it does not answer".to_owned()),
        };
        self.shared.seen.lock().holds(name, &info.config.subjects);
        let mut findings = promise::findings(name, &info, topics);
        // Who may not ask hears nothing.
        if let Ok(Ok(account)) = timeout(ASK_ACCOUNT, context.query_account()).await {
            findings.extend(promise::account_is_full(&account, &info));
        }
        // A quarter of the window is left for what is on its way.
        let window = info.config.duplicate_window * 3 / 4;
        self.shared.window_ms.store(millis(window.min(WINDOW)), Ordering::Relaxed);
        if window < WINDOW {
            findings.push(Finding::Weak(format!(
                "stream {name} remembers message ids for {:?} only: an event sent again later is stored twice, with one id",
                info.config.duplicate_window
            )));
        }
        findings
    }

    /// A subject that no stream takes any more is refused, and its stream's owner cures that; that one takes it again is news. Without an
    /// answer, as where the stream has no leader, it stays what it was.
    pub(super) async fn ask_where_nobody_answers(&self) -> Infallible {
        loop {
            self.shared.unanswered.rung.notified().await;
            let mut was_missing = false;
            loop {
                let said = self.ask().await;
                let is_taken = self.learn(said);
                self.shared.news.fetch_or(was_missing && is_taken, Ordering::Relaxed);
                sleep(ASK_AGAIN).await;
                if is_taken {
                    break;
                }
                was_missing = true;
            }
        }
    }

    /// Whether a stream takes the last subject for which nobody answered, as far as is known.
    fn learn(&self, said: Said) -> bool {
        let mut seen = self.shared.seen.lock();
        match said {
            Said::There { subjects } => seen.holds(&self.config.stream, &subjects),
            Said::Gone => seen.is_gone(&self.config.stream),
            Said::Nothing => {}
        }
        seen.has(&self.config.subject, &self.shared.unanswered.topic.lock())
    }

    async fn ask(&self) -> Said {
        let connection = self.shared.connection.load_full().filter(|_| self.is_available());
        let Some(connection) = connection else { return Said::Nothing };
        let context = ContextBuilder::new().timeout(ASK).build(connection.client.clone());
        match timeout(ASK, context.get_stream(&self.config.stream)).await {
            Ok(Ok(stream)) => Said::There { subjects: stream.cached_info().config.subjects.clone() },
            Ok(Err(error)) => match error.kind() {
                GetStreamErrorKind::JetStream(told) if told.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Said::Gone
                }
                GetStreamErrorKind::JetStream(_)
                | GetStreamErrorKind::EmptyName
                | GetStreamErrorKind::Request
                | GetStreamErrorKind::InvalidStreamName => Said::Nothing,
            },
            Err(_) => Said::Nothing,
        }
    }
}

/// Whether nobody answered who knows of streams, so that it is not known whether it is there.
fn is_not_answered(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::Request => true,
        GetStreamErrorKind::JetStream(told) => {
            matches!(
                told.error_code(),
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            )
        }
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => false,
    }
}

/// Whether the client's words about a connection say that its TLS failed.
fn is_about_tls(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    why.contains("certificate") || why.contains("tls") || why.contains("fatal alert")
}

/// Whether the servers cannot say at the moment whether the stream is there.
fn cannot_be_asked(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(told) => is_unavailability(told.error_code()),
        GetStreamErrorKind::EmptyName
        | GetStreamErrorKind::Request
        | GetStreamErrorKind::InvalidStreamName => false,
    }
}
