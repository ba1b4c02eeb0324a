//! One seed decides everything that chance decides.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of chance with its seed.
pub struct Seed {
    seed: u64,
    rng: ChaCha8Rng,
}

impl Seed {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Seed {
        Seed { seed, rng: ChaCha8Rng::seed_from_u64(seed) }
    }
    /// The seed, to be printed with a failure.
    pub fn number(&self) -> u64 {
        self.seed
    }
    /// An independent stream, the same for the same `label`.
    pub fn fork(&self, label: u64) -> Seed {
        Seed::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(label.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1))
    }
    /// A number below `count`, which is not 0.
    pub fn pick(&mut self, count: u64) -> u64 {
        self.rng.random_range(0..count)
    }
    /// True once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        0 < count && self.pick(count) == 0
    }
    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.rng.fill_bytes(bytes)
    }
}
