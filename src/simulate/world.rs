//! A fleet that does not exist: vehicles that drive along the streets of a made-up town, stop at its places, and are seen
//! by a provider. Pure and seeded: what happens between two times is a function of the seed, whoever asks, and how often.
//! Shares nothing with `provider/`: facts are rendered by `render`.

/// Where the town is.
const TOWN: (f64, f64) = (38.6270, -90.1994);
/// Between two streets, in degrees of latitude: about 400 m.
const BLOCK: f64 = 0.0036;
/// Streets each way.
const STREETS: i64 = 14;
/// The town does not lie north to south.
const TURNED: f64 = 0.24;
/// How long a vehicle takes from one street to the next: 30 mph.
const BLOCK_MS: i64 = 30_000;
/// Between two fixes of a vehicle that moves.
const FIX_MS: i64 = 30_000;
/// Between two breadcrumbs.
const CRUMB_MS: i64 = 10_000;
/// Between two signs of life of one that is parked.
const PARKED_MS: i64 = 300_000;

/// Where vehicles stop: a name, and a corner of the grid.
const PLACES: [(&str, (i64, i64)); 14] = [
    ("North Depot", (7, 13)),
    ("Quarry", (0, 12)),
    ("Mill Lane", (4, 10)),
    ("Hospital", (9, 9)),
    ("Harbour", (13, 11)),
    ("Old Market", (6, 7)),
    ("Station", (8, 6)),
    ("Brickworks", (1, 6)),
    ("School", (11, 5)),
    ("Garden Centre", (3, 3)),
    ("South Yard", (7, 1)),
    ("Waterworks", (12, 2)),
    ("Airfield", (13, 0)),
    ("Recycling", (0, 1)),
];

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

/// What a vehicle does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It drives.
    Moving,
    /// It stands, its engine on.
    Idling,
    /// It stands, its engine off.
    Parked,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The provider learnt of the tracker.
    Introduced,
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
        /// What it does.
        doing: Doing,
        /// Whether it braked harshly.
        braked: Braked,
        /// Times and places since the last fix.
        crumbs: Vec<(i64, Point)>,
    },
    /// Ignition on to off, of a vehicle.
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
    /// Ignition on to off, of a machine.
    Usage {
        /// Ignition on.
        start: i64,
        /// From.
        from: Point,
        /// To.
        to: Point,
    },
    /// A stop that ended.
    Stop {
        /// When it began.
        start: i64,
        /// Where.
        point: Point,
        /// With the engine on or off.
        doing: Doing,
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
    /// It braked harshly.
    HarshBraking,
    /// It came to a place that is watched.
    Arrived {
        /// The place.
        place: u32,
    },
    /// What its camera saw when it braked.
    Media,
    /// The tracker saw the tag on a tool.
    Sighting {
        /// Where.
        point: Point,
    },
    /// The tool was left behind.
    LeftBehind {
        /// When it was seen last.
        seen: i64,
        /// Where.
        point: Point,
    },
}

/// Whether a vehicle braked harshly at a fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Braked {
    /// It did.
    Harshly,
    /// It did not.
    No,
}

impl What {
    /// The type of the event that it becomes.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Introduced => "tracker",
            Self::Position { .. } => "position",
            Self::Trip { .. } => "trip",
            Self::Usage { .. } => "usage",
            Self::Stop { .. } => "stop",
            Self::Crossing { .. } => "geofence-crossing",
            Self::HighSpeed { .. } | Self::HarshBraking | Self::Arrived { .. } => "alert",
            Self::Media => "media",
            Self::Sighting { .. } => "item-sighting",
            Self::LeftBehind { .. } => "item-left-behind",
        }
    }

    /// Whether the V2 pull API has it: what is not sent can be healed.
    #[must_use]
    pub const fn is_pulled(&self) -> bool {
        match self {
            Self::Position { .. }
            | Self::Trip { .. }
            | Self::Usage { .. }
            | Self::Stop { .. }
            | Self::Crossing { .. }
            | Self::HighSpeed { .. }
            | Self::HarshBraking
            | Self::Arrived { .. } => true,
            Self::Introduced | Self::Media | Self::Sighting { .. } | Self::LeftBehind { .. } => false,
        }
    }
}

/// One drive and the stop after it.
struct Leg {
    starts: i64,
    /// How long it drives before it waits, and how long it waits.
    waits: (i64, i64),
    arrives: i64,
    leaves: i64,
    from: (i64, i64),
    to: (i64, i64),
    place: u32,
    miles_before: f64,
}

impl Leg {
    fn blocks(&self) -> i64 {
        blocks(self.from, self.to)
    }

