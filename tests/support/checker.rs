//! What was answered against what was consumed. Knows nothing of how the bridge works: a fact is a subject and a time; the
//! ledger has what was answered 2xx, in the order in which each vehicle sent it; the topic has what a stock consumer read.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// One position, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact {
    /// The IMEI.
    pub subject: String,
    /// Its time in ms.
    pub at: i64,
}

/// One consumed message.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it says.
    pub fact: Fact,
    /// Its event id.
    pub id: String,
}

/// What does not match.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Answered 2xx, and not consumed.
    pub lost: Vec<Fact>,
    /// First occurrences of a subject that came before an earlier fact's.
    pub reordered: Vec<Fact>,
    /// Consumed again with the same id.
    pub duplicates: usize,
    /// Consumed again with another id.
    pub other_ids: Vec<Fact>,
    /// Consumed, and never sent.
    pub invented: Vec<Fact>,
    /// Distinct facts consumed.
    pub distinct: usize,
}

impl Report {
    /// No promise is broken.
    pub fn holds(&self) -> bool {
        self.lost.is_empty()
            && self.reordered.is_empty()
            && self.other_ids.is_empty()
            && self.invented.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} distinct, {} lost, {} reordered, {} duplicates with the same id, {} with another, {} invented",
            self.distinct,
            self.lost.len(),
            self.reordered.len(),
            self.duplicates,
            self.other_ids.len(),
            self.invented.len()
        )
    }
}

/// Compares. `sent` has every fact ever sent; `answered` those answered 2xx, where each vehicle sent one only after the
/// one before was answered.
pub fn check(sent: &HashSet<Fact>, answered: &[Fact], consumed: &[Seen]) -> Report {
    let mut report = Report::default();
    let mut ids: HashMap<&Fact, &str> = HashMap::new();
    let mut newest: HashMap<&str, i64> = HashMap::new();
    for seen in consumed {
        if !sent.contains(&seen.fact) {
            report.invented.push(seen.fact.clone());
        }
        match ids.get(&seen.fact) {
            Some(id) if *id == seen.id => report.duplicates += 1,
            Some(_) => report.other_ids.push(seen.fact.clone()),
            None => {
                ids.insert(&seen.fact, &seen.id);
                let newest = newest.entry(&seen.fact.subject).or_insert(i64::MIN);
                if seen.fact.at < *newest {
                    report.reordered.push(seen.fact.clone());
                }
                *newest = (*newest).max(seen.fact.at);
            }
        }
    }
    report.distinct = ids.len();
    report.lost = answered.iter().filter(|fact| !ids.contains_key(fact)).cloned().collect();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(at: i64) -> Fact {
        Fact { subject: "1".to_owned(), at }
    }

    fn seen(at: i64, id: &str) -> Seen {
        Seen { fact: fact(at), id: id.to_owned() }
    }

    #[test]
    fn the_checker_finds_each_planted_fault() {
        let sent: HashSet<Fact> = [1, 2, 3].map(fact).into();
        let answered = [1, 2, 3].map(fact);
        let report = |consumed: &[Seen]| check(&sent, &answered, consumed);
        assert!(report(&[seen(1, "a"), seen(2, "b"), seen(3, "c"), seen(3, "c")]).holds());
        assert_eq!(report(&[seen(1, "a"), seen(3, "c")]).lost, [fact(2)]);
        assert_eq!(report(&[seen(2, "b"), seen(1, "a"), seen(3, "c")]).reordered, [fact(1)]);
        let doubled = report(&[seen(1, "a"), seen(1, "z"), seen(2, "b"), seen(3, "c")]);
        assert_eq!(doubled.other_ids, [fact(1)]);
        let invented = report(&[seen(1, "a"), seen(2, "b"), seen(3, "c"), seen(9, "x")]);
        assert_eq!(invented.invented, [fact(9)]);
    }
}
