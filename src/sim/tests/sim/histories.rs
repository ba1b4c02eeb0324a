//! Generated histories under faults, from as many seeds as `SIM_SEEDS` says; `SIM_SEED=n` replays one and prints its trace on failure.
//! The defaults take some two minutes on two cores; a night is for `SIM_SEEDS=10000`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use garage_sim::{
    client::Habit,
    workload::{WorkloadOptions, run_history},
};

/// Seeds that are run unless `SIM_SEEDS` says otherwise.
const SEEDS_COUNT_DEFAULT: u64 = 300;
/// The same for layouts that change over and over.
const LAYOUT_SEEDS_COUNT_DEFAULT: u64 = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What went wrong with a seed, if anything.
fn failure(seed: u64, options: WorkloadOptions) -> Option<String> {
    let report = std::panic::catch_unwind(|| run_history(seed, options));
    let violations = match report {
        Ok(report) => {
            if !report.violations.is_empty() {
                report.trace.iter().for_each(|line| println!("{line}"));
            }
            report.violations
        }
        Err(_) => vec!["it panicked; the message is above".to_string()],
    };
    (!violations.is_empty()).then(|| format!("SIM_SEED={seed}: {}", violations.join("\n")))
}

/// Runs seeds on all cores until one fails; then those below it to their end, so that the first one named is the lowest that fails.
fn check_seeds(count_default: u64, options_of: impl Fn(u64) -> WorkloadOptions + Sync) {
    if let Some(seed) = number("SIM_SEED") {
        let failed = failure(seed, WorkloadOptions { traced: true, ..options_of(seed) });
        assert!(failed.is_none(), "{}", failed.unwrap_or_default());
        return;
    }
    let count = number("SIM_SEEDS").unwrap_or(count_default);
    let (next, lowest, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), Mutex::new(BTreeMap::new()));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if count <= seed || lowest.load(Ordering::Relaxed) < seed {
                return;
            }
            if let Some(text) = failure(seed, options_of(seed)) {
                lowest.fetch_min(seed, Ordering::Relaxed);
                failed.lock().unwrap().insert(seed, text);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let failed: Vec<String> = failed.into_inner().unwrap().into_values().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_promise_holds_in_generated_histories() {
    check_seeds(SEEDS_COUNT_DEFAULT, WorkloadOptions::of_seed);
}

#[test]
fn every_promise_holds_while_the_layout_changes_over_and_over() {
    check_seeds(LAYOUT_SEEDS_COUNT_DEFAULT, |seed| {
        // Rows alone: blocks follow in their own time.
        WorkloadOptions { changes_layout: true, habit: Habit::Rivalry, requests_count: 120, ..WorkloadOptions::of_seed(seed) }
    });
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
