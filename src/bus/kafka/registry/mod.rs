//! Which frame each topic's events have: the schema of a topic is looked up by subject at start, and registered where that is
//! configured. Invariants: an event is sent only under the id that the registry gave for a schema which describes it, never
//! bare; an id that is known is never asked for again, for it never changes its meaning. Where there is none (yet) the topic
//! is refused, like one that is missing: its events are parked, bare, and framed when they are sent. `client` asks.

mod client;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::bus::{Failure, Finding, OpenError};
use crate::config::{self, Create};
use crate::encode::frame::Frame;
use crate::encode::schema::{self, Fit, Misfit};
use crate::event::Text;
use client::{Client, Fault, Reference, Version};

/// First and last pause before topics without a frame are looked up again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Files that one schema refers to, at most, with those that these refer to.
const MOST_FILES: usize = 64;
/// Parts that are named of a schema which lacks more.
const NAMED: usize = 3;

/// See the module.
pub(super) struct SchemaRegistry {
    client: Client,
    config: config::SchemaRegistry,
    known: ArcSwap<HashMap<Text, Known>>,
    /// Topics that somebody has events for and nobody has looked up.
    wanted: Mutex<BTreeSet<Text>>,
    /// One look-up at a time.
    asking: tokio::sync::Mutex<()>,
    ring: Notify,
    /// Frames were found since somebody asked last.
    found: AtomicBool,
}

/// What is known of a topic.
#[derive(Debug, Clone)]
enum Known {
    Framed { frame: Frame, said: Finding },
    Without { why: String, said: Finding },
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("it is of type {0}")]
    Type(String),
    #[error("it refers to more than {MOST_FILES} files")]
    Files,
}

/// What schemas refer to, as far as it was read in one look-up.
type Files = BTreeMap<Reference, Arc<Version>>;

/// A topic's schema.
struct Found {
    frame: Frame,
    id: u32,
    version: u32,
    lacks: Vec<String>,
    made: bool,
}

impl SchemaRegistry {
    /// Makes the client; the registry need not be up.
    pub(super) fn open(config: &config::SchemaRegistry) -> Result<Self, OpenError> {
        Ok(Self {
            client: Client::open(config)?,
            config: config.clone(),
            known: ArcSwap::default(),
            wanted: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            ring: Notify::new(),
            found: AtomicBool::new(false),
        })
    }

    /// The event as this topic's consumers expect it. Never waits.
    ///
    /// # Errors
    /// Where the topic has no frame (yet): a state of the topic.
    pub(super) fn frame(&self, topic: &Text, event: &[u8]) -> Result<Bytes, Failure> {
        match self.known.load().get(topic) {
            Some(Known::Framed { frame, .. }) => Ok(frame.around(event)),
            Some(Known::Without { why, .. }) => Err(Failure::Refused(why.clone())),
            None => {
                self.wanted.lock().insert(topic.clone());
                self.ring.notify_one();
                Err(Failure::Refused("its schema has not been looked up yet".to_owned()))
            }
        }
    }

    /// Whether frames were found since this was asked last.
    pub(super) fn take_found(&self) -> bool {
        self.found.swap(false, Ordering::Relaxed)
    }

    /// Looks up what has no frame yet, and says what was found of all.
    pub(super) async fn check(&self, topics: &[Text]) -> Vec<Finding> {
        self.look_up(topics).await;
        let known = self.known.load();
        let of = |topic: &Text| match known.get(topic) {
            Some(Known::Framed { said, .. } | Known::Without { said, .. }) => said.clone(),
            None => Finding::Unreachable(format!("the schema of topic {topic} has not been looked up")),
        };
        let mut findings: Vec<Finding> = topics.iter().map(of).collect();
        // A registry that is away is away for all topics.
        findings.dedup();
        findings
    }

    /// Looks up what has no frame yet. Where the registry gives no answer at all for one, it is not asked for the others; one that it
    /// fails at does not keep the others from theirs.
    pub(super) async fn look_up(&self, topics: &[Text]) {
        let _one = self.asking.lock().await;
        let mut files = Files::new();
        let mut away = None;
        for topic in topics {
            if matches!(self.known.load().get(topic), Some(Known::Framed { .. })) {
                continue;
            }
            let subject = self.config.subject.replace("{topic}", topic);
            let found = match &away {
                Some(said) => Err(Trouble::Fault(Fault::Unanswered(String::clone(said)))),
                None => Box::pin(self.find(&subject, &mut files)).await,
            };
            if let Err(Trouble::Fault(Fault::Unanswered(said))) = &found {
                away = Some(said.clone());
            }
            self.note(topic, &subject, found);
        }
    }

