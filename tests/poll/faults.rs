//! What goes wrong with one answer, with our own side, and with stopping.

use std::io::Write as _;
use std::time::Duration;

use fleetbus::intake::accept::Refusal;
use fleetbus::intake::poll::feed::Doing;
use fleetbus::intake::poll::http::Bounds;
use fleetbus::provider::Feed;

use crate::bench::{
    Asked, BEGINS, Bench, HOUR, MINUTE, Reply, SECOND, SECRET, Stand, T, array, ok, status, v2,
};

/// A first answer that worked, one that did not, and then ones that do.
async fn check(wrong: impl Fn() -> Reply + Send + Sync + 'static, says: &str) {
    let stand = Stand::start(move |call| match call.nth {
        1 => wrong(),
        _ => v2(1),
    })
    .await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.settle().await;
    let before = bench.saved();
    bench.pass(60, 1).await;
    assert_eq!(bench.saved(), before, "{says}");
    assert!(bench.said().contains(says), "{:?} does not say {says:?}", bench.said());
    assert!(!bench.said().contains(SECRET) && !bench.said().contains("127.0.0.1"), "{}", bench.said());
    assert_eq!(bench.status().failed_in_a_row, 1);
    bench.pass(90, 1).await;
    assert_eq!((bench.said(), bench.status().failed_in_a_row), (String::new(), 0));
    let calls = stand.calls();
    assert_eq!(calls[2].window().0, calls[1].window().0, "the same is asked for again: {says}");
    assert!(bench.position() > before.unwrap().position.map(|at| at.0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_failed_moves_no_cursor_and_is_asked_for_again() {
    let html = "<html><body>Not Found</body></html>";
    check(|| status(500), "status 500").await;
    check(move || Reply::Is(404, vec![], html.to_owned()), "status 404").await;
    check(|| status(405), "status 405").await;
    check(move || ok(html), "not json").await;
    check(|| ok(""), "empty").await;
    check(|| ok(r#"{"responseType":"Success","data":{"trips":[{"imei"#), "not json").await;
    check(|| ok(r#"{"responseType":"Success","data":{}}"#), "no list").await;
    let error = r#"{"responseType":"Error","data":{"message":"Date range cannot be more than 48 hours."}}"#;
    check(move || ok(error), "cannot be more than 48 hours").await;
    check(move || Reply::Is(422, vec![], error.to_owned()), "status 422, \"Date range").await;
    check(|| status(204), "empty").await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_not_taken_move_no_cursor() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.refusals.lock().push_back(Refusal::NotKept { retry_after: Duration::from_secs(7) });
    bench.refusals.lock().push_back(Refusal::Stopping);
    bench.settle().await;
    assert_eq!((bench.saved_position(), bench.position()), (Some(BEGINS), Some(BEGINS)));
    assert!(bench.said().contains("delivered or kept"), "{}", bench.said());
    bench.pass(6, 1).await;
    assert_eq!(stand.calls().len(), 1);
    bench.pass(30, 1).await;
    let windows: Vec<i64> = stand.calls().iter().map(|call| call.window().0).collect();
    assert_eq!(windows, [windows[0]; 3]);
    assert_eq!(bench.rows(), [1]);
    assert!(bench.saved_position() > Some(BEGINS));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_not_taken_holds_the_whole_window() {
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok("a.b.c"),
        _ => ok(array(call.nth * 100, [100, 5, 0][call.number("page") as usize])),
    })
    .await;
    let bench = Bench::one(&stand, true, Feed::Positions, 600);
    bench.pass(3, 1).await;
    bench.refusals.lock().push_back(Refusal::NotKept { retry_after: Duration::from_secs(1) });
    bench.pass(3, 1).await;
    assert_eq!((bench.rows(), bench.saved_position()), (vec![100], Some(BEGINS)));
    bench.pass(15, 1).await;
    assert_eq!(bench.rows(), [100, 100, 5]);
    assert!(bench.saved_position() > Some(BEGINS));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_cannot_be_written_is_said_and_written_with_the_next() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    *bench.cursors.broken.lock() = true;
    bench.pass(180, 60).await;
    assert_eq!(bench.saved(), None);
    assert!(bench.said().contains("cursor"), "{}", bench.said());
    let status = bench.status();
    assert!(status.failed_in_a_row >= 2, "each poll failed: {status:?}");
    assert_eq!((status.succeeded_at, status.succeeded_polls), (None, 0), "{status:?}");
    *bench.cursors.broken.lock() = false;
    bench.pass(60, 60).await;
    assert_eq!(bench.saved_position(), bench.position());
    assert_eq!((bench.said(), bench.status().failed_in_a_row), (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_end_is_given_up_and_a_shorter_window_asked_for() {
    let stand = Stand::start(|call| if call.nth == 0 { Reply::Stuck } else { v2(1) }).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.settle_but(1).await;
    assert_eq!(bench.status().doing, Doing::Calling);
    tokio::time::advance(Duration::from_secs(29)).await;
    bench.settle_but(1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    bench.settle().await;
    assert!(bench.said().contains("no full answer"), "{}", bench.said());
    bench.pass(20, 1).await;
    let length = |nth: usize| stand.calls()[nth].window().1 - stand.calls()[nth].window().0;
    assert_eq!(length(1), length(0) / 2);
    assert!(bench.position() > Some(T - MINUTE), "and the rest after it");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_delays_no_other_and_its_calls_end() {
    let hangs = Stand::start(|_| Reply::Never).await;
    let works = Stand::start(|_| v2(1)).await;
    let feeds = || {
        vec![
            (Feed::Trips, 60),
            (Feed::Stops, 60),
            (Feed::Alerts, 60),
            (Feed::History, 60),
            (Feed::UsageHours, 60),
        ]
    };
    let asked = [
        Asked { account: "hangs", v3: false, stand: &hangs, feeds: feeds() },
        Asked { account: "works", v3: false, stand: &works, feeds: vec![(Feed::Trips, 5)] },
    ];
    let bench = Bench::start(&asked);
    bench.settle_but(4).await;
    assert_eq!(hangs.calls().len(), 4, "no more than four calls at once");
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(5)).await;
        bench.settle_but(4).await;
    }
    assert_eq!(works.calls().len(), 6);
    let status = bench.statuses[0].1.lock().clone();
    assert_eq!((status.doing, status.succeeded_at), (Doing::Calling, None));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_feed_at_once_and_moves_no_cursor() {
    let stand = Stand::start(|call| if call.what == "POST /trips" { Reply::Stuck } else { v2(1) }).await;
    let feeds = vec![(Feed::Trips, 60), (Feed::Alerts, 60)];
    let bench = Bench::start(&[Asked { account: "acme", v3: false, stand: &stand, feeds }]);
    bench.settle_but(1).await;
    assert!(bench.tracker.len() >= 2);
    bench.stop.cancel();
    bench.tracker.close();
    bench.tracker.wait().await;
    let stands = bench.statuses.iter().map(|(_, status)| status.lock().cursor.position.map(|at| at.0));
    assert_eq!(stands.collect::<Vec<_>>(), [Some(BEGINS), Some(T - 30 * SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn while_the_bus_is_unavailable_nothing_is_asked_for() {
    let stand = Stand::start(|_| v2(1)).await;
    let asked = || Asked { account: "acme", v3: false, stand: &stand, feeds: vec![(Feed::Trips, 60)] };
    let bench = Bench::with(&[asked()], Bounds::default(), Vec::new(), false);
    bench.pass(7 * 3_600, 60).await;
    assert_eq!((stand.calls().len(), bench.status().doing), (0, Doing::WaitingForBus));
    assert_eq!(bench.status().sweeping, Doing::WaitingForBus);
    bench.bus.send_replace(true);
    bench.settle().await;
    assert_eq!(stand.calls().len(), 3, "two windows since it began, and the sweep that was due");
    bench.bus.send_replace(false);
    bench.pass(3_600, 60).await;
    assert_eq!(stand.calls().len(), 3);
    let before = bench.position().unwrap();
    bench.bus.send_replace(true);
    bench.settle().await;
    assert_eq!(stand.calls()[3].window().0, before - 15 * MINUTE, "what came meanwhile is not missed");
    assert_eq!(bench.position(), Some(T + 8 * HOUR - 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_feeds_wait_without_turning() {
    let stand = Stand::start(|_| v2(1)).await;
    let names: Vec<String> = (0..1_250).map(|n| format!("account-{n}")).collect();
    let feeds = [
        Feed::Locations,
        Feed::History,
        Feed::Trips,
        Feed::Stops,
        Feed::Alerts,
        Feed::UsageHours,
        Feed::GeofenceActivity,
        Feed::Trackers,
    ];
    let asked: Vec<Asked<'_>> = names
        .iter()
        .map(|name| Asked {
            account: name,
            v3: false,
            stand: &stand,
            feeds: feeds.map(|feed| (feed, 60)).to_vec(),
        })
        .collect();
    let bench = Bench::with(&asked, Bounds::default(), Vec::new(), false);
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.statuses.len(), 10_000);
    let waits = || bench.statuses.iter().filter(|(_, s)| s.lock().doing == Doing::WaitingForBus).count();
    while waits() < 10_000 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!((waits(), stand.calls().len()), (10_000, 0));
    bench.stop.cancel();
    bench.tracker.close();
    bench.tracker.wait().await;
}

/// 300 MiB of blanks in 300 kB.
#[tokio::test(start_paused = true)]
async fn an_answer_that_swells_is_given_up_at_the_bound() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![b' '; 300 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let stand = Stand::start(move |_| Reply::Gzip(bomb.clone())).await;
    let asked = Asked { account: "acme", v3: false, stand: &stand, feeds: vec![(Feed::Trackers, 600)] };
    let bench = Bench::with(&[asked], Bounds { size: 1 << 20, ..Bounds::default() }, Vec::new(), true);
    bench.settle().await;
    assert!(bench.said().contains("larger"), "{}", bench.said());
    assert_eq!(bench.rows(), Vec::<usize>::new());
}

/// Four that hang have all but four of the 32 MiB that there are for answers.
#[tokio::test(start_paused = true)]
async fn large_answers_that_hang_hold_up_no_other_hosts_neither_small_nor_large() {
    let hanging = Stand::start(|_| Reply::StuckAfter(7 << 20)).await;
    let large =
        Stand::start(|_| Reply::Is(200, vec![], format!("{}{}", " ".repeat(5 << 20), array(0, 3)))).await;
    let small = Stand::start(|_| v2(1)).await;
    let feeds = [Feed::Trips, Feed::Stops, Feed::Alerts, Feed::UsageHours].map(|feed| (feed, 60)).to_vec();
    let asked = [
        Asked { account: "evil", v3: false, stand: &hanging, feeds },
        Asked { account: "large", v3: false, stand: &large, feeds: vec![(Feed::Trips, 60)] },
        Asked { account: "small", v3: false, stand: &small, feeds: vec![(Feed::Trips, 60)] },
    ];
    let bounds = Bounds { size: 8 << 20, memory: 32 << 20, ..Bounds::default() };
    let bench = Bench::with(&asked, bounds, Vec::new(), true);
    let begun = std::time::Instant::now();
    while bench.rows().len() < 2 {
        bench.settle_but(4).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "they wait for what hangs");
    }
    assert_eq!(hanging.calls().len(), 4);
    let mut rows = bench.rows();
    rows.sort_unstable();
    assert_eq!(rows, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn where_the_bus_goes_away_between_two_pages_the_rest_is_not_asked_for_until_it_is_back() {
    let stand = Stand::start(|call| match (call.what.as_str(), call.nth) {
        ("POST /jwts", _) => ok("a.b.c"),
        (_, nth @ 0..4) => ok(array(nth * 100, if nth == 3 { 50 } else { 100 })),
        _ => ok("[]"),
    })
    .await;
    let bench = Bench::one(&stand, true, Feed::Positions, 600);
    bench.pass(3, 1).await;
    assert_eq!(bench.rows(), [100]);
    bench.bus.send_replace(false);
    bench.pass(60, 1).await;
    // One stood in line for its host already.
    assert_eq!((bench.rows(), bench.status().doing), (vec![100, 100], Doing::WaitingForBus));
    bench.bus.send_replace(true);
    bench.pass(9, 1).await;
    assert_eq!(bench.rows(), [100, 100, 100, 50]);
    assert!(bench.position() > Some(T - MINUTE));
}
