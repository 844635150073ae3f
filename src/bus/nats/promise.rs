//! What a stream's settings and state promise of an event that it acknowledged, and whether it takes any. Pure: what the servers said of
//! the stream in, findings out.

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};

use super::subjects::{covers, everything};
use crate::bus::Finding;
use crate::event::Text;

/// What is to be known of the stream for these topics.
pub(super) fn findings(name: &str, info: &Info, topics: &[Text]) -> Vec<Finding> {
    if let Some((what, fix)) = takes_nothing(name, info) {
        return vec![Finding::Unusable { what, fix }];
    }
    let mut findings = vec![Finding::Fine(format!("stream {name}"))];
    findings.extend(uncovered(name, &info.config.subjects, topics));
    findings.extend(weak(name, &info.config).into_iter().map(Finding::Weak));
    findings
}

/// Why it takes or acknowledges nothing, and what helps.
fn takes_nothing(name: &str, info: &Info) -> Option<(String, String)> {
    let (config, state) = (&info.config, &info.state);
    if config.mirror.is_some() {
        let fix = "name the stream that it mirrors as bus.nats.stream".to_owned();
        return Some((format!("stream {name} is a mirror, and takes no events"), fix));
    }
    if config.sealed {
        return Some((
            format!("stream {name} is sealed, and takes no events"),
            "name another one".to_owned(),
        ));
    }
    if config.no_ack {
        let fix = "make it with acknowledgements (`no_ack: false`)".to_owned();
        return Some((format!("stream {name} acknowledges nothing: every event would stay parked"), fix));
    }
    if let Some(cluster) = &info.cluster {
        let servers = cluster.replicas.len() + 1;
        let there = servers - cluster.replicas.iter().filter(|peer| peer.offline).count();
        let is_led = cluster.leader.as_deref().is_some_and(|leader| !leader.is_empty());
        if !is_led || there * 2 <= servers {
            let what = format!("stream {name} has no quorum: {there} of its {servers} servers are there");
            return Some((what, "bring servers back".to_owned()));
        }
    }
    let is_full = |most: i64, has: u64| u64::try_from(most).is_ok_and(|most| most > 0 && has >= most);
    if config.discard == DiscardPolicy::New
        && (is_full(config.max_bytes, state.bytes) || is_full(config.max_messages, state.messages))
    {
        let fix = format!("raise its limits, or purge it: `nats stream edit {name}`");
        return Some((format!("stream {name} is full, and refuses what is new"), fix));
    }
    None
}

/// The topics that it does not take, with the command that adds them to what it has: an edit replaces all subjects of a stream.
fn uncovered(name: &str, held: &[String], topics: &[Text]) -> Option<Finding> {
    let is_held = |topic: &&Text| held.iter().any(|held| covers(held, topic));
    let missing: Vec<Text> = topics.iter().filter(|topic| !is_held(topic)).cloned().collect();
    if missing.is_empty() {
        return None;
    }
    // Where all of a root is missing, the root as a whole; beside what it has of one, a wildcard would overlap.
    let roots = everything(&missing);
    let overlaps = |root: &String| held.iter().any(|held| covers(root, held));
    let added =
        if roots.iter().any(overlaps) { missing.iter().map(ToString::to_string).collect() } else { roots };
    let all = [held.to_vec(), added.clone()].concat();
    Some(Finding::Missing {
        what: format!("of stream {name}: {}", added.join(", ")),
        command: format!("nats stream edit {name} --subjects '{}'", all.join(",")),
    })
}

/// What an acknowledgement of it does not mean.
fn weak(name: &str, config: &Config) -> Vec<String> {
    let mut weak = Vec::new();
    if config.storage == StorageType::Memory {
        weak.push(format!(
            "stream {name} is kept in memory: an acknowledgement survives no restart of its servers"
        ));
    } else if config.num_replicas < 2 {
        weak.push(format!(
            "stream {name} has one replica: an acknowledgement survives a process, not a machine; a server syncs to disk every two minutes unless `sync_interval: always` is set"
        ));
    }
    match config.retention {
        RetentionPolicy::Limits => {}
        RetentionPolicy::Interest => weak.push(format!(
            "stream {name} has retention interest: what no consumer waits for is acknowledged and not kept"
        )),
        RetentionPolicy::WorkQueue => weak.push(format!(
            "stream {name} has retention workqueue: what one consumer has taken no other one sees"
        )),
    }
    if config.discard == DiscardPolicy::Old && config.max_messages_per_subject > 0 {
        weak.push(format!(
            "stream {name} keeps {} of each vehicle's events of a type: older ones go, read or not",
            config.max_messages_per_subject
        ));
    }
    weak
}
