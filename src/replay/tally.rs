//! How much the store holds: counted by the transactions themselves, so that quotas and metrics never look into the
//! file. A [`Delta`] is written in the transaction that causes it and applied to the [`Ledger`] after its commit; the
//! ledger also carries what is reserved for parks that wait in the queue.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, params};

use super::{Filter, RawReason, Reason, WaitsFor};
use crate::event::{AccountId, Millis};

/// What a stored row is and why it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An event.
    Event(Reason),
    /// Raw bytes.
    Raw(RawReason),
}

impl Kind {
    /// Every kind, in the order of their codes in the store.
    pub const ALL: [Self; 6] = [
        Self::Event(Reason::Unavailable),
        Self::Event(Reason::Refused),
        Self::Event(Reason::Unfit),
        Self::Raw(RawReason::Unrecognized),
        Self::Raw(RawReason::Undecodable),
        Self::Raw(RawReason::NotJson),
    ];

    /// The spelling in the API and metrics: the reason's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event(reason) => reason.as_str(),
            Self::Raw(reason) => reason.as_str(),
        }
    }

    /// The kind whose spelling is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }

    /// Whom a row of this kind waits for.
    #[must_use]
    pub const fn waits_for(self) -> WaitsFor {
        match self {
            Self::Event(reason) => reason.waits_for(),
            Self::Raw(_) => WaitsFor::Operator,
        }
    }

    /// The code in the store: never change one, only add.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Event(Reason::Unavailable) => 0,
            Self::Event(Reason::Refused) => 1,
            Self::Event(Reason::Unfit) => 2,
            Self::Raw(RawReason::Unrecognized) => 3,
            Self::Raw(RawReason::Undecodable) => 4,
            Self::Raw(RawReason::NotJson) => 5,
        }
    }

    /// The kind with a code.
    pub(super) fn of_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|k| i64::from(k.code()) == code)
    }

    /// The rows among which this kind ages.
    const fn population(self) -> Population {
        match self {
            Self::Event(Reason::Unavailable | Reason::Refused) => Population::Bus,
            Self::Event(Reason::Unfit) => Population::Unfit,
            Self::Raw(_) => Population::Raw,
        }
    }
}

/// Rows that are scanned together when they get too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Population {
    /// Events that wait for the bus.
    Bus = 0,
    /// Events that wait for the operator.
    Unfit = 1,
    /// Raw bytes.
    Raw = 2,
}

/// Rows, and their bytes with what the store adds to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What one transaction changes.
#[derive(Debug, Default)]
pub(super) struct Delta {
    counts: BTreeMap<(AccountId, Kind), (i64, i64)>,
    ages: BTreeMap<(Population, i64), i64>,
}

/// What a row weighs in the counts.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    pub(super) account: AccountId,
    pub(super) kind: Kind,
    pub(super) cost: u64,
    pub(super) at: Millis,
}

/// Ages are counted by the minute: the bound of the map is the retention in minutes.
const fn minute(at: Millis) -> i64 {
    at.0.div_euclid(60_000)
}

impl Delta {
    /// A row was inserted.
    pub(super) fn add(&mut self, weight: &Weight) {
        self.change(weight, 1);
    }

    /// A row was deleted.
    pub(super) fn take(&mut self, weight: &Weight) {
        self.change(weight, -1);
    }

    fn change(&mut self, weight: &Weight, rows: i64) {
        let bytes = i64::try_from(weight.cost).unwrap_or(i64::MAX).saturating_mul(rows);
        let count = self.counts.entry((weight.account.clone(), weight.kind)).or_default();
        count.0 += rows;
        count.1 += bytes;
        *self.ages.entry((weight.kind.population(), minute(weight.at))).or_default() += rows;
    }

