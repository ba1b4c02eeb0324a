//! Generated histories under faults, from as many seeds as `SIM_SEEDS` says; `SIM_SEED=n` replays one and prints its trace on failure.
//! The defaults take about a minute on one core; a night is for `SIM_SEEDS=2000`.

use garage_sim::{
    client::Habit,
    workload::{WorkloadOptions, run_history},
};

/// Seeds that are run unless `SIM_SEEDS` says otherwise.
const SEEDS_COUNT_DEFAULT: u64 = 50;

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

/// Seeds with layout changes that are run unless `SIM_SEEDS` says otherwise.
const LAYOUT_SEEDS_COUNT_DEFAULT: u64 = 6;

#[test]
fn every_promise_holds_while_the_layout_changes_over_and_over() {
    let (only, count) = (number("SIM_SEED"), number("SIM_SEEDS").unwrap_or(LAYOUT_SEEDS_COUNT_DEFAULT));
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    let mut failed = Vec::new();
    for seed in seeds {
        // Rows alone: blocks follow in their own time.
        let options = WorkloadOptions { traced: only.is_some(), changes_layout: true, ..WorkloadOptions::of_seed(seed) };
        let options = WorkloadOptions { habit: Habit::Rivalry, requests_count: 120, ..options };
        let report = run_history(seed, options);
        if !report.violations.is_empty() {
            report.trace.iter().for_each(|line| println!("{line}"));
            failed.push(format!("SIM_SEED={seed}: {}", report.violations.join("\n")));
        }
    }
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

/// Seeds of each kind of history: with rivals and without, with all kinds of faults, ended by darkness or not.
const REPLAYED_SEEDS: [u64; 4] = [1, 3, 6, 7];

fn trace_of(seed: u64) -> Vec<String> {
    run_history(seed, WorkloadOptions { traced: true, ..WorkloadOptions::of_seed(seed) }).trace
}

#[test]
fn a_seed_replays_exactly() {
    for seed in REPLAYED_SEEDS {
        let (first, second) = (trace_of(seed), trace_of(seed));
        let parting = first.iter().zip(&second).position(|(first, second)| first != second);
        if let Some(at) = parting {
            panic!("SIM_SEED={seed}: the runs part at line {at}:\n{}\n{}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "SIM_SEED={seed}: one run goes on where the other ends");
    }
}

/// Set in the second process.
const CHILD: &str = "SIM_REPLAYED_IN";

/// Another process has other addresses, other random hashers and other statics: none of them may show.
#[test]
fn a_seed_replays_exactly_in_another_process() {
    let directory = std::env::var_os(CHILD).map(std::path::PathBuf::from);
    let traces = || REPLAYED_SEEDS.map(|seed| (seed, trace_of(seed).join("\n")));
    if let Some(directory) = directory {
        traces().iter().for_each(|(seed, trace)| std::fs::write(directory.join(seed.to_string()), trace).unwrap());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "histories::a_seed_replays_exactly_in_another_process"]).env(CHILD, directory.path());
    let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
    let here = traces();
    assert!(child.wait().unwrap().success());
    for (seed, trace) in here {
        let there = std::fs::read_to_string(directory.path().join(seed.to_string())).unwrap();
        let parting = trace.lines().zip(there.lines()).find(|(here, there)| here != there);
        assert!(parting.is_none(), "SIM_SEED={seed}: the runs part: {parting:#?}");
        assert_eq!(trace.len(), there.len(), "SIM_SEED={seed}: one run goes on where the other ends");
    }
}
