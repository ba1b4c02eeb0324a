//! Model checker of the replicated register: random schedules against the real replica rules and coordinator machines, every client
//! history searched for an order that a register with compare-and-set explains.
//!
//! - `REGISTER_SCHEDULES=5000000 cargo test --workspace --test register_model -- --nocapture`: as many schedules (nightly); the default suits CI.
//! - `REGISTER_SEED=N`: only that schedule, with its log. A failure prints its seed.
//!
//! Each rule is also taken out once, and the checker must then find a violation: a checker that can't fail proves nothing.

mod history;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use garage_rpc::register::Weakness;
use world::{Fault, Setting, Stats, run_schedule};

/// Schedules for each setting unless `REGISTER_SCHEDULES` says otherwise.
const SCHEDULES_DEFAULT: u64 = 40_000;
/// A rule left out has to show within so many schedules.
const BITE_SCHEDULES_MAX: u64 = 100_000;
const BASE_SEED: u64 = 7;

fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

fn seed_of(index: u64) -> u64 {
    (BASE_SEED + index).wrapping_mul(0xD134_2543_DE82_EF95)
}

/// The first violation found in `schedules_max` schedules, as its seed.
fn find_violation(setting: Setting, schedules_max: u64) -> (Option<u64>, u64, Stats) {
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let worker = || {
        let mut stats = Stats::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= schedules_max || found.load(Ordering::Relaxed) < index {
                return stats;
            }
            if run_schedule(seed_of(index), setting, false, &mut stats).is_err() {
                found.fetch_min(index, Ordering::Relaxed);
            }
        }
    };
    let thread_count = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<Stats> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..thread_count).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker panicked; its message is above")).collect()
    });
    let stats = parts.into_iter().fold(Stats::default(), |sum, part| Stats {
        answered: sum.answered + part.answered,
        unknown: sum.unknown + part.unknown,
        traceless: sum.traceless + part.traceless,
        layout_left: sum.layout_left + part.layout_left,
        forgotten: sum.forgotten + part.forgotten,
        shared: sum.shared + part.shared,
    });
    let index = found.into_inner();
    ((index != u64::MAX).then(|| seed_of(index)), index.min(schedules_max), stats)
}

fn log_of(seed: u64, setting: Setting) -> String {
    run_schedule(seed, setting, true, &mut Stats::default()).err().unwrap_or_else(|| "no violation with this seed".into())
}

/// No schedule of the setting has a history that a register can't explain.
fn check_linearizable(setting: Setting) -> Stats {
    if let Some(seed) = env_number("REGISTER_SEED") {
        println!("{}", log_of(seed, setting));
        assert!(run_schedule(seed, setting, false, &mut Stats::default()).is_ok(), "REGISTER_SEED={seed} {setting:?}");
        return Stats::default();
    }
    let (violation, count, stats) = find_violation(setting, env_number("REGISTER_SCHEDULES").unwrap_or(SCHEDULES_DEFAULT));
    println!("{setting:?}: {count} schedules, {stats:?}");
    if let Some(seed) = violation {
        panic!("not linearizable, replay with REGISTER_SEED={seed}, {setting:?}:\n{}", log_of(seed, setting));
    }
    stats
}

/// Without the rule, some schedule shows it.
fn check_bites(setting: Setting) {
    let (violation, count, _) = find_violation(setting, BITE_SCHEDULES_MAX);
    assert!(violation.is_some(), "{setting:?} goes unnoticed in {BITE_SCHEDULES_MAX} schedules");
    println!("{setting:?}: noticed after {count} schedules");
}

#[test]
fn every_history_is_one_of_a_register() {
    check_linearizable(Setting::default());
}

#[test]
fn forgetting_promises_that_nothing_can_reach_changes_nothing() {
    check_linearizable(Setting { forgetting: true, ..Setting::default() });
}

#[test]
fn every_history_over_a_layout_change_is_one_of_a_register() {
    check_linearizable(Setting { layout_change: true, ..Setting::default() });
}

#[test]
fn forgetting_during_a_layout_change_changes_nothing_either() {
    check_linearizable(Setting { layout_change: true, forgetting: true, ..Setting::default() });
}

#[test]
fn every_history_over_a_layout_change_by_copying_is_one_of_a_register() {
    check_linearizable(Setting { layout_change: true, moves: true, ..Setting::default() });
    check_linearizable(Setting { layout_change: true, moves: true, forgetting: true, ..Setting::default() });
}

#[test]
fn the_checker_notices_a_missing_rule_of_copying() {
    for fault in [Fault::MovesRowsAlone, Fault::MovesFromOne, Fault::MovesUnderPromises] {
        check_bites(Setting { layout_change: true, moves: true, fault: Some(fault), ..Setting::default() });
    }
}

/// It shows once in some 250,000 schedules, so in one that is known to show it.
#[test]
fn the_checker_notices_evidence_from_nodes_that_did_not_count() {
    let seed = 3_093_536_787_067_283_331;
    let setting = Setting { sharing: true, layout_change: true, moves: true, forgetting: true, ..Setting::default() };
    let outcome = |setting| run_schedule(seed, setting, false, &mut Stats::default());
    assert!(outcome(Setting { fault: Some(Fault::MovesTrails), ..setting }).is_err());
    assert!(outcome(setting).is_ok());
}

#[test]
fn a_write_carried_out_by_two_coordinators_happens_once_or_never() {
    let stats = check_linearizable(Setting { sharing: true, ..Setting::default() });
    assert!(0 < stats.shared || env_number("REGISTER_SEED").is_some(), "no write was brought to its end twice: {stats:?}");
}

#[test]
fn the_same_over_a_layout_change_and_with_forgetting() {
    // By copying, as partitions move: settling a key leaves behind what tells whether a superseded write once took effect.
    check_linearizable(Setting { sharing: true, layout_change: true, moves: true, forgetting: true, ..Setting::default() });
}

#[test]
fn the_checker_notices_a_missing_rule() {
    let faults = [
        Fault::Core(Weakness::SettledById),
        Fault::Core(Weakness::NoWriteBackInRound),
        Fault::Core(Weakness::RestampWithoutRound),
        Fault::Core(Weakness::DoubtIsDead),
        Fault::Core(Weakness::DoubtIsHappened),
        Fault::Core(Weakness::WriteBackKeepsStamp),
        Fault::Core(Weakness::InstallAboveBallot),
        Fault::SyncIgnoresPromise,
        Fault::RepairIgnoresPromise,
        Fault::NoTrail,
        Fault::NoFloor,
    ];
    for fault in faults {
        check_bites(Setting { fault: Some(fault), ..Setting::default() });
    }
}

#[test]
fn the_checker_notices_promises_forgotten_too_early() {
    check_bites(Setting { forgetting: true, fault: Some(Fault::ForgetsEarly), ..Setting::default() });
}

#[test]
fn the_checker_notices_a_missing_rule_of_layout_changes() {
    let faults = [Fault::Core(Weakness::DeadInOneSet), Fault::Core(Weakness::ForgetsLeftSets), Fault::ReadsOneSet, Fault::LeavesUnsettled];
    for fault in faults {
        check_bites(Setting { layout_change: true, fault: Some(fault), ..Setting::default() });
    }
}

#[test]
fn the_checker_notices_a_missing_rule_of_shared_writes() {
    for fault in [Fault::Core(Weakness::TakesOverAsNew), Fault::TakesOverUntested] {
        check_bites(Setting { sharing: true, fault: Some(fault), ..Setting::default() });
    }
}
