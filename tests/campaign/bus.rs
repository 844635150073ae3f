//! The bus under fire: a real, secured broker behind the proxy, its topics or streams, the bridge's words for it, and the
//! consumer. What both kinds can be made to suffer has one name here.

use std::net::{Ipv4Addr, SocketAddr};

use async_nats::jetstream::stream;

use super::brokers::{Guard, Kafka, Nats, QUICK, USER, free_port};
use super::consumer::{Consumer, Read};
use super::facts::TOPICS;
use super::proxy::{Mood, Proxy};

/// Which bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    Nats,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Nats => "nats",
        }
    }
}

/// How many brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One, behind the proxy.
    One,
    /// Three Kafka nodes, without a proxy.
    Three,
}

/// How many messages a stream takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// No more than it has.
    None,
    Any,
}

impl Room {
    const fn messages(self) -> i64 {
        match self {
            Self::None => 1,
            Self::Any => -1,
        }
    }
}

enum Broker {
    Kafka(Kafka),
    Nats(Nats),
}

/// A bus.
pub struct Bus {
    broker: Broker,
    size: Size,
    proxy: Proxy,
    prefix: String,
    consumers: Vec<(&'static str, Consumer)>,
    read: Read,
}

/// The topic that is deleted and restored: nothing that is polled is on it.
const SPARE: &str = "alert";
/// Partitions of each topic.
const PARTITIONS: i32 = 6;

impl Bus {
    /// Starts it, makes its topics, and begins to read them.
    pub async fn start(kind: Kind, size: Size, prefix: &str) -> Self {
        let proxy = Proxy::start().await;
        let door = proxy.address.port();
        let broker = tokio::task::block_in_place(|| match (kind, size) {
            (Kind::Kafka, Size::One) => {
                let port = free_port();
                proxy.passes_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                Broker::Kafka(Kafka::start_behind(&[port], Some(door), Guard::Secured, "", QUICK))
            }
            (Kind::Kafka, Size::Three) => {
                let settings = "default.replication.factor=3\nmin.insync.replicas=2\n";
                Broker::Kafka(Kafka::start(3, Guard::Secured, settings))
            }
            (Kind::Nats, Size::One | Size::Three) => {
                let nats = Nats::start(Guard::Secured, "");
                proxy.passes_to(SocketAddr::from((Ipv4Addr::LOCALHOST, nats.port)));
                Broker::Nats(nats)
            }
        });
        let mut bus = Self {
            broker,
            size,
            proxy,
            prefix: prefix.to_owned(),
            consumers: Vec::new(),
            read: Read::default(),
        };
        for topic in TOPICS {
            bus.make(topic).await;
            bus.read_on(topic).await;
        }
        bus.permit();
        bus
    }

    /// The bridge's configuration for it.
    pub fn configuration(&self) -> String {
        let (user, _) = USER;
        let door = self.proxy.address;
        match &self.broker {
            Broker::Kafka(kafka) => {
                let ca = &kafka.certificates.as_ref().expect("secured").ca;
                let prefix = &self.prefix;
                format!(
                    "bus:\n  kafka:\n    brokers: \"{}\"\n    topic: \"{prefix}.{{type}}\"\n    properties:\n      \
                     security.protocol: SASL_SSL\n      sasl.mechanism: PLAIN\n      sasl.username: {user}\n      \
                     sasl.password: {{ env: CAMPAIGN_PASSWORD }}\n      ssl.ca.location: \"{}\"\n      \
                     socket.timeout.ms: 10000\n",
                    kafka.brokers,
                    ca.display()
                )
            }
            Broker::Nats(nats) => {
                let ca = &nats.certificates.as_ref().expect("secured").ca;
                let prefix = self.subjects();
                format!(
                    "bus:\n  nats:\n    url: \"tls://{door}\"\n    subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\"\n    \
                     stream: \"{}\"\n    user: {user}\n    password: {{ env: CAMPAIGN_PASSWORD }}\n    ca: \"{}\"\n",
                    self.stream("position"),
                    ca.display()
                )
            }
        }
    }

    fn subjects(&self) -> String {
        format!("ok.{}", self.prefix)
    }

    fn topic(&self, topic: &str) -> String {
        format!("{}.{topic}", self.prefix)
    }

    fn stream(&self, topic: &str) -> String {
        format!("{}-{topic}", self.prefix)
    }

    async fn make(&self, topic: &str) {
        match &self.broker {
            Broker::Kafka(kafka) => {
                let replicas = if self.size == Size::Three { 3 } else { 1 };
                kafka.create(&self.topic(topic), PARTITIONS, replicas, &[]).await;
            }
            Broker::Nats(nats) => nats.create(self.stream_config(topic, Room::Any.messages())).await,
        }
    }

