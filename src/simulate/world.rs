//! A fleet that does not exist: vehicles that drive along the streets of a made-up town, stop at its places, and are seen
//! by a provider. Pure and seeded: what happens between two times is a function of the seed, whoever asks, and how often.
//! Shares nothing with `provider/`: facts are rendered by `render`.

/// Where the town is.
const TOWN: (f64, f64) = (38.6270, -90.1994);
/// Between two streets, in degrees of latitude: about 400 m.
const BLOCK: f64 = 0.0036;
/// Streets each way.
const STREETS: i64 = 14;
/// Between two fixes of a vehicle that moves.
const FIX_MS: i64 = 30_000;
/// Between two breadcrumbs.
const CRUMB_MS: i64 = 10_000;
/// Between two signs of life of one that is parked.
const PARKED_MS: i64 = 300_000;

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Decides everything.
    pub seed: u64,
    /// How many vehicles.
    pub vehicles: u32,
    /// When it begins, in ms since 1970.
    pub begins: i64,
}

/// A point in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Latitude.
    pub lat: f64,
    /// Longitude.
    pub lon: f64,
}

/// One thing that happened to one vehicle.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Whose, from 0.
    pub vehicle: u32,
    /// When it is known.
    pub at: i64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A fix, with the breadcrumbs since the one before.
    Position {
        /// Where.
        point: Point,
        /// In mph.
        speed: i64,
        /// Degrees from north.
        direction: i64,
        /// In miles.
        odometer: f64,
        /// Whether it drives.
        moving: bool,
        /// Times and places since the last fix.
        crumbs: Vec<(i64, Point)>,
    },
    /// Ignition on to off.
    Trip {
        /// Ignition on.
        start: i64,
        /// From.
        from: Point,
        /// To.
        to: Point,
        /// In miles.
        miles: f64,
    },
    /// A stop that ended.
    Stop {
        /// Ignition off.
        start: i64,
        /// Where.
        point: Point,
    },
    /// The place of a stop, entered or left.
    Crossing {
        /// The place.
        place: u32,
        /// When it was entered.
        entered: i64,
        /// When it was left: none on entering.
        left: Option<i64>,
    },
    /// The vehicle was too fast.
    HighSpeed {
        /// In mph.
        speed: i64,
    },
}

impl What {
    /// A word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Position { .. } => "position",
            Self::Trip { .. } => "trip",
            Self::Stop { .. } => "stop",
            Self::Crossing { .. } => "geofence-crossing",
            Self::HighSpeed { .. } => "alert",
        }
    }
}

/// One drive and the stop after it.
struct Leg {
    starts: i64,
    arrives: i64,
    leaves: i64,
    from: (i64, i64),
    to: (i64, i64),
    miles_before: f64,
}

impl Leg {
    fn blocks(&self) -> i64 {
        (self.from.0 - self.to.0).abs() + (self.from.1 - self.to.1).abs()
    }

    fn miles(&self) -> f64 {
        self.blocks() as f64 * 0.249
    }

    /// First along one street, then along the other.
    fn at(&self, time: i64) -> (Point, i64) {
        let share = (time - self.starts) as f64 / (self.arrives - self.starts) as f64;
        let gone = share.clamp(0.0, 1.0) * self.blocks() as f64;
        let (dx, dy) = (self.to.0 - self.from.0, self.to.1 - self.from.1);
        let (x, y) = if gone <= dx.abs() as f64 {
            (self.from.0 as f64 + gone * dx.signum() as f64, self.from.1 as f64)
        } else {
            let rest = gone - dx.abs() as f64;
            (self.to.0 as f64, self.from.1 as f64 + rest * dy.signum() as f64)
        };
        let east = gone < dx.abs() as f64;
        let direction = match (east, dx.signum(), dy.signum()) {
            (true, 1, _) => 90,
            (true, ..) => 270,
            (false, _, 1) => 0,
            (false, ..) => 180,
        };
        (point(x, y), direction)
    }
}

fn point(x: f64, y: f64) -> Point {
    let middle = STREETS as f64 / 2.0;
    let round = |degrees: f64| (degrees * 1e6).round() / 1e6;
    Point { lat: round(TOWN.0 + (y - middle) * BLOCK), lon: round(TOWN.1 + (x - middle) * BLOCK * 1.28) }
}

impl World {
    /// What happened to all vehicles after `from`, up to and with `to`, in order of time.
    #[must_use]
    pub fn facts(&self, from: i64, to: i64) -> Vec<Fact> {
        let mut facts: Vec<Fact> =
            (0..self.vehicles).flat_map(|vehicle| self.facts_of(vehicle, from, to)).collect();
        facts.sort_by_key(|fact| fact.at);
        facts
    }

    /// What happened to one.
    #[must_use]
    pub fn facts_of(&self, vehicle: u32, from: i64, to: i64) -> Vec<Fact> {
        let mut facts = Vec::new();
        for leg in self.legs(vehicle, to) {
            if leg.leaves + 1_000 <= from {
                continue;
            }
            self.leg_facts(vehicle, &leg, &mut facts);
        }
        facts.retain(|fact| from < fact.at && fact.at <= to);
        facts.sort_by_key(|fact| fact.at);
        facts
    }

    /// The last fix of a vehicle up to `to`.
    #[must_use]
    pub fn last_fix(&self, vehicle: u32, to: i64) -> Option<Fact> {
        let fixes = self.facts_of(vehicle, to - PARKED_MS * 3, to);
        fixes.into_iter().rev().find(|fact| matches!(fact.what, What::Position { .. }))
    }

