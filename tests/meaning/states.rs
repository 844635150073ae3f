//! States are compared with the last of their key, never with older ones.

use fleetbus::event::Millis;
use fleetbus::provider::{Draft, Feed, LastState, Outcome, PullApi, Resolved, Source, resolve_state};
use serde_json::{Value, json};

use crate::support::{RECEIVED, Run, first_row, fixture, pull, push, with};

fn draft(run: &Run, raw: &Value) -> Draft {
    match run.decode(&push(), raw.to_string().as_bytes()).outcome {
        Outcome::Events(mut drafts) => drafts.remove(0),
        other => panic!("{other:?}"),
    }
}

fn resolved(run: &Run, raw: &Value, last: Option<&LastState>) -> (String, Option<LastState>) {
    match resolve_state(draft(run, raw), last) {
        Resolved::Event { event, checks, enters, new_last } => {
            assert_eq!(checks, enters);
            assert_eq!(checks.first().map(ToString::to_string).as_deref(), Some(event.id.as_str()));
            (event.id, new_last)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn activated_deactivated_activated_are_three_events() {
    let run = Run::new();
    let (on, off) = (fixture("push-v3/device_status.json"), fixture("push-v3/device_status_inactivate.json"));
    let (first, last) = resolved(&run, &on, None);
    let last = last.expect("a last state");
    // The same again, whatever does not count: custom data, fields of no place.
    let again = with(on.clone(), json!({ "news": 1, "company": null }));
    let Resolved::Duplicate { event, .. } = resolve_state(draft(&run, &again), Some(&last)) else {
        panic!("news")
    };
    assert_eq!(event.id, first);
    let (second, after) = resolved(&run, &off, Some(&last));
    let (third, _) = resolved(&run, &on, after.as_ref());
    assert_ne!(first, second);
    assert_ne!(first, third);
    // A retry after a crash, before the last state was stored, has the same id.
    assert_eq!(resolved(&run, &off, Some(&last)).0, second);
}

#[test]
fn a_status_is_the_same_in_whichever_case_it_comes() {
    let mut run = Run::new();
    let on = fixture("push-v3/device_status.json");
    let mut said = |word: &str| {
        let raw = with(on.clone(), json!({ "statusChangeType": word })).to_string();
        run.say(&push(), raw.as_bytes()).remove(0)
    };
    let ids = ["ACTIVATE", "activate", "Inactivate", "INACTIVATE", "Suspend", "SUSPEND"]
        .map(|word| said(word).id().to_owned());
    assert!(ids[0] == ids[1] && ids[1] != ids[2] && ids[2] == ids[3], "{ids:?}");
    assert!(ids[3] != ids[4] && ids[4] != ids[5], "of a word that nobody knows nobody knows that: {ids:?}");
    // As stores have it of earlier versions.
    assert_eq!(ids[0], "27c783b8-c330-5004-b58f-a9fdfd1e262d");
    assert_eq!(
        said("activate").to_value()["event"]["trackerChange"]["providerStatus"],
        "activate",
        "as it came"
    );
}

#[test]
fn what_was_received_before_the_last_is_published_and_does_not_replace_it() {
    let mut run = Run::new();
    let (_, last) = resolved(&run, &fixture("push-v3/device_status.json"), None);
    run.received_at = Millis(RECEIVED.0 - 1);
    let (_, replaced) = resolved(&run, &fixture("push-v3/device_status_inactivate.json"), last.as_ref());
    assert_eq!(replaced, None);
}

#[test]
fn what_was_received_between_two_sights_of_the_last_does_not_replace_it() {
    let mut run = Run::new();
    let (on, off) = (fixture("push-v3/device_status.json"), fixture("push-v3/device_status_inactivate.json"));
    let (first, last) = resolved(&run, &on, None);
    let last = last.expect("a last state");
    for (later, renewed) in [(0, false), (-1, false), (2, true)] {
        run.received_at = Millis(RECEIVED.0 + later);
        match resolve_state(draft(&run, &on), Some(&last)) {
            Resolved::Duplicate { event, new_last } => {
                let expected = LastState { received_at: run.received_at, ..last.clone() };
                assert_eq!((event.id.as_str(), new_last), (first.as_str(), renewed.then_some(expected)));
            }
            other => panic!("{other:?}"),
        }
    }
    let row = first_row("pull-v2/locations_current.response.json");
    let mut said = |later: i64, status: &str| {
        run.received_at = Millis(RECEIVED.0 + later);
        let raw = with(row.clone(), json!({ "status": status, "date": null })).to_string();
        run.say(&pull(PullApi::V2, Feed::Locations), raw.as_bytes()).len() - 1
    };
    assert_eq!([said(0, "Offline"), said(1, "Moving"), said(3, "Moving")], [1, 1, 0]);
    assert_eq!(said(2, "Offline"), 1, "published late");
    assert_eq!(said(4, "Moving"), 0, "and nothing has changed since");
    let on_late = with(on, json!({ "tracker": { "id": 5 } })).to_string();
    let off_late = with(off, json!({ "tracker": { "id": 5 } })).to_string();
    let mut said = |later: i64, raw: &str| {
        run.received_at = Millis(RECEIVED.0 + later);
        run.say(&push(), raw.as_bytes()).remove(0).id().to_owned()
    };
    let first = said(0, &on_late);
    assert_eq!(said(2, &on_late), first);
    assert_ne!(said(1, &off_late), first);
    assert_eq!(said(3, &on_late), first, "still the last");
}

#[test]
fn a_fleet_is_compared_where_a_tracker_is_in_one() {
    let mut run = Run::new();
    let mut id = |fleets: Value| {
        let row = json!({ "trackerId": 5, "fleetIds": fleets }).to_string();
        run.say(&pull(PullApi::V3, Feed::Trackers), row.as_bytes()).remove(0).id().to_owned()
    };
    let ids = [json!([]), json!([1]), json!([])].map(&mut id);
    let expected = [
        "b18e5370-b35e-57eb-8f3c-3f7f3335ab6d",
        "1437dc09-6082-5ed5-b3cf-5a68dbc5a423",
        "da534747-c387-50c1-8ca4-88f52f0181fd",
    ];
    assert_eq!(ids, expected);
    for several in [json!([1, 2]), json!([1, 3])] {
        assert_eq!(id(several.clone()), expected[2], "{several} is in provider_fields");
    }
}

#[test]
fn a_last_state_survives_the_store() {
    let (_, last) = resolved(&Run::new(), &fixture("push-v3/device_status.json"), None);
    let last = last.expect("a last state");
    let stored = serde_json::to_string(&last).expect("json");
    assert_eq!(serde_json::from_str::<LastState>(&stored).expect("a last state"), last);
}

#[test]
fn only_what_a_definition_is_compared_by_makes_it_news() {
    let run = Run::new();
    let definition = fixture("push-v3/geofence_change.json");
    let (id, last) = resolved(&run, &definition, None);
    for (change, news) in [
        (json!({ "color": "00ff00", "type": "CIRCLE", "notification": null, "action": "CREATE" }), false),
        (json!({ "name": "Depot B" }), true),
        (json!({ "fenceGroup": "No Group" }), true),
        (json!({ "radius": 0.2 }), true),
        (json!({ "action": "delete" }), true),
        (json!({ "points": [{ "latitude": 38.6, "longitude": -90.1 }] }), true),
    ] {
        let resolved = resolve_state(draft(&run, &with(definition.clone(), change.clone())), last.as_ref());
        let is_news = match resolved {
            Resolved::Event { event, .. } => event.id != id,
            Resolved::Duplicate { .. } => false,
            Resolved::Silent { .. } => panic!("a definition is never silent"),
        };
        assert_eq!(is_news, news, "{change}");
    }
}

#[test]
fn a_word_that_nobody_knows_makes_no_other_definition() {
    let mut run = Run::new();
    let mut id =
        |source: &Source, raw: &Value| run.say(source, raw.to_string().as_bytes()).remove(0).id().to_owned();
    let (pushed, row) =
        (fixture("push-v3/geofence_change.json"), first_row("pull-v2/geofences.response.json"));
    for (source, raw, key, known) in
        [(push(), pushed, "action", "update"), (pull(PullApi::V2, Feed::Geofences), row, "status", "act")]
    {
        let mut ids = [known, "ARCHIVED", "MERGED", known]
            .map(|word| {
                let raw = with(raw.clone(), json!({ key: word }));
                id(&source, &raw)
            })
            .to_vec();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{key} is in provider_fields");
    }
}

#[test]
fn a_status_that_cannot_be_read_does_not_say_that_a_tracker_is_back() {
    let mut run = Run::new();
    let row = first_row("pull-v2/locations_current.response.json");
    let mut said = |status: Value| {
        let raw = with(row.clone(), json!({ "status": status, "date": null })).to_string();
        let said = run.say(&pull(PullApi::V2, Feed::Locations), raw.as_bytes());
        said.iter().skip(1).map(|said| said.id().to_owned()).collect::<Vec<_>>()
    };
    let [first, unreadable, again, back] =
        [json!("Offline"), json!(["Offline"]), json!("Offline"), Value::Null].map(&mut said);
    assert_eq!((first.len(), unreadable.len(), back.len()), (1, 0, 1));
    assert_eq!(again, first, "still the last");
}

#[test]
fn being_offline_is_news_when_the_word_changes() {
    let mut run = Run::new();
    let row = first_row("pull-v2/locations_current.response.json");
    let mut statuses = Vec::new();
    for status in ["Moving", "Offline", "offline - No Gps", "Stopped", "Idle"] {
        let raw = with(row.clone(), json!({ "status": status, "date": null })).to_string();
        let said = run.say(&pull(PullApi::V2, Feed::Locations), raw.as_bytes());
        statuses.push(
            said.iter()
                .skip(1)
                .map(|said| said.to_value()["event"]["trackerChange"].clone())
                .collect::<Vec<_>>(),
        );
    }
    let change = |word: &str| {
        let mut change = json!({ "kind": "KIND_STATUS_CHANGED" });
        if !word.is_empty() {
            change["providerStatus"] = word.into();
        }
        vec![change]
    };
    assert_eq!(statuses, [vec![], change("Offline"), change("offline - No Gps"), change(""), vec![]]);
    let ids = ["Offline", "OFFLINE"].map(|status| {
        let raw = with(row.clone(), json!({ "status": status, "date": null })).to_string();
        let said = run.say(&pull(PullApi::V2, Feed::Locations), raw.as_bytes());
        said[1].to_value()["event"]["id"].clone()
    });
    assert_eq!(ids[0], ids[1], "the same word");
}
