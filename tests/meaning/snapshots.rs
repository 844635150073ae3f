//! Every fixture, with everything that its events say. The snapshots were read against the contract when they were accepted.

use fleetbus::provider::{Feed, PullApi, Source};
use serde_json::Value;

use crate::support::{Run, fixture, pull, push, root};

/// The feed of an answer's fixture, which its name begins with; none for what is no answer of a feed.
fn feed(api: PullApi, name: &str) -> Option<Feed> {
    let named = match (api, name.split('.').next().unwrap_or_default()) {
        (PullApi::V2, "locations_history") => Feed::History,
        (PullApi::V2, "tracker_list") => Feed::Trackers,
        (PullApi::V2, "usagehours") => Feed::UsageHours,
        (PullApi::V2, "geofence_activity") => Feed::GeofenceActivity,
        (PullApi::V2, "advanced_trips" | "error") => Feed::Trips,
        (_, name) => Feed::parse(name.split('_').next().unwrap_or_default())?,
    };
    name.ends_with(".response.json").then_some(named)
}

fn sources() -> Vec<(String, Source)> {
    let mut found = Vec::new();
    for folder in ["push-legacy-flat", "push-v3", "pull-v2", "pull-v3", "linxupmobile"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder of fixtures");
        for entry in entries {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            let source = match folder {
                "push-legacy-flat" | "push-v3" => Some(push()),
                "pull-v2" => feed(PullApi::V2, &name).map(|feed| pull(PullApi::V2, feed)),
                "pull-v3" => feed(PullApi::V3, &name).map(|feed| pull(PullApi::V3, feed)),
                _ => Some(pull(PullApi::V2, Feed::Locations)),
            };
            found.extend(source.map(|source| (format!("{folder}/{name}"), source)));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

#[test]
fn every_fixture_says_what_it_said_when_it_was_read() {
    let sources = sources();
    assert!(sources.len() > 60, "the fixtures are here: {}", sources.len());
    for (path, source) in sources {
        let body = fixture(&path).to_string();
        let said: Vec<Value> =
            Run::new().body(&source, body.as_bytes()).iter().map(crate::support::Said::to_value).collect();
        let name = path.trim_end_matches(".json").replace('/', "__");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "../snapshots" }, {
            insta::assert_json_snapshot!(name, said);
        });
    }
}
