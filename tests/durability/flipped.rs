//! Bits that turn in the store of the real process, while it is stopped: what they hit is said and never sent, all else is
//! delivered in its order, and what was lost by them is healed.

use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::bridge::{Bridge, TOKEN, acme};
use crate::fleet::{client, flat, imei, start};
use crate::metrics::metric;
use crate::support::{away, discard_all, drained, export, fleetbus, local, published};

const STEPS: i64 = 10;
const VEHICLES: usize = 3;

async fn push(bridge: &Bridge, body: &Value) -> Value {
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let answer = client().post(url).bearer_auth(TOKEN).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json().await.unwrap()
}

/// Turns a bit in the middle of these bytes, of which the file has one copy.
fn flip(file: &Path, bytes: &[u8]) {
    let mut content = std::fs::read(file).unwrap();
    let places: Vec<_> =
        content.windows(bytes.len()).enumerate().filter(|(_, found)| *found == bytes).collect();
    assert_eq!(places.len(), 1);
    let at = places[0].0 + bytes.len() / 2;
    content[at] ^= 0x04;
    std::fs::write(file, content).unwrap();
}

/// `fleetbus store` about a folder: its exit code, and all that it said.
fn store(words: &[&str], data: &Path) -> (Option<i32>, String) {
    let output = fleetbus(&[&["store"], words, &["--data-dir", &data.display().to_string()]].concat());
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), said.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_turned_in_a_parked_payload_costs_its_event_alone_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let from = start();
    let bridge = Bridge::start(&away(dir.path(), ""));
    for step in 0..STEPS {
        for vehicle in 0..VEHICLES {
            push(&bridge, &flat(vehicle, from + step * 1_000)).await;
        }
    }
    push(&bridge, &json!({"pushType": "NEVER_SEEN", "note": "raw bytes that nobody knows"})).await;
    assert!(bridge.stop().success());

    let rows = export(&data);
    let of_one = rows.iter().filter(|row| row["subject"] == imei(1).as_str());
    let victim = of_one.clone().nth(4).unwrap();
    let raw = rows.iter().find(|row| row["kind"] == "raw").unwrap();
    for (row, what) in [(victim, "payload"), (raw, "body")] {
        flip(&data.join("store.db"), &BASE64.decode(row[what].as_str().unwrap().as_bytes()).unwrap());
    }
    let seqs = [victim, raw].map(|row| row["seq"].as_u64().unwrap());
    let named = format!("2 of its rows are not as they were parked: {}, {}", seqs[0], seqs[1]);
    let (code, said) = store(&["check"], &data);
    assert!(code == Some(74) && said.contains("store.db: damaged") && said.contains(&named), "{said}");
    let (code, said) = store(&["export", "--out", &dir.path().join("rows").display().to_string()], &data);
    assert!(code == Some(74) && said.contains("2 rows are not as they were parked"), "{said}");
    assert!(said.contains("exported 29 events and 0 raw messages"), "{said}");
    let (code, said) = store(&["backup", &dir.path().join("copy.db").display().to_string()], &data);
    assert!(code == Some(0) && said.contains(&named), "a copy is as good as what it is of: {said}");

    let bridge = Bridge::start(&local(dir.path(), acme(), ""));
    let ids_of = |rows: &[Value], vehicle: usize| -> Vec<String> {
        let of_one = rows.iter().filter(|row| row["subject"] == imei(vehicle).as_str());
        of_one.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let lost = victim["id"].as_str().unwrap();
    let seen = drained(&bridge, STEPS as usize * VEHICLES - 1).await;
    assert_eq!(seen.len(), STEPS as usize * VEHICLES - 1);
    for vehicle in 0..VEHICLES {
        let parked: Vec<_> = ids_of(&rows, vehicle).into_iter().filter(|id| id != lost).collect();
        let subject = imei(vehicle);
        let there: Vec<_> =
            seen.iter().filter(|event| event.subject == subject).map(|event| event.id.clone()).collect();
        assert_eq!(there, parked, "vehicle {vehicle}: each once, in order");
    }
    assert_eq!(metric(&bridge.admin, "fleetbus_parked_damaged_total").await, 1);
    let log = bridge.log_text();
    let line = log.lines().find(|line| line.contains("\"message\":\"parked.damaged\"")).expect("it is said");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["seq"], &line["account"], &line["level"]),
        (&victim["seq"], &json!("acme"), &json!("ERROR"))
    );

    let get = async |path: &str| {
        let answer = client().get(format!("{}{path}", bridge.admin)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (_, listed) = get("/v1/parked?reason=unfit").await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["parked"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["parked"][0]["seq"], victim["seq"]);
    assert!(listed["parked"][0]["error"].as_str().unwrap().contains("changed on the disk"), "{listed}");
    for seq in seqs {
        assert_eq!(get(&format!("/v1/parked/{seq}")).await.0, 409);
    }
    let (_, lines) = get("/v1/parked/export").await;
    let damaged = seqs.map(|seq| json!({"kind": "damaged", "seq": seq}));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, damaged);

    // Who sends them again sends neither.
    let post = async |path: &str, body: Value| -> Value {
        let answer = client().post(format!("{}{path}", bridge.admin)).json(&body).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let replay = post("/v1/replays", json!({})).await;
    let path = format!("/v1/replays/{}", replay["id"].as_str().unwrap());
    let done = loop {
        let state: Value = serde_json::from_str(&get(&path).await.1).unwrap();
        if state["state"] != "running" {
            break state;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((&done["left"], &done["events"]), (&json!(2), &json!(0)), "{done}");
    assert_eq!(published(&bridge).await.len(), STEPS as usize * VEHICLES - 1);

    // Thrown away, they are forgotten: who brings the fact again heals it, under its id.
    assert_eq!(push(&bridge, &flat(1, from + 4_000)).await["duplicates"], 1);
    discard_all(&bridge).await;
    assert_eq!(push(&bridge, &flat(1, from + 4_000)).await["delivered"], 1);
    assert_eq!(published(&bridge).await.last().unwrap().id, lost);
    assert!(bridge.stop().success());
    let (code, said) = store(&["check"], &data);
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_turned_in_a_webhooks_token_is_said_and_the_token_opens_still() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = local(dir.path(), acme(), "");
    let bridge = Bridge::start(&config);
    let url = format!("{}/v1/accounts/acme/tokens", bridge.admin);
    let made: Value = client().post(url).json(&json!({})).send().await.unwrap().json().await.unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(bridge.stop().success());
    let file = data.join("store.db");
    let mut content = std::fs::read(&file).unwrap();
    // It is kept twice.
    let digest = br#""digest":""#;
    let at = content.windows(digest.len()).position(|window| window == digest).unwrap();
    content[at + digest.len()] ^= 1;
    std::fs::write(&file, content).unwrap();
    let (code, said) = store(&["check"], &data);
    let named =
        format!("1 of its entries are not as they were saved: tokens acme {}", made["id"].as_str().unwrap());
    assert!(code == Some(74) && said.contains(&named), "{said}");
    let (code, said) = store(&["export", "--out", &dir.path().join("rows").display().to_string()], &data);
    assert!(code == Some(74) && said.contains(&named), "{said}");

    let bridge = Bridge::start(&config);
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let body = flat(1, start());
    let answer = client().post(url).bearer_auth(token).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(metric(&bridge.admin, "fleetbus_store_entries_damaged_total").await, 1);
    let log = bridge.log_text();
    let line = log.lines().find(|line| line.contains("\"message\":\"store.entry_damaged\"")).expect("said");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["table"], &line["key"], &line["restored"], &line["level"]),
        (&json!("tokens"), &made["id"], &json!(true), &json!("ERROR"))
    );
    assert!(bridge.stop().success());
    let (code, said) = store(&["check"], &data);
    assert_eq!(code, Some(0), "{said}");
}
