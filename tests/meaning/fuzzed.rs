//! The fuzz targets without a fuzzer: the committed corpus, and changes of it that chance chooses. What a fuzzer found stays
//! here under the name of what was wrong.

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::targets::{TARGETS, run};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|problem| panic!("{}: {problem}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file that can be read")).collect()
}

#[test]
fn every_target_holds_on_its_corpus() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        inputs.iter().for_each(|input| target(input));
    }
}

/// A change of bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, Index),
    /// The end of another input, from somewhere on.
    Splice(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let structure = prop::sample::select(b"{}[],:\"\\ \n\t-0e.~$'#&*!|>%@".to_vec());
    let byte = || prop_oneof![any::<u8>(), structure.clone()];
    prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (any::<Index>(), prop::collection::vec(byte(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(at, to)| Change::Cut(at, to)),
        1 => (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(which, at, from)| Change::Splice(which, at, from)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change, inputs: &[Vec<u8>]) {
    match change {
        Change::Set(at, byte) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Change::Set(..) => {}
        Change::Insert(at, new) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Cut(at, to) => {
            let (at, to) = (at.index(bytes.len() + 1), to.index(bytes.len() + 1));
            bytes.drain(at.min(to)..at.max(to));
        }
        Change::Splice(which, at, from) => {
            let other = which.get(inputs);
            bytes.truncate(at.index(bytes.len() + 1));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

fn holds_on_changes_of_its_corpus(name: &str) {
    let inputs = corpus(name);
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    let changed = (any::<Index>(), prop::collection::vec(change(), 1..12));
    proptest!(config, |((which, changes) in changed)| {
        let mut bytes = which.get(&inputs).clone();
        changes.iter().for_each(|change| apply(&mut bytes, change, &inputs));
        run(name, &bytes);
    });
}

macro_rules! holds {
    ($($test:ident: $name:literal;)+) => {
        $(#[test]
        fn $test() {
            holds_on_changes_of_its_corpus($name);
        })+
        /// No target is left out above.
        #[test]
        fn every_target_is_fed() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$($name),+]);
        }
    };
}

holds! {
    flat_elements_are_decoded_or_refused: "push_flat";
    v3_elements_are_decoded_or_refused: "push_v3";
    v2_answers_are_decoded_or_refused: "pull_v2";
    v3_answers_are_decoded_or_refused: "pull_v3";
    bodies_are_split_or_refused: "split";
    changed_samples_are_decoded_or_refused: "mutated";
    requests_need_a_token_whatever_they_are: "webhook";
    configurations_mean_something_or_have_problems: "config";
}
