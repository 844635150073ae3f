//! What is sent later than its horizon: known by its coming for as long as senders repeat, and by its own hour where a copy came in time.

use super::*;

const HOURS: i64 = HOUR_MS;

fn sent(stepped: &Stepped, time: i64) -> Candidate {
    let fact = Fact::Fix { subject: 1, minute: (time - NOW) / MINUTE_MS };
    Candidate { dated: Dated::Late(Millis(time)), ..stepped.candidate(fact) }
}

fn reserve(stepped: &mut Stepped, candidate: Candidate) -> Verdict {
    let dedup = Arc::clone(&stepped.dedup);
    let mut reserving: Reserving = Box::pin(async move { dedup.reserve_one(&candidate).await });
    loop {
        if let Some(verdict) = stepped.poll(&mut reserving) {
            return verdict;
        }
        stepped.worker.answer_waiting();
    }
}

fn pass(stepped: &Stepped, time: i64) {
    stepped.now.fetch_add(time, Ordering::Relaxed);
}

#[test]
fn what_a_sender_repeats_is_known_though_it_is_older_or_newer_than_its_horizon() {
    for time in [NOW - 60 * HOURS, NOW + 60 * HOURS] {
        let mut stepped = Stepped::new();
        let candidate = sent(&stepped, time);
        match reserve(&mut stepped, candidate) {
            Verdict::New(reservation) => reservation.remember(),
            other @ (Verdict::Known | Verdict::InFlight(_)) => panic!("{other:?}"),
        }
        assert_eq!(stepped.dedup.stats.beyond_horizon.load(Ordering::Relaxed), 1, "it is counted");
        let again = |stepped: &mut Stepped| {
            let candidate = sent(stepped, time);
            matches!(reserve(stepped, candidate), Verdict::Known)
        };
        assert!(again(&mut stepped), "by memory");
        stepped.worker.fold();
        stepped.kill();
        assert!(again(&mut stepped), "by the disk");
        pass(&stepped, HOURS + HOURS / 2);
        stepped.kill();
        assert!(again(&mut stepped), "in the hour after");
        stepped.worker.fold();
        pass(&stepped, HOURS);
        assert!(again(&mut stepped), "who repeats keeps it known");
        stepped.worker.fold();
        pass(&stepped, 3 * HOURS);
        assert!(!again(&mut stepped), "it is not looked for in all hours");
    }
}

#[test]
fn what_is_known_by_another_event_alone_is_new_once_that_one_was_discarded() {
    // Both too late, as where a position waited unfit for its operator.
    let time = NOW - 60 * HOURS;
    let minute = (time - NOW) / MINUTE_MS;
    let mut stepped = Stepped::new();
    let of =
        |stepped: &Stepped, fact| Candidate { dated: Dated::Late(Millis(time)), ..stepped.candidate(fact) };
    let parked = sent(&stepped, time);
    match reserve(&mut stepped, parked.clone()) {
        Verdict::New(reservation) => reservation.remember(),
        other @ (Verdict::Known | Verdict::InFlight(_)) => panic!("{other:?}"),
    }
    stepped.worker.fold();
    let crumb = of(&stepped, Fact::Breadcrumb { subject: 1, minute });
    for met in 1..=3 {
        assert!(matches!(reserve(&mut stepped, crumb.clone()), Verdict::Known), "by the parked one");
        stepped.worker.fold();
        pass(&stepped, HOURS);
        assert!(
            matches!(reserve(&mut stepped, crumb.clone()), Verdict::Known),
            "who repeats keeps it known: {met}"
        );
    }
    stepped.dedup.forget(&parked.enters);
    assert!(matches!(reserve(&mut stepped, crumb), Verdict::New(_)));
}

#[test]
fn what_came_in_time_is_known_when_it_is_sent_again_too_late() {
    let mut stepped = Stepped::new();
    let time = NOW - 48 * HOURS + HOURS / 2;
    stepped.remember(Fact::Fix { subject: 1, minute: (time - NOW) / MINUTE_MS });
    stepped.worker.fold();
    pass(&stepped, HOURS);
    let candidate = sent(&stepped, time);
    assert!(!stepped.dedup.is_within_horizon(EventType::Position, Millis(time)));
    assert!(matches!(reserve(&mut stepped, candidate), Verdict::Known));
}
