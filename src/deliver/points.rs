//! Where another thread may come between: the ends of critical sections. Nothing in the program; in tests the places where
//! a scheduler takes turns, so that every order of the real code's sections is gone through (ADR 0010).

/// Another thread may come between what is before and what is behind.
#[cfg(not(test))]
#[inline(always)]
pub const fn point() {}

#[cfg(test)]
pub use turns::{explore, point};

#[cfg(test)]
mod turns {
    use std::cell::RefCell;
    use std::sync::Arc;

    use parking_lot::{Condvar, Mutex};

    thread_local! {
        static SEAT: RefCell<Option<(Arc<Table>, usize)>> = const { RefCell::new(None) };
    }

    /// What one thread does.
    pub type Work<'w> = Box<dyn FnOnce() + Send + 'w>;

    /// Who has the turn, and how it was decided.
    #[derive(Default)]
    struct Table {
        state: Mutex<State>,
        turned: Condvar,
    }

    #[derive(Default)]
    struct State {
        turn: Option<usize>,
        seated: Vec<usize>,
        /// Decisions to repeat, then the first choice each: which of how many.
        decisions: Vec<(usize, usize)>,
        made: usize,
    }

    impl State {
        fn decide(&mut self) {
            let options = self.seated.len();
            if options == 0 {
                self.turn = None;
                return;
            }
            if self.made == self.decisions.len() {
                self.decisions.push((0, options));
            }
            let (choice, of) = self.decisions[self.made];
            assert_eq!(of, options, "the same turns led elsewhere: something else decides, too");
            self.made += 1;
            self.turn = Some(self.seated[choice]);
        }
    }

    impl Table {
        fn wait(&self, me: usize) {
            let mut state = self.state.lock();
            while state.turn != Some(me) {
                self.turned.wait(&mut state);
            }
        }

        fn pass(&self, me: usize) {
            let mut state = self.state.lock();
            state.decide();
            self.turned.notify_all();
            while state.turn != Some(me) {
                self.turned.wait(&mut state);
            }
        }

        fn leave(&self, me: usize) {
            let mut state = self.state.lock();
            state.seated.retain(|seated| *seated != me);
            state.decide();
            self.turned.notify_all();
        }
    }

    /// Leaves also where the work panics, so that nobody waits for it.
    struct Seat(Arc<Table>, usize);

    impl Drop for Seat {
        fn drop(&mut self) {
            SEAT.with(|seat| seat.borrow_mut().take());
            self.0.leave(self.1);
        }
    }

    /// Gives the turn to whom the schedule says.
    pub fn point() {
        let seat = SEAT.with(|seat| seat.borrow().clone());
        if let Some((table, me)) = seat {
            table.pass(me);
        }
    }

    /// Runs threads in every order in which their points can follow each other; `check` looks at each. How many there were.
    pub fn explore<'s, T>(
        most: usize,
        mut begin: impl FnMut(usize) -> (T, Vec<Work<'s>>),
        mut check: impl FnMut(T, &[usize]),
    ) -> usize
where {
        let mut decisions: Vec<(usize, usize)> = Vec::new();
        for run in 0..most {
            let (shared, works) = begin(run);
            let table = Arc::new(Table::default());
            {
                let mut state = table.state.lock();
                state.seated = (0..works.len()).collect();
                state.decisions = std::mem::take(&mut decisions);
                state.decide();
            }
            std::thread::scope(|scope| {
                for (me, work) in works.into_iter().enumerate() {
                    let table = Arc::clone(&table);
                    scope.spawn(move || {
                        let _seat = Seat(Arc::clone(&table), me);
                        SEAT.with(|seat| *seat.borrow_mut() = Some((Arc::clone(&table), me)));
                        table.wait(me);
                        work();
                    });
                }
            });
            decisions = std::mem::take(&mut table.state.lock().decisions);
            let order: Vec<usize> = decisions.iter().map(|(choice, _)| *choice).collect();
            check(shared, &order);
            // The next order: the last decision that had another choice.
            while decisions.pop_if(|(choice, of)| *choice + 1 == *of).is_some() {}
            let Some((choice, _)) = decisions.last_mut() else { return run + 1 };
            *choice += 1;
        }
        panic!("there are more than {most} orders");
    }

    #[test]
    fn every_order_of_two_threads_is_gone_through_once() {
        let mut seen = std::collections::BTreeSet::new();
        let count = explore(
            1_000,
            |_| {
                let log = Arc::new(Mutex::new(Vec::new()));
                let works = (0..2).map(|me| {
                    let log = Arc::clone(&log);
                    let work: Work<'_> = Box::new(move || {
                        for step in 0..3 {
                            log.lock().push((me, step));
                            point();
                        }
                    });
                    work
                });
                (Arc::clone(&log), works.collect())
            },
            |log, _| {
                seen.insert(std::mem::take(&mut *log.lock()));
            },
        );
        // Three steps of each, and that each ends: 8 over 4; some differ only in what comes after the last step.
        assert_eq!(count, 70);
        assert_eq!(seen.len(), 20);
    }
}
