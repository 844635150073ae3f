//! Reserve, publish, remember on threads, in every order of their critical sections: two copies, one that is given up, and
//! a copy that is looked up while the first one and a newer event are remembered.

use parking_lot::Mutex;

use super::*;
use crate::deliver::points::{explore, point};

/// Dedup with its worker for whoever has the turn.
struct Shop {
    dedup: Arc<Dedup>,
    worker: Mutex<Worker>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let Stepped { dir, runtime, dedup, worker, now: _ } = Stepped::new();
        Self { dedup, worker: Mutex::new(worker), runtime, _dir: dir }
    }

    fn reserve(&self, fact: Fact) -> Verdict {
        let _entered = self.runtime.enter();
        let candidate = fact.candidate(NOW);
        let mut reserving = std::pin::pin!(self.dedup.reserve_one(&candidate));
        loop {
            if let Poll::Ready(verdict) = reserving.as_mut().poll(&mut Context::from_waker(&noop_waker())) {
                return verdict;
            }
            self.worker.lock().answer_waiting();
        }
    }

    fn new_one(&self, fact: Fact) -> Reservation {
        match self.reserve(fact) {
            Verdict::New(reservation) => reservation,
            other @ (Verdict::Known | Verdict::InFlight(_)) => panic!("{fact:?} is {other:?}"),
        }
    }
}

/// What became of an event, once every thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Published,
    GivenUp,
    Known,
    Shared(Settled),
}

fn became(verdict: Verdict, finish: impl FnOnce(Reservation) -> Became) -> impl FnOnce() -> Became {
    // A copy's outcome is there when all have ended: it is asked for then.
    let now = match verdict {
        Verdict::New(reservation) => Ok(finish(reservation)),
        Verdict::Known => Ok(Became::Known),
        Verdict::InFlight(shared) => Err(shared),
    };
    move || match now {
        Ok(became) => became,
        Err(mut shared) => {
            let mut outcome = std::pin::pin!(shared.outcome());
            match outcome.as_mut().poll(&mut Context::from_waker(&noop_waker())) {
                Poll::Ready(settled) => Became::Shared(settled),
                Poll::Pending => panic!("a copy waits for ever"),
            }
        }
    }
}

fn publish(reservation: Reservation) -> Became {
    point();
    reservation.remember();
    Became::Published
}

fn give_up(reservation: Reservation) -> Became {
    point();
    drop(reservation);
    Became::GivenUp
}

type Later = Box<dyn FnOnce() -> Became + Send>;

/// Two copies of a fix on threads of their own: what became of each, in every order.
fn two_copies(finishes: [fn(Reservation) -> Became; 2], check: impl Fn([Became; 2], &[usize])) -> usize {
    let shop = Shop::open();
    explore(
        100_000,
        |run| {
            let fact = Fact::Fix { subject: run as u32, minute: -5 };
            let results: [Arc<Mutex<Option<Later>>>; 2] = Default::default();
            let works = finishes.into_iter().zip(results.clone()).map(|(finish, result)| {
                let shop = &shop;
                let work: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
                    let later = became(shop.reserve(fact), finish);
                    *result.lock() = Some(Box::new(later));
                });
                work
            });
            (results.clone(), works.collect())
        },
        |results, order| {
            check(results.map(|result| result.lock().take().expect("it ended")()), order);
            assert!(shop.dedup.claims.lock().is_empty(), "{order:?}");
        },
    )
}

#[test]
fn of_two_copies_one_is_published_in_any_schedule() {
    let orders = two_copies([publish, publish], |became, order| {
        let published = became.iter().filter(|became| **became == Became::Published).count();
        assert_eq!(published, 1, "{became:?} in {order:?}");
        let other = became.iter().find(|became| **became != Became::Published);
        let durable = matches!(other, Some(Became::Known | Became::Shared(Settled::Durable)));
        assert!(durable, "{became:?} in {order:?}");
    });
    assert!(orders > 100, "only {orders} orders");
}

#[test]
fn a_copy_of_what_is_given_up_is_never_taken_for_known_in_any_schedule() {
    let orders = two_copies([give_up, publish], |became, order| {
        let right = matches!(
            became,
            [Became::GivenUp, Became::Published | Became::Shared(Settled::Released)]
                | [Became::Known | Became::Shared(Settled::Durable), Became::Published]
        );
        assert!(right, "{became:?} in {order:?}");
    });
    assert!(orders > 100, "only {orders} orders");
}

#[test]
fn no_id_is_written_under_an_era_before_that_in_which_it_was_learnt_in_any_schedule() {
    let shop = Shop::open();
    let era = Era::of(1_000_000);
    shop.worker.lock().idle.era = era.clone();
    let number = |sql: &str| -> u64 {
        let worker = shop.worker.lock();
        worker.idle.file.connection.query_row(sql, [], |row| row.get(0)).expect("a number")
    };
    let rows = || number("SELECT count(*) FROM journal");
    let orders = explore(
        1_000,
        |run| {
            // What is left of the run before is none of this one.
            shop.worker.lock().write();
            let reservation = shop.new_one(Fact::Fix { subject: run as u32, minute: -5 });
            let (shop, era) = (&shop, &era);
            let learns: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
                era.begins(era.now() + 1);
                point();
                reservation.remember();
            });
            let writes: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
                point();
                shop.worker.lock().write();
            });
            (rows(), vec![learns, writes])
        },
        |before, order| {
            let is_written = rows() > before;
            assert!(!is_written || number("SELECT number FROM era") == era.now(), "{order:?}");
        },
    );
    assert!(orders > 5, "only {orders} orders");
}

#[test]
fn a_copy_is_found_while_it_and_a_newer_event_are_remembered_in_any_schedule() {
    let shop = Shop::open();
    let orders = explore(
        1_000_000,
        |run| {
            let subject = run as u32;
            let copied = Fact::Fix { subject, minute: -5 };
            let reservations = [copied, Fact::Fix { subject, minute: 0 }].map(|fact| shop.new_one(fact));
            let result: Arc<Mutex<Option<Later>>> = Arc::default();
            let mut works: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
            for reservation in reservations {
                works.push(Box::new(move || reservation.remember()));
            }
            let (shop, told) = (&shop, Arc::clone(&result));
            works
                .push(Box::new(move || *told.lock() = Some(Box::new(became(shop.reserve(copied), publish)))));
            (result, works)
        },
        |result, order| {
            let became = result.lock().take().expect("it ended")();
            let known = matches!(became, Became::Known | Became::Shared(Settled::Durable));
            assert!(known, "{became:?} in {order:?}");
        },
    );
    assert!(orders > 1_000, "only {orders} orders");
}
