//! Ten thousand connections that say nothing, or little, against the real binary: others are served, and the process holds no
//! more files than its bounds say.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use bridge::{Bridge, TOKEN, acme, configure};

const IDLE: usize = 10_000;
/// Connections of both ports, the one at each door, and what the process itself has open.
const FILES: usize = 1_024 + 128 + 2 + 100;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_shut_nobody_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(most as usize > IDLE + 1_000, "the system lets a process open {most} files only");
    let dir = tempfile::tempdir().unwrap();
    let rest = "delivery: { drain_delay: 0s }";
    let bridge = Bridge::start(&configure(dir.path(), "bus: { local: {} }", acme(), rest));
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let (webhook, admin) = (host(&bridge.webhook), host(&bridge.admin));
    let at = jiff::Timestamp::now().as_millisecond() - 60_000;
    let (client, url) = (reqwest::Client::new(), format!("{}/webhooks/acme", bridge.webhook));

    let mut held = Vec::with_capacity(IDLE);
    let mut most_files = 0;
    for number in 0..IDLE {
        let address = if number % 10 == 0 { &admin } else { &webhook };
        let mut stream = TcpStream::connect(address).await.unwrap();
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nx: ",
            _ => b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        };
        // Some have been let go already.
        stream.write_all(said).await.ok();
        held.push(stream);
        if number % 1_000 == 999 {
            let row = json!({ "pushType": "POSITION", "deviceNumber": "350000000000017", "date": at + number as i64 });
            let sent =
                client.post(&url).bearer_auth(TOKEN).json(&row).timeout(Duration::from_secs(30)).send();
            assert_eq!(sent.await.expect("an answer").status().as_u16(), 201, "after {number}");
            let probe =
                client.get(format!("{}/healthz", bridge.admin)).timeout(Duration::from_secs(30)).send();
            assert_eq!(probe.await.expect("an answer").status().as_u16(), 200, "after {number}");
            let files = std::fs::read_dir(format!("/proc/{}/fd", bridge.pid())).unwrap().count();
            most_files = most_files.max(files);
        }
    }
    println!("{IDLE} connections held by their side; the most open files of the process: {most_files}");
    assert!(most_files < FILES, "{most_files} files");
    assert!(bridge.stop().success());
}

/// A breadcrumb is 27 bytes on the wire, and an event of its own: a request of two megabytes must not become gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_full_of_breadcrumbs_takes_no_more_memory_than_is_stated() {
    const BOUND_MIB: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let bus = "bus: { kafka: { brokers: \"127.0.0.1:1\" } }";
    let rest = "delivery: { publish_deadline: 50ms, drain_delay: 0s }";
    let bridge = Bridge::start(&configure(dir.path(), bus, acme(), rest));
    let at = jiff::Timestamp::now().as_millisecond() - 60_000_000;
    let crumbs =
        |count: i64| -> String { (0..count).map(|n| format!("{},38.6,-90.2;", at + n * 1_000)).collect() };
    let one = |vehicle: i64, name: &str, crumbs: &str| {
        json!({
            "date": at + 50_000_000, "latitude": 38.6, "longitude": -90.2, "batchedPositions": crumbs,
            "tracker": { "deviceNumber": format!("{:015}", 350_000_000_000_000 + vehicle), "name": name }
        })
    };
    let full = crumbs(2_000);
    let many = (0..30).map(|vehicle| one(vehicle, "Van", &full)).collect::<Vec<_>>();
    let large = vec![one(30, &"n".repeat(1 << 20), &crumbs(2_000))];
    let (client, url) = (reqwest::Client::new(), format!("{}/webhooks/acme", bridge.webhook));
    for (body, events) in [(many, 30 * 2_001), (large, 2_001)] {
        let answer = client.post(&url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", bridge.log_text());
        let counts: serde_json::Value = answer.json().await.unwrap();
        assert_eq!((&counts["events"], &counts["parked"]), (&json!(events), &json!(events)));
    }
    let mib = peak_mib(&bridge);
    assert!(mib < BOUND_MIB, "{mib} MiB");
}

/// The most memory that it had.
fn peak_mib(bridge: &Bridge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let mib = peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1_024;
    println!("peak: {mib} MiB");
    mib
}

/// An object is seven bytes on the wire, and a hundred times that in memory: in one message, and in many small ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_full_of_objects_takes_no_more_memory_than_is_stated() {
    const BOUND_MIB: usize = 250;
    let dir = tempfile::tempdir().unwrap();
    let rest = "delivery: { drain_delay: 0s }";
    let bridge = Bridge::start(&configure(dir.path(), "bus: { local: {} }", acme(), rest));
    let at = jiff::Timestamp::now().as_millisecond() - 60_000;
    let one = |vehicle: i64, objects: usize| {
        let fields = vec![r#"{"":0}"#; objects].join(",");
        format!(
            r#"{{"pushType":"POSITION","deviceNumber":"{}","date":{at},"x":[{fields}]}}"#,
            350_000_000_000_000 + vehicle
        )
    };
    let many: Vec<String> = (0..60).map(|vehicle| one(vehicle, 4_500)).collect();
    let (client, url) = (reqwest::Client::new(), format!("{}/webhooks/acme", bridge.webhook));
    for (body, events) in [(one(99, 290_000), 1), (format!("[{}]", many.join(",")), 60)] {
        assert!(body.len() < 2 << 20);
        let answer = client.post(&url).bearer_auth(TOKEN).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", bridge.log_text());
        let counts: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(counts["events"], json!(events));
    }
    let mib = peak_mib(&bridge);
    assert!(mib < BOUND_MIB, "{mib} MiB");
}

/// With what operators say of a vehicle, its breadcrumbs may be more bytes than are delivered together: they are older than their
/// carrier, and are published before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_vehicles_events_are_published_in_order_although_they_are_too_many_bytes_for_one_portion() {
    const CRUMBS: i64 = 700;
    let dir = tempfile::tempdir().unwrap();
    let rest = "delivery: { drain_delay: 0s }";
    let bridge = Bridge::start(&configure(dir.path(), "bus: { local: {} }", acme(), rest));
    let client = reqwest::Client::new();
    let said = format!("{}/v1/accounts/acme/custom-data/tracker/350000000000017", bridge.admin);
    let said = client.put(said).json(&json!({ "note": "n".repeat(15_000) })).send().await.unwrap();
    assert_eq!(said.status(), 200);
    let at = jiff::Timestamp::now().as_millisecond() - 60_000_000;
    let crumbs: String = (0..CRUMBS).map(|n| format!("{},38.6,-90.2;", at + n * 1_000)).collect();
    let carrier = json!({
        "pushType": "POSITION", "deviceNumber": "350000000000017", "date": at + CRUMBS * 1_000,
        "latitude": 38.6, "longitude": -90.2, "batchedPositions": crumbs,
    });
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let answer = client.post(url).bearer_auth(TOKEN).json(&carrier).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", bridge.log_text());
    let url = format!("{}/v1/events?after=0&follow=false&topic=fleet.position", bridge.admin);
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    let time = |line: &str| -> String {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["event"]["occurTime"].as_str().unwrap().to_owned()
    };
    let times: Vec<String> = text.lines().map(time).collect();
    assert_eq!(times.len() as i64, CRUMBS + 1);
    assert!(
        times.is_sorted(),
        "the carrier is event {:?}",
        times.iter().position(|time| Some(time) == times.iter().max())
    );
}
