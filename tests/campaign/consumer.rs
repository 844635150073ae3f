//! A stock consumer of its own, beside the bridge and not through its proxy: reads everything from the beginning while the
//! campaign runs, and to the very end when it is told to finish. Keeps of each message its fact and its id.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::checker::Seen;
use super::facts::Fact;

/// How long the end of a topic may take to come.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(200);
/// Where nothing comes for so long, another client reads on.
const SILENCE: Duration = Duration::from_secs(15);

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    pub seen: Vec<Seen>,
    /// Messages that tell no fact of the campaign, or contradict their headers.
    pub odd: Vec<String>,
}

/// Where a message came, and what its headers say.
struct Place<'a> {
    /// The topic, or the subject but for its last token.
    topic: &'a str,
    /// The key, or the last token of the subject.
    key: Option<&'a str>,
    id: Option<&'a str>,
}

impl Read {
    fn take(&mut self, place: &Place<'_>, payload: &[u8]) {
        let Place { topic, key, id: said } = place;
        let Some((fact, id)) = Fact::read(payload) else {
            self.odd.push(format!("{topic}: no fact of the campaign"));
            return;
        };
        let is_there = topic.split('.').any(|token| token == fact.kind.topic());
        if is_there && *key == Some(fact.key().as_str()) && *said == Some(id.to_string().as_str()) {
            self.seen.push(Seen { fact, id });
        } else {
            self.odd.push(format!("{topic}, key {key:?}, id {said:?}: {fact:?} is {id}"));
        }
    }

    pub fn append(&mut self, mut other: Self) {
        self.seen.append(&mut other.seen);
        self.odd.append(&mut other.odd);
    }
}

/// A consumer at work.
pub struct Consumer {
    finish: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    work: JoinHandle<Read>,
}

impl Consumer {
    /// Reads a Kafka topic.
    pub fn of_kafka(client: &ClientConfig, topic: &str) -> Self {
        let (client, topic) = (client.clone(), topic.to_owned());
        Self::begin(|finish, count| {
            tokio::task::spawn_blocking(move || read_kafka(&client, &topic, &finish, &count))
        })
    }

    /// Reads a stream of a NATS server.
    pub fn of_nats(client: async_nats::Client, stream: &str) -> Self {
        let stream = stream.to_owned();
        #[expect(clippy::disallowed_methods, reason = "a test's own task")]
        Self::begin(|finish, count| {
            tokio::spawn(async move { read_nats(&client, &stream, &finish, &count).await })
        })
    }