    fn miles(&self) -> f64 {
        self.blocks() as f64 * 0.249
    }

    /// The share that lies behind it.
    fn share(&self, time: i64) -> f64 {
        let (before, waiting) = self.waits;
        let passed = time - self.starts;
        let driven = passed.min(before) + (passed - before - waiting).max(0);
        (driven as f64 / (self.blocks() * BLOCK_MS) as f64).clamp(0.0, 1.0)
    }

    fn is_waiting(&self, time: i64) -> bool {
        let (before, waiting) = self.waits;
        (before..before + waiting).contains(&(time - self.starts))
    }

    /// First along one street, then along the other.
    fn corner(&self, share: f64) -> (f64, f64) {
        let gone = share.clamp(0.0, 1.0) * self.blocks() as f64;
        let (dx, dy) = (self.to.0 - self.from.0, self.to.1 - self.from.1);
        if gone <= dx.abs() as f64 {
            (self.from.0 as f64 + gone * dx.signum() as f64, self.from.1 as f64)
        } else {
            let rest = gone - dx.abs() as f64;
            (self.to.0 as f64, self.from.1 as f64 + rest * dy.signum() as f64)
        }
    }

    /// Where it is, and where it looks.
    fn at(&self, time: i64) -> (Point, i64) {
        let share = self.share(time);
        let (behind, ahead) = (self.corner(share - 1e-3), self.corner(share + 1e-3));
        let (behind, ahead) = (plane(behind), plane(ahead));
        let degrees = (ahead.0 - behind.0).atan2(ahead.1 - behind.1).to_degrees();
        (point(self.corner(share)), (degrees.round() as i64).rem_euclid(360))
    }
}

fn blocks(from: (i64, i64), to: (i64, i64)) -> i64 {
    (from.0 - to.0).abs() + (from.1 - to.1).abs()
}

/// A place of the grid in blocks east and north of the middle: streets bend, and the town is turned.
fn plane((x, y): (f64, f64)) -> (f64, f64) {
    let middle = STREETS as f64 / 2.0;
    let (x, y) = (x - middle, y - middle);
    let (x, y) = (x + 0.45 * (y * 0.55).sin(), y + 0.4 * (x * 0.5 + 1.0).sin());
    (x * TURNED.cos() - y * TURNED.sin(), x * TURNED.sin() + y * TURNED.cos())
}

fn point(corner: (f64, f64)) -> Point {
    let (east, north) = plane(corner);
    let round = |degrees: f64| (degrees * 1e6).round() / 1e6;
    Point { lat: round(TOWN.0 + north * BLOCK), lon: round(TOWN.1 + east * BLOCK * 1.28) }
}

/// How many places there are.
#[must_use]
pub const fn places() -> u32 {
    PLACES.len() as u32
}

/// The place with this number.
#[must_use]
pub fn place(place: u32) -> (&'static str, Point) {
    let (name, (x, y)) = PLACES[place as usize % PLACES.len()];
    (name, point((x as f64, y as f64)))
}

/// Every sixth is a machine: its tracker reports usage, not trips.
#[must_use]
pub const fn is_machine(vehicle: u32) -> bool {
    vehicle % 6 == 5
}

