//! Every metric's name, help and labels, in one file, as a pure function of one [`Snapshot`]. Labels come from closed sets:
//! configured accounts, types, reasons, feeds, ports; never a subject or a topic. `docs/operate.md` says what to do about
//! each. Invariant: received = delivered + parked + duplicate + rejected + in flight, for every account and type.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::snapshot::{BusState, FeedReading, Snapshot};
use super::status::Readiness;
use crate::config;
use crate::deliver::counts::Reading;
use crate::event::Millis;
use crate::latency::Histograms;
use crate::replay::{Kind, StoreHealth, WaitsFor};
use crate::version::{REVISION, VERSION};

/// What a scrape answers.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An account and a type of event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEvents {
    account: String,
    r#type: &'static str,
}

/// An account, or `_unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAccount {
    account: String,
}

/// An account, or `_unknown`, and a status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAnswers {
    account: String,
    status: u32,
}

/// An account, and why its messages are parked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfParked {
    account: String,
    reason: &'static str,
}

/// Whom parked messages wait for: `bus` or `operator`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWaiting {
    waits_for: &'static str,
}

/// How rows left the store undelivered: `evicted`, `expired` or `discarded`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLost {
    how: &'static str,
}

/// What waits for the store's thread: `parks` or `changes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQueue {
    queue: &'static str,
}

/// A state of the store: `well`, `full`, `failing` or `broken`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfHealth {
    state: &'static str,
}

/// A port: `webhooks` or `admin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPort {
    port: &'static str,
}

/// A polled feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFeed {
    account: String,
    api: &'static str,
    feed: &'static str,
}

/// A polled feed, and how its polls ended: `succeeded` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPolls {
    account: String,
    api: &'static str,
    feed: &'static str,
    result: &'static str,
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBuild {
    version: &'static str,
    revision: &'static str,
}

/// No labels.
type Alone = Vec<(String, String)>;

/// Writes all metrics in the OpenMetrics text format.
///
/// # Errors
/// Never for lack of anything but memory.
pub fn render(snapshot: &Snapshot, accounts: &[config::Account]) -> Result<String, fmt::Error> {
    let mut page = Page(Registry::with_prefix("fleetbus"));
    process(&mut page, snapshot);
    events(&mut page, snapshot);
    webhooks(&mut page, snapshot, accounts);
    feeds(&mut page, snapshot);
    delivery(&mut page, snapshot);
    store(&mut page, snapshot, accounts);
    let mut written = String::new();
    text::encode(&mut written, &page.0)?;
    Ok(written)
}

fn process(page: &mut Page, snapshot: &Snapshot) {
    let build = OfBuild { version: VERSION, revision: REVISION };
    page.gauge("build_info", "the program that runs; always 1", [(build, 1)]);
    let ready = Readiness::of(snapshot, &[]).is_ready();
    page.single("ready", "1 while /readyz answers 200", u64::from(ready));
    let lost = "lines of the log that were lost, for nobody reads them";
    page.total("log_lines_lost", lost, snapshot.log_lines_lost);
    let not_sent = "spans that were not sent: the collector is away, or refuses them";
    page.total("spans_not_sent", not_sent, snapshot.spans_not_sent);
    let ports = || snapshot.connections.iter().map(|(port, open, bound)| (OfPort { port }, *open, *bound));
    page.gauge("connections", "open connections", ports().map(|(port, open, _)| (port, open)));
    page.gauge(
        "connections_max",
        "connections that a port takes; more wait",
        ports().map(|(p, _, max)| (p, max)),
    );
}

