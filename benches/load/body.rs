//! Requests as a provider sends them, rendered once and then only changed in their digits: the generator shares its cores
//! with what it measures. Invariant: no two requests of one run tell the same fact, and each vehicle's times only rise.

use std::cell::Cell;
use std::rc::Rc;

/// The token of the accounts under test.
pub use crate::bridge::TOKEN;

/// Between two positions of a vehicle, in ms: hours of load are minutes of a fleet's time.
const STEP: i64 = 10;
/// The first vehicle's IMEI.
const FIRST: u64 = 350_000_000_000_000;

/// Vehicles, each with the time of its next position.
#[derive(Clone)]
pub struct Fleet {
    next: Rc<Vec<Cell<i64>>>,
}

impl Fleet {
    /// So many vehicles, that begin an hour ago.
    pub fn new(vehicles: usize) -> Self {
        let begins = jiff::Timestamp::now().as_millisecond() - 3_600_000;
        Self { next: Rc::new(vec![Cell::new(begins); vehicles]) }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    fn tick(&self, vehicle: usize) -> i64 {
        let at = self.next[vehicle].get() + STEP;
        self.next[vehicle].set(at);
        at
    }
}

/// One position of 230 bytes, in the flat format.
pub fn position(vehicle: usize, at: i64) -> String {
    format!(
        "{{\"pushType\":\"POSITION\",\"deviceNumber\":\"{imei:015}\",\"deviceSerialNumber\":\"SN{vehicle:08}\",\
         \"date\":{at:013},\"latitude\":38.62701,\"longitude\":-90.19941,\"speed\":34,\"heading\":\"NE\",\
         \"direction\":47,\"currentState\":\"MOVING\",\"engineOn\":true}}",
        imei = FIRST + vehicle as u64
    )
}

/// Where the digits of one event stand in a request.
struct Places {
    imei: usize,
    serial: usize,
    date: usize,
}

/// One connection's requests: of `events` positions each, over every `stride`th vehicle.
pub struct Requests {
    fleet: Fleet,
    bytes: Vec<u8>,
    places: Vec<Places>,
    vehicle: usize,
    stride: usize,
}

impl Requests {
    /// The requests of connection `index` of `of`.
    pub fn new(path: &str, fleet: &Fleet, events: usize, index: usize, of: usize) -> Self {
        let one = position(0, 0);
        let body = match events {
            1 => one,
            _ => format!("[{}]", vec![one; events].join(",")),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let bytes = (head + &body).into_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let after = |name: &'static str| {
            text.match_indices(name).map(move |(at, found)| at + found.len()).collect::<Vec<_>>()
        };
        let places = after("\"deviceNumber\":\"")
            .into_iter()
            .zip(after("\"deviceSerialNumber\":\"SN"))
            .zip(after("\"date\":"))
            .map(|((imei, serial), date)| Places { imei, serial, date })
            .collect();
        Self { fleet: fleet.clone(), bytes, places, vehicle: index % fleet.len(), stride: of }
    }

    /// How many events a request has.
    pub fn events(&self) -> usize {
        self.places.len()
    }

    /// The next request.
    pub fn next(&mut self) -> &[u8] {
        for place in &self.places {
            let at = self.fleet.tick(self.vehicle);
            digits(&mut self.bytes[place.imei..place.imei + 15], FIRST + self.vehicle as u64);
            digits(&mut self.bytes[place.serial..place.serial + 8], self.vehicle as u64);
            digits(&mut self.bytes[place.date..place.date + 13], at.unsigned_abs());
            self.vehicle = (self.vehicle + self.stride) % self.fleet.len();
        }
        &self.bytes
    }
}

fn digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
