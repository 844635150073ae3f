//! How rows get into the store: room is reserved in memory, then they wait in the queue for a transaction of the store's
//! thread. Invariants: nothing here blocks; what waits for the operator is bounded as what waits for the bus is, so that a
//! flood of what nobody understands is refused before it fills the disk; raw bytes go in parts that one transaction takes
//! in a moment. What is beyond the operator's share `upkeep` evicts.

use std::sync::Arc;

use parking_lot::Mutex;

use super::queue::{Done, ParkJob, RawRow, Rows};
use super::store::{Store, cut};
use super::tally::{NoRoom, Room};
use super::{ParkError, Parked, ParkedRaw, Seq, WaitsFor, rows, whole};
use crate::event::AccountId;

/// Rows of raw bytes that go into one transaction together.
const PART_ROWS: usize = 500;

impl Store {
    /// Parks one lane's rows, all or none. Never blocks. `done` is called once, on the store's thread, where this
    /// returns `Ok`, and never where it returns an error.
    ///
    /// # Errors
    /// At once, where there is no room for them.
    pub fn park(&self, rows: Vec<Parked>, done: Done) -> Result<(), ParkError> {
        let Some(first) = rows.first() else {
            done(Ok(()));
            return Ok(());
        };
        let account = first.lane.account.clone();
        self.park_events(account, rows, Rows::Events, done)
    }

    /// Parks a row in the place of another, in one transaction; where that is gone by then, nothing is parked, and
    /// `done` hears [`ParkError::Gone`]. As [`park`](Self::park).
    ///
    /// # Errors
    /// At once, where there is no room for it.
    pub fn park_instead(&self, old: Seq, row: Parked, done: Done) -> Result<(), ParkError> {
        let account = row.lane.account.clone();
        self.park_events(account, vec![row], |rows| Rows::Instead { old, rows }, done)
    }

    fn park_events(
        &self,
        account: AccountId,
        mut rows: Vec<Parked>,
        how: impl FnOnce(Vec<Parked>) -> Rows,
        done: Done,
    ) -> Result<(), ParkError> {
        let mut room = Room::default();
        for row in &mut rows {
            cut(&mut row.error);
            match row.reason.waits_for() {
                WaitsFor::Bus => room.bus += rows::event_cost(row),
                WaitsFor::Operator => room.operator += rows::event_cost(row),
            }
        }
        self.reserve(&account, room)?;
        let cost = room.bus + room.operator;
        self.enqueue(ParkJob { rows: how(rows), cost, account, room, done })
    }

    /// Parks raw bytes, each once by account, source and digest: a second copy is `Ok`. Where some are refused the others
    /// may be kept: the same may be parked again. Never blocks; `done` is called once where this returns `Ok`.
    ///
    /// # Errors
    /// At once, where there is no room for the first of them.
    pub fn park_raw(&self, rows: Vec<ParkedRaw>, done: Done) -> Result<(), ParkError> {
        let parts = parts(rows);
        let count = parts.len();
        if count == 0 {
            done(Ok(()));
            return Ok(());
        }
        let together = Arc::new(Together::new(count, done));
        for (at, part) in parts.into_iter().enumerate() {
            let (first, tells) = (part.first().map(|raw| raw.account.clone()), Arc::clone(&together));
            let Err(error) = self.park_part(part, Box::new(move |kept| tells.told(1, kept))) else {
                continue;
            };
            if let (Some(account), Some(times)) = (first, self.shared.saying_refused.happened()) {
                tracing::warn!(%account, error = %error, times, "park.refused");
            }
            if at == 0 {
                return Err(error);
            }
            together.told(count - at, Err(error));
            break;
        }
        Ok(())
    }

