//! `fleetbus convert` as people and scripts use it: what it prints where, and how it exits.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Run, Said, fixture, push, root, to_value};

struct Ended {
    code: Option<i32>,
    lines: Vec<String>,
    complaints: String,
}

fn convert(arguments: &[&str], input: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(["convert", "--received-at", "2026-01-01T00:00:00Z"])
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fleetbus starts");
    // A command that misuse ended reads nothing.
    let _ = child.stdin.take().expect("standard input").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("fleetbus ends");
    Ended {
        code: status.code(),
        lines: String::from_utf8(stdout).expect("text").lines().map(str::to_owned).collect(),
        complaints: String::from_utf8(stderr).expect("text"),
    }
}

const LINXUP: [&str; 4] = ["--provider", "linxup", "--account", "acme"];

fn linxup(arguments: &[&str], input: &str) -> Ended {
    convert(&[&LINXUP[..], arguments].concat(), input)
}

#[test]
fn a_payload_becomes_the_events_that_the_library_makes() {
    let raw = fixture("push-v3/position_documented.json");
    let said = Run::new().say(&push(), raw.to_string().as_bytes());
    for ended in [linxup(&["push-v3/position_documented.json"], ""), linxup(&[], &raw.to_string())] {
        assert_eq!((ended.code, ended.complaints.as_str()), (Some(0), ""));
        let printed: Vec<Value> =
            ended.lines.iter().map(|line| serde_json::from_str(line).expect("json")).collect();
        let expected: Vec<Value> = said
            .iter()
            .map(|said| match said {
                Said::Event { event, .. } => to_value(event),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(printed, expected);
    }
    let explained = linxup(&["--explain", "push-v3/position_documented.json"], "");
    let printed: Vec<Value> =
        explained.lines.iter().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert_eq!(printed, said.iter().map(Said::to_value).collect::<Vec<_>>());
    assert!(
        explained.lines[0]
            .starts_with(r#"{"event":{"id":"8a1b7959-ffe7-5f92-b699-bc2107218705","recordId":"#)
    );
}

#[test]
fn the_account_is_local_unless_it_is_said() {
    let ended = convert(&["--provider", "linxup", "push-v3/stop.json"], "");
    assert_eq!(ended.code, Some(0));
    assert!(ended.lines[0].contains(r#""account":"local""#));
}

#[test]
fn one_that_cannot_be_decoded_costs_no_other() {
    let ended = linxup(&["push-v3/messages_envelope.json", "push-v3/stop.json"], "");
    assert_eq!((ended.code, ended.lines.len()), (Some(65), 5));
    assert!(ended.complaints.contains("element 5: unrecognized"), "{}", ended.complaints);
    assert!(ended.complaints.contains("element 6: undecodable"), "{}", ended.complaints);
    let ended = linxup(&[], "{\"statusChangeType\":\"X\",\"tracker\":{\"id\":1}}\n{oops");
    assert_eq!((ended.code, ended.lines.len()), (Some(65), 1));
    assert!(ended.complaints.contains("line 2, column 2"), "{}", ended.complaints);
    let status = "{\"statusChangeType\":\"X\",\"tracker\":{\"id\":1}}\n";
    let ended = linxup(&[], &format!("{status}{{\"broken\":\n{status}{{oops\n{status}"));
    assert_eq!((ended.code, ended.lines.len()), (Some(65), 3));
    assert!(ended.complaints.contains("line 4, column 2"), "{}", ended.complaints);
}

#[test]
fn states_and_directory_live_through_the_run() {
    let files =
        ["push-v3/device_status.json", "push-v3/device_status_inactivate.json", "push-v3/device_status.json"];
    let ended = linxup(&files, "");
    let ids: Vec<String> = ended
        .lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("json")["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
    let ended = linxup(&["push-v3/device_status.json", "push-v3/device_status.json"], "");
    assert_eq!(ended.lines[0], ended.lines[1], "an equal state is printed again, with the same id");
    // A message with all its ids teaches the directory what the next one lacks.
    let known = r#"{"date":1767009600000,"latitude":1,"longitude":1,"tracker":{"trackerId":18000100017}}"#;
    let ended = linxup(&["push-v3/device_update.json", "-"], known);
    assert!(ended.lines[1].contains(r#""subject":"350000000000017""#));
}

#[test]
fn a_skipped_row_says_so_and_exits_well() {
    let ended = linxup(&["--api", "v2", "--feed", "trips", "pull-v2/trips_open.response.json"], "");
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 1));
    assert_eq!(ended.complaints.matches("skipped").count(), 2);
    let ended = linxup(&["--api", "v2", "pull-v2/locations_current.response.json"], "");
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 2), "the skipped row tells that it is offline");
}

#[test]
fn answers_come_enveloped_bare_or_row_by_row() {
    for (api, feed, path) in [
        ("v2", Some("history"), "pull-v2/locations_history.response.json"),
        ("v2", None, "pull-v2/geofences.response.json"),
        ("v2", None, "pull-v2/tracker_list.response.json"),
        ("v2", None, "pull-v2/geofence_activity.response.json"),
        ("v3", None, "pull-v3/positions_current.response.json"),
        ("v3", Some("trackers"), "pull-v3/trackers.response.json"),
        ("v3", None, "pull-v3/stops_inexact.response.json"),
        ("v2", None, "pull-v2/media.json"),
        ("v2", Some("media"), "pull-v2/media.json"),
    ] {
        let mut arguments = vec!["--api", api];
        arguments.extend(feed.map(|feed| ["--feed", feed]).into_iter().flatten());
        arguments.push(path);
        let ended = linxup(&arguments, "");
        assert_eq!(ended.code, Some(0), "{path}: {}", ended.complaints);
        assert!(!ended.lines.is_empty(), "{path}");
    }
    let row = crate::support::first_row("pull-v2/trips.response.json").to_string();
    let ended = linxup(&["--api", "v2", "--feed", "trips"], &row);
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 1));
}

#[test]
fn a_field_without_a_value_names_no_feed() {
    let position = r#"[{"positionDate":1767009600000,"latitude":1,"longitude":2,"stopDateTime":null,"tracker":{"deviceNumber":"35"}}]"#;
    let stop = r#"[{"imei":"35","stopType":"Idling","beginDate":1767009600000,"endDate":1767009660000,"mediaId":null}]"#;
    for (api, answer, body) in [("v3", position, "position"), ("v2", stop, "stop")] {
        let ended = linxup(&["--api", api], answer);
        assert_eq!((ended.code, ended.lines.len(), ended.complaints.as_str()), (Some(0), 1, ""));
        let event: Value = serde_json::from_str(&ended.lines[0]).expect("json");
        assert!(event[body].is_object(), "{event}");
    }
}

#[test]
fn what_no_api_answers_exits_65() {
    for (arguments, says) in [
        (&["--api", "v3", "--feed", "trips", "pull-v3/trips.response.json"][..], "no start time"),
        (&["--api", "v2", "--feed", "trips", "pull-v2/error.response.json"], "cannot be more than 48 hours"),
        (&["--api", "v2", "--feed", "trips", "pull-v2/advanced_trips.response.json"], "advanced trips"),
        (&["--api", "v2", "--feed", "locations", "linxupmobile/map.response.json"], "mobile"),
        (&["--api", "v2", "--feed", "locations", "linxupmobile/error.response.json"], "Invalid username"),
        (&["--hint", "position"], "the body is empty"),
    ] {
        let ended = linxup(arguments, "");
        assert_eq!((ended.code, ended.lines.len()), (Some(65), 0), "{arguments:?}");
        assert!(ended.complaints.contains(says), "{}", ended.complaints);
    }
}

#[test]
fn what_is_neither_a_list_nor_a_row_exits_65() {
    for (api, feed) in [("v3", Some("positions")), ("v2", Some("trips")), ("v2", None), ("v3", None)] {
        for answer in [r#"{"message":"Unauthorized","status":401}"#, r#"{"results":[{"trackerId":5}]}"#] {
            if api == "v2" && answer.contains("results") {
                continue; // The first array of an envelope that nobody knows is its list there.
            }
            let mut arguments = vec!["--api", api];
            arguments.extend(feed.map(|feed| ["--feed", feed]).into_iter().flatten());
            let ended = linxup(&arguments, answer);
            assert_eq!((ended.code, ended.lines.len()), (Some(65), 0), "{api} {answer}");
            assert!(ended.complaints.contains("the answer has no list of rows"), "{}", ended.complaints);
        }
    }
}

#[test]
fn media_whose_urls_expired_are_media() {
    for arguments in [&["--api", "v2", "--feed", "media"][..], &["--api", "v2"]] {
        let ended = linxup(arguments, r#"{"responseType":"Success","data":{"mediaId":5}}"#);
        assert_eq!((ended.code, ended.complaints.as_str()), (Some(0), ""));
        let event: Value = serde_json::from_str(&ended.lines[0]).expect("json");
        assert_eq!((&event["subject"], &event["media"]["id"]), (&"5".into(), &"5".into()));
    }
    // A row that has anything of an alert is one, though its code is missing.
    let alert =
        r#"{"data":{"alerts":[{"imei":"1","mediaId":5,"alertCode":null,"alertDateTime":1767009600000}]}}"#;
    let ended = linxup(&["--api", "v2", "--feed", "alerts"], alert);
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 0));
    assert!(ended.complaints.contains("no alert code"), "{}", ended.complaints);
}

#[test]
fn an_empty_list_is_no_failure() {
    for arguments in [&[][..], &["--api", "v2", "--feed", "trips"], &["--api", "v3"]] {
        let ended = linxup(arguments, "[]");
        assert_eq!((ended.code, ended.lines.len(), ended.complaints.as_str()), (Some(0), 0, ""));
    }
}

#[test]
fn misuse_and_missing_files_have_their_own_codes() {
    for arguments in [
        &["--provider", "geotab"][..],
        &[],
        &["--provider", "linxup", "--api", "v4"],
        &["--provider", "linxup", "--api", "v2", "--feed", "positions"],
        &["--provider", "linxup", "--api", "v3", "--feed", "history"],
        &["--provider", "linxup", "--feed", "trips"],
        &["--provider", "linxup", "--api", "v2", "--hint", "trip"],
        &["--provider", "linxup", "--received-at", "yesterday"],
        &["--provider", "linxup", "--account", ""],
        &["--provider", "linxup", "--api", "v2", "pull-v2/groups.response.json"],
    ] {
        assert_eq!(convert(arguments, "{}").code, Some(64), "{arguments:?}");
    }
    let ended = linxup(&["no-such-file.json", "push-v3/stop.json"], "");
    assert_eq!((ended.code, ended.lines.len()), (Some(66), 1));
    assert!(ended.complaints.contains("no-such-file.json"));
}

#[test]
fn an_answer_that_is_not_quite_json_is_read_as_polls_read_it() {
    let answer = |speed: &str| {
        let fix = r#""imei":"350000000000017","date":1767009600000,"latitude":1,"longitude":2"#;
        format!(r#"{{"data":{{"locations":[{{{fix},"speed":{speed}}}]}}}}"#)
    };
    let [strict, lax] =
        ["null", "NaN"].map(|speed| linxup(&["--api", "v2", "--feed", "locations"], &answer(speed)));
    assert_eq!((strict.code, strict.lines.len()), (Some(0), 1), "{}", strict.complaints);
    assert_eq!((lax.code, lax.lines), (Some(0), strict.lines), "{}", lax.complaints);
    assert_eq!(linxup(&[], &answer("NaN")).code, Some(65), "what is pushed is kept as it came");
}
