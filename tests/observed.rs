//! What an operator looks at, against what a running bridge shows: every query of the dashboard and of the alerts names metrics and
//! labels that are there, every alert has its section, every metric and every log line its row. `make alerts-check` runs `promtool`.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::any;

use bridge::{Bridge, TOKEN, configure};

const PATIENCE: Duration = Duration::from_secs(60);

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// An alert rule.
struct Alert {
    name: String,
    expr: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let text = read("deploy/prometheus/alerts.yaml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let lines: Vec<&str> = rule.lines().map(str::trim).collect();
        let after = |key: &str| {
            let at = lines.iter().position(|line| line.starts_with(key)).unwrap();
            match lines[at].strip_prefix(key).unwrap().trim() {
                ">-" => lines[at + 1].to_owned(),
                value => value.to_owned(),
            }
        };
        Alert { name: lines[0].to_owned(), expr: after("expr:"), runbook: after("runbook_url:") }
    });
    let rules: Vec<Alert> = rules.collect();
    assert!(rules.len() > 15, "{} alerts", rules.len());
    rules
}

/// The dashboard's queries, variables filled in.
fn panels() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/fleetbus.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let exprs = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let filled: Vec<String> = exprs
        .map(|e| e.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$account", ".*"))
        .collect();
    assert!(filled.len() > 40 && filled.iter().all(|expr| !expr.contains('$')), "{filled:?}");
    filled
}

/// Each series' labels by the metric's name, as a scrape sees them.
fn series(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        let labels = all.entry(line[..end].to_owned()).or_default();
        if let Some((inside, _)) = line[end..].strip_prefix('{').and_then(|rest| rest.split_once("} ")) {
            labels.extend(inside.split("\",").map(|pair| pair.split('=').next().unwrap().to_owned()));
        }
    }
    all
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What a query names: metrics, and labels in its matchers, groupings and legends' `by`.
fn check_query(query: &str, series: &BTreeMap<String, BTreeSet<String>>) {
    let mut known: BTreeSet<&str> = ["instance", "job"].into();
    let names: Vec<&str> = words(query).filter(|word| word.starts_with("fleetbus_")).collect();
    for name in &names {
        let labels = series.get(*name).unwrap_or_else(|| panic!("no series {name}, of which asks: {query}"));
        known.extend(labels.iter().map(String::as_str));
    }
    let matchers = query.split('{').skip(1).flat_map(|part| part.split('}').next().unwrap().split(", "));
    let matched = matchers.map(|matcher| matcher.split(['=', '!']).next().unwrap());
    let grouped = ["by (", "on ("].into_iter().flat_map(|word| query.split(word).skip(1));
    let grouped = grouped.flat_map(|part| part.split(')').next().unwrap().split(", "));
    for label in matched.chain(grouped) {
        assert!(known.contains(label), "no label {label}, of which asks: {query}");
    }
}