    /// Parks raw bytes of one account.
    fn park_part(&self, part: Vec<ParkedRaw>, done: Done) -> Result<(), ParkError> {
        let Some(first) = part.first() else {
            done(Ok(()));
            return Ok(());
        };
        let account = first.account.clone();
        let mut room = Room::default();
        let row = |mut raw: ParkedRaw| {
            cut(&mut raw.error);
            room.operator += rows::raw_cost(&raw);
            RawRow { seq: self.next_seq(), digest: whole::digest(&raw), raw }
        };
        let rows = Rows::Raw(part.into_iter().map(row).collect());
        self.reserve(&account, room)?;
        self.enqueue(ParkJob { rows, cost: room.operator, account, room, done })
    }

    fn reserve(&self, account: &AccountId, room: Room) -> Result<(), ParkError> {
        let quotas = self.shared.quotas_of(account);
        self.shared.ledger.lock().reserve(account, room, &quotas).map_err(|no| match no {
            NoRoom::Account => ParkError::AccountFull,
            NoRoom::Store => ParkError::Full,
            NoRoom::Operator => ParkError::OperatorFull,
        })
    }

    fn enqueue(&self, job: ParkJob) -> Result<(), ParkError> {
        self.shared.queue.park(job).map_err(|(error, job)| {
            self.shared.ledger.lock().release(&job.account, job.room);
            error
        })
    }
}

/// Rows of one account that follow each other, at most so many.
fn parts(rows: Vec<ParkedRaw>) -> Vec<Vec<ParkedRaw>> {
    let mut parts: Vec<Vec<ParkedRaw>> = Vec::new();
    for raw in rows {
        match parts.last_mut() {
            Some(part)
                if part.len() < PART_ROWS
                    && part.first().is_some_and(|first| first.account == raw.account) =>
            {
                part.push(raw);
            }
            Some(_) | None => parts.push(vec![raw]),
        }
    }
    parts
}

/// One answer for all parts: that all are kept, or why the first was not that was not.
struct Together(Mutex<Parts>);

struct Parts {
    left: usize,
    kept: Result<(), ParkError>,
    done: Option<Done>,
}

impl Together {
    fn new(left: usize, done: Done) -> Self {
        Self(Mutex::new(Parts { left, kept: Ok(()), done: Some(done) }))
    }

    /// So many parts ended so.
    fn told(&self, parts: usize, kept: Result<(), ParkError>) {
        let mut all = self.0.lock();
        all.left = all.left.saturating_sub(parts);
        if all.kept.is_ok() {
            all.kept = kept;
        }
        if all.left == 0
            && let Some(done) = all.done.take()
        {
            let kept = all.kept.clone();
            drop(all);
            done(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Millis;
    use crate::replay::RawReason;

    fn raw(account: &str) -> ParkedRaw {
        ParkedRaw {
            account: AccountId::new(account),
            source: "push".to_owned(),
            received_at: Millis(0),
            reason: RawReason::Unrecognized,
            error: String::new(),
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn parts_are_of_one_account_and_of_a_transactions_size() {
        let rows = (0..1_200).map(|_| raw("acme")).chain([raw("b"), raw("b"), raw("acme")]).collect();
        let sizes: Vec<usize> = parts(rows).iter().map(Vec::len).collect();
        assert_eq!(sizes, [500, 500, 200, 2, 1]);
        assert!(parts(Vec::new()).is_empty());
    }

    #[track_caller]
    fn check(told: &[(usize, Result<(), ParkError>)], expected: Result<(), ParkError>) {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&answers);
        let parts = told.iter().map(|(parts, _)| parts).sum();
        let together = Together::new(parts, Box::new(move |kept| sink.lock().push(kept)));
        for (parts, kept) in told {
            assert!(answers.lock().is_empty());
            together.told(*parts, kept.clone());
        }
        assert_eq!(*answers.lock(), [expected]);
    }

    #[test]
    fn the_answer_comes_once_with_the_last_part_and_is_the_first_error() {
        check(&[(1, Ok(())), (1, Ok(()))], Ok(()));
        check(&[(1, Ok(())), (2, Err(ParkError::Busy))], Err(ParkError::Busy));
        check(&[(1, Err(ParkError::Closed)), (1, Err(ParkError::Busy)), (1, Ok(()))], Err(ParkError::Closed));
    }
}
