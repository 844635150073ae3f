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
    /// Requests that were written, and got no answer.
    pub cut: usize,
}

/// When the first position is: two hours ago, so that dedup remembers it.
pub fn start() -> i64 {
    (jiff::Timestamp::now().as_millisecond() - 7_200_000) / 1_000 * 1_000
}

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

/// So long a vehicle comes again with one position. Where a broker or the bridge stays away, the test says so and ends.
const PATIENCE: Duration = Duration::from_secs(180);

/// Drives one vehicle through `positions` positions; odd ones in the V3 format.
pub async fn drive(
    client: reqwest::Client,
    address: Address,
    ledger: Arc<Mutex<Ledger>>,
    vehicle: usize,
    positions: usize,
    from: i64,
) {
    for step in 0..positions {
        let at = from + step as i64 * 1_000;
        let body = if step % 2 == 0 { flat(vehicle, at) } else { nested(vehicle, at) };
        let fact = Fact { subject: imei(vehicle), at };
        ledger.lock().expect("no panic").sent.insert(fact.clone());
        let begun = Instant::now();
        loop {
            let base = address.lock().expect("no panic").clone();
            if base.is_empty() {
                // No endpoint at the moment.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let url = format!("{base}/webhooks/acme");
            let sent = client.post(url).bearer_auth(TOKEN).json(&body).send().await;
            // A connection that was refused took nothing.
            let cut = sent.as_ref().is_err_and(|error| !error.is_connect());
            let status = sent.map_or(0, |answer| answer.status().as_u16());
            let answered = (200..300).contains(&status);
            {
                let mut ledger = ledger.lock().expect("no panic");
                if answered {
                    ledger.answered.push(fact.clone());
                } else {
                    ledger.cut += usize::from(cut);
                    ledger.refused.push(status);
                }
            }
            if answered {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "position {step} of vehicle {vehicle} in vain: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A client that many vehicles share.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(15)).build().expect("a client")
}
