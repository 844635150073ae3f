//! What fuzzers drive, and property tests with them: one function a border, any bytes in, a panic where something does not
//! hold that always must. `fuzz/` makes a binary of each, `meaning/fuzzed.rs` feeds them the committed corpus and changes of
//! it. A target asks nothing of its surroundings: no file, no network, no clock that decides.

mod border;
mod decode;
mod mutated;

/// A border that takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// Every target by its name: a binary in `fuzz/fuzz_targets`, and a folder in `fuzz/corpus`.
pub(crate) const TARGETS: [(&str, Target); 8] = [
    ("push_flat", decode::push_flat),
    ("push_v3", decode::push_v3),
    ("pull_v2", decode::pull_v2),
    ("pull_v3", decode::pull_v3),
    ("split", decode::split),
    ("mutated", mutated::mutated),
    ("webhook", border::webhook),
    ("config", border::config),
];

/// Gives bytes to the target of this name.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes);
}