    /// Each is noted as it is found: the caller may have no patience for all.
    fn note(&self, topic: &Text, subject: &str, found: Result<Found, Trouble>) {
        let known = match found {
            Ok(found) => framed(topic, subject, found),
            Err(trouble) => without(topic, subject, trouble, &self.config),
        };
        let mut all = HashMap::clone(&self.known.load());
        let is_news = matches!(known, Known::Framed { .. });
        all.insert(topic.clone(), known);
        self.known.store(Arc::new(all));
        if is_news {
            self.found.store(true, Ordering::Relaxed);
        }
    }

    /// Looks up again what has no frame, until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut pause = AGAIN.0;
        loop {
            let without = self.without();
            let due =
                async { if without.is_empty() { std::future::pending().await } else { sleep(pause).await } };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.ring.notified() => {}
                () = due => pause = (pause * 2).min(AGAIN.1),
            }
            let wanted = std::mem::take(&mut *self.wanted.lock());
            let topics: Vec<Text> = without.into_iter().chain(wanted).collect();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look_up(&topics) => {}
            }
            if self.without().is_empty() {
                pause = AGAIN.0;
            }
        }
    }

    fn without(&self) -> Vec<Text> {
        let known = self.known.load();
        let without = known.iter().filter(|(_, known)| matches!(known, Known::Without { .. }));
        without.map(|(topic, _)| topic.clone()).collect()
    }

    /// The newest schema of a subject; ours is registered where it is missing, or lacks something, and that is configured.
    async fn find(&self, subject: &str, files: &mut Files) -> Result<Found, Trouble> {
        let registers = self.config.register == Create::Missing;
        let older = match self.newest(subject, files).await {
            Err(Trouble::Fault(Fault::Missing)) if registers => None,
            Ok(found) if registers && !found.lacks.is_empty() => Some(found),
            found => return found,
        };
        match (self.register(subject).await, older) {
            // What is now the newest is looked at like any other.
            (Ok(()), _) => Ok(Found { made: true, ..self.newest(subject, files).await? }),
            // It will do: an upgrade that may not register goes on, with a warning.
            (Err(_), Some(older)) => Ok(older),
            (Err(fault), None) => Err(Trouble::Fault(fault)),
        }
    }

    async fn register(&self, subject: &str) -> Result<(), Fault> {
        let mut references: Vec<Reference> = Vec::new();
        for file in schema::IMPORTED {
            let version = self.client.register(file.name, file, &imports(file, &references)).await?.version;
            references.push(Reference { name: file.name.to_owned(), subject: file.name.to_owned(), version });
        }
        let imported = imports(schema::EVENT, &references);
        self.client.register(subject, schema::EVENT, &imported).await.map(|_| ())
    }

    async fn newest(&self, subject: &str, files: &mut Files) -> Result<Found, Trouble> {
        let newest = self.client.newest(subject).await?;
        match newest.schema_type.as_deref() {
            Some("PROTOBUF") => {}
            other => return Err(Trouble::Type(other.unwrap_or("AVRO").to_owned())),
        }
        let mut wanted = newest.references.clone();
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        while let Some(reference) = wanted.pop() {
            if texts.contains_key(&reference.name) {
                continue;
            }
            if texts.len() == MOST_FILES {
                return Err(Trouble::Files);
            }
            let file = match files.get(&reference) {
                Some(file) => Arc::clone(file),
                None => Arc::new(self.client.version(&reference).await?),
            };
            files.insert(reference.clone(), Arc::clone(&file));
            wanted.extend(file.references.iter().cloned());
            texts.insert(reference.name, file.schema.clone());
        }
        let texts: Vec<(String, String)> = texts.into_iter().collect();
        let Fit { index, lacks } = schema::fit(&newest.schema, &texts)?;
        let (id, version) = (newest.id, newest.version);
        Ok(Found { frame: Frame::new(id, index), id, version, lacks, made: false })
    }
}

/// Those of the files that this one imports.
fn imports(file: schema::File, files: &[Reference]) -> Vec<Reference> {
    files.iter().filter(|reference| file.imports.contains(&reference.name.as_str())).cloned().collect()
}

