//! What feeds of one token or key share: JWT, limits, pauses, the breaker; and what never leaves a host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleetbus::event::{AccountId, Millis};
use fleetbus::intake::poll::bucket::Class;
use fleetbus::intake::poll::desk::{Desk, Go, Which};
use fleetbus::intake::poll::feed::Doing;
use fleetbus::intake::poll::request::{Request, Verb};
use fleetbus::provider::{Feed, PullApi};
use fleetbus::replay::{DataDir, Store, StoreLimits};

use crate::bench::{Asked, Bench, Call, Reply, SECRET, Stand, T, array, ok, status, v2};
use crate::hanging::Hanging;

fn v3<'a>(stand: &'a Stand, feeds: &[(Feed, u64)]) -> Asked<'a> {
    Asked { account: "acme", v3: true, stand, feeds: feeds.to_vec() }
}

fn v2_feeds<'a>(stand: &'a Stand, feeds: &[(Feed, u64)]) -> Asked<'a> {
    Asked { account: "acme", v3: false, stand, feeds: feeds.to_vec() }
}

fn seconds(calls: &[Call]) -> Vec<u64> {
    calls.iter().map(|call| (call.at - calls[0].at).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_sent_once_as_a_bearer_however_it_was_pasted() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.settle().await;
    assert_eq!(stand.calls()[0].authorization, format!("Bearer {SECRET}"));
    assert_eq!(stand.calls()[0].key, "");
}

#[tokio::test(start_paused = true)]
async fn one_jwt_serves_all_feeds_and_is_bought_anew_before_it_ends() {
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok(format!(r#"{{"token":"jwt.{}"}}"#, call.nth)),
        _ => ok("[]"),
    })
    .await;
    let feeds = [(Feed::Positions, 60), (Feed::Stops, 60), (Feed::Trackers, 60)];
    let bench = Bench::start(&[v3(&stand, &feeds)]);
    bench.pass(12 * 60, 10).await;
    let bought = stand.calls_of("POST /jwts");
    assert_eq!(bought.len(), 1);
    assert_eq!(bought[0].key, format!("Bearer {SECRET}"));
    assert!(stand.calls_of("GET /stops").iter().all(|call| call.authorization == "Bearer jwt.0"));
    bench.pass(3 * 60, 10).await;
    assert_eq!(seconds(&stand.calls_of("POST /jwts")), [0, 780]);
    assert_eq!(stand.calls_of("GET /stops").last().unwrap().authorization, "Bearer jwt.1");
}

#[tokio::test(start_paused = true)]
async fn a_jwt_that_is_refused_is_bought_anew_once_for_all() {
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok(format!("\"jwt.{}\"", call.nth)),
        _ if call.authorization == "Bearer jwt.0" => status(401),
        _ => ok("[]"),
    })
    .await;
    let bench = Bench::start(&[v3(&stand, &[(Feed::Positions, 60), (Feed::Stops, 60)])]);
    bench.pass(20, 1).await;
    assert_eq!(stand.calls_of("POST /jwts").len(), 2);
    for (_, status) in &bench.statuses {
        let status = status.lock().clone();
        assert_eq!((status.failed_polls, status.succeeded_polls), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_is_tried_at_growing_pauses_until_it_works() {
    let mended = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&mended);
    let stand = Stand::start(move |_| if works.load(Ordering::SeqCst) { v2(1) } else { status(403) }).await;
    let bench = Bench::start(&[v2_feeds(&stand, &[(Feed::Trips, 5)])]);
    bench.pass(3_600, 5).await;
    assert_eq!(seconds(&stand.calls()), [0, 60, 180, 420, 900, 1_800, 2_700, 3_600]);
    assert!(bench.said().contains("not accepted"), "{}", bench.said());
    mended.store(true, Ordering::SeqCst);
    bench.pass(905, 5).await;
    assert_eq!(bench.said(), "");
    assert!(!bench.hosts[0].is_slowed(), "a refused token says nothing about the host");
}

#[tokio::test(start_paused = true)]
async fn a_jwt_refused_twice_is_a_key_that_is_refused() {
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok("jwt"),
        _ => status(401),
    })
    .await;
    let bench = Bench::start(&[v3(&stand, &[(Feed::Positions, 60)])]);
    bench.pass(30, 1).await;
    assert_eq!((stand.calls_of("POST /jwts").len(), stand.calls_of("GET /positions").len()), (2, 2));
    assert!(bench.said().contains("not accepted"), "{}", bench.said());
    assert!(!bench.said().contains(SECRET));
}