fn events(page: &mut Page, snapshot: &Snapshot) {
    let of = |value: fn(&Reading) -> u64| {
        snapshot.events.iter().map(move |(account, event_type, reading)| {
            let labels = OfEvents { account: account.as_str().to_owned(), r#type: event_type.as_str() };
            (labels, value(reading))
        })
    };
    page.counter("events_received", "events decoded and identified", of(|r| r.received));
    page.counter("events_delivered", "events that the bus acknowledged in time", of(|r| r.delivered));
    page.counter("events_parked", "events that were written to the replay store instead", of(|r| r.parked));
    page.counter("events_duplicate", "events that were known already", of(|r| r.duplicates));
    page.counter(
        "events_rejected",
        "events neither delivered nor kept: their sender was told",
        of(|r| r.rejected),
    );
    page.gauge("events_in_flight", "events received, and not yet any of the others", of(Reading::in_flight));
}

fn webhooks(page: &mut Page, snapshot: &Snapshot, accounts: &[config::Account]) {
    let answers = snapshot.webhooks.iter().flat_map(|reading| {
        let account = reading.account.clone();
        reading.answers.iter().map(move |(status, count)| {
            (OfAnswers { account: account.clone(), status: u32::from(*status) }, *count)
        })
    });
    page.counter("webhook_answers", "webhook requests answered", answers);
    let of =
        || snapshot.webhooks.iter().map(|reading| (OfAccount { account: reading.account.clone() }, reading));
    let hang_ups = of().map(|(account, reading)| (account, reading.hang_ups));
    page.counter(
        "webhook_hang_ups",
        "senders that hung up before the answer; nothing is lost by it",
        hang_ups,
    );
    // One of which nothing ever comes is silent, too.
    let pushes = accounts.iter().filter(|account| account.webhook.is_some());
    let awaited: HashSet<&str> = pushes.map(|account| account.id.as_str()).collect();
    let last = of()
        .filter(|(_, reading)| awaited.contains(&*reading.account))
        .map(|(account, reading)| (account, reading.last_taken.unwrap_or(reading.since)));
    let taken = "when a request was last answered 201; before the first, since when it may come";
    page.times("webhook_last_taken_timestamp_seconds", taken, last);
    let contradicted =
        "messages of another type than the URL says to which they were posted; the message is believed";
    page.total("webhook_contradicted_hints", contradicted, snapshot.contradicted_hints);
    let answering = snapshot.answering.clone();
    page.histograms(
        "webhook_duration_seconds",
        "from a request's headers to its answer; tokens that are refused do not count",
        answering,
    );
}

fn feeds(page: &mut Page, snapshot: &Snapshot) {
    let polls = snapshot.feeds.iter().flat_map(|feed| {
        [("succeeded", feed.succeeded), ("failed", feed.failed)].map(|(result, count)| {
            let OfFeed { account, api, feed } = OfFeed::of(feed);
            (OfPolls { account, api, feed, result }, count)
        })
    });
    page.counter("feed_polls", "polls of a feed that ended", polls);
    let of = || snapshot.feeds.iter().map(|feed| (OfFeed::of(feed), feed));
    page.counter("feed_rows", "rows that a feed yielded", of().map(|(labels, feed)| (labels, feed.rows)));
    let skipped = of().map(|(labels, feed)| (labels, feed.skipped));
    page.counter(
        "feed_rows_skipped",
        "rows of a feed of which not everything became an event by rule",
        skipped,
    );
    let in_a_row = of().map(|(labels, feed)| (labels, feed.failed_in_a_row));
    page.gauge("feed_failures_in_a_row", "polls that failed since one last succeeded", in_a_row);
    let last = of().filter_map(|(labels, feed)| Some((labels, feed.last_success?)));
    page.times("feed_last_success_timestamp_seconds", "when a poll last succeeded", last);
    let lag = of().filter_map(|(labels, feed)| Some((labels, seconds_since(feed.cursor?, snapshot.now))));
    page.gauge("feed_lag_seconds", "how far behind now a feed has been fetched", lag);
}

fn delivery(page: &mut Page, snapshot: &Snapshot) {
    let available = u64::from(snapshot.bus == BusState::Available);
    page.single("bus_available", "1 while the bus's client has a connection", available);
    page.single(
        "breaker_open",
        "1 while events are parked without an attempt",
        u64::from(snapshot.breaker_open),
    );
    page.single(
        "bus_silent_seconds",
        "for how long attempts have failed and none was acknowledged; 0 below ten seconds",
        snapshot.silent_for.map_or(0, |silent| silent.as_secs()),
    );
    page.single("topics_refused", "topics that the bus refuses", snapshot.refused_topics);
    page.single("lanes_behind", "lanes whose parked events wait for the bus", snapshot.lanes_behind);
    page.single("events_behind", "parked events of those lanes", snapshot.events_behind);
    let publishing = snapshot.publishing.clone();
    page.histograms(
        "publish_duration_seconds",
        "from an event's admission to the bus's acknowledgement, where that came in time",
        publishing,
    );
    page.total("events_drained", "parked events that were delivered", snapshot.drained);
    let late = "attempts that the bus acknowledged after their event had been parked";
    page.total("late_acknowledgements", late, snapshot.late_acknowledgements);
    let beyond = "events too old, or too far ahead, for dedup to remember: published";
    page.total("dedup_beyond_horizon", beyond, snapshot.beyond_horizon);
    page.total("dedup_look_ups", "look-ups of dedup on disk", snapshot.dedup_look_ups);
    page.total("dedup_look_ups_failed", "those that failed: counted as new", snapshot.dedup_look_ups_failed);
    page.total("dedup_not_written", "ids that could not be written down", snapshot.dedup_not_written);
}

fn store(page: &mut Page, snapshot: &Snapshot, accounts: &[config::Account]) {
    let store = &snapshot.store;
    let of = || {
        store.depths.iter().map(|(account, kind, count)| {
            (OfParked { account: account.as_str().to_owned(), reason: Kind::as_str(*kind) }, *count)
        })
    };
    page.gauge(
        "parked_messages",
        "messages in the replay store",
        of().map(|(labels, count)| (labels, count.rows)),
    );
    page.gauge(
        "parked_bytes",
        "what they count for in the quotas",
        of().map(|(labels, count)| (labels, count.bytes)),
    );
    let quotas = accounts
        .iter()
        .map(|account| (OfAccount { account: account.id.as_str().to_owned() }, account.limits.parked));
    page.gauge("account_parked_max_bytes", "what may wait for the bus of an account", quotas);
    let oldest = [(WaitsFor::Bus, store.oldest_for_bus), (WaitsFor::Operator, store.oldest_for_operator)];
    let ages = oldest.map(|(whom, oldest)| {
        (OfWaiting::of(whom), oldest.map_or(0.0, |oldest| seconds_since(oldest, snapshot.now)))
    });
    page.gauge("parked_oldest_age_seconds", "the oldest parked message, to the minute; 0: none", ages);
    let expiring =
        [(WaitsFor::Bus, store.expiring_for_bus), (WaitsFor::Operator, store.expiring_for_operator)];
    let expiring = expiring.map(|(whom, rows)| (OfWaiting::of(whom), rows));
    page.gauge("parked_expiring", "parked messages that are removed within a day", expiring);
    let lost = [("evicted", store.evicted), ("expired", store.expired), ("discarded", store.discarded)];
    let lost = lost.map(|(how, rows)| (OfLost { how }, rows));
    page.counter("parked_lost", "parked messages that left undelivered", lost);
    page.total(
        "parked_damaged",
        "parked messages not sent, as their bytes changed on the disk",
        store.damaged,
    );
    page.total(
        "store_entries_damaged",
        "reads of cursors, tokens and the like whose bytes changed on the disk",
        store.damaged_entries,
    );
    let queues = [("parks", store.queued_parks), ("changes", store.queued_changes)];
    let queues = queues.map(|(queue, rows)| (OfQueue { queue }, rows));
    page.gauge("store_queued", "rows that wait for the store's thread", queues);
    let states = [
        ("well", StoreHealth::Well),
        ("full", StoreHealth::Full),
        ("failing", StoreHealth::Failing),
        ("hanging", StoreHealth::Hanging),
        ("broken", StoreHealth::Broken),
    ];
    let states = states.map(|(state, health)| (OfHealth { state }, u64::from(store.health == health)));
    page.gauge("store_health", "1 for the state in which the store is", states);
    page.single("store_file_bytes", "the store's file, free pages included", store.file_bytes);
    page.single("store_max_bytes", "what the store may hold", snapshot.store_max_bytes);
    page.total("store_commits", "transactions", store.commits);
}

impl OfFeed {
    fn of(feed: &FeedReading) -> Self {
        Self { account: feed.account.as_str().to_owned(), api: feed.api.as_str(), feed: feed.feed.as_str() }
    }
}

impl OfWaiting {
    const fn of(whom: WaitsFor) -> Self {
        match whom {
            WaitsFor::Bus => Self { waits_for: "bus" },
            WaitsFor::Operator => Self { waits_for: "operator" },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double for 200,000 years")]
const fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

const fn seconds_since(then: Millis, now: Millis) -> f64 {
    seconds(now.0.saturating_sub(then.0)).max(0.0)
}

/// A gauge's value.
trait Value {
    fn set(self, gauge: &Gauge<f64, AtomicU64>);
}

impl Value for f64 {
    fn set(self, gauge: &Gauge<f64, AtomicU64>) {
        gauge.set(self);
    }
}

impl Value for u64 {
    #[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^53")]
    fn set(self, gauge: &Gauge<f64, AtomicU64>) {
        gauge.set(self as f64);
    }
}

/// Labels of a family.
trait Labels: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static {}

impl<L: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static> Labels for L {}

/// One scrape.
struct Page(Registry);

impl Page {
    fn counter<L: Labels>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (L, u64)>) {
        let family = Family::<L, Counter>::default();
        for (labels, value) in rows {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn gauge<L: Labels, V: Value>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (L, V)>) {
        let family = Family::<L, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in rows {
            value.set(&family.get_or_create(&labels));
        }
        self.0.register(name, help, family);
    }

    fn histograms(&mut self, name: &str, help: &str, histograms: Histograms) {
        self.0.register(name, help, histograms);
    }

    fn times<L: Labels>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (L, Millis)>) {
        self.gauge(name, help, rows.into_iter().map(|(labels, time)| (labels, seconds(time.0))));
    }

    fn single(&mut self, name: &str, help: &str, value: u64) {
        self.gauge(name, help, [(Alone::new(), value)]);
    }

    fn total(&mut self, name: &str, help: &str, value: u64) {
        self.counter(name, help, [(Alone::new(), value)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::snapshot::{self, WebhookReading};
    use crate::event::{AccountId, EventType};
    use crate::provider::{Feed, PullApi};

    fn page(snapshot: &Snapshot) -> String {
        render(snapshot, &[snapshot::account(1_000)]).unwrap()
    }

    #[test]
    fn received_is_the_sum_of_all_that_can_become_of_an_event() {
        let reading = Reading { received: 21, delivered: 1, parked: 2, duplicates: 3, rejected: 4 };
        let events = vec![(AccountId::new("acme"), EventType::Trip, reading)];
        let page = page(&Snapshot { events, ..Snapshot::well() });
        let value = |name: &str| -> f64 {
            let line = format!("fleetbus_events_{name}{{account=\"acme\",type=\"trip\"}} ");
            page.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse().unwrap()
        };
        let fates = ["delivered_total", "parked_total", "duplicate_total", "rejected_total", "in_flight"];
        assert!((value("received_total") - fates.map(value).iter().sum::<f64>()).abs() < f64::EPSILON);
    }

    #[test]
    fn a_page_is_well_formed_and_its_times_are_seconds() {
        let feed = FeedReading {
            account: AccountId::new("acme"),
            api: PullApi::V2,
            feed: Feed::UsageHours,
            succeeded: 5,
            failed: 1,
            failed_in_a_row: 0,
            rows: 9,
            skipped: 2,
            last_success: Some(Millis(1_500)),
            cursor: Some(Millis(-500)),
        };
        let webhooks = ["acme", "_unknown"].map(|account| WebhookReading {
            account: account.to_owned(),
            answers: vec![(404, 2)],
            hang_ups: 0,
            last_taken: None,
            since: Millis(1_000),
        });
        let webhooks = webhooks.into();
        let page = page(&Snapshot { now: Millis(2_000), feeds: vec![feed], webhooks, ..Snapshot::well() });
        let labels = "{account=\"acme\",api=\"v2\",feed=\"usage-hours\"}";
        for line in [
            format!("fleetbus_feed_last_success_timestamp_seconds{labels} 1.5"),
            format!("fleetbus_feed_lag_seconds{labels} 2.5"),
            "fleetbus_webhook_answers_total{account=\"_unknown\",status=\"404\"} 2".to_owned(),
            "fleetbus_webhook_last_taken_timestamp_seconds{account=\"acme\"} 1.0".to_owned(),
            "fleetbus_account_parked_max_bytes{account=\"acme\"} 1000.0".to_owned(),
            "# EOF".to_owned(),
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("last_taken_timestamp_seconds{account=\"_unknown\"}"), "nobody waits for it");
        let families = page.lines().filter(|line| line.starts_with("# TYPE ")).collect::<Vec<_>>();
        let distinct: HashSet<_> = families.iter().collect();
        assert_eq!(families.len(), distinct.len(), "a metric is written twice");
    }
}
