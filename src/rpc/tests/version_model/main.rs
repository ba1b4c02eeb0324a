//! Model checker of a key with versions: random schedules against the real rules of slots and the real coordinator, every client history
//! searched for an order that a list of versions explains.
//!
//! - `VERSION_SCHEDULES=1000000 cargo test --workspace --test version_model -- --nocapture`: as many schedules (nightly).
//! - `VERSION_SEED=N`: only that schedule, with its log. A failure prints its seed.
//!
//! Rules are also left out, and the checker must then find a violation.

mod history;
mod world;

use world::{Fault, run_schedule};

const SCHEDULES_DEFAULT: u64 = 10_000;
/// A rule left out has to show within so many schedules.
const BITE_SCHEDULES_MAX: u64 = 300_000;

fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

fn seed_of(index: u64) -> u64 {
    (7 + index).wrapping_mul(0xD134_2543_DE82_EF95)
}

fn find_violation(fault: Option<Fault>, schedules_max: u64) -> Option<(u64, u64)> {
    (0..schedules_max).find(|index| run_schedule(seed_of(*index), fault, false).is_err()).map(|index| (index, seed_of(index)))
}

#[test]
fn every_history_is_one_of_a_list_of_versions() {
    if let Some(seed) = env_number("VERSION_SEED") {
        println!("{}", run_schedule(seed, None, true).err().unwrap_or_else(|| "no violation with this seed".into()));
        assert!(run_schedule(seed, None, false).is_ok(), "VERSION_SEED={seed}");
        return;
    }
    if let Some((index, seed)) = find_violation(None, env_number("VERSION_SCHEDULES").unwrap_or(SCHEDULES_DEFAULT)) {
        let log = run_schedule(seed, None, true).err().unwrap_or_default();
        panic!("schedule {index} is not linearizable, replay with VERSION_SEED={seed}:\n{log}");
    }
}

#[test]
fn the_checker_notices_a_missing_rule() {
    for fault in
        [Fault::NothingKept, Fault::NoUndo, Fault::AnswersUnsettled, Fault::WritesAgain, Fault::RowsAhead, Fault::DeletionsAlwaysWin]
    {
        let found = find_violation(Some(fault), BITE_SCHEDULES_MAX);
        assert!(found.is_some(), "{fault:?} goes unnoticed in {BITE_SCHEDULES_MAX} schedules");
        println!("{fault:?}: noticed after {found:?}");
    }
}
