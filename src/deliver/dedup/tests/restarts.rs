//! What a restart leaves: everything is known that was stored, what is newer is new without a look at the disk, and a request
//! of many events asks the disk once. Neighbour: `super`, whose properties kill the process at any step.

use super::*;

/// Whether it is called new with nobody there to look anything up.
fn is_new_by_memory(stepped: &Stepped, fact: Fact) -> bool {
    matches!(stepped.dedup.reserve_now(&stepped.candidate(fact)), Some(Verdict::New(_)))
}

fn fix(subject: u32, minute: i64) -> Fact {
    Fact::Fix { subject, minute }
}

/// The file as the first layout had it.
fn go_back(stepped: &Stepped) {
    let file = &stepped.worker.idle.file.connection;
    file.execute_batch("DROP TABLE reach; PRAGMA user_version = 1;").expect("goes back");
}

#[test]
fn what_is_newer_than_all_that_is_stored_is_new_without_a_look_up() {
    for fold in [false, true] {
        let mut stepped = Stepped::new();
        stepped.remember(fix(1, -9));
        stepped.remember(fix(2, -5));
        stepped.worker.write();
        if fold {
            stepped.worker.fold();
        }
        stepped.kill();
        assert!(is_new_by_memory(&stepped, fix(1, -4)) && is_new_by_memory(&stepped, fix(3, -4)));
        assert!(!is_new_by_memory(&stepped, fix(1, -8)), "as new as another vehicle's: it may be stored");
        assert!(stepped.is_known(fix(1, -9)) && stepped.is_known(fix(2, -5)));
    }
}

#[test]
fn what_a_fold_took_along_and_no_journal_has_is_known_after_a_kill() {
    let mut stepped = Stepped::new();
    stepped.remember(fix(1, -9));
    stepped.worker.write();
    stepped.remember(fix(1, -3));
    stepped.worker.fold();
    stepped.kill();
    assert!(stepped.is_known(fix(1, -3)));
    assert!(is_new_by_memory(&stepped, fix(1, -2)));
}

#[test]
fn of_a_store_that_is_older_nothing_is_known_that_may_have_been_parked_in_it() {
    let mut stepped = Stepped::new();
    let start = |stepped: &mut Stepped, era| {
        (stepped.dedup, stepped.worker) = open(tempfile::tempdir().expect("a folder").path(), &stepped.now);
        (stepped.dedup, stepped.worker) = open_in(stepped.dir.path(), &stepped.now, &Era::of(era));
        stepped.worker.write();
    };
    start(&mut stepped, 7);
    for (minute, fold) in [(-9, true), (-5, false)] {
        stepped.remember(fix(1, minute));
        stepped.worker.write();
        if fold {
            stepped.worker.fold();
        }
    }
    start(&mut stepped, 8);
    assert!(stepped.is_known(fix(1, -9)) && stepped.is_known(fix(1, -5)), "the next start");
    // A backup that was made in the era before, and opened.
    start(&mut stepped, 8);
    assert!(!stepped.is_known(fix(1, -9)) && !stepped.is_known(fix(1, -5)));
    stepped.remember(fix(1, -7));
    stepped.worker.write();
    start(&mut stepped, 9);
    assert!(stepped.is_known(fix(1, -7)), "of the restored one, what came since is known");
}

#[test]
fn of_a_file_of_the_first_layout_every_hour_is_looked_up_and_what_comes_is_known_after_the_next_start() {
    let mut stepped = Stepped::new();
    stepped.remember(fix(1, -5));
    stepped.worker.write();
    go_back(&stepped);
    stepped.kill();
    assert!(!is_new_by_memory(&stepped, fix(1, -4)));
    assert!(stepped.is_known(fix(1, -5)));
    // Older than what is stored: what is written now of how far it reaches is no less than that.
    stepped.remember(fix(2, -7));
    stepped.worker.write();
    stepped.kill();
    assert!(stepped.is_known(fix(1, -5)) && stepped.is_known(fix(2, -7)));
}

#[test]
fn a_file_that_was_begun_anew_says_how_far_what_memory_held_reaches() {
    let mut stepped = Stepped::new();
    stepped.remember(fix(1, -3));
    stepped.worker.write();
    stepped.worker.begin_anew();
    stepped.remember(fix(2, -7));
    stepped.worker.fold();
    stepped.kill();
    assert!(stepped.is_known(fix(1, -3)) && stepped.is_known(fix(2, -7)));
    assert!(is_new_by_memory(&stepped, fix(1, -2)));
}

#[test]
fn a_new_file_that_could_not_be_begun_is_begun_as_soon_as_it_can_be() {
    for fold in [false, true] {
        let mut stepped = Stepped::new();
        stepped.remember(fix(1, -3));
        stepped.worker.write();
        // As where there is no room, or no descriptor, for a new one.
        std::fs::remove_dir_all(stepped.dir.path()).expect("removed");
        stepped.worker.begin_anew();
        stepped.dedup.forget(&stepped.candidate(fix(2, -5)).enters);
        stepped.worker.write();
        stepped.worker.fold();
        assert!(stepped.is_known(fix(1, -3)), "by memory");
        std::fs::create_dir(stepped.dir.path()).expect("made");
        if !fold {
            stepped.worker.write();
        }
        stepped.worker.fold();
        stepped.kill();
        assert!(stepped.is_known(fix(1, -3)));
        assert!(stepped.dedup.is_forgotten(stepped.candidate(fix(2, -5)).enters[0]));
        assert!(!stepped.dir.path().join("seen.db.broken").exists(), "the new one is not broken");
    }
}

