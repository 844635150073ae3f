//! The faults, and which of them a seed chooses: every kind once in a shuffled order, then again, every third time two at
//! once. What each one does is in `strike`.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::bus::{Kind, Size};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of the bridge.
    Kill,
    /// It dies with rows in an uncommitted transaction.
    DieBeforePark,
    /// It dies with rows committed, and nobody told.
    DieAfterPark,
    /// It dies between the bus's acknowledgement and dedup.
    DieAfterAck,
    /// It dies between durable rows and the cursor.
    DieBeforeCursor,
    /// It dies while it removes what is old.
    DieInRetention,
    /// It dies between the acknowledgement of drained rows and their deletion.
    DieInDrain,
    /// SIGTERM under load.
    Terminate,
    /// The broker is killed, and comes back.
    BrokerKilled,
    /// It hangs for a few seconds.
    BrokerPaused,
    /// It hangs for longer than the client waits for a socket.
    BrokerPausedLong,
    /// Connections are cut again and again.
    ProxyCuts,
    /// Every piece comes late.
    ProxyDelays,
    /// Bytes drip.
    ProxyDrips,
    /// What the bridge sends does not arrive.
    HoleUp,
    /// What the broker answers does not arrive, and then the connection is cut.
    HoleDown,
    /// A topic is deleted, and restored.
    TopicDeleted,
    /// The right to write is taken, and given again.
    Denied,
    /// Messages that no bus takes.
    TooLarge,
    /// The stream takes nothing more, and then does again.
    StreamFull,
    /// The disk is full while the bus is away.
    DiskFull,
    /// The clock is set forward, and back.
    ClockForward,
    /// The clock is set back, and forward.
    ClockBack,
    /// Senders are slow, or hang up.
    RudeSenders,
    /// The pull API does not answer.
    PullTimesOut,
    /// It answers 200 with an error in it.
    PullErrs,
    /// It answers an empty list.
    PullEmpty,
    /// It answers the first page again.
    PullRepeats,
    /// It refuses the token or JWT.
    PullRefuses,
    /// It answers 429 to everything for long.
    PullLimits,
}

/// What a campaign can do where it runs.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    pub bus: Kind,
    pub size: Size,
    /// `data_dir` is on a disk of its own that can be filled.
    pub small_disk: bool,
}

impl Fault {
    pub const ALL: [Self; 30] = [
        Self::Kill,
        Self::DieBeforePark,
        Self::DieAfterPark,
        Self::DieAfterAck,
        Self::DieBeforeCursor,
        Self::DieInRetention,
        Self::DieInDrain,
        Self::Terminate,
        Self::BrokerKilled,
        Self::BrokerPaused,
        Self::BrokerPausedLong,
        Self::ProxyCuts,
        Self::ProxyDelays,
        Self::ProxyDrips,
        Self::HoleUp,
        Self::HoleDown,
        Self::TopicDeleted,
        Self::Denied,
        Self::TooLarge,
        Self::StreamFull,
        Self::DiskFull,
        Self::ClockForward,
        Self::ClockBack,
        Self::RudeSenders,
        Self::PullTimesOut,
        Self::PullErrs,
        Self::PullEmpty,
        Self::PullRepeats,
        Self::PullRefuses,
        Self::PullLimits,
    ];

