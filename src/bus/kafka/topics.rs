//! What Kafka has, lacks and promises: topics, replicas and limits, looked up at start and by `check --connect`; made where
//! that is configured.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::producer::Producer as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ASK, KafkaBus};
use crate::bus::Finding;
use crate::config;
use crate::event::Text;

/// How long a connection to one broker may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Of a topic's partitions, the fewest of any.
#[derive(Clone, Copy)]
struct Fewest {
    replicas: usize,
    in_sync: usize,
}

impl Fewest {
    /// What a topic says that wants so many in sync.
    fn lack(self, topic: &str, wanted: usize) -> Option<Finding> {
        let Self { replicas, in_sync } = self;
        if in_sync < wanted.min(replicas) {
            return Some(Finding::Unusable {
                what: format!(
                    "topic {topic} has a partition with {in_sync} replicas in sync, of {wanted} that it wants: it takes nothing"
                ),
                fix: "bring brokers back".to_owned(),
            });
        }
        (wanted > replicas).then(|| {
            Finding::Weak(format!(
                "topic {topic} has min.insync.replicas {wanted}, and {replicas} replicas: newer brokers take as many as there are, older ones take nothing"
            ))
        })
    }
}

/// A broker where it says that it is.
struct Leader {
    id: i32,
    host: String,
    port: u16,
}

/// Those that lead partitions of these topics.
fn leaders(metadata: &Metadata, topics: &[Text]) -> Vec<Leader> {
    let ours = metadata.topics().iter().filter(|known| topics.iter().any(|topic| **topic == *known.name()));
    let leading: BTreeSet<i32> =
        ours.flat_map(MetadataTopic::partitions).map(MetadataPartition::leader).collect();
    let brokers = metadata.brokers().iter().filter(|broker| leading.contains(&broker.id()));
    brokers
        .filter_map(|broker| {
            let port = u16::try_from(broker.port()).ok()?;
            Some(Leader { id: broker.id(), host: broker.host().to_owned(), port })
        })
        .collect()
}

/// Those for which nobody answers.
async fn unreached(leaders: Vec<Leader>) -> Vec<Finding> {
    let trying = leaders.into_iter().map(|Leader { id, host, port }| async move {
        let why = match timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        Some(Finding::Unusable {
            what: format!("broker {id} at {host}:{port} cannot be reached ({why}): what it leads is parked"),
            fix: "compare its advertised.listeners, the name service and the firewall with where this runs"
                .to_owned(),
        })
    });
    join_all(trying).await.into_iter().flatten().collect()
}

impl KafkaBus {
    pub(in crate::bus) async fn check(&self, topics: &[Text]) -> Vec<Finding> {
        let mut findings = self.check_topics(topics).await;
        if let Some(registry) = &self.registry {
            findings.extend(registry.check(topics).await);
        }
        findings
    }

    async fn check_topics(&self, topics: &[Text]) -> Vec<Finding> {
        let Some(client) = self.shared.client.load_full() else {
            return vec![Finding::Unreachable("the Kafka client is being rebuilt".to_owned())];
        };
        let asked = tokio::task::spawn_blocking(move || client.client().fetch_metadata(None, ASK)).await;
        let metadata = match asked {
            Ok(Ok(metadata)) => metadata,
            Ok(Err(error)) => {
                let contact = self.shared.contact.lock();
                return vec![contact.finding(&self.kafka.brokers, &error.to_string())];
            }
            Err(_) => return vec![Finding::Unreachable("Kafka could not be asked".to_owned())],
        };
        let leaders = leaders(&metadata, topics);
        let mut findings = Vec::new();
        let mut missing = Vec::new();
        let mut fewest = HashMap::new();
        for topic in topics {
            let known = metadata.topics().iter().find(|known| known.name() == &**topic);
            match known {
                Some(known)
                    if known.error().is_none() && known.partitions().iter().any(|p| p.leader() < 0) =>
                {
                    findings.push(Finding::Unusable {
                        what: format!(
                            "topic {topic} has partitions without a leader: their vehicles' events are parked"
                        ),
                        fix: "bring brokers back".to_owned(),
                    });
                }
                Some(known) if known.error().is_none() => {
                    let in_sync = known.partitions().iter().map(|p| p.isr().len()).min().unwrap_or(0);
                    let replicas = known.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                    fewest.insert(topic.clone(), Fewest { replicas, in_sync });
                    findings.push(if replicas < 2 {
                        Finding::Weak(format!(
                            "topic {topic} has one replica: an acknowledgement survives a process, not a machine"
                        ))
                    } else {
                        Finding::Fine(format!("topic {topic}, {replicas} replicas"))
                    });
                }
                Some(_) | None => missing.push(topic.clone()),
            }
        }
        findings.extend(unreached(leaders).await);
        findings.extend(self.settings(topics, &missing, &fewest).await);
        findings.extend(self.missing(&missing).await);
        findings
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
        self.properties.load().administrator().create()
    }