    /// The ages are made anew of the rows, where they say other than these: no checksum holds the time of a row, and one whose time was
    /// damaged leaves another minute than it came to.
    pub(super) fn count_ages_anew(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut ages: BTreeMap<(Population, i64), i64> = BTreeMap::new();
        let mut counted = conn.prepare(
            "SELECT reason = 2, parked_at / 60000 - (parked_at % 60000 < 0), count(*) FROM parked GROUP BY 1, 2
             UNION ALL
             SELECT 2, received_at / 60000 - (received_at % 60000 < 0), count(*) FROM raw GROUP BY 1, 2
             UNION ALL SELECT population, minute, -rows FROM ages",
        )?;
        let mut found = counted.query([])?;
        while let Some(row) = found.next()? {
            let (key, rows) = age(row)?;
            *ages.entry(key).or_default() += rows;
        }
        self.ages = ages;
        Ok(())
    }

    /// Writes it into the transaction that `conn` is in.
    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut add = conn.prepare_cached(
            "INSERT INTO tally (account, kind, rows, bytes) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (account, kind) DO UPDATE SET rows = rows + excluded.rows, bytes = bytes + excluded.bytes",
        )?;
        for ((account, kind), (rows, bytes)) in &self.counts {
            if (*rows, *bytes) != (0, 0) {
                add.execute(params![account.as_str(), kind.code(), rows, bytes])?;
            }
        }
        let mut age = conn.prepare_cached(
            "INSERT INTO ages (population, minute, rows) VALUES (?1, ?2, ?3)
             ON CONFLICT (population, minute) DO UPDATE SET rows = rows + excluded.rows",
        )?;
        let mut empty =
            conn.prepare_cached("DELETE FROM ages WHERE population = ?1 AND minute = ?2 AND rows <= 0")?;
        for ((population, minute), rows) in &self.ages {
            if *rows == 0 {
                continue;
            }
            age.execute(params![*population as i64, minute, rows])?;
            if *rows < 0 {
                empty.execute(params![*population as i64, minute])?;
            }
        }
        Ok(())
    }
}

/// One row of ages: whose, in which minute, how many.
fn age(row: &rusqlite::Row<'_>) -> rusqlite::Result<((Population, i64), i64)> {
    let population = match row.get::<_, i64>(0)? {
        0 => Population::Bus,
        1 => Population::Unfit,
        2 => Population::Raw,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    };
    Ok(((population, row.get(1)?), row.get(2)?))
}

/// The counts in memory. Bounded by the accounts that the configuration names (and those that it named while their
/// rows are still there), and by the minutes of the retention.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: HashMap<AccountId, Account>,
    bus_bytes: u64,
    operator: Count,
    reserved: Room,
    ages: BTreeMap<(Population, i64), u64>,
    /// Whether the last who came for room to wait for the bus in found none in the whole store.
    refuses_for_bus: bool,
}

#[derive(Debug, Default)]
struct Account {
    counts: [Count; Kind::ALL.len()],
    reserved: Room,
}

impl Account {
    fn sum(&self, waits: WaitsFor) -> Count {
        let mut sum = Count::default();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.waits_for() == waits) {
            let count = self.counts[usize::from(kind.code())];
            sum.rows += count.rows;
            sum.bytes += count.bytes;
        }
        sum
    }

    fn bus_bytes(&self) -> u64 {
        self.sum(WaitsFor::Bus).bytes
    }

    fn operator(&self) -> Count {
        self.sum(WaitsFor::Operator)
    }
}

/// Which quota has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    Account,
    Store,
    Operator,
}

/// Bytes of rows, by whom these wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) bus: u64,
    pub(super) operator: u64,
}

/// In what an account's rows have room: its own quota and the store's for what waits for the bus, and the share of what waits
/// for the operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quotas {
    pub(super) account: u64,
    pub(super) bus: u64,
    pub(super) operator: u64,
}

/// What comes beyond the operator's share before the oldest is evicted: as much again, and at least so much, so that one
/// request has room.
const AHEAD: u64 = 8 << 20;

