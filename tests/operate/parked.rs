//! Parked messages: listed by every part of a filter, shown in every form, counted, carried into another store, edited and
//! sent again with the original kept.

use std::os::unix::fs::PermissionsExt as _;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bridge::acme;
use crate::desk::{Desk, position};

/// A bus that nobody serves: everything is parked.
const NOBODY: &str = "bus: { nats: { url: \"nats://127.0.0.1:1\" } }";

async fn seqs(desk: &Desk, filter: &str) -> Vec<u64> {
    let (status, page) = desk.get(&format!("/v1/parked?{filter}")).await;
    assert_eq!(status, 200, "{page}");
    page["parked"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_found_shown_counted_and_carried_into_another_store() {
    let desk = Desk::on(NOBODY, acme(), "").await;
    for second in 0..3 {
        desk.push(&position("350000000000017", second)).await;
    }
    desk.push(&position("350000000000025", 9)).await;
    desk.push(&json!({"pushType": "NOVELTY", "secret": "Zoë"})).await;

    let all = seqs(&desk, "").await;
    assert_eq!(all.len(), 5);
    assert_eq!(seqs(&desk, "subject=350000000000017").await, all[..3]);
    assert_eq!(seqs(&desk, "reason=unrecognized").await, all[4..]);
    assert_eq!(seqs(&desk, "reason=unavailable&limit=2&after=1").await, all[1..3]);
    assert_eq!(seqs(&desk, "type=trip").await, [0; 0]);
    let error = desk.get(&format!("/v1/parked/{}", all[4])).await.1["error"].clone();
    let error = error.as_str().unwrap().to_ascii_uppercase().replace(' ', "+");
    assert_eq!(seqs(&desk, &format!("error={error}")).await, all[4..]);
    assert_eq!(seqs(&desk, "error=nothing+says+this").await, [0; 0]);
    assert_eq!(desk.get("/v1/parked?errors=x").await.0, 422);
    let summary = desk.get("/v1/parked/summary").await.1;
    assert_eq!(summary["messages"], 5);
    assert_eq!(summary["reasons"][0]["reason"], "unavailable");
    assert_eq!(summary["reasons"][0]["messages"], 4);
    assert!(summary["oldest_for_bus"]["age_seconds"].as_i64().unwrap() >= 0, "{summary}");
    let (_, out, _) = desk.cli(&["parked", "summary"]).await;
    assert!(out.contains("acme     unrecognized  operator   1"), "{out}");

    let first = format!("/v1/parked/{}", all[0]);
    desk.eventually("the drain has tried", async || desk.get(&first).await.1["attempts"] != 0).await;
    let shown = desk.get(&first).await.1;
    assert_eq!(shown["headers"]["ce-subject"], "350000000000017");
    assert_eq!(shown["headers"]["ce-type"], "fleetbus.position.v1");
    assert_eq!(shown["headers"]["ce-id"], shown["id"]);
    assert!(shown.get("event").is_none() && shown.get("hex").is_none());
    let event = desk.get(&format!("{first}?payload=json")).await.1["event"].clone();
    assert_eq!(event["tracker"]["imei"], "350000000000017");
    let raw = format!("/v1/parked/{}", all[4]);
    let text = desk.get(&format!("{raw}?payload=text")).await.1["body"].clone();
    assert_eq!(text, json!({"pushType": "NOVELTY", "secret": "Zoë"}).to_string());
    let hex = desk.get(&format!("{raw}?payload=hex")).await.1["hex"].clone();
    assert!(hex.as_str().unwrap().contains("5a6fc3ab"), "{hex}");

    // Into a store whose bus takes them: in their order, with their ids, and once.
    let other = Desk::open("").await;
    let file = other.path("parked.ndjson");
    let (status, _, said) = desk.cli(&["parked", "export", "--to", &file]).await;
    assert_eq!((status, said.contains("exported 5 messages")), (0, true), "{said}");
    let (_, out, _) = other.cli(&["parked", "import", &file, "--dry-run"]).await;
    assert_eq!(out, "would import 5 messages\n");
    let (status, out, said) = other.cli(&["parked", "import", &file]).await;
    assert_eq!(
        (status, out.as_str()),
        (0, "imported 5 messages: 4 events parked, 0 known already, 1 raw\n"),
        "{said}"
    );
    other.eventually("they are delivered", async || other.events().await.len() == 4).await;
    let ids =
        |events: &[Value]| -> Vec<Value> { events.iter().map(|row| row["event"]["id"].clone()).collect() };
    let carried = other.events().await;
    let of_one: Vec<Value> =
        carried.iter().filter(|row| row["event"]["subject"] == "350000000000017").cloned().collect();
    let mut expected = Vec::new();
    for seq in &all[..3] {
        expected.push(desk.get(&format!("/v1/parked/{seq}")).await.1["id"].clone());
    }
    assert_eq!(ids(&of_one), expected);
    let (_, out, _) = other.cli(&["parked", "import", &file]).await;
    assert_eq!(out, "imported 5 messages: 0 events parked, 4 known already, 1 raw\n");
    assert_eq!(seqs(&other, "").await.len(), 1);
    // A copy that the provider sends is known, too.
    assert_eq!(other.push(&position("350000000000017", 0)).await["duplicates"], 1);

    let broken = other.file("broken.ndjson", "{\"kind\":\"event\",\"payload\":\"!\"}\nnothing\n");
    let (status, _, said) = other.cli(&["parked", "import", &broken]).await;
    assert_eq!(status, 1);
    assert!(said.contains("line 1: it is not base 64") && said.contains("2 lines are wrong"), "{said}");

    let (_, discarded) = desk.delete("/v1/parked?subject=350000000000025&dry_run=true").await;
    assert_eq!(discarded["messages"], 1);
    let (_, discarded) = desk.delete("/v1/parked?subject=350000000000025").await;
    assert_eq!(discarded["discarded"], 1, "{discarded}");
    let acts = desk.get("/v1/audit?act=parked.").await.1;
    assert_eq!(acts["acts"][0]["object"], "subject=350000000000025", "{acts}");
}

/// The lines of a file, by kind.
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_message_are_those_that_the_sums_count_wherever_it_is_shown() {
    let desk = Desk::on(NOBODY, acme(), "").await;
    desk.push(&json!([position("350000000000017", 0), {}])).await;
    let rows = desk.get("/v1/parked").await.1["parked"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let shown = desk.get(&format!("/v1/parked/{}", row["seq"])).await.1;
        assert_eq!(shown["bytes"], row["bytes"], "{shown}");
        let payload = desk.get(&format!("/v1/parked/{}?payload=hex", row["seq"])).await.1["hex"].clone();
        assert_eq!(shown["payload_bytes"], payload.as_str().unwrap().len() / 2, "{shown}");
    }
    let all: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
    assert_eq!(desk.get("/v1/parked/summary").await.1["bytes"], all);
    let raw = rows.iter().find(|row| row["kind"] == "raw").unwrap();
    assert_eq!(desk.get(&format!("/v1/parked/{}", raw["seq"])).await.1["payload_bytes"], 2);
}

fn lines(file: &str, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_of_a_stopped_store_comes_into_another_with_all_by_which_it_is_known() {
    let desk = Desk::on(NOBODY, acme(), "").await;
    // It is also known by its record, whatever its end.
    let (start, end) = (1_767_009_600_000_u64, 1_767_011_460_000_u64);
    let stop = json!({"pushType": "STOP", "deviceNumber": "350000000000017", "startDateTime": start, "endDateTime": end});
    desk.push(&stop).await;
    desk.push(&json!({"pushType": "NOVELTY"})).await;
    let other = Desk::on(NOBODY, acme(), "").await;
    let [saved, exported] = ["saved.ndjson", "exported.ndjson"].map(|name| other.path(name));
    let folder = desk.killed();
    let data = folder.path().join("data").display().to_string();
    let (status, _, said) = other.cli(&["store", "export", "--data-dir", &data, "--out", &saved]).await;
    assert_eq!(status, 0, "{said}");
    let (status, out, said) = other.cli(&["parked", "import", &saved]).await;
    assert_eq!(
        (status, out.as_str()),
        (0, "imported 2 messages: 1 events parked, 0 known already, 1 raw\n"),
        "{said}"
    );
    assert_eq!(other.cli(&["parked", "export", "--to", &exported]).await.0, 0);
    let enters = |file: &str| lines(file, "event")[0]["enters"].as_array().unwrap().clone();
    assert_eq!(enters(&exported), enters(&saved));
    assert!(enters(&saved).len() > 1, "{:?}", enters(&saved));
    assert_eq!(lines(&exported, "raw")[0]["received_at"], lines(&saved, "raw")[0]["received_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_for_its_owner_alone_and_never_written_over_a_file() {
    let desk = Desk::open("").await;
    desk.push(&json!({"pushType": "NOVELTY"})).await;
    let file = desk.path("parked.ndjson");
    let (status, _, said) = desk.cli(&["parked", "export", "--to", &file]).await;
    assert_eq!(status, 0, "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let before = std::fs::read(&file).unwrap();
    let (status, _, said) = desk.cli(&["parked", "export", "--reason", "unfit", "--to", &file]).await;
    assert_eq!((status, said.contains("is there already: name a new file")), (1, true), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before);

    // What was given up leaves nothing behind.
    let other = desk.path("other.ndjson");
    let (status, _, said) = desk.cli(&["parked", "export", "--reason", "nope", "--to", &other]).await;
    assert_ne!(status, 0, "{said}");
    assert!(!std::path::Path::new(&other).exists());
    assert!(!std::path::Path::new(&format!("{other}.part")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn misuse_is_64_also_where_only_the_bridge_finds_it_and_a_file_that_cannot_be_read_is_66() {
    let desk = Desk::open("").await;
    for (args, expected, words) in [
        (&["list", "--reason", "nope"][..], 64, "reason \"nope\" is unknown"),
        (&["list", "--from", "yesterday"][..], 64, "from is no time like"),
        (&["list", "--admin", "garbage"][..], 64, "it is not a URL such as"),
        (&["list", "--token-file", "/no/such/file"][..], 66, "/no/such/file cannot be read: No such file"),
        (&["show", "999999"][..], 1, "nothing is parked under that number"),
    ] {
        let (status, _, said) = desk.cli(&[&["parked"][..], args].concat()).await;
        assert_eq!((status, said.contains(words)), (expected, true), "{args:?}: {said}");
    }
    let (status, _, said) = desk.cli(&["tokens", "create", "acme", "--import", "/no/such/file"]).await;
    assert_eq!((status, said.contains("/no/such/file cannot be read")), (66, true), "{said}");
}

/// A message that is not understood, and its number.
async fn with_a_broken_message() -> (Desk, Value, u64) {
    let desk = Desk::open("").await;
    let broken = json!({"pushType": "POSITON", "imei": "350000000000017"});
    desk.push(&broken).await;
    let seq = seqs(&desk, "").await[0];
    (desk, broken, seq)
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_are_edited_and_sent_again_and_the_original_is_kept() {
    let (desk, broken, seq) = with_a_broken_message().await;
    let edit = format!("/v1/parked/{seq}/edit");
    let (status, said) = desk.json(Method::POST, &edit, &json!({"topic": "elsewhere"})).await;
    assert_eq!(status, 422, "{said}");
    let (status, said) = desk.json(Method::POST, &edit, &json!({"body": "{"})).await;
    assert_eq!(status, 422, "{said}");
    assert!(said["detail"].as_str().unwrap().contains("it stays parked as it was"), "{said}");
    assert_eq!(seqs(&desk, "").await, [seq]);
    let mended = position("350000000000017", 1).to_string();
    let (status, edited) = desk.json(Method::POST, &edit, &json!({"body": mended})).await;
    assert_eq!((status, &edited["events"], &edited["left"]), (200, &json!(1), &json!(0)), "{edited}");
    assert_eq!(desk.events().await[0]["event"]["subject"], "350000000000017");
    desk.eventually("the row is gone", async || seqs(&desk, "").await.is_empty()).await;
    let kept = desk.get(&format!("/v1/parked/{seq}/originals")).await.1["originals"].clone();
    let bytes = data_encoding::BASE64.decode(kept[0]["bytes_base64"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), broken);
    let acts = desk.get("/v1/audit?act=parked.edit").await.1;
    assert_eq!(acts["acts"][0]["object"], seq.to_string(), "{acts}");
    assert_eq!(desk.get("/v1/parked/999999/originals").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_that_an_edit_leaves_as_they_were_stay_parked() {
    let (desk, broken, seq) = with_a_broken_message().await;
    let edit = format!("/v1/parked/{seq}/edit");
    for (body, events) in [(broken.clone(), 0), (json!([position("350000000000017", 1), broken]), 1)] {
        let (status, edited) = desk.json(Method::POST, &edit, &json!({"body": body.to_string()})).await;
        assert_eq!(
            (status, &edited["events"], &edited["left"]),
            (200, &json!(events), &json!(1)),
            "{edited}"
        );
        // A delete would have been done before this.
        assert_eq!(desk.json(Method::PUT, "/v1/accounts/acme/custom-data/item/a", &json!({})).await.0, 200);
        assert_eq!(seqs(&desk, "").await, [seq]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_bus_is_not_edited() {
    let desk = Desk::on(NOBODY, acme(), "").await;
    desk.push(&position("350000000000017", 0)).await;
    let seq = seqs(&desk, "").await[0];
    let (status, said) =
        desk.json(Method::POST, &format!("/v1/parked/{seq}/edit"), &json!({"topic": "fleet.x"})).await;
    assert_eq!(status, 409, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_edits_of_one_message_at_once_one_is_sent() {
    let (desk, _, seq) = with_a_broken_message().await;
    let edit = format!("/v1/parked/{seq}/edit");
    let [one, other] = [1, 2].map(|second| json!({"body": position("350000000000017", second).to_string()}));
    let (one, other) =
        tokio::join!(desk.json(Method::POST, &edit, &one), desk.json(Method::POST, &edit, &other));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404], "{one:?} {other:?}");
    assert_eq!(desk.events().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_messages_that_nobody_could_decode_or_that_would_be_gone_at_once_are_wrong_lines() {
    let desk = Desk::open("").await;
    let now = jiff::Timestamp::now().to_string();
    let line = |source: &str, received_at: &str| {
        json!({"kind": "raw", "account": "acme", "source": source, "reason": "unrecognized",
            "received_at": received_at, "body": "e30="})
        .to_string()
    };
    let lines = [line("v9/things", &now), line("push", "2020-01-01T00:00:00Z"), line("push/stop", &now)];
    let file = desk.file("raw.ndjson", &lines.join("\n"));
    let (status, _, said) = desk.cli(&["parked", "import", &file]).await;
    assert_eq!(status, 1, "{said}");
    for words in [
        "line 1: source \"v9/things\" is unknown",
        "line 2: it was received longer ago than replay.retention",
        "2 lines are wrong",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(seqs(&desk, "").await, [0; 0]);
}
