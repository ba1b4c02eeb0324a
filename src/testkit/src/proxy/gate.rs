//! Decides which packets get through: all, a share of them, or none.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The share of packets that are lost, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    parts_per_million: u32,
}

/// A loss that is no share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a loss of {0} percent; it must lie between 0 and 100")]
pub struct BadLoss(f64);

impl Loss {
    /// A loss of `percent`, from 0 to 100.
    pub fn percent(percent: f64) -> Result<Loss, BadLoss> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(BadLoss(percent));
        }
        Ok(Loss { parts_per_million: (percent * 10_000.0).round() as u32 })
    }
}

/// Lets packets through or not. The same seed loses the same packets of a sequence.
#[derive(Debug)]
pub struct Gate {
    loss: Loss,
    rng: ChaCha8Rng,
    cut: bool,
}

impl Gate {
    /// A gate that is open but for `loss`.
    pub fn new(loss: Loss, seed: u64) -> Gate {
        Gate { loss, rng: ChaCha8Rng::seed_from_u64(seed), cut: false }
    }

    /// From now on nothing gets through (`true`), or what is not lost does (`false`).
    pub fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Loses this share from now on.
    pub fn set_loss(&mut self, loss: Loss) {
        self.loss = loss;
    }

    /// Whether the next packet gets through.
    pub fn admits_next(&mut self) -> bool {
        !self.cut && self.loss.parts_per_million <= self.rng.random_range(0..1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(loss_percent: f64, seed: u64) -> Vec<bool> {
        let mut gate = Gate::new(Loss::percent(loss_percent).unwrap(), seed);
        (0..10_000).map(|_| gate.admits_next()).collect()
    }

    #[test]
    fn no_loss_lets_everything_through_and_full_loss_nothing() {
        assert!(admitted(0.0, 1).iter().all(|admitted| *admitted));
        assert!(!admitted(100.0, 1).iter().any(|admitted| *admitted));
    }

    #[test]
    fn a_share_of_packets_is_lost_the_same_ones_for_the_same_seed() {
        let first = admitted(20.0, 7);
        let lost_count = first.iter().filter(|admitted| !**admitted).count();
        assert!((1_500..2_500).contains(&lost_count), "{lost_count} of 10,000 lost");
        assert_eq!(first, admitted(20.0, 7));
        assert_ne!(first, admitted(20.0, 8));
    }

    #[test]
    fn nothing_passes_a_cut_until_it_is_mended() {
        let mut gate = Gate::new(Loss::default(), 1);
        gate.set_cut(true);
        assert!(!gate.admits_next());
        gate.set_cut(false);
        assert!(gate.admits_next());
    }

    #[test]
    fn a_loss_beyond_everything_is_refused() {
        assert!(Loss::percent(100.1).is_err());
        assert!(Loss::percent(-1.0).is_err());
        assert!(Loss::percent(f64::NAN).is_err());
    }
}
