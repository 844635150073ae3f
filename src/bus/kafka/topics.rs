//! What Kafka has, lacks and promises: topics, replicas and limits, looked up at start and by `check --connect`; made where
//! that is configured.

use std::collections::HashMap;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use tokio::time::timeout;

use super::{ASK, KafkaBus};
use crate::bus::Finding;
use crate::config;
use crate::event::Text;

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
        let mut findings = Vec::new();
        let mut missing = Vec::new();
        let mut fewest_in_sync = HashMap::new();
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
                    fewest_in_sync.insert(topic.clone(), in_sync);
                    let fewest = known.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                    findings.push(if fewest < 2 {
                        Finding::Weak(format!(
                            "topic {topic} has one replica: an acknowledgement survives a process, not a machine"
                        ))
                    } else {
                        Finding::Fine(format!("topic {topic}, {fewest} replicas"))
                    });
                }
                Some(_) | None => missing.push(topic.clone()),
            }
        }
        findings.extend(self.settings(topics, &missing, &fewest_in_sync).await);
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
        fewest_in_sync: &HashMap<Text, usize>,
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
            let in_sync = fewest_in_sync.get(topic).copied();
            let lacks = wanted.zip(in_sync).filter(|(wanted, in_sync)| in_sync < wanted);
            let lacks = lacks.map(|(wanted, in_sync)| Finding::Unusable {
                what: format!("topic {topic} has a partition with {in_sync} replicas in sync, of {wanted} that it wants: it takes nothing"),
                fix: "bring brokers back".to_owned(),
            });
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
