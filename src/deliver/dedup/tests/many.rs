//! Many questions at once: those that may be in any hour are answered together, and what is too much of one account costs no other one
//! its answers. What is asked about again and again is looked for on disk once a fold.

use super::*;
use tail::short;

const HOURS: u32 = 167;
const RUNS: u32 = 3;

/// An id in each hour of a week, among others.
fn a_week(dir: &Path) {
    let (_dedup, mut worker) = open(dir, &Arc::new(AtomicI64::new(NOW)));
    for hour in 0..HOURS {
        let bucket = Bucket {
            account: AccountId::new("acme"),
            event_type: EventType::Media,
            hour: NOW / HOUR_MS - i64::from(hour),
        };
        for run in 0..RUNS {
            let others = (0..50).map(|n| short(&id(&format!("{hour} {run} {n}"))));
            let known = (run == 0).then(|| short(&id(&format!("media {hour}"))));
            let mut ids: Vec<_> = others.chain(known).collect();
            ids.sort_unstable();
            worker.file().add_runs(&[(bucket.clone(), ids)]).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_questions_as_a_request_can_have_are_answered_beside_a_week_of_ids() {
    let dir = tempfile::tempdir().expect("a folder");
    a_week(dir.path());
    let running = Running::open(dir.path());
    let candidates: Vec<Candidate> = (0..4_000).map(|number| Fact::Media { number }.candidate(NOW)).collect();
    let asked: Vec<&Candidate> = candidates.iter().collect();
    let failed = || running.dedup.stats.look_ups_failed.load(Ordering::Relaxed);
    // On a machine that has more to do it may take longer than it is given: then nothing was answered, and all is asked again.
    for _ in 0..5 {
        let before = failed();
        let verdicts = running.dedup.reserve_all(&asked, Instant::now() + Duration::from_secs(60)).await;
        if failed() == before {
            for (number, verdict) in (0..).zip(&verdicts) {
                assert_eq!(matches!(verdict, Verdict::Known), number < HOURS, "{number}: {verdict:?}");
            }
            return;
        }
        tokio::time::sleep(RESPITE).await;
    }
    panic!("{} look-ups failed", failed());
}

#[test]
fn a_respite_is_that_of_one_account() {
    let question = |account: &str| {
        let bucket = Bucket { account: AccountId::new(account), event_type: EventType::Media, hour: 0 };
        Question { place: Place::AnyHour(bucket), ids: Vec::new() }
    };
    let (mut respites, now) = (Respites::default(), Instant::now());
    respites.begin([AccountId::new("acme")].iter(), now);
    assert!(respites.cover(&[question("acme")], now));
    assert!(!respites.cover(&[question("other")], now));
    assert!(!respites.cover(&[question("acme"), question("other")], now));
    assert!(!respites.cover(&[question("acme")], now + RESPITE));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_answered_in_time_while_others_are_costs_these_no_look_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dedup, mut worker) = open(dir.path(), &Arc::new(AtomicI64::new(NOW)));
    let heavy = Fact::Media { number: 1 }.candidate(NOW);
    let other = Candidate { account: AccountId::new("other"), ..heavy.clone() };
    let is_covered = |of: &str| {
        let bucket = Bucket { account: AccountId::new(of), event_type: EventType::Media, hour: 0 };
        let question = Question { place: Place::AnyHour(bucket), ids: Vec::new() };
        dedup.respites.lock().cover(&[question], Instant::now())
    };
    // In this order: both ask, and the first one is answered.
    let answers = async { assert!(worker.answer_one()) };
    let (verdict, _, ()) = tokio::join!(dedup.reserve_one(&other), dedup.reserve_one(&heavy), answers);
    assert!(matches!(verdict, Verdict::New(_)));
    assert!(is_covered("acme") && !is_covered("other"));
    // Whom nobody waits for any more is not answered.
    assert!(worker.answer_one());
    tokio::time::advance(RESPITE).await;
    dedup.reserve_one(&Fact::Media { number: 2 }.candidate(NOW)).await;
    assert!(is_covered("acme") && is_covered("other"), "nobody was answered");
}

#[test]
fn all_who_ask_while_runs_are_merged_are_answered_before_the_next_step() {
    let mut stepped = Stepped::new();
    let bucket =
        Bucket { account: AccountId::new("acme"), event_type: EventType::Media, hour: NOW / HOUR_MS };
    for run in 0..4 {
        // Several steps' worth.
        let mut ids: Vec<_> = (0..70_000).map(|n| short(&id(&format!("{run} {n}")))).collect();
        ids.sort_unstable();
        stepped.worker.file().add_runs(&[(bucket.clone(), ids)]).expect("written");
    }
    stepped.worker.merge();
    let mut asking: Vec<Reserving> = (0..9).map(|number| stepped.reserving(Fact::Media { number })).collect();
    for reserving in &mut asking {
        assert!(stepped.poll(reserving).is_none());
    }
    stepped.worker.merge();
    for reserving in &mut asking {
        assert!(matches!(stepped.poll(reserving), Some(Verdict::New(_))));
    }
}

#[test]
fn what_is_met_again_and_again_is_looked_for_once_a_fold_and_known_for_as_long() {
    const MEDIA: Fact = Fact::Media { number: 1 };
    let mut stepped = Stepped::new();
    stepped.remember(MEDIA);
    let look_ups = |stepped: &Stepped| stepped.dedup.stats.look_ups.load(Ordering::Relaxed);
    let first = look_ups(&stepped);
    // Three weeks, where a week is remembered.
    for day in 1..=21 {
        stepped.worker.fold();
        stepped.now.fetch_add(24 * 60 * MINUTE_MS, Ordering::Relaxed);
        for _ in 0..3 {
            assert!(stepped.is_known(MEDIA), "day {day}");
        }
        assert_eq!(look_ups(&stepped), first + day);
    }
    stepped.worker.fold();
    stepped.dedup.forget(&stepped.candidate(MEDIA).enters);
    assert!(!stepped.is_known(MEDIA));
}

#[test]
fn what_is_forgotten_while_it_is_looked_up_stays_forgotten() {
    const MEDIA: Fact = Fact::Media { number: 1 };
    let mut stepped = Stepped::new();
    stepped.remember(MEDIA);
    stepped.worker.fold();
    let mut looking = stepped.reserving(MEDIA);
    assert!(stepped.poll(&mut looking).is_none());
    stepped.worker.answer_waiting();
    stepped.dedup.forget(&stepped.candidate(MEDIA).enters);
    assert!(matches!(stepped.poll(&mut looking), Some(Verdict::Known)));
    assert!(!stepped.is_known(MEDIA), "the next copy heals it");
}
