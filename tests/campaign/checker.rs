//! The ledger against what was consumed. It knows facts and their ids, and nothing of how the bridge works. Lost: answered
//! 2xx, or polled past, and not consumed. Reordered: the first occurrence of a fact after that of a later one of its lane.
//! Doubled: consumed again with the id that it must have; any other id is a failure. Invented: never sent.

use std::collections::{HashMap, HashSet};
use std::fmt;

use uuid::Uuid;

use super::facts::{Bulk, Fact, Lane};
use super::ledger::Request;

/// One consumed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub fact: Fact,
    pub id: Uuid,
}

/// What does not match; at most a few examples are printed.
#[derive(Debug, Default)]
pub struct Findings {
    pub lost: Vec<Fact>,
    pub reordered: Vec<Fact>,
    pub other_ids: Vec<Fact>,
    pub invented: Vec<Fact>,
    /// Never answered 2xx: the campaign ended too early.
    pub unanswered: usize,
    /// Consumed again with the same id.
    pub duplicates: u64,
    /// Distinct facts consumed.
    pub distinct: u64,
    /// Facts that no bus takes, answered 2xx: they wait for the operator.
    pub too_large: HashSet<Fact>,
    /// Elements that nobody understands, answered 2xx: kept as raw bytes.
    pub unknown: u64,
    /// Polled past.
    pub polled: u64,
}

impl Findings {
    /// No promise is broken.
    pub fn holds(&self) -> bool {
        let Self { lost, reordered, other_ids, invented, .. } = self;
        [lost, reordered, other_ids, invented].iter().all(|found| found.is_empty())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, reordered, other_ids, invented, .. } = self;
        write!(f, "{} distinct, {} duplicates with the same id", self.distinct, self.duplicates)?;
        let all = [
            ("lost", lost),
            ("reordered", reordered),
            ("with another id", other_ids),
            ("invented", invented),
        ];
        for (what, facts) in all {
            write!(f, ", {} {what}", facts.len())?;
            if !facts.is_empty() {
                write!(f, " (e.g. {:?})", &facts[..facts.len().min(3)])?;
            }
        }
        Ok(())
    }
}

/// Compares. `polled` has what the pollers' cursors have gone past, and `pollable` what they may have fetched beyond that.
pub fn check(
    requests: &[Request],
    polled: &HashSet<Fact>,
    pollable: &HashSet<Fact>,
    consumed: &[Seen],
) -> Findings {
    let mut findings = Findings { polled: polled.len() as u64, ..Findings::default() };
    let mut sent: HashSet<Fact> = HashSet::new();
    for request in requests {
        sent.extend(&request.facts);
        if !request.answered {
            findings.unanswered += 1;
            continue;
        }
        findings.unknown += request.unknown;
        if request.bulk == Bulk::TooLarge {
            findings.too_large.extend(&request.facts);
        }
    }
    let mut first: HashMap<Fact, ()> = HashMap::with_capacity(sent.len());
    let mut newest: HashMap<Lane, i64> = HashMap::new();
    for seen in consumed {
        let fact = seen.fact;
        if seen.id != fact.id() {
            findings.other_ids.push(fact);
        }
        if !sent.contains(&fact) && !pollable.contains(&fact) {
            findings.invented.push(fact);
        }
        if first.insert(fact, ()).is_some() {
            findings.duplicates += 1;
            continue;
        }
        // What is polled comes late by nature: only senders that wait for their answer say an order.
        if sent.contains(&fact) {
            let newest = newest.entry(fact.lane()).or_insert(i64::MIN);
            if fact.at < *newest {
                findings.reordered.push(fact);
            }
            *newest = (*newest).max(fact.at);
        }
    }
    findings.distinct = first.len() as u64;
    let answered = requests.iter().filter(|r| r.answered && r.bulk == Bulk::Fits).flat_map(|r| &r.facts);
    let lost: HashSet<Fact> =
        answered.chain(polled).filter(|fact| !first.contains_key(fact)).copied().collect();
    findings.lost = lost.into_iter().collect();
    findings.lost.sort_unstable();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Account, Kind};

    fn fact(at: i64) -> Fact {
        Fact { account: Account::Acme, kind: Kind::Position, vehicle: 1, at }
    }

    fn seen(at: i64) -> Seen {
        Seen { fact: fact(at), id: fact(at).id() }
    }

    #[test]
    fn each_kind_of_finding_is_found() {
        let request =
            Request { bulk: Bulk::Fits, facts: [1, 2, 3].map(fact).into(), unknown: 0, answered: true };
        let none = HashSet::new();
        let found = |consumed: &[Seen]| check(std::slice::from_ref(&request), &none, &none, consumed);
        let fine = found(&[seen(1), seen(2), seen(3), seen(1)]);
        assert!(fine.holds() && fine.duplicates == 1 && fine.distinct == 3, "{fine}");
        assert_eq!(found(&[seen(1), seen(3)]).lost, [fact(2)]);
        assert_eq!(found(&[seen(2), seen(1), seen(3)]).reordered, [fact(1)]);
        assert_eq!(found(&[seen(1), seen(2), seen(3), seen(9)]).invented, [fact(9)]);
        let other = Seen { id: Uuid::nil(), ..seen(3) };
        assert_eq!(found(&[seen(1), seen(2), seen(3), other]).other_ids, [fact(3)]);
        let past = HashSet::from([Fact { account: Account::PolledV2, ..fact(5) }]);
        assert_eq!(check(&[], &past, &past, &[]).lost.len(), 1, "polled past and not consumed");
    }
}
