//! Two events in every order in which they, the worker's answers and a fold can go.

use super::*;

/// A step of one of two events, or of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Poll(usize),
    Finish(usize),
    Answer,
    Fold,
}

/// What became of one of two events.
enum Way {
    Reserving(Reserving),
    Holding(Reservation),
    Remembered,
    Known,
    Waiting,
}

/// Every order of six turns in which two events, the worker's answers and a fold can go once the first event has begun.
/// `facts` and what is remembered `before` are of another subject every time, and a thousand orders share a file: opening
/// one for each would take minutes, and folding all into one as well.
fn every_interleaving(
    facts: impl Fn(u32) -> [Fact; 2],
    before: impl Fn(u32) -> Fact,
    check: impl Fn([&Way; 2], &[Turn]),
) {
    let turns = [Turn::Poll(0), Turn::Poll(1), Turn::Finish(0), Turn::Finish(1), Turn::Answer, Turn::Fold];
    let mut stepped = Stepped::new();
    let (mut waited, mut subject) = (0_u32, 0);
    for orders in 0..6_usize.pow(6) {
        let rest = (0..6_u32).map(|place| turns[orders / 6_usize.pow(place) % 6]);
        let order: Vec<Turn> = std::iter::once(Turn::Poll(0)).chain(rest).collect();
        // A turn twice in a row changes nothing, nor does a second fold: less to go through.
        let is_tedious = order.windows(2).any(|pair| pair[0] == pair[1]);
        if is_tedious || order.iter().filter(|turn| **turn == Turn::Fold).count() > 1 {
            continue;
        }
        subject += 1;
        if subject % 1_000 == 0 {
            stepped = Stepped::new();
        }
        stepped.remember(before(subject));
        let mut ways = facts(subject).map(|fact| Way::Reserving(stepped.reserving(fact)));
        for turn in &order {
            match turn {
                Turn::Poll(which) => {
                    let way = &mut ways[*which];
                    let Way::Reserving(reserving) = way else { continue };
                    match stepped.poll(reserving) {
                        Some(Verdict::New(reservation)) => *way = Way::Holding(reservation),
                        Some(Verdict::Known) => *way = Way::Known,
                        Some(Verdict::InFlight(_)) => *way = Way::Waiting,
                        None => waited += 1,
                    }
                }
                Turn::Finish(which) => {
                    let way = &mut ways[*which];
                    if matches!(way, Way::Holding(_))
                        && let Way::Holding(reservation) = std::mem::replace(way, Way::Remembered)
                    {
                        reservation.remember();
                    }
                }
                Turn::Answer => stepped.worker.answer_waiting(),
                Turn::Fold => {
                    stepped.worker.fold();
                    stepped.worker.merge();
                }
            }
            check(ways.each_ref(), &order);
        }
        drop(ways);
        assert!(stepped.dedup.claims.lock().is_empty(), "{order:?}");
        stepped.worker.answer_waiting();
    }
    assert!(subject > 5_000 && waited > subject, "most are looked up");
}

fn published(way: &Way) -> bool {
    matches!(way, Way::Holding(_) | Way::Remembered)
}

#[test]
fn two_copies_are_never_both_new_in_any_interleaving() {
    let copy = |subject| Fact::Fix { subject, minute: -5 };
    let newest = |subject| Fact::Fix { subject, minute: 0 };
    every_interleaving(
        |subject| [copy(subject); 2],
        newest,
        |ways, order| {
            assert!(!(published(ways[0]) && published(ways[1])), "both are published: {order:?}");
        },
    );
}

#[test]
fn two_versions_of_a_stop_are_both_new_in_any_interleaving() {
    let stop = |subject, end| Fact::Stop { subject, minute: -5, end };
    every_interleaving(
        |subject| [stop(subject, 0), stop(subject, 1)],
        |subject| stop(subject, 2),
        |ways, order| {
            let swallowed = ways.iter().any(|way| matches!(way, Way::Known | Way::Waiting));
            assert!(!swallowed, "a fact is swallowed: {order:?}");
        },
    );
}

#[test]
fn an_exact_stop_is_new_beside_an_inexact_one_that_is_known_in_any_interleaving() {
    // The inexact one is known by its record; its own id is that of the second exact stop.
    let inexact = |subject| Fact::InexactStop { subject, minute: -5, end: 1 };
    let exact = |subject, end| Fact::Stop { subject, minute: -5, end };
    every_interleaving(
        |subject| [inexact(subject), exact(subject, 1)],
        |subject| exact(subject, 0),
        |ways, order| {
            assert!(!published(ways[0]), "the inexact one is published: {order:?}");
            assert!(!matches!(ways[1], Way::Known | Way::Waiting), "the exact one is swallowed: {order:?}");
        },
    );
}
