//! Generated histories under faults, from as many seeds as `SIM_SEEDS` says; `SIM_SEED=n` replays one and prints its trace on failure.

use garage_sim::workload::{WorkloadOptions, run_history};

/// Seeds that are run unless `SIM_SEEDS` says otherwise.
const SEEDS_COUNT_DEFAULT: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn every_promise_holds_in_generated_histories() {
    let (only, count) = (number("SIM_SEED"), number("SIM_SEEDS").unwrap_or(SEEDS_COUNT_DEFAULT));
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    let mut failed = Vec::new();
    for seed in seeds {
        let options = WorkloadOptions { traced: only.is_some(), ..WorkloadOptions::of_seed(seed) };
        let report = run_history(seed, options);
        if !report.violations.is_empty() {
            report.trace.iter().for_each(|line| println!("{line}"));
            failed.push(format!("SIM_SEED={seed}: {}", report.violations.join("\n")));
        }
    }
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 6] {
        let options = WorkloadOptions { traced: true, ..WorkloadOptions::of_seed(seed) };
        let (first, second) = (run_history(seed, options).trace, run_history(seed, options).trace);
        let parting = first.iter().zip(&second).position(|(first, second)| first != second);
        if let Some(at) = parting {
            panic!("SIM_SEED={seed}: the runs part at line {at}:\n{}\n{}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "SIM_SEED={seed}: one run goes on where the other ends");
    }
}