#[tokio::test(start_paused = true)]
async fn a_jwt_is_bought_again_five_seconds_after_it_failed_however_often_it_is_asked_for() {
    let stand = Stand::start(|call| match (call.what.as_str(), call.nth) {
        ("POST /jwts", 0..2) => status(403),
        ("POST /jwts", _) => ok("jwt"),
        _ => ok("[]"),
    })
    .await;
    let bench = Bench::start(&[v3(&stand, &[(Feed::Positions, 600)])]);
    bench.settle().await;
    let mut opened = Vec::new();
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(3)).await;
        opened.push(bench.hosts[0].knock().await.is_ok());
    }
    assert_eq!(opened, [false, false, false, true]);
    assert_eq!(seconds(&stand.calls_of("POST /jwts")), [0, 6, 12]);
}

/// It froze the runtime: with it webhooks, `/healthz` and the stop. Here it would freeze the test.
#[tokio::test(start_paused = true)]
async fn a_secret_whose_disk_hangs_holds_nobody_up_and_stays_in_use() {
    let check = async |asked: fn(&Stand) -> Asked<'_>, what: &str, pause: u64| {
        let stand = Stand::start(|call| match call.what.as_str() {
            "POST /jwts" => ok("jwt"),
            "GET /positions" => ok("[]"),
            _ => v2(1),
        })
        .await;
        let bench = Bench::start(&[asked(&stand)]);
        bench.settle().await;
        let hanging = Hanging::put(&bench.secret("acme"));
        tokio::time::advance(Duration::from_secs(pause)).await;
        hanging.is_read().await;
        assert_eq!(stand.calls_of(what).len(), 1);
        for seconds in [10, pause] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            bench.settle().await;
        }
        assert_eq!(
            seconds(&stand.calls_of(what)),
            [0, pause + 10, 2 * pause + 10],
            "{what}: one waits, once"
        );
        assert_eq!(bench.status().failed_polls, 0, "{}", bench.said());
    };
    check(|stand| v2_feeds(stand, &[(Feed::Trips, 60)]), "POST /trips", 60).await;
    check(|stand| v3(stand, &[(Feed::Positions, 60)]), "POST /jwts", 14 * 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_host_asks_for_holds_for_all_who_share_it() {
    let limited = |headers: Vec<(&'static str, String)>| {
        move |call: &Call| match (call.what.as_str(), call.nth) {
            ("POST /trips", 1) => Reply::Is(429, headers.clone(), String::new()),
            _ => v2(1),
        }
    };
    for (headers, pause) in [
        (vec![("retry-after", "95".to_owned())], 95),
        (vec![], 60),
        (
            vec![
                ("date", "Mon, 29 Dec 2025 11:00:00 GMT".to_owned()),
                ("retry-after", "Mon, 29 Dec 2025 11:00:40 GMT".to_owned()),
            ],
            40,
        ),
    ] {
        let stand = Stand::start(limited(headers)).await;
        let bench = Bench::start(&[v2_feeds(&stand, &[(Feed::Trips, 30), (Feed::Alerts, 10)])]);
        bench.pass(30, 1).await;
        let (trips, alerts) = (stand.calls_of("POST /trips").len(), stand.calls_of("POST /alerts").len());
        assert_eq!(trips, 2);
        bench.pass(pause - 1, 1).await;
        assert_eq!(stand.calls_of("POST /trips").len(), trips);
        assert!(stand.calls_of("POST /alerts").len() <= alerts + 1);
        bench.pass(2, 1).await;
        assert_eq!(stand.calls_of("POST /trips").len(), trips + 1);
        assert!(stand.calls_of("POST /alerts").len() > alerts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_is_paused_while_it_stands_in_line_does_not_call() {
    let stand = Stand::start(|call| match (call.what.as_str(), call.nth) {
        ("POST /trips", 0) => Reply::Is(429, vec![("retry-after", "600".to_owned())], String::new()),
        _ => v2(1),
    })
    .await;
    let bench = Bench::start(&[v2_feeds(&stand, &[(Feed::Trips, 60), (Feed::Alerts, 60)])]);
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::lock(folder.path()).await.unwrap();
    let (store, writer, _) = Store::open(&dir, StoreLimits::default(), None).unwrap();
    let thread = std::thread::spawn(move || writer.run(|_| {}));
    let desk = Desk::open(store.clone(), Arc::new(|| Millis(T))).await.unwrap();
    desk.seat(bench.steered.clone()).await;
    let (acme, alerts) = (AccountId::new("acme"), Which::Feed(PullApi::V2, Feed::Alerts));
    let doing = || bench.statuses[1].1.lock().doing;
    bench.pass(60, 1).await;
    let calls = stand.calls_of("POST /alerts").len();
    assert_eq!(doing(), Doing::Calling, "in line");
    desk.steer(&acme, alerts, Go::Pause, "a test").await.unwrap();
    bench.pass(900, 10).await;
    assert_eq!((doing(), stand.calls_of("POST /alerts").len()), (Doing::Paused, calls));
    assert_eq!(bench.statuses[1].1.lock().failed_polls, 0);
    assert!(stand.calls_of("POST /trips").len() > 1, "the host is called again");
    desk.steer(&acme, alerts, Go::Resume, "a test").await.unwrap();
    bench.settle().await;
    assert_eq!(stand.calls_of("POST /alerts").len(), calls + 1);
    store.close();
    thread.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn v3_is_called_25_times_a_minute_and_feeds_take_turns() {
    // Positions have pages without end, stops one each time.
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok("jwt"),
        "GET /positions" => ok(array(call.nth * 100, 100)),
        _ => ok("[]"),
    })
    .await;
    let bench = Bench::start(&[v3(&stand, &[(Feed::Positions, 60), (Feed::Stops, 1)])]);
    bench.pass(240, 1).await;
    let (positions, stops) = (stand.calls_of("GET /positions").len(), stand.calls_of("GET /stops").len());
    assert!((90..=100).contains(&(positions + stops)), "{positions} + {stops}");
    assert!(stops >= 40 && positions >= 40, "{positions} and {stops}");
}

#[tokio::test(start_paused = true)]
async fn v3_is_led_by_what_the_provider_says_is_left() {
    let left = |call: &Call| if call.nth == 0 { "190" } else { "0" };
    let stand = Stand::start(move |call| match call.what.as_str() {
        "POST /jwts" => ok("jwt"),
        _ => {
            let rows = if call.nth < 2 { 100 } else { 1 };
            let headers = vec![("X-Rate-Limit-Remaining", left(call).to_owned())];
            Reply::Is(200, headers, array(call.nth * 100, rows))
        }
    })
    .await;
    let bench = Bench::start(&[v3(&stand, &[(Feed::Positions, 600)])]);
    bench.pass(3, 1).await;
    assert_eq!(stand.calls_of("GET /positions").len(), 2, "the second at once, for 190 are left");
    bench.pass(3, 1).await;
    assert_eq!(stand.calls_of("GET /positions").len(), 3, "the third when there is one again");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_only_what_live_feeds_leave() {
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok("jwt"),
        _ => Reply::Is(200, vec![("X-Rate-Limit-Remaining", "5".to_owned())], "[]".to_owned()),
    })
    .await;
    let bench = Bench::start(&[v3(&stand, &[(Feed::Positions, 5)])]);
    bench.pass(6 * 3_600 + 1_800, 5).await;
    let calls = stand.calls_of("GET /positions");
    let long = calls.iter().filter(|call| call.window().1 - call.window().0 > 40 * 3_600_000).count();
    assert_eq!(long, 1, "the first window alone");
    assert!(calls.len() > 4_500, "{}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn sweeps_and_backfills_leave_a_line_for_live_feeds() {
    let stand = Stand::start(|call| if call.what == "GET /slow" { Reply::Never } else { v2(1) }).await;
    let bench = Bench::start(&[v2_feeds(&stand, &[(Feed::Trips, 5)])]);
    bench.settle().await;
    for _ in 0..4 {
        let host = Arc::clone(&bench.hosts[0]);
        bench.tracker.spawn(async move {
            host.call(&Request { verb: Verb::Get, path: "/slow", query: vec![] }, Class::Rest).await.ok();
        });
    }
    for _ in 0..4 {
        bench.settle_but(3).await;
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    bench.settle_but(3).await;
    assert_eq!((stand.calls_of("GET /slow").len(), stand.calls_of("POST /trips").len()), (3, 5));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_is_slowed_until_it_recovers_and_no_other_is() {
    let works = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&works);
    let fails = Stand::start(move |_| if mended.load(Ordering::SeqCst) { v2(1) } else { status(502) }).await;
    let other = Stand::start(|_| v2(1)).await;
    let feeds = [(Feed::Trips, 5), (Feed::Stops, 5), (Feed::Alerts, 5), (Feed::History, 5)];
    let bench = Bench::start(&[
        v2_feeds(&fails, &feeds),
        Asked { account: "other", v3: false, stand: &other, feeds: vec![(Feed::Trips, 5)] },
    ]);
    bench.pass(3_600, 5).await;
    assert!((10..25).contains(&fails.calls().len()), "{}", fails.calls().len());
    assert_eq!(other.calls().len(), 721);
    assert_eq!(bench.hosts.iter().filter(|host| host.is_slowed()).count(), 1);
    works.store(true, Ordering::SeqCst);
    bench.pass(660, 5).await;
    let before = fails.calls().len();
    bench.pass(60, 5).await;
    assert!(fails.calls().len() - before >= 44, "{}", fails.calls().len() - before);
}

#[tokio::test(start_paused = true)]
async fn one_feed_that_is_refused_slows_no_other_of_its_host() {
    let stand = Stand::start(|call| if call.what == "POST /usagehours" { status(404) } else { v2(1) }).await;
    let bench = Bench::start(&[v2_feeds(&stand, &[(Feed::UsageHours, 5), (Feed::Trips, 60)])]);
    bench.pass(600, 5).await;
    assert_eq!(stand.calls_of("POST /trips").len(), 11);
    assert!(stand.calls_of("POST /usagehours").len() < 8);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_never_leaves_the_host() {
    let elsewhere = Stand::start(|_| v2(1)).await;
    let target = format!("{}/trips", elsewhere.url());
    let stand = Stand::start(move |call| match call.what.as_str() {
        "POST /trips" => Reply::Is(307, vec![("location", target.clone())], String::new()),
        "POST /stops" => Reply::Is(307, vec![("location", "/moved".to_owned())], String::new()),
        _ => v2(1),
    })
    .await;
    let bench = Bench::start(&[v2_feeds(&stand, &[(Feed::Trips, 600), (Feed::Stops, 600)])]);
    bench.settle().await;
    assert!(bench.said().contains("another host"), "{}", bench.said());
    assert_eq!(elsewhere.calls_of("POST /trips").len() + elsewhere.calls_of("GET /company").len(), 0);
    assert_eq!(stand.calls_of("POST /moved").len(), 1, "within the host it is followed");
    assert_eq!(bench.statuses[1].1.lock().succeeded_polls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_reached_is_said_without_its_address() {
    let stand = Stand::start(|_| v2(1)).await;
    let mut gone = stand.clone();
    gone.address.set_port(1);
    let bench = Bench::one(&gone, false, Feed::Trips, 60);
    bench.settle().await;
    assert!(bench.said().contains("host fails"), "{}", bench.said());
    assert!(bench.said().to_lowercase().contains("refused"), "{}", bench.said());
    tokio::time::advance(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn no_way_of_redirecting_leads_to_another_host() {
    let elsewhere = Stand::start(|_| v2(1)).await;
    let (there, port) = (elsewhere.address, elsewhere.address.port());
    let targets = [
        format!("http://{there}/"),
        format!("//{there}/"),
        format!("https://{there}/"),
        format!("http://localhost:{port}/"),
        format!("http://me@{there}/"),
        format!("http:\\\\{there}\\"),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    for code in [301, 302, 303, 307, 308] {
        for target in &targets {
            // Also from where a first redirect, within the host, had led.
            let location = target.clone();
            let stand = Stand::start(move |call| match call.what.as_str() {
                "POST /trips" => Reply::Is(307, vec![("location", "/moved".to_owned())], String::new()),
                _ => Reply::Is(code, vec![("location", location.clone())], String::new()),
            })
            .await;
            let bench = Bench::one(&stand, false, Feed::Trips, 600);
            bench.settle().await;
            assert!(!bench.said().is_empty(), "{code} to {target} was taken");
            assert!(!bench.said().contains(SECRET), "{}", bench.said());
            assert_eq!(bench.rows(), Vec::<usize>::new(), "{code} to {target}");
        }
    }
    assert_eq!(elsewhere.calls().len() + elsewhere.calls_of("GET /company").len(), 0);
}

/// A window that was posted would be asked for without its body, and the answer taken for the window's.
#[tokio::test(start_paused = true)]
async fn no_redirect_makes_another_question_of_one() {
    for code in [301, 302, 303] {
        let stand = Stand::start(move |call| match call.what.as_str() {
            "POST /trips" => Reply::Is(code, vec![("location", "/moved".to_owned())], String::new()),
            _ => v2(1),
        })
        .await;
        let bench = Bench::one(&stand, false, Feed::Trips, 600);
        bench.settle().await;
        assert!(bench.said().contains("307 or 308"), "{code}: {}", bench.said());
        assert_eq!(stand.calls_of("GET /moved").len(), 0, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_redirects_in_a_circle_is_given_up() {
    let stand =
        Stand::start(|_| Reply::Is(307, vec![("location", "/trips".to_owned())], String::new())).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 600);
    bench.settle().await;
    assert!(bench.said().contains("redirects"), "{}", bench.said());
    assert!(stand.calls().len() <= 5, "{}", stand.calls().len());
}