    fn begin(work: impl FnOnce(Arc<AtomicBool>, Arc<AtomicU64>) -> JoinHandle<Read>) -> Self {
        let (finish, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work = work(Arc::clone(&finish), Arc::clone(&count));
        Self { finish, count, work }
    }

    /// Messages read so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Reads to the end of what is there now.
    pub async fn finish(self) -> Read {
        self.finish.store(true, Ordering::Relaxed);
        self.work.await.expect("a consumer that reads to the end")
    }
}

/// One that reads on from there.
fn kafka_consumer(client: &ClientConfig, topic: &str, next: &HashMap<i32, i64>) -> BaseConsumer {
    let consumer: BaseConsumer = client
        .clone()
        .set("group.id", "campaign")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", "16384")
        .create()
        .expect("a client");
    let mut all = TopicPartitionList::new();
    for (partition, offset) in next {
        all.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("a partition");
    }
    consumer.assign(&all).expect("an assignment");
    consumer
}

fn read_kafka(client: &ClientConfig, topic: &str, finish: &AtomicBool, count: &AtomicU64) -> Read {
    let asking = kafka_consumer(client, topic, &HashMap::new());
    let told = asking.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
    let mut next: HashMap<i32, i64> = told.topics()[0].partitions().iter().map(|p| (p.id(), 0)).collect();
    let mut consumer = kafka_consumer(client, topic, &next);
    let mut heard = Instant::now();
    let mut read = Read::default();
    let mut ends: Option<(Instant, HashMap<i32, i64>)> = None;
    loop {
        if finish.load(Ordering::Relaxed) && ends.is_none() {
            let since = Instant::now();
            let end = |partition: &i32| end_of(client, topic, *partition, since);
            ends = Some((since, next.keys().map(|partition| (*partition, end(partition))).collect()));
        }
        if let Some((since, ends)) = &ends {
            if ends.iter().all(|(partition, end)| next[partition] >= *end) {
                return read;
            }
            assert!(since.elapsed() < PATIENCE, "the end does not come: {next:?} of {ends:?}");
        }
        // A client that was told of no broker, by one that was paused for long, asks nobody any more.
        if heard.elapsed() > SILENCE {
            (consumer, heard) = (kafka_consumer(client, topic, &next), Instant::now());
        }
        // An error is a broker that comes or goes.
        if let Some(Ok(message)) = consumer.poll(GLANCE) {
            heard = Instant::now();
            let known = next.insert(message.partition(), message.offset() + 1);
            assert!(known.is_some_and(|next| next <= message.offset()), "read twice: {known:?}");
            let id = message.headers().and_then(|headers| {
                let header = headers.iter().find(|header| header.key == "ce_id")?;
                std::str::from_utf8(header.value?).ok()
            });
            let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
            read.take(&Place { topic, key, id }, message.payload().unwrap_or_default());
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A broker that has just come back may not know its topics yet.
fn end_of(client: &ClientConfig, topic: &str, partition: i32, since: Instant) -> i64 {
    loop {
        let asking = kafka_consumer(client, topic, &HashMap::new());
        match asking.fetch_watermarks(topic, partition, SILENCE) {
            Ok((_, end)) => return end,
            Err(error) if since.elapsed() > PATIENCE => panic!("the end of {topic} {partition}: {error}"),
            // Nothing comes of no partition: it waits.
            Err(_) => drop(asking.poll(GLANCE)),
        }
    }
}

async fn read_nats(
    client: &async_nats::Client,
    stream: &str,
    finish: &AtomicBool,
    count: &AtomicU64,
) -> Read {
    let context = jetstream::new(client.clone());
    let (mut read, mut last) = (Read::default(), 0);
    // Since when it is to come to the end: not since it last began to read anew, which may be minutes ago.
    let mut since: Option<Instant> = None;
    let mut finishes = |last: u64| {
        let finishes = finish.load(Ordering::Relaxed);
        if finishes {
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            assert!(waited < PATIENCE, "the end of {stream} does not come: {last}");
        }
        finishes
    };
    'anew: loop {
        finishes(last);
        let config = jetstream::consumer::pull::OrderedConfig {
            deliver_policy: jetstream::consumer::DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
            ..Default::default()
        };
        let Ok(mut handle) = context.get_stream(stream).await else {
            tokio::time::sleep(GLANCE).await;
            continue;
        };
        let Ok(consumer) = handle.create_consumer(config).await else {
            tokio::time::sleep(GLANCE).await;
            continue;
        };
        let Ok(mut messages) = consumer.messages().await else { continue };
        loop {
            if finishes(last) {
                match handle.info().await {
                    Ok(info) if last >= info.state.last_sequence => return read,
                    Ok(_) => {}
                    Err(_) => continue 'anew,
                }
            }
            let mut batch = 0;
            while let Ok(next) = tokio::time::timeout(GLANCE, messages.next()).await {
                let Some(Ok(message)) = next else { continue 'anew };
                let place = message.info().expect("a place in the stream").stream_sequence;
                if place <= last {
                    continue;
                }
                last = place;
                let id = message.headers.as_ref().and_then(|headers| headers.get("ce-id"));
                let id = id.map(async_nats::HeaderValue::as_str);
                let (topic, key) = message.subject.rsplit_once('.').unwrap_or_default();
                read.take(&Place { topic, key: Some(key), id }, &message.payload);
                count.fetch_add(1, Ordering::Relaxed);
                batch += 1;
                if batch >= 1_000 {
                    break;
                }
            }
        }
    }
}
