//! What opens the breaker, and what keeps it open: neither a client that is full nor a partition that hangs.

use super::*;

/// A client that is full says nothing of the bus: what it has no room for is tried again, and counts as no failure.
#[tokio::test]
async fn what_the_client_has_no_room_for_waits_and_counts_as_no_failure() {
    struct Deaf;
    impl Awaiting for Deaf {
        fn resolve(&self, _: u64, _: Outcome) {}
    }
    let mut ground = Ground::new(1 << 30).await;
    *ground.lanes.breaker.lock() = Breaker::new(config::Breaker { failure_rate: 0.5, window: HOUR });
    let other = Message {
        topic: "fleet.trip".into(),
        key: "other".into(),
        id: uuid_of(0),
        headers: Headers::default(),
        payload: Bytes::new(),
    };
    while let Ok(()) = ground.lanes.bus.submit(&other, Ticket::new(Arc::new(Deaf), 0)).map_err(drop) {}
    let mut waiting = Vec::new();
    for event in 1..=30 {
        ground.key.subject = format!("vehicle {event}").into();
        let (_, group) = ground.admit(event, Admission::Normal).await;
        assert_eq!(group.stalls().await, Some([(0, Stall::Busy)].into()));
        assert_eq!(ground.lanes.resume(&ground.key), Resumed::Stalls);
        waiting.push((ground.key.clone(), group));
    }
    let [(first, goes), .., (last, expires)] = &waiting[..] else { panic!("thirty") };
    // The bus makes room.
    let bus = Arc::clone(&ground.lanes.bus);
    let going = async {
        while ground.lanes.resume(first) == Resumed::Stalls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        goes.settled().await;
        bus.close(Duration::ZERO).await;
    };
    tokio::join!(bus.run(CancellationToken::new()), going);
    assert_eq!(goes.tally(), Tally { delivered: 1, ..Tally::default() });
    ground.run_store();
    ground.lanes.expire(last, expires);
    expires.settled().await;
    assert_eq!(expires.tally(), Tally { parked: 1, ..Tally::default() });
    assert!(!ground.lanes.is_breaker_open());
}

#[tokio::test]
async fn the_breaker_does_not_stay_open_where_nothing_can_carry_its_probe() {
    let ground = Ground::new(0).await;
    let half = config::Breaker { failure_rate: 0.5, window: HOUR };
    *ground.lanes.breaker.lock() = Breaker::new(half);
    let (number, group) = ground.admit(1, Admission::Normal).await;
    (0..20).for_each(|_| ground.lanes.record(Verdict::Failure));
    assert!(ground.lanes.is_breaker_open());
    ground.lanes.close_breaker_for_want_of_probes();
    assert!(ground.lanes.is_breaker_open(), "what is in flight may still close it");
    ground.lanes.expire(&ground.key, &group);
    ground.lanes.resolve(&ground.key, number, unavailable());
    assert!(ground.is_gone());
    ground.lanes.close_breaker_for_want_of_probes();
    assert!(!ground.lanes.is_breaker_open());
}

#[tokio::test]
async fn what_hangs_with_its_partition_does_not_hold_the_breaker_open_for_ever() {
    let ground = Ground::new(1 << 30).await;
    let open_since = |ago: u64| ground.open_breaker_since(ago);
    let closes = || {
        ground.lanes.close_breaker_for_want_of_probes();
        !ground.lanes.is_breaker_open()
    };
    // A sender's event: with its deadline before it, and behind it.
    let (number, group) = ground.admit(1, Admission::Normal).await;
    open_since(60);
    assert!(!closes(), "it may be acknowledged any moment");
    ground.lanes.expire(&ground.key, &group);
    assert!(closes());
    open_since(1);
    assert!(!closes(), "the bus may come back whole");
    ground.lanes.resolve(&ground.key, number, unavailable());
    // The drain's.
    assert!(ground.lanes.begin_drain(&ground.key));
    open_since(60);
    assert!(!closes());
    ground.lanes.drain_is_late(&ground.key);
    assert!(closes());
    assert!(ground.lanes.silent_for().is_some(), "nothing was acknowledged");
    open_since(1);
    assert!(!closes());
    assert!(!ground.lanes.begin_drain(&ground.key), "one attempt of a lane at a time");
}