#[test]
fn a_cell_that_cannot_be_read_any_more_does_not_refuse_the_start() {
    for damage in [
        "UPDATE piece SET account = CAST(x'ff' AS TEXT)",
        "UPDATE piece SET type = CAST(x'ff' AS TEXT)",
        "UPDATE reach SET account = CAST(x'ff' AS TEXT)",
        "UPDATE era SET number = -1",
        // Another type than the layout says, which SQLite would not write.
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', ''); PRAGMA writable_schema = RESET;
         INSERT INTO journal (body) VALUES ('text')",
    ] {
        let mut stepped = Stepped::new();
        stepped.remember(fix(1, -3));
        stepped.worker.fold();
        stepped.worker.idle.file.connection.execute_batch(damage).expect(damage);
        stepped.kill();
        assert!(stepped.dir.path().join("seen.db.broken").exists(), "{damage}");
        stepped.remember(fix(1, -3));
    }
}

#[test]
fn what_cannot_be_written_is_not_folded_either() {
    let mut stepped = Stepped::new();
    stepped.remember(fix(1, -3));
    let failing = "CREATE TRIGGER full BEFORE INSERT ON reach BEGIN SELECT RAISE(ABORT, 'full'); END";
    stepped.worker.idle.file.connection.execute_batch(failing).expect("made");
    stepped.worker.fold();
    assert_eq!(
        stepped.worker.file().buckets().count(),
        0,
        "found on disk alone, and nobody knows how far it reaches"
    );
    stepped.worker.idle.file.connection.execute_batch("DROP TRIGGER full").expect("dropped");
    stepped.worker.fold();
    assert_eq!(stepped.worker.file().buckets().count(), 1);
    stepped.kill();
    assert!(stepped.is_known(fix(1, -3)));
}

#[test]
fn a_fold_that_failed_goes_on_behind_what_it_has_written() {
    let mut stepped = Stepped::new();
    let stop = |hour: i64| Fact::Stop { subject: 1, minute: -60 * hour, end: 0 };
    for hour in 0..100 {
        stepped.remember(stop(hour));
    }
    let failing = "CREATE TRIGGER full BEFORE INSERT ON piece WHEN (SELECT count(*) FROM piece) >= 80
                   BEGIN SELECT RAISE(ABORT, 'full'); END";
    stepped.worker.idle.file.connection.execute_batch(failing).expect("made");
    for _ in 0..3 {
        stepped.worker.fold();
    }
    stepped.worker.idle.file.connection.execute_batch("DROP TRIGGER full").expect("dropped");
    stepped.worker.fold();
    let buckets: Vec<Bucket> = stepped.worker.file().buckets().cloned().collect();
    assert_eq!(buckets.len(), 100);
    assert!(buckets.iter().all(|bucket| stepped.worker.file().runs_of(bucket) == 1));
    // The next one begins at its beginning.
    stepped.remember(Fact::Stop { subject: 2, minute: -5, end: 0 });
    stepped.worker.fold();
    stepped.kill();
    assert!((0..100).all(|hour| stepped.is_known(stop(hour))));
    assert!(stepped.is_known(Fact::Stop { subject: 2, minute: -5, end: 0 }));
}

#[test]
fn a_request_of_many_asks_the_disk_once_and_of_its_copies_one_is_new() {
    let mut stepped = Stepped::new();
    for minute in -10..0 {
        stepped.remember(fix(1, minute));
    }
    stepped.worker.fold();
    stepped.kill();
    // Ten are known, five are not, and those come twice.
    let facts = (-10..0).chain(-20..-15).chain(-20..-15).map(|minute| fix(1, minute));
    let candidates: Vec<Candidate> = facts.map(|fact| stepped.candidate(fact)).collect();
    let dedup = Arc::clone(&stepped.dedup);
    let until = Instant::now() + PATIENCE;
    let mut asking =
        Box::pin(async move { dedup.reserve_all(&candidates.iter().collect::<Vec<_>>(), until).await });
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    let _entered = stepped.runtime.enter();
    assert!(asking.as_mut().poll(&mut context).is_pending());
    assert!(stepped.worker.answer_one(), "one question for all");
    let Poll::Ready(verdicts) = asking.as_mut().poll(&mut context) else { panic!("it asked again") };
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
    assert_eq!(count(|verdict| matches!(verdict, Verdict::Known)), 10);
    assert_eq!(count(|verdict| matches!(verdict, Verdict::New(_))), 5);
    assert_eq!(count(|verdict| matches!(verdict, Verdict::InFlight(_))), 5);
}
