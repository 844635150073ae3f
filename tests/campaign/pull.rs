//! The polled account's side: a provider whose world is known, that fails on request; what its cursors have gone past, read
//! from the store's file after the bridge has stopped, must have been consumed.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fleetbus::simulate::Clock;
use fleetbus::simulate::serve::{Fault, FaultKind, Provider};
use fleetbus::simulate::world::{Braked, What, World};
use serde_json::Value;

use super::child::TOKEN;
use super::facts::{Account, Fact, Kind};

/// Vehicles that are polled.
const VEHICLES: u32 = 12;
/// How long ago their world began, in ms.
const AGE_MS: i64 = 3 * 3_600_000;

/// The provider.
pub struct Pull {
    provider: Provider,
    world: World,
    clock: Clock,
    address: SocketAddr,
}

impl Pull {
    pub async fn serve(seed: u64) -> Self {
        let begins = jiff::Timestamp::now().as_millisecond() - AGE_MS;
        let world = World { seed, vehicles: VEHICLES, begins };
        let clock = Clock::new(begins + AGE_MS - 60_000, 1.0);
        let provider = Provider::new(world, clock.clone(), TOKEN.to_owned(), Duration::ZERO);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let routes = provider.clone().router();
        #[expect(clippy::disallowed_methods, reason = "a test's own task")]
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { provider, world, clock, address }
    }

    /// The account's configuration.
    pub fn configuration(&self) -> String {
        format!(
            "  - id: polled-v2\n    provider: linxup\n    poll:\n      \
             - {{ api: v2, base_url: \"http://{address}/ibis/rest/api/v2\", token: {{ env: TEST_TOKEN }}, feeds: {{ history: 1s }} }}\n  \
             - id: polled-v3\n    provider: linxup\n    poll:\n      \
             - {{ api: v3, base_url: \"http://{address}/pullapi/api/v3\", key: {{ env: TEST_TOKEN }}, feeds: {{ positions: 5s }} }}\n",
            address = self.address
        )
    }

    /// The next calls fail so.
    pub fn fail(&self, fault: FaultKind, calls: u32) {
        if fault == FaultKind::Unauthorized {
            self.provider.expire_jwts();
        }
        // An empty page of several would be believed, as it must be; an empty list where there was something is not, at first.
        let path = match fault {
            FaultKind::Empty => "locations",
            FaultKind::RepeatPage => "positions",
            _ => "",
        };
        self.provider.fail(Fault { fault, calls, path: path.to_owned() });
    }

    /// All that a poller may have fetched.
    pub fn pollable(&self) -> HashSet<Fact> {
        let now = self.clock.now();
        Account::POLLED.into_iter().flat_map(|account| self.facts(account, now)).collect()
    }

    /// What the cursors in the store have gone past.
    pub fn polled(&self, data_dir: &Path) -> HashSet<Fact> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let store =
            rusqlite::Connection::open_with_flags(data_dir.join("store.db"), flags).expect("the store");
        let mut query = store.prepare("SELECT value FROM cursors WHERE account = ?1").expect("cursors");
        let mut polled = HashSet::new();
        for account in Account::POLLED {
            let cursors = query.query_map([account.word()], |row| row.get::<_, String>(0)).expect("cursors");
            let position = |cursor: rusqlite::Result<String>| {
                let cursor: Value = serde_json::from_str(&cursor.expect("a cursor")).expect("JSON");
                cursor["position"].as_i64()
            };
            if let Some(past) = cursors.filter_map(position).max() {
                polled.extend(self.facts(account, past));
            }
        }
        polled
    }

    fn facts(&self, account: Account, upto: i64) -> HashSet<Fact> {
        let happened = self.world.facts(self.world.begins - 1, upto);
        let fact = |fact: &fleetbus::simulate::world::Fact| {
            let kind = match &fact.what {
                What::Position { braked: Braked::Harshly, .. } => Kind::Braking,
                What::Position { braked: Braked::No, .. } => Kind::Position,
                _ => return None,
            };
            Some(Fact { account, kind, vehicle: fact.vehicle, at: fact.at })
        };
        happened.iter().filter_map(fact).collect()
    }
}