fn framed(topic: &str, subject: &str, found: Found) -> Known {
    let Found { frame, id, version, lacks, made } = found;
    tracing::info!(topic, subject, id, version, "registry.schema_found");
    let what = format!("topic {topic}: schema {id}, version {version} of subject {subject}");
    let said = match lacks.as_slice() {
        [] if made => Finding::Made(what),
        [] => Finding::Fine(what),
        lacks => {
            let named: Vec<&str> = lacks.iter().take(NAMED).map(String::as_str).collect();
            Finding::Weak(format!(
                "{what} is of an older edition: consumers that go by it do not see {} of the fields and values that may come, such as {}",
                lacks.len(),
                named.join(", ")
            ))
        }
    };
    Known::Framed { frame, said }
}

fn without(topic: &str, subject: &str, trouble: Trouble, config: &config::SchemaRegistry) -> Known {
    let why = format!("the schema under subject {subject}: {trouble}");
    let fix = fix_of(&trouble, config).to_owned();
    let said = match trouble {
        Trouble::Fault(Fault::Unanswered(said)) => {
            Finding::Unreachable(format!("the schema registry at {}: {said}", config.url))
        }
        Trouble::Fault(Fault::Failing(_)) => Finding::Unreachable(format!("topic {topic}: {why}")),
        Trouble::Fault(Fault::Missing | Fault::Refused { .. })
        | Trouble::Misfit(_)
        | Trouble::Type(_)
        | Trouble::Files => Finding::Unusable { what: format!("topic {topic}: {why}"), fix },
    };
    Known::Without { why, said }
}

/// What helps.
fn fix_of(trouble: &Trouble, config: &config::SchemaRegistry) -> &'static str {
    match trouble {
        Trouble::Fault(Fault::Missing) => match config.register {
            Create::Never => {
                "set `register: true` in bus.kafka.encoding.registry, or register proto/fleetbus/v1 under this subject"
            }
            Create::Missing => "see what the registry has under this subject, and what it refers to",
        },
        Trouble::Fault(Fault::Refused { .. }) => {
            "look at the registry's URL, login, rights and rules of compatibility"
        }
        Trouble::Fault(Fault::Failing(_)) => "look at what the registry's log says of this subject",
        Trouble::Fault(Fault::Unanswered(_)) => "start it, or name it rightly",
        Trouble::Misfit(_) | Trouble::Type(_) | Trouble::Files => {
            "register proto/fleetbus/v1 of this version under the subject, or name another with `subject`"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use axum::response::{IntoResponse as _, Response};
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn at(listener: &TcpListener) -> SchemaRegistry {
        SchemaRegistry::open(&config::SchemaRegistry {
            url: format!("http://{}", listener.local_addr().unwrap()),
            subject: "{topic}-value".to_owned(),
            register: Create::Never,
            login: None,
            ca: None,
        })
        .unwrap()
    }

    fn topics() -> [Text; 4] {
        ["fails", "babbles", "swells", "well"].map(Text::from)
    }

    fn answer(subject: &str) -> Response {
        match subject {
            "fails-value" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            "babbles-value" => "<html>".into_response(),
            "swells-value" => vec![b' '; 2 << 20].into_response(),
            _ => {
                let schema =
                    "syntax = \"proto3\"; package fleetbus.v1; message FleetEvent { string id = 1; }";
                json!({ "id": 7, "version": 1, "schemaType": "PROTOBUF", "schema": schema })
                    .to_string()
                    .into_response()
            }
        }
    }

    #[tokio::test]
    async fn a_subject_that_the_registry_fails_at_does_not_keep_other_topics_from_theirs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = at(&listener);
        let routes = Router::new().fallback(async |uri: Uri| answer(uri.path().split('/').nth(2).unwrap()));
        TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
        let findings = registry.check(&topics()).await;
        assert!(matches!(findings[3], Finding::Weak(_)), "{findings:?}");
        for (topic, finding) in topics().iter().zip(&findings).take(3) {
            let Finding::Unreachable(said) = finding else { panic!("{finding:?}") };
            assert!(said.starts_with(&format!("topic {topic}: ")), "{said}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_gives_no_answer_is_not_asked_for_each_topic() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (registry, asked) = (at(&listener), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&asked);
        TaskTracker::new().spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let findings = registry.check(&topics()).await;
        assert!(matches!(findings[..], [Finding::Unreachable(_)]), "{findings:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
