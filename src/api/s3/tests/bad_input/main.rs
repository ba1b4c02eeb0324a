//! The fuzzing targets of `fuzz/`, for a short time: random changes of input that is nearly right, and the same inputs always.
//!
//! `GARAGE_FUZZ_CASES` sets how many cases each target gets. A failure prints the input in a form that can be pasted into a test.

#[path = "../../../../../fuzz/harness/mod.rs"]
mod harness;
mod seeds;

use proptest::{
    prelude::{Strategy, any},
    test_runner::{Config, TestError, TestRunner},
};

/// Cases for each target unless `GARAGE_FUZZ_CASES` says otherwise.
const CASES_DEFAULT: u32 = 4000;
/// Changes made to one input at the most.
const CHANGES_MAX: usize = 6;

/// A change of an input: where, what, and how many bytes go.
#[derive(Debug, Clone)]
struct Change {
    at: usize,
    insert: Vec<u8>,
    remove: usize,
}

fn change() -> impl Strategy<Value = Change> {
    let bits: Vec<&'static [u8]> = seeds::BITS.to_vec();
    let insert = proptest::prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..4),
        proptest::sample::select(bits).prop_map(<[u8]>::to_vec),
        (any::<u8>(), 1..300usize).prop_map(|(byte, count)| vec![byte; count]),
    ];
    (any::<usize>(), insert, 0..12usize).prop_map(|(at, insert, remove)| Change { at, insert, remove })
}

fn apply(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut input = seed.to_vec();
    for change in changes {
        let at = change.at % (input.len() + 1);
        let end = (at + change.remove).min(input.len());
        input.splice(at..end, change.insert.iter().copied());
    }
    input
}

fn hammer(name: &str, target: fn(&[u8])) {
    let cases = std::env::var("GARAGE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES_DEFAULT);
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "{name} has inputs to start from");
    seeds.iter().for_each(|seed| target(seed));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let input = (proptest::sample::select(seeds), proptest::collection::vec(change(), 0..=CHANGES_MAX));
    let outcome = runner.run(&input, |(seed, changes)| {
        target(&apply(&seed, &changes));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (seed, changes))) => panic!("{name}: {why}; input: b\"{}\"", apply(&seed, &changes).escape_ascii()),
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

#[test]
fn no_bad_input_breaks_a_promise() {
    for (name, target) in harness::TARGETS {
        hammer(name, target);
    }
}
