//! What an operator does to a running bridge, by HTTP and by command line, against the program itself: tokens of webhooks and
//! who may make them, accounts, and the log of who did what.

#[path = "support/bridge.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod bridge;

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use bridge::{Bridge, TOKEN, acme, configure};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

const TOKENS: &str = "/v1/accounts/acme/tokens";

/// A bridge with one account, and somebody who asks it.
struct Operator {
    bridge: Bridge,
    client: reqwest::Client,
    admin_token: Option<&'static str>,
}

impl Operator {
    fn of(config: &Path, environment: &[(&str, &str)]) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { bridge: Bridge::start_with(config, environment), client, admin_token: None }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.bridge.admin));
        let request = request.header("content-type", "application/json");
        let request = match self.admin_token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer =
            request.body(body.map(|body| body.to_string()).unwrap_or_default()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(Method::POST, path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    /// What a sender with this token is answered.
    async fn push(&self, token: &str) -> u16 {
        push(&self.client, &self.bridge.webhook, token).await
    }

    fn cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        let command =
            command.args(args).env_remove("FLEETBUS_ADMIN_TOKEN").env("FLEETBUS_ADMIN", &self.bridge.admin);
        self.admin_token.map(|token| command.env("FLEETBUS_ADMIN_TOKEN", token));
        command.output().unwrap()
    }

    fn says(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn push(client: &reqwest::Client, webhook: &str, token: &str) -> u16 {
    let request = client.post(format!("{webhook}/webhooks/acme")).bearer_auth(token).body("[]");
    request.send().await.unwrap().status().as_u16()
}

fn local(dir: &Path, rest: &str) -> std::path::PathBuf {
    configure(
        dir,
        "bus: { local: { retention: 24h } }",
        acme(),
        &format!("delivery: {{ drain_delay: 0s }}\n{rest}"),
    )
}

#[tokio::test]
async fn a_token_is_shown_once_opens_until_it_is_revoked_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = local(dir.path(), "");
    let operator = Operator::of(&config, &[]);
    let made = operator.made(TOKENS, json!({"name": "partner"})).await;
    let (id, token) = (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
    assert_eq!(operator.push(&token).await, 201);
    assert_eq!(operator.push(TOKEN).await, 201);

    let list = operator.get(TOKENS).await.to_string();
    assert!(!list.contains(&token) && list.contains(&token[..8]), "{list}");
    let (status, refused) = operator.ask(Method::DELETE, &format!("{TOKENS}/config"), None).await;
    assert_eq!((status, refused["status"].as_u64()), (409, Some(409)), "{refused}");

    let imported = "the-portal-holds-this-one-already";
    let (status, weak) =
        operator.ask(Method::POST, TOKENS, Some(json!({"token": "aaaaaaaaaaaaaaaaaaaa"}))).await;
    assert_eq!(status, 422, "{weak}");
    let made = operator.made(TOKENS, json!({"token": imported})).await;
    assert_eq!(made["token"], Value::Null, "what was sent is not repeated");
    let (status, twice) = operator.ask(Method::POST, TOKENS, Some(json!({"token": imported}))).await;
    assert_eq!(status, 409, "{twice}");
    assert_eq!(operator.push(imported).await, 201);

    // Nothing is lost where nothing could be tidied up.
    operator.bridge.kill9();
    let operator = Operator::of(&config, &[]);
    assert_eq!((operator.push(&token).await, operator.push(imported).await), (201, 201));
    let (status, _) = operator.ask(Method::DELETE, &format!("{TOKENS}/{id}"), None).await;
    assert_eq!((status, operator.push(&token).await), (200, 401));

    // Of an orderly stop, not even when it was last used.
    assert!(operator.bridge.stop().success());
    let operator = Operator::of(&config, &[]);
    assert_eq!((operator.push(&token).await, operator.push(TOKEN).await), (401, 201));
    let list = operator.get(TOKENS).await;
    assert_eq!(list["tokens"].as_array().map(Vec::len), Some(2), "{list}");
    assert!(list["tokens"][1]["last_used_at"].is_string(), "{list}");

    let acts = operator.get("/v1/audit?act=token.").await;
    let told: Vec<_> =
        acts["acts"].as_array().unwrap().iter().map(|act| act["act"].as_str().unwrap()).collect();
    assert_eq!(told, ["token.revoke", "token.create", "token.create"]);
    assert_eq!(
        (&acts["acts"][2]["who"], &acts["acts"][2]["after"]["name"]),
        (&json!("loopback"), &json!("partner"))
    );
    assert!(!acts.to_string().contains(&token) && !acts.to_string().contains(imported), "{acts}");
    assert!(!operator.bridge.log_text().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_refuses_nobody_who_holds_a_live_token() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::of(&local(dir.path(), ""), &[]);
    let first = operator.made(TOKENS, json!({})).await;
    // Each sender has the token before or the newest, as it would while its configuration is changed.
    let tokens = Arc::new(parking_lot::Mutex::new(vec![first["token"].as_str().unwrap().to_owned(); 2]));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tracker = TaskTracker::new();
    let senders: Vec<_> = (0..8)
        .map(|number| {
            let (tokens, stop, sent) = (Arc::clone(&tokens), Arc::clone(&stop), Arc::clone(&sent));
            let (client, webhook) = (operator.client.clone(), operator.bridge.webhook.clone());
            tracker.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let token = tokens.lock()[number % 2].clone();
                    assert_eq!(push(&client, &webhook, &token).await, 201);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut id = first["id"].as_str().unwrap().to_owned();
    let mut retired = Vec::new();
    for _ in 0..20 {
        let before = sent.load(Ordering::Relaxed);
        let next = operator.made(&format!("{TOKENS}/{id}/rotate"), json!({"overlap": "1h"})).await;
        retired.push(id);
        id = next["id"].as_str().unwrap().to_owned();
        {
            let mut tokens = tokens.lock();
            tokens[0] = tokens[1].clone();
            tokens[1] = next["token"].as_str().unwrap().to_owned();
        }
        while sent.load(Ordering::Relaxed) < before + 16 && senders.iter().all(|sender| !sender.is_finished())
        {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("no sender was refused");
    }
    let old = tokens.lock()[0].clone();
    assert_eq!(operator.push(&old).await, 201);
    let (status, _) =
        operator.ask(Method::DELETE, &format!("{TOKENS}/{}", retired.pop().unwrap()), None).await;
    assert_eq!((status, operator.push(&old).await), (200, 401));
    println!("{} requests, 20 rotations, none refused", sent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_reader_may_look_and_a_guesser_must_wait() {
    let dir = tempfile::tempdir().unwrap();
    let config = local(dir.path(), "");
    let text = std::fs::read_to_string(&config).unwrap().replace(
        "admin: { address: 127.0.0.1:0 }",
        "admin:\n  address: 127.0.0.1:0\n  token: { env: WRITER }\n  tokens: [{ name: grafana, scope: read, token: { env: READER } }]",
    );
    std::fs::write(&config, text).unwrap();
    let mut operator = Operator::of(&config, &[("WRITER", "writers-token"), ("READER", "readers-token")]);
    operator.admin_token = Some("readers-token");
    operator.get(TOKENS).await;
    let (status, refused) = operator.ask(Method::POST, TOKENS, Some(json!({}))).await;
    assert_eq!(status, 403);
    assert!(refused["detail"].as_str().unwrap().contains("grafana may only read"), "{refused}");
    let said = operator.cli(&["tokens", "create", "acme"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("may only read"));

    operator.admin_token = Some("writers-token");
    operator.made(TOKENS, json!({"name": "partner"})).await;
    assert_eq!(operator.get("/v1/audit").await["acts"][0]["who"], "admin");

    // Who sends none guesses none: a page that waits for its token locks nobody out.
    operator.admin_token = None;
    for _ in 0..20 {
        assert_eq!(operator.ask(Method::GET, "/v1/accounts", None).await.0, 401);
    }
    operator.admin_token = Some("readers-token");
    assert_eq!(operator.ask(Method::GET, "/v1/accounts", None).await.0, 200);

    operator.admin_token = Some("a-guess");
    let mut answers = Vec::new();
    for _ in 0..11 {
        answers.push(operator.ask(Method::GET, "/v1/accounts", None).await.0);
    }
    assert_eq!((answers[0], answers[9], answers[10]), (401, 401, 429));
    let url = format!("{}/v1/accounts", operator.bridge.admin);
    let slowed = operator.client.get(url).bearer_auth("a-guess").send().await.unwrap();
    assert!(slowed.headers().contains_key("retry-after"));
    assert_eq!(
        operator.client.get(format!("{}/healthz", operator.bridge.admin)).send().await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn the_command_line_makes_lists_rotates_and_ends_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::of(&local(dir.path(), ""), &[]);
    let token = operator.says(&["tokens", "create", "acme", "--name", "partner"]);
    assert_eq!(operator.push(token.trim()).await, 201);
    let file = dir.path().join("old-token");
    std::fs::write(&file, "one-that-the-portal-holds\n").unwrap();
    operator.says(&["tokens", "create", "acme", "--import", &file.display().to_string()]);
    assert_eq!(operator.push("one-that-the-portal-holds").await, 201);

    let listed: Vec<Value> =
        serde_json::from_str(&operator.says(&["tokens", "list", "acme", "--output", "json"])).unwrap();
    let names: Vec<_> =
        listed.iter().map(|token| (token["origin"].as_str().unwrap(), &token["name"])).collect();
    assert_eq!(
        names,
        [("config", &Value::Null), ("operator", &json!("partner")), ("operator", &Value::Null)]
    );
    let id = listed[1]["id"].as_str().unwrap();
    let next = operator.says(&["tokens", "rotate", "acme", id, "--overlap", "0s"]);
    assert_eq!((operator.push(next.trim()).await, operator.push(token.trim()).await), (201, 401));
    operator.says(&["tokens", "revoke", "acme", id]);
    let table = operator.says(&["tokens", "list", "acme"]);
    assert!(table.starts_with("ID ") && table.lines().count() == 4, "{table}");

    let none = operator.cli(&["tokens", "list", "nobody"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no account with that id"));

    let lines = operator.says(&["audit", "--act", "token.", "--output", "ndjson"]);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(operator.says(&["completions", "bash"]).contains("_fleetbus"));
    let folder = dir.path().join("man").display().to_string();
    operator.says(&["man", "--out", &folder]);
    let page = std::fs::read_to_string(dir.path().join("man/fleetbus-tokens-rotate.1")).unwrap();
    assert!(page.contains("overlap"), "{page}");
}

#[tokio::test]
async fn an_account_is_exported_into_a_file_of_the_folder_where_one_stands() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::of(&local(dir.path(), ""), &[]);
    operator.made(TOKENS, json!({"name": "partner"})).await;
    assert!(operator.bridge.stop().success());
    let exported = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(["account", "export", "acme", "--data-dir", "data", "--to", "acme.fleetbus"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    assert!(dir.path().join("acme.fleetbus").is_file());
    assert!(!dir.path().join("acme.part").exists());
}

/// A provider that has nothing to tell, and the calls that it got: each a path and a query or body.
struct Provider {
    url: String,
    calls: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Provider {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let answer = move |request: axum::extract::Request| {
            let seen = Arc::clone(&seen);
            async move {
                let uri = request.uri().to_string();
                let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap();
                if !uri.contains("company") {
                    seen.lock().push(format!("{uri} {}", String::from_utf8_lossy(&body)));
                }
                r#"{"responseType":"Success","data":{"trips":[],"rows":[]}}"#
            }
        };
        TaskTracker::new()
            .spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        Self { url, calls }
    }

    fn calls(&self) -> usize {
        self.calls.lock().len()
    }
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn polled(dir: &Path, provider: &Provider) -> std::path::PathBuf {
    let config = local(dir, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let poll = format!(
        "    poll: [{{ api: v2, base_url: \"{}\", token: {{ env: TEST_TOKEN }}, feeds: {{ trips: 1s }} }}]\n",
        provider.url
    );
    std::fs::write(
        &config,
        text.replace(
            "{ token: { env: TEST_TOKEN } }\n",
            &format!("{{ token: {{ env: TEST_TOKEN }} }}\n{poll}"),
        ),
    )
    .unwrap();
    config
}

#[tokio::test]
async fn polls_are_paused_and_resumed_and_a_pause_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let config = polled(dir.path(), &provider);
    let operator = Operator::of(&config, &[]);
    let feed = async |operator: &Operator| operator.get("/v1/accounts/acme").await["feeds"][0].clone();
    eventually("an answer", async || feed(&operator).await["last_success"].is_string()).await;
    let shown = feed(&operator).await;
    assert!(shown["lag_seconds"].as_u64().unwrap() < 300 && shown["calls"].as_u64().unwrap() >= 1, "{shown}");

    operator.says(&["accounts", "pause", "acme", "--feed", "v2/trips"]);
    eventually("paused", async || feed(&operator).await["doing"] == "paused").await;
    let calls = provider.calls();
    operator.bridge.kill9();
    let operator = Operator::of(&config, &[]);
    eventually("paused", async || feed(&operator).await["doing"] == "paused").await;
    assert_eq!((feed(&operator).await["paused"].as_bool(), provider.calls()), (Some(true), calls));

    // Of two pauses, each is resumed by itself.
    let said = String::from_utf8(operator.cli(&["accounts", "resume", "acme"]).stderr).unwrap();
    assert!(said.contains("v2/trips was paused by itself, and still is"), "{said}");
    operator.says(&["accounts", "pause", "acme"]);
    operator.says(&["accounts", "resume", "acme", "--feed", "v2/trips"]);
    assert_eq!(feed(&operator).await["paused"], true);
    operator.says(&["accounts", "resume", "acme"]);
    eventually("it polls again", async || provider.calls() > calls).await;
    let (status, twice) = operator.ask(Method::POST, "/v1/accounts/acme/resume", Some(json!({}))).await;
    assert_eq!((status, &twice["changed"]), (200, &json!(false)));
    let (status, _) =
        operator.ask(Method::POST, "/v1/accounts/acme/feeds/v3/trips/pause", Some(json!({}))).await;
    assert_eq!(status, 404);
    assert_eq!(operator.says(&["audit", "--act", "poll.", "--output", "ndjson"]).lines().count(), 4);
    assert!(operator.says(&["accounts"]).contains("acme"));
    assert!(operator.says(&["accounts", "feeds", "acme"]).contains("trips"));
}

#[tokio::test]
async fn a_cursor_is_moved_back_at_once_and_forward_only_where_that_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let operator = Operator::of(&polled(dir.path(), &provider), &[]);
    let feed = async || operator.get("/v1/accounts/acme").await["feeds"][0].clone();
    eventually("a cursor", async || feed().await["fetched_until"].is_string()).await;
    let cursor = "/v1/accounts/acme/feeds/v2/trips/cursor";
    let ago = |hours: i64| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        jiff::Timestamp::from_second(at.as_second()).unwrap()
    };

    // Back: the next window begins there, give or take its overlap.
    let back = ago(100);
    let before = provider.calls();
    let (status, moved) =
        operator.ask(Method::PUT, cursor, Some(json!({"position": back.to_string()}))).await;
    assert_eq!((status, &moved["to"]), (200, &json!(back.to_string())), "{moved}");
    let begins_there = |call: &String| {
        let digits =
            call.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<i64>().ok());
        let mut times = digits.filter(|number| *number > 1_000_000_000_000);
        times.any(|at| (back.as_millisecond() - 3_600_000..=back.as_millisecond()).contains(&at))
    };
    eventually("a window from there", async || provider.calls.lock()[before..].iter().any(begins_there))
        .await;

    operator.says(&["accounts", "pause", "acme"]);
    eventually("paused", async || feed().await["doing"] == "paused").await;
    operator.ask(Method::PUT, cursor, Some(json!({"position": back.to_string()}))).await;
    let there = ago(50);
    let (status, refused) =
        operator.ask(Method::PUT, cursor, Some(json!({"position": there.to_string()}))).await;
    assert_eq!(status, 409);
    let said = refused["detail"].as_str().unwrap();
    assert!(said.contains(&back.to_string()) && said.contains(&there.to_string()), "{said}");
    assert_eq!(feed().await["fetched_until"], back.to_string());
    operator.says(&["accounts", "move-cursor", "acme", "v2/trips", "--to", &there.to_string(), "--confirm"]);
    assert_eq!(feed().await["fetched_until"], there.to_string());
    let ahead = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let (status, _) = operator.ask(Method::PUT, cursor, Some(json!({"position": ahead.to_string()}))).await;
    assert_eq!(status, 422);
    let misused = operator.cli(&["accounts", "move-cursor", "acme", "v2/trips", "--to", "yesterday"]);
    assert_eq!(misused.status.code(), Some(64));
    let acts = operator.get("/v1/audit?act=cursor.").await;
    assert_eq!(acts["acts"][0]["before"]["position"], back.to_string(), "{acts}");
    assert_eq!(acts["acts"][0]["after"]["position"], there.to_string(), "{acts}");
}

#[tokio::test]
async fn a_reload_adds_and_removes_accounts_and_a_broken_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let config = local(dir.path(), "");
    let first = std::fs::read_to_string(&config).unwrap();
    let mut operator = Operator::of(&config, &[]);
    let answered = async |operator: &Operator, account: &str| {
        let url = format!("{}/webhooks/{account}", operator.bridge.webhook);
        operator.client.post(url).bearer_auth(TOKEN).body("[]").send().await.unwrap().status().as_u16()
    };
    assert_eq!((answered(&operator, "acme").await, answered(&operator, "beta").await), (201, 404));

    // A partner's token outlives that its account is gone for a while.
    let partner = operator.made(TOKENS, json!({})).await["token"].as_str().unwrap().to_owned();
    let beta = format!(
        "accounts:\n  - id: beta\n    provider: linxup\n    webhook: {{ token: {{ env: TEST_TOKEN }} }}\n    \
         poll: [{{ api: v2, base_url: \"{}\", token: {{ env: TEST_TOKEN }}, feeds: {{ trips: 1s }} }}]\n",
        provider.url
    );
    let second = first.replace(acme(), &beta).replace("24h", "48h");
    std::fs::write(&config, &second).unwrap();
    let (status, done) = operator.ask(Method::POST, "/v1/reload", Some(json!({}))).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["changed"], json!(["account beta: added", "account acme: removed"]));
    assert_eq!(done["needs_restart"], json!(["bus"]));
    assert_eq!((answered(&operator, "acme").await, answered(&operator, "beta").await), (404, 201));
    eventually("what is new is polled", async || provider.calls() > 0).await;

    // Wrong in two places: both are told, and nothing is otherwise.
    std::fs::write(&config, second.replace("provider: linxup", "provider: lynxup").replace("48h", "soon"))
        .unwrap();
    let (status, wrong) = operator.ask(Method::POST, "/v1/reload", Some(json!({}))).await;
    assert_eq!((status, wrong["errors"].as_array().map(Vec::len)), (422, Some(2)), "{wrong}");
    assert_eq!((answered(&operator, "acme").await, answered(&operator, "beta").await), (404, 201));

    std::fs::write(&config, &first).unwrap();
    operator.bridge.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("acme is back", async || answered(&operator, "acme").await == 201).await;
    assert_eq!((answered(&operator, "beta").await, operator.push(&partner).await), (404, 201));
    eventually("it is written down", async || {
        operator.get("/v1/audit?act=config.").await["acts"][0]["who"] == "SIGHUP"
    })
    .await;
    operator.bridge.wait_for_log("config.reloaded", PATIENCE);
    assert_eq!(operator.get("/v1/accounts").await["accounts"].as_array().map(Vec::len), Some(1));
    assert!(operator.bridge.stop().success());
}

/// A successor that waits until `data_dir` is free, and an operator who does not wait for it.
#[test]
fn a_reload_that_is_asked_for_during_the_start_is_made_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = local(dir.path(), "");
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let held = std::fs::File::create(dir.path().join("data/LOCK")).unwrap();
    held.lock().unwrap();
    let mut command = Command::new(bridge::binary());
    command.args(["run", "--config"]).arg(&config).env("TEST_TOKEN", TOKEN).stderr(Stdio::piped());
    let mut successor = Starting(command.spawn().unwrap());
    let lines = BufReader::new(successor.0.stderr.take().unwrap()).lines();
    let (says, said) = std::sync::mpsc::sync_channel(1_024);
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| says.send(line)));
    let wait_for = |event: &str| loop {
        let line = said.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {event}"));
        if line.contains(&format!("\"message\":\"{event}\"")) {
            return line;
        }
    };
    let process = nix::unistd::Pid::from_raw(successor.0.id().cast_signed());
    wait_for("data_dir.held");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("id: acme", "id: beta")).unwrap();
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGHUP).unwrap();
    drop(held);
    wait_for("admin.listening");
    let line = wait_for("config.reloaded");
    assert!(line.contains("account beta: added"), "{line}");
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(successor.0.wait().unwrap().success());
}

/// Killed when dropped.
struct Starting(Child);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A disk that hangs, as a pipe that nobody writes to does.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_hangs_holds_no_reload_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let accounts = acme().replace("env: TEST_TOKEN", &format!("file: {}", file.display()));
    let operator = Operator::of(&configure(dir.path(), "bus: { local: {} }", &accounts, ""), &[]);
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    // It can be opened so once somebody reads it.
    let mut held = OpenOptions::new();
    held.write(true).custom_flags(nix::libc::O_NONBLOCK);
    let reading = async {
        loop {
            match held.open(&file) {
                Ok(held) => return held,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let held = tokio::time::timeout(PATIENCE, reading).await.expect("the bridge looks at its files");
    configure(dir.path(), "bus: { local: {} }", acme(), "");
    let (status, done) = operator.ask(Method::POST, "/v1/reload", Some(json!({}))).await;
    assert_eq!((status, &done["changed"]), (200, &json!(["account acme: changed"])), "{done}");
    drop(held);
    assert_eq!(operator.push(TOKEN).await, 201);
}
