//! Custom data: set, patched, imported and removed, found in the next event that holds the object, also after kill -9.

use reqwest::Method;
use serde_json::{Value, json};

use crate::desk::{Desk, position};

const IMEI: &str = "350000000000017";
const TRACKER: &str = "/v1/accounts/acme/custom-data/tracker/350000000000017";

/// What the last event of a push says about its tracker.
async fn said(desk: &Desk, second: i64) -> Value {
    desk.push(&position(IMEI, second)).await;
    desk.events().await.last().unwrap()["event"]["tracker"]["customData"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_is_in_the_next_event_and_survives_a_kill() {
    let desk = Desk::open("").await;
    assert_eq!(said(&desk, 0).await, Value::Null);
    let (status, set) = desk.json(Method::PUT, TRACKER, &json!({"depot": "north", "axles": 3})).await;
    assert_eq!((status, &set["data"]), (200, &json!({"depot": "north", "axles": 3})), "{set}");
    assert_eq!(said(&desk, 1).await, json!({"depot": "north", "axles": 3.0}));
    let patch = json!({"axles": null, "team": {"lead": "b"}}).to_string();
    let (status, patched) = desk.send(Method::PATCH, TRACKER, "application/merge-patch+json", patch).await;
    assert_eq!((status, &patched["data"]), (200, &json!({"depot": "north", "team": {"lead": "b"}})));

    // The same fact is the same event, whatever is said about its objects.
    let again = desk.push(&position(IMEI, 0)).await;
    assert_eq!(again["duplicates"], 1, "{again}");
    let desk = desk.killed_and_started().await;
    assert_eq!(desk.get(TRACKER).await.1["data"], json!({"depot": "north", "team": {"lead": "b"}}));
    assert_eq!(said(&desk, 2).await, json!({"depot": "north", "team": {"lead": "b"}}));

    assert_eq!(desk.delete(TRACKER).await.0, 200);
    assert_eq!(desk.delete(TRACKER).await.0, 404);
    assert_eq!(said(&desk, 3).await, Value::Null);
    let acts: Vec<_> = desk.get("/v1/audit?act=custom-data.").await.1["acts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| (act["act"].clone(), act["before"]["depot"].clone(), act["after"]["depot"].clone()))
        .collect();
    let north = json!("north");
    let expected = [
        (json!("custom-data.remove"), north.clone(), Value::Null),
        (json!("custom-data.patch"), north.clone(), north.clone()),
        (json!("custom-data.set"), Value::Null, north),
    ];
    assert_eq!(acts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_with_the_reason() {
    let desk = Desk::open("custom_data: { memory: 1MiB }").await;
    let check = async |path: &str, body: &Value, expected: u16, words: &str| {
        let (status, said) = desk.json(Method::PUT, path, body).await;
        assert_eq!(status, expected, "{said}");
        assert!(said["detail"].as_str().unwrap().contains(words), "{said}");
    };
    check("/v1/accounts/nobody/custom-data/tracker/1", &json!({}), 404, "no account").await;
    check("/v1/accounts/acme/custom-data/car/1", &json!({}), 404, "there are tracker, vehicle").await;
    check(TRACKER, &json!([1]), 422, "not a JSON object").await;
    check(TRACKER, &json!({"a": "x".repeat(16 << 10)}), 422, "16384 are taken").await;
    check(TRACKER, &json!({"a": 9_007_199_254_740_993_i64}), 422, "write it as text").await;
    let row = |n: usize| json!({"kind": "vehicle", "id": n.to_string(), "data": {"a": "x".repeat(12_000)}});
    let full: Vec<String> = (0..100).map(|n| row(n).to_string()).collect();
    let import = "/v1/accounts/acme/custom-data";
    let (status, refused) = desk.send(Method::POST, import, "application/x-ndjson", full.join("\n")).await;
    assert_eq!(status, 507, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("raise custom_data.memory"), "{refused}");
    assert_eq!(desk.get(import).await.1["custom_data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_taken_whole_or_not_at_all() {
    let desk = Desk::open("").await;
    let good = "kind,id,depot\ntracker,350000000000017,north\nvehicle,1FTFW1E50AFB00001,south\n";
    let bad = desk.file("bad.csv", &format!("{good}car,1,x\ntracker,2\n"));
    let (status, out, said) = desk.cli(&["custom-data", "import", "acme", &bad]).await;
    assert_eq!((status, out.as_str()), (1, ""));
    for words in [
        "line 4: kind \"car\" is unknown",
        "line 5: it has 2 cells",
        "2 lines are wrong, and nothing was imported",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let good = desk.file("good.csv", good);
    let (_, out, _) = desk.cli(&["custom-data", "import", "acme", &good, "--dry-run"]).await;
    assert_eq!(out, "would import 2 objects\n");
    assert_eq!(desk.cli(&["custom-data", "list", "acme"]).await.1, "");
    let (status, out, said) = desk.cli(&["custom-data", "import", "acme", &good]).await;
    assert_eq!((status, out.as_str()), (0, "imported 2 objects\n"), "{said}");

    let (_, listed, _) = desk.cli(&["custom-data", "list", "acme", "--kind", "vehicle"]).await;
    let row: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&row["id"], &row["data"]), (&json!("1FTFW1E50AFB00001"), &json!({"depot": "south"})));
    desk.push(&position(IMEI, 0)).await;
    let event = desk.events().await.remove(0)["event"].clone();
    assert_eq!(event["tracker"]["customData"], json!({"depot": "north"}));
    assert_eq!(event["vehicle"]["customData"], json!({"depot": "south"}));

    // What was listed is imported again.
    let (_, all, _) = desk.cli(&["custom-data", "list", "acme"]).await;
    assert_eq!(all.lines().count(), 2);
    let all = desk.file("all.ndjson", &all);
    assert_eq!(desk.cli(&["custom-data", "import", "acme", &all]).await.1, "imported 2 objects\n");
    let tracker = ["acme", "tracker", IMEI];
    let cli = async |verb: &str, rest: &[&str]| {
        let arguments = [&["custom-data", verb], tracker.as_slice(), rest].concat();
        let (status, out, said) = desk.cli(&arguments).await;
        assert_eq!(status, 0, "{said}");
        out
    };
    assert_eq!(cli("set", &[r#"{"a":1}"#]).await, "{\"a\":1}\n");
    assert_eq!(cli("patch", &[r#"{"b":2}"#]).await, "{\"a\":1,\"b\":2}\n");
    assert_eq!(cli("get", &[]).await, "{\"a\":1,\"b\":2}\n");
    assert_eq!(cli("remove", &[]).await, "{\"a\":1,\"b\":2}\n");
    assert_eq!(desk.cli(&["custom-data", "get", "acme", "tracker", IMEI]).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_imported_as_it_was_and_steers_no_terminal() {
    let desk = Desk::open("").await;
    let data = json!({"no\u{9b}te": "\u{1b}[2J \u{9b}2J \u{7f} \u{85} ü\n"});
    assert_eq!(desk.json(Method::PUT, TRACKER, &data).await.0, 200);
    let said = async |arguments: &[&str]| {
        let (status, out, said) = desk.cli(arguments).await;
        assert_eq!(status, 0, "{said}");
        assert!(!out.trim_end().contains(char::is_control), "{out:?}");
        out
    };
    let listed = said(&["custom-data", "list", "acme"]).await;
    for verb in ["get", "remove"] {
        let out = said(&["custom-data", verb, "acme", "tracker", IMEI]).await;
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), data);
    }
    let listed = desk.file("listed.ndjson", &listed);
    said(&["custom-data", "import", "acme", &listed]).await;
    assert_eq!(desk.get(TRACKER).await.1["data"], data);
    desk.push(&position(IMEI, 0)).await;
    let out = said(&["tail", "--json", "--after", "0", "--no-follow"]).await;
    let event: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(event["tracker"]["customData"], data);
}

/// Run by hand, for its numbers: `cargo test --release --test operate -- --ignored --nocapture custom`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures"]
async fn a_hundred_thousand_objects_are_imported_and_carried() {
    let desk = Desk::open("").await;
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", desk.bridge.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let row = |n: u64| {
        let id = 350_000_000_000_000_u64 + n;
        json!({"kind": "tracker", "id": id.to_string(), "data": {"depot": "north", "cost_center": n % 97, "team": {"lead": "b", "size": 7}}}).to_string()
    };
    let rows: Vec<String> = (0..100_000).map(row).collect();
    let body = rows.join("\n");
    let (bytes, before) = (body.len(), memory());
    let begun = std::time::Instant::now();
    let import = desk.send(Method::POST, "/v1/accounts/acme/custom-data", "application/x-ndjson", body);
    let (import, pushed) = tokio::join!(import, async {
        let begun = std::time::Instant::now();
        let mut slowest = std::time::Duration::ZERO;
        for second in 100..150 {
            let began = std::time::Instant::now();
            desk.push(&position(IMEI, second)).await;
            slowest = slowest.max(began.elapsed());
        }
        (begun.elapsed(), slowest)
    });
    println!("import of 100,000 rows, {bytes} bytes: {:?} in {:?}", import, begun.elapsed());
    println!("memory {before} MiB before, {} after; 50 pushes beside it {pushed:?}", memory());
    assert_eq!(said(&desk, 1).await["depot"], "north");
    let begun = std::time::Instant::now();
    let desk = desk.killed_and_started().await;
    println!("started again in {:?}", begun.elapsed());
    assert_eq!(said(&desk, 2).await["depot"], "north");
}