    /// Topics that take nothing for want of replicas; of which one replica's word is enough for an acknowledgement; that do not keep what
    /// they took; and that take less than the client sends at once.
    async fn settings(
        &self,
        topics: &[Text],
        missing: &[Text],
        fewest: &HashMap<Text, Fewest>,
    ) -> Vec<Finding> {
        let there: Vec<&Text> = topics.iter().filter(|topic| !missing.contains(topic)).collect();
        let Ok(admin) = self.admin() else { return Vec::new() };
        let asked: Vec<ResourceSpecifier<'_>> =
            there.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let Ok(Ok(answers)) = timeout(ASK, admin.describe_configs(asked.iter(), &options)).await else {
            return Vec::new();
        };
        let sends = self.properties.load().largest_batch();
        // One may not be asked for: the answers behind it are still those of their topics.
        let answered =
            answers.into_iter().zip(there).filter_map(|(answer, topic)| Some((answer.ok()?, topic)));
        let weak = answered.flat_map(|(answer, topic)| {
            let settings = answer.entry_map();
            let setting = |name| settings.get(name).and_then(|entry| entry.value.as_deref());
            let takes = setting("max.message.bytes").and_then(|bytes| bytes.parse::<u64>().ok());
            let found = [
                (setting("min.insync.replicas") == Some("1")).then(|| {
                    "min.insync.replicas 1: one broker's word is enough for an acknowledgement".to_owned()
                }),
                setting("cleanup.policy").filter(|policy| policy.contains("compact")).map(|policy| {
                    format!("cleanup.policy {policy}: of each vehicle's events only the newest stays there")
                }),
                takes.filter(|takes| *takes < sends).map(|takes| {
                    format!(
                        "max.message.bytes {takes}, and batches may have {sends} bytes: one that is refused holds its vehicles up, and may change the order of their events; raise it, or set batch.size to {takes} in bus.kafka.properties"
                    )
                }),
            ];
            let wanted = setting("min.insync.replicas").and_then(|count| count.parse::<usize>().ok());
            let lacks = wanted.zip(fewest.get(topic).copied()).and_then(|(wanted, fewest)| fewest.lack(topic, wanted));
            let weak = found.into_iter().flatten();
            let weak = weak.map(move |found| Finding::Weak(format!("topic {topic} has {found}")));
            lacks.into_iter().chain(weak)
        });
        weak.collect()
    }

    async fn missing(&self, missing: &[Text]) -> Vec<Finding> {
        let told = |topic: &Text| Finding::Missing {
            what: format!("topic {topic}"),
            command: format!(
                "kafka-topics.sh --bootstrap-server {} --create --topic {topic}",
                self.kafka.brokers.split(',').next().unwrap_or_default()
            ),
        };
        if missing.is_empty() || self.kafka.create == config::Create::Never {
            return missing.iter().map(told).collect();
        }
        let Ok(admin) = self.admin() else { return missing.iter().map(told).collect() };
        let wanted: Vec<NewTopic<'_>> =
            missing.iter().map(|topic| NewTopic::new(topic, -1, TopicReplication::Fixed(-1))).collect();
        let options = AdminOptions::new().request_timeout(Some(ASK));
        match timeout(ASK, admin.create_topics(wanted.iter(), &options)).await {
            Ok(Ok(results)) => results
                .into_iter()
                .zip(missing)
                .map(|(result, topic)| match result {
                    Ok(name) => Finding::Made(format!("topic {name}")),
                    Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => {
                        Finding::Fine(format!("topic {name}"))
                    }
                    Err(_) => told(topic),
                })
                .collect(),
            Ok(Err(_)) | Err(_) => missing.iter().map(told).collect(),
        }
    }
}
