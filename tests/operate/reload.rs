//! Reloads while the store fails: what runs goes on, and what is in force is said to be.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use fleetbus::admin::ReloadError;
use fleetbus::app::{self, Handle};
use fleetbus::config::{self, load::ThisProcess};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{self as process, TOKEN, acme, configure};
use crate::desk::{Desk, PATIENCE, position};

/// Answers that it has nothing, whatever it is asked, and counts how often.
pub async fn provider() -> (String, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let nothing = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { r#"{"responseType":"Success","data":{"rows":[]}}"# }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(nothing);
    TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
    (base, calls)
}

/// A bridge of this process, which polls trips every second.
struct Bridge {
    handle: Handle,
    stop: CancellationToken,
    tracker: TaskTracker,
    folder: TempDir,
}

impl Bridge {
    async fn start(folder: TempDir, base: &str) -> Self {
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("token"), "a-token-of-the-tests").unwrap();
        let text = format!(
            "listen: {{ address: 127.0.0.1:0 }}\nadmin: {{ address: 127.0.0.1:0 }}\ndata_dir: {}\nbus: {{ local: {{}} }}\n\
             delivery: {{ drain_delay: 0s }}\naccounts:\n  - id: acme\n    provider: linxup\n    poll:\n      \
             - {{ api: v2, base_url: \"{base}\", token: {{ file: {} }}, feeds: {{ trips: 1s }} }}\n",
            path("data"),
            path("token")
        );
        std::fs::write(path("fleetbus.yaml"), &text).unwrap();
        let bridge = app::build(config::load(&text, &ThisProcess).unwrap().config).await.unwrap();
        bridge.reloads_from(path("fleetbus.yaml").into());
        let (handle, stop, tracker) = (bridge.handle(), CancellationToken::new(), TaskTracker::new());
        tracker.spawn(bridge.run(stop.clone()));
        Self { handle, stop, tracker, folder }
    }

    fn write(&self, old: &str, new: &str) {
        let path = self.folder.path().join("fleetbus.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace(old, new)).unwrap();
    }

    async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.tracker.close();
        timeout(PATIENCE, self.tracker.wait()).await.expect("it stops");
        self.folder
    }
}

pub async fn more(calls: &AtomicUsize, by: usize) {
    let before = calls.load(Ordering::Relaxed);
    let asked = async {
        while calls.load(Ordering::Relaxed) < before + by {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("it is polled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_ends_no_poll() {
    let (base, calls) = provider().await;
    let bridge = Bridge::start(tempfile::tempdir().unwrap(), &base).await;
    more(&calls, 2).await;
    bridge.handle.store.close();
    bridge.write("trips: 1s", "trips: 2s");
    let failed = bridge.handle.reload("a test").await;
    assert!(matches!(failed, Err(ReloadError::Store(_))), "{failed:?}");
    more(&calls, 3).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_cannot_be_written_down_is_in_force_all_the_same() {
    let (base, calls) = provider().await;
    let folder = Bridge::start(tempfile::tempdir().unwrap(), &base).await.stop().await;
    let store = rusqlite::Connection::open(folder.path().join("data/store.db")).unwrap();
    let refused = "CREATE TRIGGER refuse BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'refused'); END";
    store.execute_batch(refused).unwrap();
    drop(store);
    let bridge = Bridge::start(folder, &base).await;
    more(&calls, 2).await;
    bridge.write("id: acme", "id: zeta");
    let reloaded = bridge.handle.reload("a test").await.unwrap();
    assert_eq!(reloaded.changed, ["account zeta: added", "account acme: removed"]);
    more(&calls, 2).await;
    bridge.stop().await;
}

/// Who writes a file anew may have emptied it a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_accounts_removes_none() {
    let (base, calls) = provider().await;
    let bridge = Bridge::start(tempfile::tempdir().unwrap(), &base).await;
    more(&calls, 2).await;
    std::fs::write(bridge.folder.path().join("fleetbus.yaml"), "").unwrap();
    let failed = bridge.handle.reload("a test").await;
    assert!(matches!(failed, Err(ReloadError::NoAccounts)), "{failed:?}");
    more(&calls, 3).await;
    bridge.stop().await;
}

/// Two lines, the old one and the new one: who sends either would be told that it is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_can_send_replaces_none() {
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let accounts = acme().replace("env: TEST_TOKEN", &format!("file: {}", file.display()));
    let desk = Desk::with(&accounts, "").await;
    std::fs::write(&file, format!("{TOKEN}\na-newer-token-of-the-tests\n")).unwrap();
    let (status, said) = desk.reconfigured("", "").await;
    let names_it = said["errors"].to_string().contains(&file.display().to_string());
    assert_eq!((status, names_it), (422, true), "{said}");
    desk.push(&position("350000000000017", 0)).await;
}

/// Until the restart that its longer horizons need, what it reads again would be published again.
#[tokio::test(flavor = "multi_thread")]
async fn polls_begin_under_no_dedup_that_is_too_short_for_them() {
    let (base, calls) = provider().await;
    let desk = Desk::with(acme(), "dedup: { positions: 1h, others: 1h }").await;
    let polled = format!(
        "{}    poll:\n      - {{ api: v2, base_url: \"{base}\", token: {{ env: TEST_TOKEN }}, feeds: {{ trips: 1s }} }}\n",
        acme()
    );
    desk.reconfigured("positions: 1h, others: 1h", "positions: 48h, others: 48h").await;
    let (status, said) = desk.reconfigured(acme(), &polled).await;
    let names_it = said["detail"].as_str().is_some_and(|detail| detail.contains("`dedup`"));
    assert_eq!((status, names_it, calls.load(Ordering::Relaxed)), (422, true, 0), "{said}");
    let _restarted = desk.stopped_and_started().await;
    more(&calls, 1).await;
}

/// What derives from a key that needs a restart needs it, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_not_written_is_that_of_the_store_that_runs() {
    let desk = Desk::with(acme(), "replay: { max_size: 1GiB }").await;
    let (status, done) = desk.reconfigured("max_size: 1GiB", "max_size: 100MiB").await;
    let said = (status, &done["changed"], &done["needs_restart"]);
    assert_eq!(said, (200, &json!([]), &json!(["replay.max_size"])));
    let quota = async |desk: &Desk| {
        let page = desk.get("/metrics").await.1;
        let line = "fleetbus_account_parked_max_bytes{account=\"acme\"} ";
        let found = page.as_str().unwrap().lines().find_map(|l| l.strip_prefix(line)?.parse::<f64>().ok());
        found.unwrap()
    };
    assert_eq!(quota(&desk).await.to_string(), (1u64 << 30).to_string());
    let desk = desk.stopped_and_started().await;
    assert_eq!(quota(&desk).await.to_string(), (100u64 << 20).to_string());
}

/// As a start does.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_what_one_may_not_expect() {
    let mut desk = Desk::with(acme(), "replay: { retention: 7d }").await;
    let (status, done) = desk.reconfigured("retention: 7d", "retention: 1d").await;
    let note = done["notes"][0].as_str().unwrap_or_default();
    assert_eq!((status, note.starts_with("replay.retention is 1d: ")), (200, true), "{done}");
    assert!(desk.bridge.wait_for_log("config.note", PATIENCE).contains("replay.retention is 1d: "));
}