    fn stream_config(&self, topic: &str, max_messages: i64) -> stream::Config {
        stream::Config {
            name: self.stream(topic),
            subjects: vec![format!("{}.{topic}.>", self.subjects())],
            discard: stream::DiscardPolicy::New,
            max_messages,
            ..Default::default()
        }
    }

    async fn read_on(&mut self, topic: &'static str) {
        let consumer = match &self.broker {
            Broker::Kafka(kafka) => Consumer::of_kafka(&kafka.client(), &self.topic(topic)),
            Broker::Nats(nats) => Consumer::of_nats(nats.client().await, &self.stream(topic)),
        };
        self.consumers.push((topic, consumer));
    }

    /// Messages read so far.
    pub fn consumed(&self) -> u64 {
        self.read.seen.len() as u64 + self.consumers.iter().map(|(_, consumer)| consumer.count()).sum::<u64>()
    }

    /// All that was on it.
    pub async fn finish(mut self) -> Read {
        for (_, consumer) in std::mem::take(&mut self.consumers) {
            self.read.append(consumer.finish().await);
        }
        std::mem::take(&mut self.read)
    }

    pub fn mood(&self, mood: Mood) {
        self.proxy.set(mood);
    }

    /// Nodes that may be killed or paused: of three, not the controller.
    const fn victims(&self) -> std::ops::Range<usize> {
        match self.size {
            Size::One => 0..1,
            Size::Three => 1..3,
        }
    }

    fn victim(&self, draw: u64) -> usize {
        let victims = self.victims();
        victims.start + usize::try_from(draw).unwrap_or(0) % victims.len()
    }

    pub fn kill(&self, draw: u64) {
        tokio::task::block_in_place(|| match &self.broker {
            Broker::Kafka(kafka) => kafka.kill9(self.victim(draw)),
            Broker::Nats(nats) => nats.kill9(),
        });
    }

    /// Brings it back after [`Self::kill`], and waits until it answers.
    pub fn restart(&self, draw: u64) {
        tokio::task::block_in_place(|| match &self.broker {
            Broker::Kafka(kafka) => {
                kafka.restart(self.victim(draw));
                kafka.wait();
            }
            Broker::Nats(nats) => {
                nats.restart();
                nats.wait();
            }
        });
    }

    pub fn pause(&self, draw: u64) {
        match &self.broker {
            Broker::Kafka(kafka) => kafka.pause(self.victim(draw)),
            Broker::Nats(nats) => nats.pause(),
        }
    }

    pub fn resume(&self, draw: u64) {
        match &self.broker {
            Broker::Kafka(kafka) => kafka.resume(self.victim(draw)),
            Broker::Nats(nats) => nats.resume(),
        }
    }

    pub fn forbid(&self) {
        match &self.broker {
            Broker::Kafka(kafka) => kafka.forbid_writing(&self.prefix),
            Broker::Nats(nats) => nats.permit(&["$JS.API.>"]),
        }
    }

    /// Gives the right to write, first or again.
    pub fn permit(&self) {
        match &self.broker {
            Broker::Kafka(kafka) => {
                kafka.forgive_writing(&self.prefix);
                kafka.allow_writing(&self.prefix);
            }
            Broker::Nats(nats) => nats.permit(&["ok.>", "$JS.API.>"]),
        }
    }

    /// Deletes the topic of alerts, once all that is on it has been read: nobody may publish to it meanwhile.
    pub async fn delete_spare(&mut self) {
        while let Some(at) = self.consumers.iter().position(|(topic, _)| *topic == SPARE) {
            let (_, consumer) = self.consumers.remove(at);
            self.read.append(consumer.finish().await);
        }
        match &self.broker {
            Broker::Kafka(kafka) => kafka.delete(&self.topic(SPARE)).await,
            Broker::Nats(nats) => {
                let context = async_nats::jetstream::new(nats.client().await);
                context.delete_stream(self.stream(SPARE)).await.expect("a stream");
            }
        }
    }

    /// Makes it again.
    pub async fn restore_spare(&mut self) {
        self.make(SPARE).await;
        self.read_on(SPARE).await;
    }

    /// What streams take from now on. Kafka has no such bound.
    pub async fn bound(&self, room: Room) {
        let Broker::Nats(nats) = &self.broker else { return };
        let context = async_nats::jetstream::new(nats.client().await);
        for topic in TOPICS {
            context
                .update_stream(self.stream_config(topic, room.messages()))
                .await
                .expect("a stream that takes a bound");
        }
    }
}