/// Every other one has a tracker of the newer kind, with breadcrumbs, a camera and an eye for tags.
#[must_use]
pub const fn is_newer(vehicle: u32) -> bool {
    vehicle % 2 == 1
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
        let mut facts = vec![Fact { vehicle, at: self.begins + 1, what: What::Introduced }];
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

    fn hash(&self, vehicle: u32, what: u64) -> u64 {
        // SplitMix64: enough to make vehicles differ.
        let mut z = self.seed ^ (u64::from(vehicle) << 32) ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn goal(&self, vehicle: u32, leg: u64) -> u32 {
        let goal = |leg: u64| self.hash(vehicle, leg * 3 + 1) % u64::from(places());
        let (goal, before) = (goal(leg), leg.checked_sub(1).map(goal));
        // Not where it stands already.
        let goal = if before == Some(goal) { (goal + 5) % u64::from(places()) } else { goal };
        goal as u32
    }

    fn legs(&self, vehicle: u32, to: i64) -> Vec<Leg> {
        let mut legs = Vec::new();
        let mut starts = self.begins + 1_000 + (self.hash(vehicle, 0) % 60) as i64 * 1_000;
        let mut miles_before = 40_000.0 + (self.hash(vehicle, 2) % 9_000) as f64;
        let mut stands = PLACES[self.goal(vehicle, 0) as usize].1;
        for number in 1.. {
            if starts > to {
                break;
            }
            let hash = self.hash(vehicle, number * 3 + 2);
            let mut place = self.goal(vehicle, number);
            if PLACES[place as usize].1 == stands {
                place = (place + 1) % places();
            }
            let goal = PLACES[place as usize].1;
            let driving = blocks(stands, goal) * BLOCK_MS;
            let waiting = if hash.is_multiple_of(3) { (3 + (hash >> 8) as i64 % 5) * FIX_MS } else { 0 };
            let waits = (driving / BLOCK_MS / 2 * BLOCK_MS, waiting);
            let arrives = starts + driving + waiting;
            let leaves = arrives + 120_000 + (hash >> 16) as i64 % 180 * 1_000;
            let leg = Leg { starts, waits, arrives, leaves, from: stands, to: goal, place, miles_before };
            miles_before += leg.miles();
            (starts, stands) = (leaves + 1_000, goal);
            legs.push(leg);
        }
        legs
    }

    fn leg_facts(&self, vehicle: u32, leg: &Leg, facts: &mut Vec<Fact>) {
        let hash = self.hash(vehicle, leg.starts.unsigned_abs());
        let driving = 25 + (hash % 10) as i64;
        let braking = (hash >> 8).is_multiple_of(4).then_some(leg.arrives - FIX_MS);
        let mut add = |at, what| facts.push(Fact { vehicle, at, what });
        let mut fix = |at: i64, doing| {
            let (point, direction) = leg.at(at);
            let moves = doing == Doing::Moving;
            let before = |n: i64| (at - n * CRUMB_MS, leg.at(at - n * CRUMB_MS).0);
            add(
                at,
                What::Position {
                    point,
                    speed: if moves { driving } else { 0 },
                    direction: if moves { direction } else { 0 },
                    odometer: ((leg.miles_before + leg.share(at) * leg.miles()) * 10.0).round() / 10.0,
                    doing,
                    braked: if moves && braking == Some(at) { Braked::Harshly } else { Braked::No },
                    crumbs: if moves { [2, 1].map(before).to_vec() } else { Vec::new() },
                },
            );
        };
        let mut at = leg.starts + FIX_MS;
        while at < leg.arrives {
            fix(at, if leg.is_waiting(at) { Doing::Idling } else { Doing::Moving });
            at += FIX_MS;
        }
        while at < leg.leaves {
            fix(at, Doing::Parked);
            at += PARKED_MS;
        }
        self.leg_ends(vehicle, leg, facts);
        let mut add = |at, what| facts.push(Fact { vehicle, at, what });
        if leg.blocks() > 3 && (hash >> 16).is_multiple_of(4) {
            add(leg.starts + 65_000, What::HighSpeed { speed: driving + 40 });
        }
        let waits = braking.is_some_and(|at| leg.is_waiting(at));
        if let Some(at) = braking.filter(|at| *at > leg.starts && !waits) {
            add(at + 1, What::HarshBraking);
            if is_newer(vehicle) {
                add(at + 3_000, What::Media);
            }
        }
    }

    /// What a leg's end, and the end of each stop, say.
    fn leg_ends(&self, vehicle: u32, leg: &Leg, facts: &mut Vec<Fact>) {
        let mut add = |at, what| facts.push(Fact { vehicle, at, what });
        let (start, from, to) = (leg.starts, leg.at(leg.starts).0, leg.at(leg.arrives).0);
        let (before, waiting) = leg.waits;
        if waiting > 0 {
            let waited = start + before;
            let point = leg.at(waited).0;
            add(waited + waiting, What::Stop { start: waited, point, doing: Doing::Idling });
        }
        let drive = if is_machine(vehicle) {
            What::Usage { start, from, to }
        } else {
            What::Trip { start, from, to, miles: (leg.miles() * 1_000.0).round() / 1_000.0 }
        };
        add(leg.arrives + 1, drive);
        let (place, entered) = (leg.place, leg.arrives + 2);
        add(entered, What::Crossing { place, entered, left: None });
        if place == 0 {
            add(leg.arrives + 3, What::Arrived { place });
        }
        add(leg.leaves, What::Stop { start: leg.arrives, point: to, doing: Doing::Parked });
        add(leg.leaves + 1, What::Crossing { place, entered, left: Some(leg.leaves + 1) });
        if is_newer(vehicle) {
            let seen = leg.arrives + 4;
            add(seen, What::Sighting { point: to });
            if self.hash(vehicle, leg.leaves.unsigned_abs()).is_multiple_of(9) {
                add(leg.leaves + 900, What::LeftBehind { seen, point: to });
            }
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