/// A page of metrics of a bridge that has seen a bit of everything.
async fn page() -> String {
    let rows = include_str!("fixtures/linxup/pull-v2/stops.response.json");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = listener.local_addr().unwrap();
    let routes = Router::new().fallback(any(move || async move { rows }));
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
    let dir = tempfile::tempdir().unwrap();
    let accounts = format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    webhook: {{ token: {{ env: TEST_TOKEN }} }}\n    poll:\n      \
         - {{ api: v2, base_url: \"http://{provider}\", token: {{ env: TEST_TOKEN }}, feeds: {{ stops: 1s }} }}\n"
    );
    let bridge = Bridge::start(&configure(dir.path(), "bus: { local: {} }", &accounts, ""));
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let push = |hint: &'static str, body: &'static [u8]| {
        client.post(format!("{}/webhooks/acme{hint}", bridge.webhook)).bearer_auth(TOKEN).body(body).send()
    };
    let documented = include_bytes!("fixtures/linxup/push-v3/position_documented.json");
    for hint in ["", "/position", "/stop"] {
        assert_eq!(push(hint, documented).await.unwrap().status(), 201);
    }
    assert_eq!(push("", b"{").await.unwrap().status(), 400);
    let polled = async {
        loop {
            let answer = client.get(format!("{}/metrics", bridge.admin)).send().await.unwrap();
            let page = answer.text().await.unwrap();
            if page.contains("fleetbus_feed_lag_seconds{") && page.contains("fleetbus_parked_messages{") {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polled).await.expect("a poll in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_asks_for_what_is_there_and_every_metric_has_its_row() {
    let page = page().await;
    let contradicted = "fleetbus_webhook_contradicted_hints_total 1";
    assert!(page.lines().any(|line| line == contradicted), "{contradicted} is not in\n{page}");
    let series = series(&page);
    for query in panels() {
        check_query(&query, &series);
    }
    for alert in alerts() {
        check_query(&alert.expr, &series);
    }
    let operate = read("docs/operate.md");
    let documented: BTreeSet<&str> = words(&operate).collect();
    for name in series.keys() {
        let family =
            ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let short = family.strip_prefix("fleetbus_dedup").unwrap_or(family);
        assert!(
            documented.contains(family) || documented.contains(short),
            "{family} has no row in docs/operate.md"
        );
    }
    let units = series
        .keys()
        .all(|name| !name.contains("_ms") && !name.contains("_millis") && !name.contains("_kib"));
    assert!(units, "a metric is not in base units: {:?}", series.keys());
}

#[test]
fn every_alert_has_its_section_and_its_unit_tests() {
    let (operate, tests) = (read("docs/operate.md"), read("deploy/prometheus/alerts.test.yaml"));
    for Alert { name, runbook, .. } in alerts() {
        assert!(operate.contains(&format!("\n### {name}\n")), "{name} has no section in docs/operate.md");
        let anchor = runbook.strip_suffix(&name.to_lowercase()).unwrap_or_else(|| panic!("{runbook}"));
        assert!(anchor.ends_with("/docs/operate.md#"), "{runbook}");
        for test in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {name} {test}\n")), "no test that {name} {test}");
        }
    }
}

/// What stands before the parenthesis that closes a call.
fn inside(call: &str) -> &str {
    let (mut open, mut quoted) = (1, false);
    for (at, c) in call.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => open += 1,
            ')' if !quoted => open -= 1,
            _ => {}
        }
        if open == 0 {
            return &call[..at];
        }
    }
    panic!("a call that does not end: {call}")
}

/// The name of each log line below `folder`.
fn logged(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logged(&path, all);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                let name = inside(call)
                    .split('"')
                    .nth_back(1)
                    .unwrap_or_else(|| panic!("{}: {call}", path.display()));
                all.insert(name.to_owned());
            }
        }
    }
}

#[test]
fn every_log_line_has_its_row() {
    let mut all = BTreeSet::new();
    logged(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let page = read("docs/logs.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned);
    let rows: BTreeSet<String> = rows.collect();
    let unknown: Vec<_> = all.difference(&rows).collect();
    assert!(unknown.is_empty(), "write rows in docs/logs.md for {unknown:?}");
    let gone: Vec<_> = rows.difference(&all).collect();
    assert!(gone.is_empty(), "docs/logs.md has rows of what is not logged: {gone:?}");
    let shape = |name: &&String| {
        let parts: Vec<&str> = name.split('.').collect();
        parts.len() == 2
            && parts.iter().all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let odd: Vec<_> = all.iter().filter(|name| !shape(name)).collect();
    assert!(odd.is_empty(), "a log line's message is a name such as feed.failed: {odd:?}");
}

fn promtool(arguments: &[&str]) {
    let cache = std::env::var_os("FLEETBUS_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/fleetbus"),
        PathBuf::from,
    );
    let ran = Command::new(cache.join("bin/promtool-v0.316.0")).args(arguments).output().unwrap();
    assert!(
        ran.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
#[ignore = "needs promtool, which takes minutes to build: `make alerts-check`"]
fn promtool_takes_every_query_and_the_alerts_fire_as_they_should() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    promtool(&["check", "rules", root.join("deploy/prometheus/alerts.yaml").to_str().unwrap()]);
    promtool(&["test", "rules", root.join("deploy/prometheus/alerts.test.yaml").to_str().unwrap()]);
    let rules: Vec<serde_json::Value> = panels()
        .iter()
        .enumerate()
        .map(|(n, expr)| serde_json::json!({ "record": format!("panel:{n}"), "expr": expr }))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(file.path(), groups.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()]);
}
