//! Random histories of S3 requests through alternating nodes of a simulated cluster, beside a small model of S3 in memory: every answer is
//! compared, status, code, headers and document, while the clock goes on by days and lifecycle rules are carried out.
//!
//! `S3_HISTORY_OPERATIONS=n`: as many operations over all seeds (20,000 unless told); `S3_HISTORY_SEED=n`: only that seed. A failure prints its
//! seed and the last requests. Reading order: `site` (the cluster and who asks it), `model` (what S3 holds), `run` (chance, and what both are
//! told), then a file for each family of calls.

mod listings;
mod model;
mod multipart;
mod objects;
mod run;
mod settings;
mod site;
mod versions;

use run::Run;

/// Operations of one seed.
const OPERATIONS_OF_SEED: u64 = 1_000;
const OPERATIONS_DEFAULT: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn a_cluster_answers_as_the_model_does() {
    let operations = number("S3_HISTORY_OPERATIONS").unwrap_or(OPERATIONS_DEFAULT);
    let seeds = match number("S3_HISTORY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..operations.div_ceil(OPERATIONS_OF_SEED),
    };
    for seed in seeds {
        println!("S3_HISTORY_SEED={seed}");
        garage_sim::run(async {
            let mut run = Run::start(seed).await;
            for _ in 0..OPERATIONS_OF_SEED.min(operations) {
                run.step().await;
            }
        });
    }
}
