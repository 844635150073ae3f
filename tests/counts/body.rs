//! Bodies of flat positions through the one entrance to delivery, in process and on the local bus: split, decode, identify, dedup,
//! lanes, acknowledgement, receipt. What SQLite does on threads of its own is not within what is counted.

use bytes::Bytes;
use fleetbus::app::{self, Handle};
use fleetbus::clock;
use fleetbus::config::{self, load::ThisProcess};
use fleetbus::event::AccountId;
use fleetbus::intake::accept::{Pushed, Receipt, Refusal};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Positions of a body, each of another vehicle.
pub const EVENTS: u64 = 100;
/// Vehicles, so that a vehicle has an event in every tenth body.
const VEHICLES: u64 = 1_000;

/// Makes all vehicles known, and then takes so many bodies.
pub fn run(rounds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("token"), "webhook-token").expect("a file");
    let text = format!(
        "listen: {{ address: 127.0.0.1:0 }}\nadmin: {{ address: 127.0.0.1:0 }}\ndata_dir: {}\n\
         bus: {{ local: {{ retention: 24h, max_size: 1GiB }} }}\naccounts:\n  - id: acme\n    provider: linxup\n    \
         webhook: {{ token: {{ file: {} }} }}\n",
        path("data"),
        path("token")
    );
    let loaded = config::load(&text, &ThisProcess).expect("a configuration");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bridge = runtime.block_on(app::build(loaded.config)).expect("a bridge");
    let handle = bridge.handle();
    let (bus, never) = (handle.bus.clone(), CancellationToken::new());
    TaskTracker::new().spawn_on(async move { bus.run(never).await }, runtime.handle());
    let begins = clock::now().0 - 3_600_000;
    for round in 0..VEHICLES / EVENTS + rounds {
        let receipt = accept(&runtime, &handle, body(round, begins)).expect("a receipt");
        assert_eq!(receipt.delivered, EVENTS);
    }
    // The bus's thread ends with its handles.
    drop((handle, bridge));
    runtime.shutdown_background();
}

/// The positions of the vehicles whose turn it is.
fn body(round: u64, begins: i64) -> Bytes {
    let of = |place: u64| {
        let vehicle = (round * EVENTS + place) % VEHICLES;
        let at = begins + (round * 10).cast_signed();
        format!(
            "{{\"pushType\":\"POSITION\",\"deviceNumber\":\"{imei:015}\",\"deviceSerialNumber\":\"SN{vehicle:08}\",\
             \"date\":{at:013},\"latitude\":38.62701,\"longitude\":-90.19941,\"speed\":34,\"heading\":\"NE\",\
             \"direction\":47,\"currentState\":\"MOVING\",\"engineOn\":true}}",
            imei = 350_000_000_000_000 + vehicle
        )
    };
    format!("[{}]", (0..EVENTS).map(of).collect::<Vec<_>>().join(",")).into()
}

/// A function of its own, so that it can be told apart.
#[inline(never)]
fn accept(runtime: &Runtime, handle: &Handle, body: Bytes) -> Result<Receipt, Refusal> {
    let pushed =
        Pushed { account: AccountId::new("acme"), hint: None, body, received_at: clock::now(), trace: None };
    runtime.block_on(handle.acceptance.push(pushed))
}