    /// What the report calls it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of the bridge",
            Self::DieBeforePark => "death before a park is committed",
            Self::DieAfterPark => "death after a park is committed, before anyone is told",
            Self::DieAfterAck => "death between the bus's acknowledgement and dedup",
            Self::DieBeforeCursor => "death between durable rows and the cursor",
            Self::DieInRetention => "death in retention",
            Self::DieInDrain => "death in the drain",
            Self::Terminate => "SIGTERM under load, and restart",
            Self::BrokerKilled => "broker killed, and restarted",
            Self::BrokerPaused => "broker paused for seconds",
            Self::BrokerPausedLong => "broker paused for longer than the client's socket time-out",
            Self::ProxyCuts => "connections cut",
            Self::ProxyDelays => "network delay",
            Self::ProxyDrips => "network drips",
            Self::HoleUp => "black hole towards the broker",
            Self::HoleDown => "black hole towards the bridge, then a cut",
            Self::TopicDeleted => "topic deleted, and restored",
            Self::Denied => "authorization denied, and restored",
            Self::TooLarge => "messages that no bus takes",
            Self::StreamFull => "stream full, and not",
            Self::DiskFull => "disk full while the bus hangs, and not",
            Self::ClockForward => "clock stepped forward, and back",
            Self::ClockBack => "clock stepped back, and forward",
            Self::RudeSenders => "slow senders, and senders that hang up",
            Self::PullTimesOut => "pull API does not answer",
            Self::PullErrs => "pull API answers 200 with an error",
            Self::PullEmpty => "pull API answers an empty list",
            Self::PullRepeats => "pull API repeats a page",
            Self::PullRefuses => "pull API refuses token and JWT",
            Self::PullLimits => "pull API answers 429 for long",
        }
    }

    const fn is_possible(self, means: Means) -> bool {
        match self {
            Self::StreamFull => matches!(means.bus, Kind::Nats),
            Self::DiskFull => means.small_disk,
            Self::ProxyCuts | Self::ProxyDelays | Self::ProxyDrips | Self::HoleUp | Self::HoleDown => {
                matches!(means.size, Size::One)
            }
            _ => true,
        }
    }

    /// Whether another may strike at the same time: it starts and stops no process, and holds nobody up.
    const fn mixes(self) -> bool {
        !matches!(
            self,
            Self::Kill
                | Self::DieBeforePark
                | Self::DieAfterPark
                | Self::DieAfterAck
                | Self::DieBeforeCursor
                | Self::DieInRetention
                | Self::DieInDrain
                | Self::Terminate
                | Self::TopicDeleted
        )
    }

    /// What takes the bus away from the bridge, each in a way that only itself takes back.
    pub const fn is_of_the_bus(self) -> bool {
        matches!(
            self,
            Self::BrokerKilled
                | Self::BrokerPaused
                | Self::BrokerPausedLong
                | Self::ProxyCuts
                | Self::ProxyDelays
                | Self::ProxyDrips
                | Self::HoleUp
                | Self::HoleDown
                | Self::TopicDeleted
                | Self::Denied
                | Self::StreamFull
                | Self::DiskFull
        )
    }
}

/// One turn: a fault, or two at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    pub first: Fault,
    /// Strikes while the first does.
    pub second: Option<Fault>,
    /// Decides lengths and sizes.
    pub draw: u64,
}

/// The turns of a campaign that has so many faults.
pub fn plan(seed: u64, faults: usize, means: Means) -> Vec<Strike> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pile: Vec<Fault> = Vec::new();
    let mut deal = |random: &mut StdRng| {
        if pile.is_empty() {
            pile = Fault::ALL.into_iter().filter(|fault| fault.is_possible(means)).collect();
            pile.shuffle(random);
        }
        pile.pop().expect("some kind is possible everywhere")
    };
    let mut strikes: Vec<Strike> = Vec::new();
    let mut left = faults;
    while left > 0 {
        let first = deal(&mut random);
        let draw = random.random();
        let mut strike = Strike { first, second: None, draw };
        left -= 1;
        if strikes.len() % 3 == 2 && left > 0 {
            strike.second = Some(deal(&mut random));
            left -= 1;
        }
        match strike.second {
            // What does not mix goes one after the other.
            Some(second) if !goes_with(first, second) => {
                strikes.push(Strike { second: None, ..strike });
                strikes.push(Strike { first: second, second: None, draw: random.random() });
            }
            _ => strikes.push(strike),
        }
    }
    strikes
}

/// Whether two may strike at once: two that take the bus away could not be told apart, and one that ends the process goes
/// with trouble on the bus alone, the mixture that matters most.
fn goes_with(first: Fault, second: Fault) -> bool {
    let dies = |fault| matches!(fault, Fault::Kill | Fault::Terminate);
    match (first.mixes(), second.mixes()) {
        (true, true) => !(first.is_of_the_bus() && second.is_of_the_bus()),
        (true, false) => first.is_of_the_bus() && dies(second),
        (false, true) => second.is_of_the_bus() && dies(first),
        (false, false) => false,
    }
}

#[test]
fn a_seed_says_the_same_twice_and_every_kind_comes() {
    let means = Means { bus: Kind::Nats, size: Size::One, small_disk: true };
    let all = plan(7, 40, means);
    assert_eq!(all, plan(7, 40, means));
    let struck: Vec<Fault> =
        all.iter().flat_map(|strike| [Some(strike.first), strike.second]).flatten().collect();
    assert_eq!(struck.len(), 40);
    assert!(Fault::ALL.iter().all(|fault| struck.contains(fault)), "{struck:?}");
    assert!(all.iter().any(|strike| strike.second.is_some()), "{all:?}");
}