    /// The place with this number: a street corner.
    #[must_use]
    pub fn place(&self, place: u32) -> Point {
        point(f64::from(place % STREETS as u32), f64::from(place / STREETS as u32))
    }

    fn hash(&self, vehicle: u32, what: u64) -> u64 {
        // SplitMix64: enough to make vehicles differ.
        let mut z = self.seed ^ (u64::from(vehicle) << 32) ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn corner(&self, vehicle: u32, leg: u64) -> (i64, i64) {
        let hash = self.hash(vehicle, leg * 3 + 1);
        ((hash % STREETS as u64) as i64, ((hash >> 16) % STREETS as u64) as i64)
    }

    fn legs(&self, vehicle: u32, to: i64) -> Vec<Leg> {
        let mut legs = Vec::new();
        let mut starts = self.begins + (self.hash(vehicle, 0) % 60) as i64 * 1_000;
        let mut miles_before = 40_000.0 + (self.hash(vehicle, 2) % 9_000) as f64;
        for number in 0.. {
            if starts > to {
                break;
            }
            let (from, mut end) = (self.corner(vehicle, number), self.corner(vehicle, number + 1));
            if from == end {
                end = ((end.0 + 3) % STREETS, (end.1 + 2) % STREETS);
            }
            let mut leg = Leg { starts, arrives: 0, leaves: 0, from, to: end, miles_before };
            leg.arrives = starts + leg.blocks() * 30_000;
            leg.leaves = leg.arrives + 120_000 + (self.hash(vehicle, number * 3 + 2) % 180) as i64 * 1_000;
            miles_before += leg.miles();
            starts = leg.leaves + 1_000;
            legs.push(leg);
        }
        legs
    }

    fn leg_facts(&self, vehicle: u32, leg: &Leg, facts: &mut Vec<Fact>) {
        let mut add = |at, what| facts.push(Fact { vehicle, at, what });
        let speed = 25 + (self.hash(vehicle, leg.starts.unsigned_abs()) % 10) as i64;
        let odometer = |at: i64| {
            let share = (at - leg.starts) as f64 / (leg.arrives - leg.starts) as f64;
            ((leg.miles_before + share.clamp(0.0, 1.0) * leg.miles()) * 10.0).round() / 10.0
        };
        let mut at = leg.starts + FIX_MS;
        while at < leg.arrives {
            let (point, direction) = leg.at(at);
            let crumbs = [2, 1].map(|n| (at - n * CRUMB_MS, leg.at(at - n * CRUMB_MS).0)).to_vec();
            let odometer = odometer(at);
            add(at, What::Position { point, speed, direction, odometer, moving: true, crumbs });
            at += FIX_MS;
        }
        let (point, _) = leg.at(leg.arrives);
        let parked = |at| What::Position {
            point,
            speed: 0,
            direction: 0,
            odometer: odometer(at),
            moving: false,
            crumbs: Vec::new(),
        };
        add(leg.arrives, parked(leg.arrives));
        let (from, to) = (leg.at(leg.starts).0, point);
        add(leg.arrives + 1, What::Trip { start: leg.starts, from, to, miles: leg.miles() });
        let place = (leg.to.0 + leg.to.1 * STREETS) as u32;
        add(leg.arrives + 2, What::Crossing { place, entered: leg.arrives + 2, left: None });
        let mut at = leg.arrives + PARKED_MS;
        while at < leg.leaves {
            add(at, parked(at));
            at += PARKED_MS;
        }
        add(leg.leaves, What::Stop { start: leg.arrives, point });
        let (entered, left) = (leg.arrives + 2, Some(leg.leaves + 1));
        add(leg.leaves + 1, What::Crossing { place, entered, left });
        if self.hash(vehicle, leg.arrives.unsigned_abs()).is_multiple_of(4) && leg.blocks() > 3 {
            add(leg.starts + 65_000, What::HighSpeed { speed: speed + 40 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World = World { seed: 7, vehicles: 5, begins: 1_767_009_600_000 };

    #[test]
    fn what_happened_does_not_depend_on_how_often_one_asks() {
        let (from, to) = (WORLD.begins, WORLD.begins + 7_200_000);
        let whole = WORLD.facts(from, to);
        let mut pieces = Vec::new();
        let mut at = from;
        while at < to {
            pieces.extend(WORLD.facts(at, at + 7_000));
            at += 7_000;
        }
        pieces.retain(|fact| fact.at <= to);
        assert_eq!(whole, pieces);
        assert!(whole.iter().any(|fact| matches!(fact.what, What::HighSpeed { .. })));
        assert_ne!(whole, World { seed: 8, ..WORLD }.facts(from, to));
    }

    #[test]
    fn a_vehicle_is_never_at_two_places_and_never_jumps() {
        let facts = WORLD.facts_of(1, WORLD.begins, WORLD.begins + 7_200_000);
        let fixes: Vec<(i64, Point)> = facts
            .iter()
            .filter_map(|fact| match &fact.what {
                What::Position { point, .. } => Some((fact.at, *point)),
                _ => None,
            })
            .collect();
        assert!(fixes.len() > 50);
        for pair in fixes.windows(2) {
            assert!(pair[0].0 < pair[1].0);
            let moved = (pair[0].1.lat - pair[1].1.lat).abs() + (pair[0].1.lon - pair[1].1.lon).abs();
            assert!(moved < 0.02, "{pair:?}");
        }
    }
}
