//! What a stream's settings and state promise of an event that it acknowledged, and whether it takes any. Pure: what the servers said of
//! the stream in, findings out.

use async_nats::jetstream::account::Account;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};

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
        // The leader is not among those that it names; without one all are.
        let is_led = cluster.leader.as_deref().is_some_and(|leader| !leader.is_empty());
        let servers = cluster.replicas.len() + usize::from(is_led);
        let there = servers - cluster.replicas.iter().filter(|peer| peer.offline).count();
        if !is_led || there * 2 <= servers {
            let what = format!("stream {name} has no quorum: {there} of its {servers} servers are there");
            return Some((what, "bring servers back".to_owned()));
        }
    }
    let is_full = |most: i64, has: u64| u64::try_from(most).is_ok_and(|most| most > 0 && has >= most);
    // A full one has room for less than one more.
    let bytes = state.bytes.saturating_add(message_bytes(info));
    if config.discard == DiscardPolicy::New
        && (is_full(config.max_bytes, bytes) || is_full(config.max_messages, state.messages))
    {
        let fix = format!("raise its limits, or purge it: `nats stream edit {name}`");
        return Some((format!("stream {name} is full, and refuses what is new"), fix));
    }
    None
}

/// What one of its messages takes, as far as it has any.
fn message_bytes(info: &Info) -> u64 {
    info.state.bytes.checked_div(info.state.messages).unwrap_or(0)
}

/// Where the account has no room for one more message of the stream.
pub(super) fn account_is_full(account: &Account, info: &Info) -> Option<Finding> {
    // A limit of a tier is that of streams with so many replicas.
    let tier = account.tiers.get(&format!("R{}", info.config.num_replicas));
    let (limits, storage, memory) = tier.map_or((&account.limits, account.storage, account.memory), |tier| {
        (&tier.limits, tier.storage, tier.memory)
    });
    let (most, has) = match info.config.storage {
        StorageType::File => (limits.max_storage, storage),
        StorageType::Memory => (limits.max_memory, memory),
    };
    let most = most.and_then(|most| u64::try_from(most).ok())?;
    (has.saturating_add(message_bytes(info).max(1)) > most).then(|| Finding::Unusable {
        what: format!("the account has {has} of {most} bytes for its streams: it takes nothing more"),
        fix: "raise its limits, or purge its streams".to_owned(),
    })
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
    if config.persist_mode == Some(PersistenceMode::Async) {
        weak.push(format!(
            "stream {name} has persist_mode async: it acknowledges what is not written yet, which survives no kill of its server"
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
    if let Some(transform) = &config.subject_transform {
        weak.push(format!(
            "stream {name} stores what comes under {} instead: consumers have to ask for that",
            transform.destination
        ));
    }
    if config.discard == DiscardPolicy::New && config.discard_new_per_subject {
        weak.push(format!(
            "stream {name} keeps {} of each vehicle's events of a type, and refuses the next",
            config.max_messages_per_subject
        ));
    }
    if config.discard == DiscardPolicy::Old && config.max_messages_per_subject > 0 {
        weak.push(format!(
            "stream {name} keeps {} of each vehicle's events of a type: older ones go, read or not",
            config.max_messages_per_subject
        ));
    }
    weak
}
