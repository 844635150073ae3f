//! The hot path without its edges: one element's bytes become one message, as `intake/accept.rs` does it. Shared by what
//! counts its instructions and allocations, and by what takes its time.

use std::time::Duration;

use fleetbus::bus::Message;
use fleetbus::config;
use fleetbus::encode::encode;
use fleetbus::event::{AccountId, Millis, pb};
use fleetbus::provider::{self, Context, Directory, Outcome, Provider, Resolved, Source};
use fleetbus::route::{BusKind, Router};

/// A flat position of 230 bytes, as the generator sends it.
pub const FLAT: &[u8] = br#"{"pushType":"POSITION","deviceNumber":"350000000000017","deviceSerialNumber":"SN00000017","date":1767009600000,"latitude":38.62701,"longitude":-90.19941,"speed":34,"heading":"NE","direction":47,"currentState":"MOVING","engineOn":true}"#;
/// A V3 position as it comes from a tracker in a vehicle: nested, without breadcrumbs.
pub const V3: &[u8] = br#"{"date":1767009600000,"latitude":38.62701,"longitude":-90.19941,"altitude":141.0,"speed":34,"heading":"NE","direction":47,"odometer":48211,"fuelLevel":"61.5%","estimatedSpeedLimit":35,"speeding":false,"behaviorCode":null,"editDate":1767009602300,"engineOn":true,"address":{"street":"100 Example St","street2":null,"city":"Sampletown","stateCode":"MO","postalCode":"00000","countryCode":"USA"},"tracker":{"trackerId":18000100017,"name":"Van 17","deviceNumber":"350000000000017","deviceSerialNumber":"SN000017"},"person":{"personId":18000200004,"name":"Sample Driver"}}"#;
/// What decoding knows of an account.
pub struct Bench {
    account: AccountId,
    directory: Directory,
    router: Router,
}

impl Bench {
    /// An account whose trackers are known.
    pub fn new(samples: &[&[u8]]) -> Self {
        let mut bench = Self {
            account: AccountId::new("acme"),
            directory: Directory::default(),
            // Its topics and headers are Kafka's.
            router: Router::new(&config::Bus::Local(config::Local {
                retention: Duration::ZERO,
                max_size: 0,
            })),
        };
        for sample in samples {
            let learnt = bench.decode(sample).learnt;
            bench.directory.learn(&learnt);
        }
        bench
    }

    fn decode(&self, raw: &[u8]) -> provider::Decoded {
        let context = Context {
            account: &self.account,
            channel: pb::origin::Channel::Webhook,
            received_at: Millis(1_767_009_601_000),
            directory: &self.directory,
        };
        provider::decode(Provider::Linxup, &Source::Push { hint: None }, raw, &context)
    }

    /// Decodes, identifies, routes and encodes one element.
    pub fn message(&self, raw: &[u8]) -> Message {
        let decoded = self.decode(raw);
        let Outcome::Events(drafts) = decoded.outcome else { panic!("an event") };
        let draft = drafts.into_iter().next().expect("one event");
        let event_type = draft.event_type;
        let Resolved::Event { event, .. } = provider::resolve_state(draft, None) else { panic!("an event") };
        let topic = self.router.topic(Provider::Linxup, &self.account, event_type, &event.subject);
        let id = event.id.parse().expect("an id");
        encode(&event, id, event_type, topic, BusKind::Local, None)
    }
}

/// Bytes of the message that a flat position becomes: headers and value.
pub fn message_bytes() -> usize {
    let message = Bench::new(&[FLAT]).message(FLAT);
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    headers + message.payload.len()
}