impl Ledger {
    /// Reads what earlier transactions counted.
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut delta = Delta::default();
        let mut tally = conn.prepare("SELECT account, kind, rows, bytes FROM tally")?;
        let mut rows = tally.query([])?;
        while let Some(row) = rows.next()? {
            let Some(kind) = Kind::of_code(row.get(1)?) else {
                return Err(rusqlite::Error::IntegralValueOutOfRange(1, row.get(1)?));
            };
            let account = AccountId::new(row.get_ref(0)?.as_str()?);
            delta.counts.insert((account, kind), (row.get(2)?, row.get(3)?));
        }
        let mut ages = conn.prepare("SELECT population, minute, rows FROM ages")?;
        let mut rows = ages.query([])?;
        while let Some(row) = rows.next()? {
            let (key, rows) = age(row)?;
            delta.ages.insert(key, rows);
        }
        let mut ledger = Self::default();
        ledger.apply(&delta);
        Ok(ledger)
    }

    /// Takes over what a transaction committed.
    pub(super) fn apply(&mut self, delta: &Delta) {
        for ((account, kind), (rows, bytes)) in &delta.counts {
            let account = self.accounts.entry(account.clone()).or_default();
            let count = &mut account.counts[usize::from(kind.code())];
            count.rows = count.rows.saturating_add_signed(*rows);
            count.bytes = count.bytes.saturating_add_signed(*bytes);
            match kind.waits_for() {
                WaitsFor::Bus => self.bus_bytes = self.bus_bytes.saturating_add_signed(*bytes),
                WaitsFor::Operator => {
                    self.operator.rows = self.operator.rows.saturating_add_signed(*rows);
                    self.operator.bytes = self.operator.bytes.saturating_add_signed(*bytes);
                }
            }
        }
        for (key, rows) in &delta.ages {
            let left = self.ages.get(key).copied().unwrap_or(0).saturating_add_signed(*rows);
            if left == 0 {
                self.ages.remove(key);
            } else {
                self.ages.insert(*key, left);
            }
        }
    }

    /// Reserves room for rows that will be parked.
    pub(super) fn reserve(&mut self, account: &AccountId, room: Room, quotas: &Quotas) -> Result<(), NoRoom> {
        if room.bus > 0 {
            let found = self.has_room_for_bus(account, room.bus, quotas);
            self.refuses_for_bus = matches!(found, Err(NoRoom::Store));
            found?;
        }
        if room.operator > 0 {
            self.has_room_for_operator(account, room.operator, quotas.operator)?;
        }
        let entry = self.accounts.entry(account.clone()).or_default();
        for reserved in [&mut entry.reserved, &mut self.reserved] {
            reserved.bus += room.bus;
            reserved.operator += room.operator;
        }
        Ok(())
    }

    /// Whether the last who came for room to wait for the bus in found none in the whole store.
    pub(super) const fn refuses_for_bus(&self) -> bool {
        self.refuses_for_bus
    }

    fn has_room_for_bus(&self, account: &AccountId, bytes: u64, quotas: &Quotas) -> Result<(), NoRoom> {
        if self.bus_bytes.saturating_add(self.reserved.bus).saturating_add(bytes) > quotas.bus {
            return Err(NoRoom::Store);
        }
        if self.account_bytes(account).saturating_add(bytes) > quotas.account {
            return Err(NoRoom::Account);
        }
        Ok(())
    }

    /// Eviction keeps the share; where more comes than it can keep up with, who has more than a fair part of the share waits.
    /// So all of it is never more than the share thrice, and a request of each account.
    fn has_room_for_operator(&self, account: &AccountId, bytes: u64, share: u64) -> Result<(), NoRoom> {
        let all = self.operator.bytes.saturating_add(self.reserved.operator).saturating_add(bytes);
        if all <= share.saturating_add(share.max(AHEAD)) {
            return Ok(());
        }
        let fair = share / (self.accounts.len() as u64).max(1);
        let is_modest = self.accounts.get(account).is_none_or(|held| {
            let (has, reserved) = (held.operator(), held.reserved.operator);
            (has.rows <= 1 && reserved == 0) || has.bytes + reserved + bytes <= fair
        });
        if is_modest { Ok(()) } else { Err(NoRoom::Operator) }
    }

    /// Gives back what was reserved: the rows are written, and counted, or will not be.
    pub(super) fn release(&mut self, account: &AccountId, room: Room) {
        let entry = self.accounts.get_mut(account).map(|account| &mut account.reserved);
        for reserved in entry.into_iter().chain([&mut self.reserved]) {
            reserved.bus = reserved.bus.saturating_sub(room.bus);
            reserved.operator = reserved.operator.saturating_sub(room.operator);
        }
    }

    /// The bytes that wait for the bus, by an account, with what is reserved.
    pub(super) fn account_bytes(&self, account: &AccountId) -> u64 {
        self.accounts.get(account).map_or(0, |a| a.bus_bytes() + a.reserved.bus)
    }

    /// What waits for the operator.
    pub(super) const fn operator(&self) -> Count {
        self.operator
    }

    /// The account that has the most waiting for the operator, of those that have more than one row, and what it has.
    pub(super) fn most_for_operator(&self) -> Option<(AccountId, Count)> {
        let held = self.accounts.iter().map(|(account, held)| (account, held.operator()));
        let (account, most) = held.filter(|(_, held)| held.rows > 1).max_by_key(|(_, held)| held.bytes)?;
        Some((account.clone(), most))
    }

    /// Everything, by account and kind; what is zero is left out.
    pub(super) fn depths(&self) -> Vec<(AccountId, Kind, Count)> {
        let mut depths: Vec<_> = self
            .accounts
            .iter()
            .flat_map(|(account, held)| {
                Kind::ALL.map(|kind| (account.clone(), kind, held.counts[usize::from(kind.code())]))
            })
            .filter(|(_, _, count)| count.rows > 0)
            .collect();
        depths.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        depths
    }

    /// Whether there is a row that a filter may ask for, as far as accounts and kinds say.
    pub(super) fn may_have(&self, filter: &Filter) -> bool {
        self.accounts.iter().any(|(account, held)| {
            let has = |kind: &Kind| held.counts[usize::from(kind.code())].rows > 0;
            Kind::ALL.iter().any(|kind| has(kind) && filter.may_want(account, *kind))
        })
    }

    /// How many rows of a population are in minutes that ended at or before `cutoff`.
    pub(super) fn older_than(&self, population: Population, cutoff: Millis) -> u64 {
        self.ages.range((population, i64::MIN)..(population, minute(cutoff))).map(|(_, rows)| rows).sum()
    }

    /// The minute of the oldest row that waits for somebody.
    pub(super) fn oldest(&self, waits: WaitsFor) -> Option<Millis> {
        let first = |population| {
            let range = (population, i64::MIN)..=(population, i64::MAX);
            self.ages.range(range).next().map(|((_, minute), _)| *minute)
        };
        let minute = match waits {
            WaitsFor::Bus => first(Population::Bus),
            WaitsFor::Operator => first(Population::Unfit).into_iter().chain(first(Population::Raw)).min(),
        };
        minute.map(|minute| Millis(minute.saturating_mul(60_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(kind: Kind, cost: u64, at: i64) -> Weight {
        Weight { account: AccountId::new("acme"), kind, cost, at: Millis(at) }
    }

    const BUS: Kind = Kind::Event(Reason::Unavailable);

    #[test]
    fn codes_are_places_in_the_list_and_spellings_are_unique() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), place);
            assert_eq!(Kind::of_code(i64::try_from(place).unwrap()), Some(kind));
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
    }

    const fn bus(bytes: u64) -> Room {
        Room { bus: bytes, operator: 0 }
    }

    const fn operator(bytes: u64) -> Room {
        Room { bus: 0, operator: bytes }
    }

    fn quotas(account: u64, bus: u64) -> Quotas {
        Quotas { account, bus, operator: 0 }
    }

    #[test]
    fn a_reservation_counts_until_it_is_released() {
        let mut ledger = Ledger::default();
        let acme = AccountId::new("acme");
        assert_eq!(ledger.reserve(&acme, bus(60), &quotas(100, 1000)), Ok(()));
        assert_eq!(ledger.reserve(&acme, bus(41), &quotas(100, 1000)), Err(NoRoom::Account));
        assert!(!ledger.refuses_for_bus(), "an account has none: others do");
        assert_eq!(ledger.reserve(&AccountId::new("other"), bus(41), &quotas(100, 100)), Err(NoRoom::Store));
        assert!(ledger.refuses_for_bus());
        ledger.release(&acme, bus(60));
        assert_eq!(ledger.reserve(&acme, bus(100), &quotas(100, 100)), Ok(()));
        assert!(!ledger.refuses_for_bus());
    }

    #[test]
    fn what_waits_for_the_operator_takes_no_room_from_the_bus() {
        let mut ledger = Ledger::default();
        let mut delta = Delta::default();
        delta.add(&weight(Kind::Event(Reason::Unfit), 90, 0));
        delta.add(&weight(Kind::Raw(RawReason::NotJson), 90, 0));
        ledger.apply(&delta);
        assert_eq!(ledger.operator(), Count { rows: 2, bytes: 180 });
        assert_eq!(ledger.reserve(&AccountId::new("acme"), bus(100), &quotas(100, 100)), Ok(()));
    }

    #[test]
    fn beyond_twice_the_share_only_those_come_in_who_have_little_there() {
        let share = 2 * AHEAD;
        let quotas = Quotas { account: 0, bus: 0, operator: share };
        let [loud, quiet, new] = ["acme", "quiet", "new"].map(AccountId::new);
        let (mut ledger, mut delta) = (Ledger::default(), Delta::default());
        let raw = Kind::Raw(RawReason::Unrecognized);
        delta.add(&weight(raw, share, 0));
        delta.add(&weight(raw, share / 2, 0));
        for _ in 0..2 {
            delta.add(&Weight { account: quiet.clone(), ..weight(raw, 1, 0) });
        }
        ledger.apply(&delta);
        assert_eq!(ledger.reserve(&loud, operator(share / 2 - 2), &quotas), Ok(()), "twice the share");
        assert_eq!(ledger.reserve(&loud, operator(1), &quotas), Err(NoRoom::Operator));
        assert_eq!(ledger.reserve(&quiet, operator(share / 2 - 2), &quotas), Ok(()), "its fair part");
        assert_eq!(ledger.reserve(&quiet, operator(1), &quotas), Err(NoRoom::Operator));
        assert_eq!(ledger.reserve(&new, operator(share), &quotas), Ok(()), "a first request");
        assert_eq!(ledger.reserve(&new, operator(1), &quotas), Err(NoRoom::Operator));
        ledger.release(&new, operator(share));
        ledger.release(&quiet, operator(share / 2 - 2));
        ledger.release(&loud, operator(share / 2 - 2));
        assert_eq!(ledger.reserve(&loud, operator(1), &quotas), Ok(()), "there is room again");
    }

    #[test]
    fn the_last_of_an_account_is_not_evicted_and_keeps_no_others_from_it() {
        let (mut ledger, mut delta) = (Ledger::default(), Delta::default());
        let raw = Kind::Raw(RawReason::Unrecognized);
        delta.add(&weight(raw, 90, 0));
        ledger.apply(&delta);
        assert_eq!(ledger.most_for_operator(), None);
        let mut delta = Delta::default();
        for _ in 0..2 {
            delta.add(&Weight { account: AccountId::new("many"), ..weight(raw, 10, 0) });
        }
        ledger.apply(&delta);
        let most = Count { rows: 2, bytes: 20 };
        assert_eq!(ledger.most_for_operator(), Some((AccountId::new("many"), most)));
    }

    #[test]
    fn ages_are_counted_by_whole_minutes() {
        let mut ledger = Ledger::default();
        let mut delta = Delta::default();
        delta.add(&weight(BUS, 1, 59_999));
        delta.add(&weight(BUS, 1, 60_000));
        delta.add(&weight(Kind::Raw(RawReason::NotJson), 1, 0));
        ledger.apply(&delta);
        assert_eq!(ledger.older_than(Population::Bus, Millis(59_999)), 0);
        assert_eq!(ledger.older_than(Population::Bus, Millis(60_000)), 1);
        assert_eq!(ledger.older_than(Population::Bus, Millis(120_000)), 2);
        assert_eq!(ledger.oldest(WaitsFor::Bus), Some(Millis(0)));
        let mut gone = Delta::default();
        gone.take(&weight(BUS, 1, 59_999));
        ledger.apply(&gone);
        assert_eq!(ledger.oldest(WaitsFor::Bus), Some(Millis(60_000)));
    }
}
