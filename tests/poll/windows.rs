//! Which windows are asked for, and where cursors stand.

use std::sync::atomic::Ordering;

use fleetbus::event::AccountId;
use fleetbus::intake::poll::http::Bounds;
use fleetbus::provider::Feed;
use fleetbus::replay::Entry;

use crate::bench::{
    Asked, BEGINS, Bench, Call, DAY, HOUR, MINUTE, Reply, SECOND, Stand, T, array, ok, status, v2,
};

fn cursor(stand: &Stand, feed: &str, position: i64) -> Entry {
    Entry {
        account: AccountId::new("acme"),
        key: format!("{feed} {}", stand.url()),
        value: format!(r#"{{"position":{position},"swept":{T},"had_rows":false,"doubts":0}}"#),
        saved_at: fleetbus::event::Millis(0),
    }
}

fn v2_feed(stand: &Stand, feed: Feed, seconds: u64) -> Asked<'_> {
    Asked { account: "acme", v3: false, stand, feeds: vec![(feed, seconds)] }
}

#[tokio::test(start_paused = true)]
async fn a_new_feed_begins_46_hours_ago_and_each_window_overlaps_the_last() {
    let stand = Stand::start(|_| v2(2)).await;
    let bench = Bench::one(&stand, false, Feed::History, 60);
    bench.settle().await;
    let first = &stand.calls()[0];
    assert_eq!(first.what, "POST /locations/all");
    assert_eq!(first.window(), (T - 30 * SECOND - 46 * HOUR - 15 * MINUTE, T - 30 * SECOND));
    assert_eq!(bench.saved().and_then(|cursor| cursor.position).map(|at| at.0), Some(T - 30 * SECOND));
    bench.pass(60, 1).await;
    let calls = stand.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].window(), (T - 30 * SECOND - 15 * MINUTE, T + 30 * SECOND));
    assert_eq!(bench.rows(), [2, 2]);
    let taken = bench.taken.lock()[1].clone();
    assert_eq!((taken.feed, taken.received_at.0), (Feed::History, T + MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_new_feed_that_gets_no_answer_begins_where_it_first_would_have_also_after_a_restart() {
    let stand = Stand::start(|call| if call.nth == 0 { status(401) } else { v2(1) }).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.settle().await;
    assert_eq!((bench.position(), bench.rows()), (Some(BEGINS), vec![]));
    let saved = bench.cursors.entries.lock().clone();
    drop(bench);
    // Three days later.
    let bench = Bench::with(&[v2_feed(&stand, Feed::Trips, 60)], Bounds::default(), saved, true);
    bench.off.store(3 * DAY, Ordering::SeqCst);
    bench.settle().await;
    let begins: Vec<i64> = stand.calls().iter().map(|call| call.window().0).collect();
    assert_eq!(begins.iter().filter(|from| **from == BEGINS - 15 * MINUTE).count(), 2, "{begins:?}");
    assert_eq!(bench.position(), Some(T + 3 * DAY - 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_new_feed_begins_before_the_outage_in_which_it_was_new() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::with(&[v2_feed(&stand, Feed::Trips, 60)], Bounds::default(), Vec::new(), false);
    bench.pass(60, 60).await;
    bench.off.store(3 * DAY, Ordering::SeqCst);
    bench.bus.send_replace(true);
    bench.settle().await;
    assert!(stand.calls().iter().any(|call| call.window().0 == BEGINS - 15 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_caught_up_with_at_once_in_windows_of_less_than_48_hours() {
    let stand = Stand::start(|_| v2(1)).await;
    let entries = vec![cursor(&stand, "v2/trips", T - 10 * DAY)];
    let bench = Bench::with(&[v2_feed(&stand, Feed::Trips, 300)], Bounds::default(), entries, true);
    bench.settle().await;
    let windows: Vec<(i64, i64)> = stand.calls().iter().map(Call::window).collect();
    assert_eq!(windows[0].0, T - 10 * DAY - 15 * MINUTE);
    assert!(windows.iter().all(|(from, to)| to - from < 48 * HOUR));
    assert!(windows.windows(2).all(|pair| pair[1].0 == pair[0].1 - 15 * MINUTE), "{windows:?}");
    assert_eq!((windows.len(), bench.position()), (6, Some(T - 30 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_feed_goes_on_where_its_address_has_changed() {
    let stand = Stand::start(|_| v2(1)).await;
    let elsewhere = |feed: &str, position, saved_at| Entry {
        key: format!("{feed} https://elsewhere.example"),
        saved_at: fleetbus::event::Millis(saved_at),
        ..cursor(&stand, feed, position)
    };
    let entries = vec![
        elsewhere("v2/history", T - 20 * DAY, 1),
        elsewhere("v3/history", T - HOUR, 3),
        Entry {
            key: "v2/history https://before.example".to_owned(),
            ..elsewhere("v2/history", T - 30 * DAY, 0)
        },
        Entry { account: AccountId::new("zeta"), ..elsewhere("v2/history", T - HOUR, 2) },
    ];
    let bench = Bench::with(&[v2_feed(&stand, Feed::History, 300)], Bounds::default(), entries, true);
    bench.settle().await;
    assert_eq!(stand.calls()[0].window().0, T - 20 * DAY - 15 * MINUTE);
    assert_eq!(bench.left_over, [(AccountId::new("acme"), "v2/history https://before.example".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_returns_to_an_address_goes_on_where_it_stood_last() {
    let stand = Stand::start(|_| v2(1)).await;
    let elsewhere = Entry {
        key: "v2/history https://elsewhere.example".to_owned(),
        saved_at: fleetbus::event::Millis(1),
        ..cursor(&stand, "v2/history", T - 3 * HOUR)
    };
    let entries = vec![elsewhere, cursor(&stand, "v2/history", T - 20 * DAY)];
    let bench = Bench::with(&[v2_feed(&stand, Feed::History, 300)], Bounds::default(), entries, true);
    bench.settle().await;
    assert_eq!(stand.calls()[0].window().0, T - 3 * HOUR - 15 * MINUTE);
    assert_eq!(bench.left_over, [], "what stands here is written over");
}

#[tokio::test(start_paused = true)]
async fn v3_takes_93_days_and_geofence_activity_does_in_pages() {
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok("a.b.c"),
        "GET /positions" => ok(array(0, 1)),
        // 1,000, then 3, then none.
        "GET /geofences/activity" => v2(match call.number("offset") {
            0 => 1_000,
            1_000 => 3,
            _ => 0,
        }),
        _ => v2(0),
    })
    .await;
    let entries = vec![
        cursor(&stand, "v3/positions", T - 60 * DAY),
        cursor(&stand, "v2/geofence-activity", T - 60 * DAY),
    ];
    let asked = [
        v2_feed(&stand, Feed::GeofenceActivity, 300),
        Asked { account: "acme", v3: true, stand: &stand, feeds: vec![(Feed::Positions, 60)] },
    ];
    let bench = Bench::with(&asked, Bounds::default(), entries, true);
    bench.pass(3, 1).await;
    let window = (T - 60 * DAY - 15 * MINUTE, T - 30 * SECOND);
    let positions = stand.calls_of("GET /positions");
    assert_eq!(positions[0].window().0, window.0);
    let activity = stand.calls_of("GET /geofences/activity");
    assert_eq!(activity.iter().map(Call::window).collect::<Vec<_>>(), [window; 3]);
    let pages: Vec<(i64, i64)> =
        activity.iter().map(|call| (call.number("offset"), call.number("limit"))).collect();
    assert_eq!(pages, [(0, 1_000), (1_000, 1_000), (1_003, 1_000)]);
}

#[tokio::test(start_paused = true)]
async fn pages_are_asked_for_until_one_is_short_and_the_cursor_waits_for_what_is_behind_it() {
    let stand = Stand::start(|call| match (call.what.as_str(), call.nth) {
        ("POST /jwts", _) => ok("a.b.c"),
        (_, nth @ 0..3) => ok(array(nth * 100, if nth == 2 { 50 } else { 100 })),
        _ => ok("[]"),
    })
    .await;
    let bench = Bench::one(&stand, true, Feed::Positions, 600);
    bench.pass(6, 1).await;
    assert_eq!(
        (bench.rows(), bench.position(), bench.saved_position()),
        (vec![100, 100], Some(BEGINS), Some(BEGINS))
    );
    bench.pass(6, 1).await;
    assert_eq!(bench.rows(), [100, 100, 50]);
    let pages: Vec<i64> = stand.calls_of("GET /positions").iter().map(|call| call.number("page")).collect();
    assert_eq!(pages, [0, 1, 2, 3]);
    assert!(bench.position() > Some(T - MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_swept_every_six_hours_and_the_sweep_moves_no_position() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 600);
    bench.pass(6 * 3_600 - 60, 60).await;
    let long = |call: &&Call| call.window().1 - call.window().0 > 40 * HOUR;
    assert_eq!(stand.calls().iter().filter(long).count(), 1, "the first window of all");
    bench.pass(1_260, 60).await;
    let calls = stand.calls();
    let sweeps: Vec<&Call> = calls.iter().filter(long).collect();
    let (from, to) = sweeps[1].window();
    assert_eq!((sweeps.len(), to - from), (2, 46 * HOUR));
    assert!((T + 6 * HOUR - MINUTE..T + 6 * HOUR + MINUTE).contains(&to));
    let saved = bench.saved().unwrap();
    assert_eq!(saved.swept.map(|at| at.0), Some(to + 30 * SECOND));
    assert!(saved.position.unwrap().0 > to, "live polls went on");
    assert!(calls.iter().filter(|call| !long(call)).all(|call| call.window().1 - call.window().0 < HOUR));
}

#[tokio::test(start_paused = true)]
async fn nothing_where_there_was_something_is_asked_for_twice_more_and_then_believed() {
    let stand = Stand::start(|call| v2(usize::from(call.nth == 0))).await;
    let bench = Bench::one(&stand, false, Feed::Alerts, 60);
    bench.settle().await;
    let before = bench.position();
    for _ in 0..2 {
        bench.pass(60, 60).await;
        assert_eq!(bench.position(), before);
    }
    bench.pass(60, 60).await;
    assert_eq!(bench.position(), Some(T + 3 * MINUTE - 30 * SECOND));
    bench.pass(60, 60).await;
    assert_eq!(bench.position(), Some(T + 4 * MINUTE - 30 * SECOND));
    assert_eq!(bench.rows(), [1], "nothing is not handed over");
}

#[tokio::test(start_paused = true)]
async fn a_window_whose_answer_is_too_large_is_halved_until_it_fits() {
    let stand = Stand::start(|call| {
        let hours = usize::try_from((call.window().1 - call.window().0) / HOUR).unwrap();
        v2(hours * 100 + 1)
    })
    .await;
    let bounds = Bounds { size: 12_000, ..Bounds::default() };
    let entries = vec![cursor(&stand, "v2/history", T - 2 * DAY)];
    let bench = Bench::with(&[v2_feed(&stand, Feed::History, 60)], bounds, entries, true);
    bench.settle().await;
    assert_eq!(bench.position(), Some(T - 30 * SECOND));
    let lengths: Vec<i64> =
        stand.calls().iter().map(|call| (call.window().1 - call.window().0) / HOUR).collect();
    assert_eq!(lengths[..5], [47, 23, 11, 5, 5], "and it is not asked for whole again after each part");
    assert!(lengths.len() < 20, "{lengths:?}");
    assert_eq!(bench.said(), "");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_a_host_fails_at_again_and_again_is_halved_until_it_does_not() {
    let stand =
        Stand::start(|call| if call.window().1 - call.window().0 > 6 * HOUR { status(500) } else { v2(1) })
            .await;
    let entries = vec![cursor(&stand, "v2/history", T - 40 * HOUR)];
    let bench = Bench::with(&[v2_feed(&stand, Feed::History, 60)], Bounds::default(), entries, true);
    bench.pass(3_600, 60).await;
    assert!(bench.position() > Some(T), "{:?}", bench.position());
    let long = stand.calls().iter().filter(|call| call.window().1 - call.window().0 > 39 * HOUR).count();
    assert_eq!(long, 3, "once or twice may be anything");
}

#[tokio::test(start_paused = true)]
async fn an_answer_too_large_even_for_five_minutes_is_said_and_not_asked_for_without_end() {
    let stand = Stand::start(|_| v2(1_000)).await;
    let bench = Bench::with(
        &[v2_feed(&stand, Feed::History, 60)],
        Bounds { size: 1_000, ..Bounds::default() },
        vec![cursor(&stand, "v2/history", T - HOUR)],
        true,
    );
    bench.pass(3_600, 5).await;
    let calls = stand.calls();
    let shortest = calls.iter().map(|call| call.window().1 - call.window().0).min();
    assert_eq!((shortest, bench.position()), (Some(5 * MINUTE), Some(T - HOUR)));
    assert!((10..25).contains(&calls.len()), "{}", calls.len());
    assert!(bench.said().contains("larger"), "{}", bench.said());
}

#[tokio::test(start_paused = true)]
async fn pages_that_repeat_are_not_taken_for_more_rows() {
    // A host that does not know pages: always the first hundred.
    let stand = Stand::start(|call| match call.what.as_str() {
        "POST /jwts" => ok("a.b.c"),
        _ => ok(array(0, if call.window().1 - call.window().0 > 2 * HOUR { 100 } else { 7 })),
    })
    .await;
    let entries = vec![cursor(&stand, "v3/positions", T - 3 * HOUR)];
    let asked = Asked { account: "acme", v3: true, stand: &stand, feeds: vec![(Feed::Positions, 3_600)] };
    let bench = Bench::with(&[asked], Bounds::default(), entries, true);
    bench.pass(30, 1).await;
    assert_eq!(bench.rows(), [100, 7, 7], "shorter windows fit");
    assert!(bench.position() > Some(T - MINUTE));
}

/// What a V3 host answers behind its only rows, which are half a page: how many rows each hand-over had in nine hours, of which one is
/// a sweep's, and how many calls that were. The first poll and the sweep look there.
async fn polls_in_nine_hours(behind: fn(i64) -> Reply) -> (Vec<usize>, usize) {
    let stand = Stand::start(move |call| match call.what.as_str() {
        "POST /jwts" => ok("a.b.c"),
        _ => match call.number("page") {
            0 => ok(array(0, 50)),
            page => behind(page),
        },
    })
    .await;
    let entries = vec![cursor(&stand, "v3/positions", T - HOUR)];
    let asked = Asked { account: "acme", v3: true, stand: &stand, feeds: vec![(Feed::Positions, 7_200)] };
    let bench = Bench::with(&[asked], Bounds::default(), entries, true);
    bench.pass(9 * 3_600, 60).await;
    assert_eq!(bench.said(), "");
    (bench.rows(), stand.calls_of("GET /positions").len())
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_page_that_is_not_full_comes_with_the_first_poll_and_each_after_it() {
    let more = |page| ok(if page < 3 { array(page as usize * 50, 50) } else { "[]".to_owned() });
    // Five polls and the sweep.
    assert_eq!(polls_in_nine_hours(more).await, (vec![50; 6 * 3], 6 * 4));
    let then_none = |page| if page < 3 { ok(array(page as usize * 50, 50)) } else { status(404) };
    assert_eq!(polls_in_nine_hours(then_none).await, (vec![50; 6 * 3], 6 * 4), "there is no such page");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_nothing_behind_a_page_that_is_not_full_is_asked_so_by_the_first_poll_and_the_sweep()
{
    for nothing in [|_| ok("[]"), |_| status(404), |_| ok(array(0, 50))] {
        assert_eq!(polls_in_nine_hours(nothing).await, (vec![50; 5 + 1], 2 + 3 + 2 + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_does_not_begin_by_a_clock_that_is_not_set() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.off.store(-T, Ordering::SeqCst);
    bench.pass(600, 60).await;
    assert_eq!((stand.calls().len(), bench.position()), (0, None));
    assert!(bench.said().contains("the clock is not set"), "{}", bench.said());
    bench.off.store(0, Ordering::SeqCst);
    bench.pass(60, 60).await;
    assert!(bench.position() > Some(T));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_takes_no_cursor_past_the_providers_time() {
    let date = || vec![("date", "Mon, 29 Dec 2025 12:00:00 GMT".to_owned())];
    let stand = Stand::start(move |_| Reply::Is(200, date(), array(0, 1))).await;
    let bench = Bench::with(
        &[v2_feed(&stand, Feed::Trips, 60)],
        Bounds::default(),
        vec![cursor(&stand, "v2/trips", T - HOUR)],
        true,
    );
    bench.off.store(365 * DAY, Ordering::SeqCst);
    bench.settle().await;
    assert_eq!(bench.position(), Some(T - 30 * SECOND));
    bench.pass(300, 60).await;
    assert_eq!(bench.position(), Some(T - 30 * SECOND));
    assert!(stand.calls().len() < 12, "and the host is not called without end");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_moves_no_cursor_back_and_polling_goes_on() {
    let stand = Stand::start(|_| v2(1)).await;
    let bench = Bench::one(&stand, false, Feed::Trips, 60);
    bench.settle().await;
    let before = bench.position();
    bench.off.store(-2 * DAY, Ordering::SeqCst);
    bench.pass(120, 60).await;
    assert_eq!(bench.position(), before);
    let last = stand.calls().last().unwrap().window();
    assert_eq!(last.1, T - 2 * DAY + 2 * MINUTE - 30 * SECOND);
    bench.off.store(0, Ordering::SeqCst);
    bench.pass(60, 60).await;
    assert_eq!(bench.position(), Some(T + 3 * MINUTE - 30 * SECOND));
    assert_eq!(stand.calls().last().unwrap().window().0, before.unwrap() - 15 * MINUTE, "no gap");
}

#[tokio::test(start_paused = true)]
async fn lists_without_time_are_fetched_at_their_interval() {
    let stand = Stand::start(|_| v2(3)).await;
    let asked = Asked {
        account: "acme",
        v3: false,
        stand: &stand,
        feeds: vec![(Feed::Locations, 60), (Feed::Trackers, 3_600), (Feed::Geofences, 3_600)],
    };
    let bench = Bench::start(&[asked]);
    bench.pass(3_600, 60).await;
    let count = |what| stand.calls_of(what).len();
    assert_eq!((count("GET /locations"), count("GET /tracker"), count("GET /geofences")), (61, 2, 2));
    assert_eq!(stand.calls_of("GET /geofences")[0].query["includeInactive"], "true");
    assert_eq!(count("GET /company"), 1);
}
