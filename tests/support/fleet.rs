//! A fleet of the tests: vehicles that push one position after the other, each only once the one before was answered 2xx,
//! and again until it is. Keeps the ledger that `checker` compares with the topic.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bridge::TOKEN;
use super::checker::Fact;

/// Where the bridge listens now: it moves when it is restarted.
pub type Address = Arc<Mutex<String>>;

/// What was sent and answered.
#[derive(Default)]
pub struct Ledger {
    /// Every fact ever sent.
    pub sent: HashSet<Fact>,
    /// Answered 2xx.
    pub answered: Vec<Fact>,
    /// Answers that were not 2xx, by status; 0 is no answer.
    pub refused: Vec<u16>,
    /// How long each 2xx took.
    pub took: Vec<Duration>,
}

/// When the first position was.
pub const START: i64 = 1_767_009_600_000;

/// The IMEI of a vehicle.
pub fn imei(vehicle: usize) -> String {
    format!("{:015}", 350_000_000_000_000_u64 + vehicle as u64)
}

/// A position in the flat format.
pub fn flat(vehicle: usize, at: i64) -> Value {
    json!({
        "pushType": "POSITION", "deviceNumber": imei(vehicle), "deviceSerialNumber": format!("SN{vehicle:06}"),
        "date": at, "latitude": 38.62701, "longitude": -90.19941, "speed": 34, "heading": "NE", "direction": 47,
        "currentState": "MOVING", "engineOn": true
    })
}

/// The same in the V3 format.
pub fn nested(vehicle: usize, at: i64) -> Value {
    json!({
        "date": at, "latitude": 38.62701, "longitude": -90.19941, "speed": 34, "direction": 47, "engineOn": true,
        "tracker": { "trackerId": 18_000_100_000_u64 + vehicle as u64, "name": "Van", "deviceNumber": imei(vehicle),
                     "deviceSerialNumber": format!("SN{vehicle:06}") }
    })
}

/// Drives one vehicle through `positions` positions; odd ones in the V3 format.
pub async fn drive(
    client: reqwest::Client,
    address: Address,
    ledger: Arc<Mutex<Ledger>>,
    vehicle: usize,
    positions: usize,
) {
    for step in 0..positions {
        let at = START + step as i64 * 1_000;
        let body = if step % 2 == 0 { flat(vehicle, at) } else { nested(vehicle, at) };
        let fact = Fact { subject: imei(vehicle), at };
        ledger.lock().expect("no panic").sent.insert(fact.clone());
        loop {
            let url = format!("{}/webhooks/acme", address.lock().expect("no panic"));
            let begun = Instant::now();
            let sent = client.post(url).bearer_auth(TOKEN).json(&body).send().await;
            let status = sent.map_or(0, |answer| answer.status().as_u16());
            let mut ledger = ledger.lock().expect("no panic");
            if (200..300).contains(&status) {
                ledger.answered.push(fact);
                ledger.took.push(begun.elapsed());
                break;
            }
            ledger.refused.push(status);
            drop(ledger);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A client that many vehicles share.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(15)).build().expect("a client")
}
