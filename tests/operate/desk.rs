//! An operator at a desk: a bridge on the local bus as a child process, asked by HTTP and by command line.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::bridge::{Bridge, TOKEN, acme, configure};

/// Nothing here takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// See the file.
pub struct Desk {
    pub bridge: Bridge,
    folder: TempDir,
    config: std::path::PathBuf,
    client: reqwest::Client,
}

impl Desk {
    /// One account with a webhook, and these further parts of the configuration.
    pub async fn open(rest: &str) -> Self {
        Self::with(acme(), rest).await
    }

    /// With these accounts.
    pub async fn with(accounts: &str, rest: &str) -> Self {
        Self::on("bus: { local: {} }", accounts, rest).await
    }

    /// On another bus.
    pub async fn on(bus: &str, accounts: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rest = format!("delivery: {{ drain_delay: 0s }}\n{rest}");
        let config = configure(folder.path(), bus, accounts, &rest);
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let bridge = Bridge::start(&config);
        let desk = Self { bridge, folder, config, client };
        desk.ready().await;
        desk
    }

    async fn ready(&self) {
        self.eventually("the bridge is ready", async || self.get("/readyz?verbose").await.0 == 200).await;
    }

    /// Its configuration reads otherwise from now on. What the reload was answered.
    pub async fn reconfigured(&self, old: &str, new: &str) -> (u16, Value) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(old), "{text}");
        std::fs::write(&self.config, text.replace(old, new)).unwrap();
        self.json(Method::POST, "/v1/reload", &json!({})).await
    }

    /// kill -9; its folder is left.
    pub fn killed(self) -> TempDir {
        self.bridge.kill9();
        self.folder
    }

    /// kill -9, and the same again.
    pub async fn killed_and_started(self) -> Self {
        self.killed_changed_and_started(|_| ()).await
    }

    /// kill -9, a change of what is in its folder, and the same again.
    pub async fn killed_changed_and_started(self, change: impl FnOnce(&Path)) -> Self {
        let Self { bridge, folder, config, client } = self;
        bridge.kill9();
        change(folder.path());
        let bridge = Bridge::start(&config);
        let desk = Self { bridge, folder, config, client };
        desk.ready().await;
        desk
    }

    /// SIGTERM, and the same again.
    pub async fn stopped_and_started(self) -> Self {
        let Self { bridge, folder, config, client } = self;
        assert!(bridge.stop().success());
        let bridge = Bridge::start(&config);
        let desk = Self { bridge, folder, config, client };
        desk.ready().await;
        desk
    }

    /// A file in its folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Where a file in its folder is, or may be made.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, "application/json", String::new()).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(Method::DELETE, path, "application/json", String::new()).await
    }

    pub async fn json(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        self.send(method, path, "application/json", body.to_string()).await
    }

    pub async fn send(&self, method: Method, path: &str, form: &str, body: String) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.bridge.admin));
        let answer = request.header("content-type", form).body(body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Posts a message as the provider would.
    pub async fn push(&self, body: &Value) -> Value {
        self.push_to("acme", body).await
    }

    /// The same, to one of several accounts.
    pub async fn push_to(&self, account: &str, body: &Value) -> Value {
        let url = format!("{}/webhooks/{account}", self.bridge.webhook);
        let answer = self.client.post(url).header("authorization", TOKEN).body(body.to_string()).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        answer.json().await.unwrap()
    }

    /// All events of the local bus.
    pub async fn events(&self) -> Vec<Value> {
        let (status, text) = self.get("/v1/events?after=0&follow=false").await;
        assert_eq!(status, 200, "{text}");
        match text {
            Value::String(text) => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            one => vec![one],
        }
    }

    /// Runs the command line against this bridge; standard error is no terminal.
    pub async fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command.args(arguments).env("FLEETBUS_ADMIN", &self.bridge.admin).stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output());
        let Output { status, stdout, stderr } = timeout(PATIENCE, ran).await.unwrap().unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    pub async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let held = timeout(PATIENCE, wait).await;
        assert!(held.is_ok(), "never: {what}; log:\n{}", self.bridge.log_text());
    }
}

/// Six hours ago: within the horizon of dedup, whenever the tests run.
static BASE: LazyLock<i64> = LazyLock::new(|| jiff::Timestamp::now().as_millisecond() - 6 * 3_600_000);

/// A position of a tracker.
pub fn position(imei: &str, second: i64) -> Value {
    json!({"pushType": "POSITION", "imei": imei, "date": *BASE + second * 1_000,
        "latitude": 35.1, "longitude": -80.8, "speed": 30, "vin": "1FTFW1E50AFB00001"})
}