/// A disk that is slow while the process is told to stop: others wait for what a reload holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_has_begun_goes_on_while_the_bridge_stops() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path(), "bus: { local: {} }", acme(), "delivery: { drain_delay: 30s }");
    let mut bridge = process::Bridge::start(&config);
    let text = std::fs::read_to_string(&config).unwrap().replace("id: acme", "id: zeta");
    std::fs::remove_file(&config).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    bridge.signal(Signal::SIGHUP);
    // It can be opened so once somebody reads it.
    let mut pipe = OpenOptions::new();
    pipe.write(true).custom_flags(nix::libc::O_NONBLOCK);
    let reading = async {
        loop {
            match pipe.open(&config) {
                Ok(pipe) => return pipe,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut pipe = timeout(PATIENCE, reading).await.expect("the bridge reads its file");
    bridge.signal(Signal::SIGTERM);
    bridge.wait_for_log("app.stopping", PATIENCE);
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    assert!(bridge.wait_for_log("config.reloaded", PATIENCE).contains("account zeta: added"));
}

/// A bus that nobody serves: everything is parked.
const NOBODY: &str = "bus: { nats: { url: \"nats://127.0.0.1:1\", subject: \"one.{type}\" } }";

/// Its new events would go to today's topic at once, and what is parked after the next start.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_comes_back_to_events_of_other_topics_by_a_restart() {
    let both = acme().replace("id: acme", "id: back") + acme().trim_start_matches("accounts:\n");
    let desk = Desk::on(NOBODY, &both, "").await;
    desk.push_to("back", &position("350000000000017", 0)).await;
    let config = |folder: &std::path::Path, old: &str, new: &str| {
        let path = folder.join("fleetbus.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        std::fs::write(path, text.replace(old, new)).unwrap();
    };
    let without = |folder: &std::path::Path| {
        config(folder, &both, acme());
        config(folder, "one.{type}", "other.{type}");
    };
    let desk = desk.killed_changed_and_started(without).await;
    let topic = async |desk: &Desk| desk.get("/v1/parked").await.1["parked"][0]["topic"].clone();
    assert_eq!(topic(&desk).await, "one.position");
    let (status, said) = desk.reconfigured(acme(), &both).await;
    let words = "account back has events parked under topics that are not today's";
    assert_eq!((status, said["detail"].as_str().unwrap().contains(words)), (422, true), "{said}");
    let desk = desk.killed_and_started().await;
    assert_eq!(topic(&desk).await, "other.position");
    // As it does where nothing of it waits elsewhere.
    assert_eq!(desk.reconfigured(&both, acme()).await.0, 200);
    assert_eq!(desk.reconfigured(acme(), &both).await.0, 200);
}
