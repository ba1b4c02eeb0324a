//! What the scrub is doing, and what time and commands do to that. Pure.

use garage_util::encoding::Stored;
use serde::{Deserialize, Serialize};

use crate::{
    limits::{SCRUB_PAUSE, SCRUB_TRANQUILITY_DEFAULT},
    store::WalkPosition,
};

/// What an operator tells the scrub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrubCommand {
    /// Begin now, from the first block.
    Start,
    /// Rest for 24 hours.
    Pause,
    /// Go on.
    Resume,
    /// Stop; the next one begins when it is due.
    Cancel,
}

/// A command that makes no sense now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScrubRefused {
    /// Start.
    #[error("a scrub is under way already; resume or cancel it")]
    UnderWay,
    /// Pause.
    #[error("no scrub is running")]
    NotRunning,
    /// Resume.
    #[error("no scrub is paused")]
    NotPaused,
    /// Cancel.
    #[error("no scrub is under way")]
    NotUnderWay,
}

/// How far the scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// It is at this place.
    Running {
        /// The first two bytes of the next blocks' hashes.
        position: u16,
    },
    /// It goes on later.
    Paused {
        /// Where.
        position: u16,
        /// When, in milliseconds since 1970.
        until_ms: u64,
    },
    /// The next one begins later.
    Waiting {
        /// When, in milliseconds since 1970.
        due_ms: u64,
    },
}

/// All that the scrub keeps over a restart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubState {
    /// What it is doing.
    pub stage: Stage,
    /// `scrub-tranquility`.
    pub tranquility: u32,
    /// `scrub-last-completed`, in milliseconds since 1970.
    pub last_completed_ms: Option<u64>,
    /// `scrub-corruptions_detected`: bad copies that it ever found.
    pub corruptions_count: u64,
}

impl Stored for ScrubState {
    const WHAT: &'static str = "scrub state";
}

impl ScrubState {
    /// A scrub that never ran and is due for the first time at `due_ms`.
    pub fn new(due_ms: u64) -> ScrubState {
        let stage = Stage::Waiting { due_ms };
        ScrubState { stage, tranquility: SCRUB_TRANQUILITY_DEFAULT, last_completed_ms: None, corruptions_count: 0 }
    }

    /// `scrub-next-run`, in milliseconds since 1970; `None`: one is under way.
    pub fn next_run_ms(&self) -> Option<u64> {
        if let Stage::Waiting { due_ms } = self.stage { Some(due_ms) } else { None }
    }

    /// How far it is, from 0 to 1; `None`: none is under way.
    pub fn progress(&self) -> Option<f64> {
        match self.stage {
            Stage::Running { position } | Stage::Paused { position, .. } => Some(WalkPosition(position).fraction()),
            Stage::Waiting { .. } => None,
        }
    }

    /// Does what is due by now; what it is doing then.
    pub(super) fn wake_up(&mut self, now_ms: u64) -> Stage {
        self.stage = match self.stage {
            Stage::Paused { position, until_ms } if until_ms <= now_ms => Stage::Running { position },
            Stage::Waiting { due_ms } if due_ms <= now_ms => Stage::Running { position: 0 },
            stage => stage,
        };
        self.stage
    }

    /// Goes to the next place, unless a command has changed what it is doing.
    pub(super) fn advance(&mut self, next: WalkPosition) {
        match &mut self.stage {
            // A scrub that was started anew meanwhile begins at the beginning; one that goes on never goes back.
            Stage::Running { position } | Stage::Paused { position, .. } if *position <= next.0 => *position = next.0,
            _ => {}
        }
    }

    /// It has looked at everything.
    pub(super) fn finish(&mut self, now_ms: u64, next_interval_ms: u64) {
        if matches!(self.stage, Stage::Running { .. }) {
            self.last_completed_ms = Some(now_ms);
            self.stage = Stage::Waiting { due_ms: now_ms.saturating_add(next_interval_ms) };
        }
    }

    /// Does what an operator says.
    pub(super) fn command(&mut self, command: ScrubCommand, now_ms: u64, next_interval_ms: u64) -> Result<(), ScrubRefused> {
        self.stage = match (command, self.stage) {
            (ScrubCommand::Start, Stage::Waiting { .. }) => Stage::Running { position: 0 },
            (ScrubCommand::Start, _) => return Err(ScrubRefused::UnderWay),
            (ScrubCommand::Pause, Stage::Running { position }) => {
                Stage::Paused { position, until_ms: now_ms.saturating_add(SCRUB_PAUSE.as_millis() as u64) }
            }
            (ScrubCommand::Pause, _) => return Err(ScrubRefused::NotRunning),
            (ScrubCommand::Resume, Stage::Paused { position, .. }) => Stage::Running { position },
            (ScrubCommand::Resume, _) => return Err(ScrubRefused::NotPaused),
            (ScrubCommand::Cancel, Stage::Waiting { .. }) => return Err(ScrubRefused::NotUnderWay),
            (ScrubCommand::Cancel, _) => Stage::Waiting { due_ms: now_ms.saturating_add(next_interval_ms) },
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ScrubCommand, ScrubRefused, ScrubState, Stage};
    use crate::{limits::SCRUB_PAUSE, store::WalkPosition};

    #[test]
    fn commands_do_what_they_say_or_are_refused_with_the_reason() {
        use ScrubCommand::{Cancel, Pause, Resume, Start};
        let mut state = ScrubState::new(1_000);
        for (command, expected) in
            [(Pause, ScrubRefused::NotRunning), (Resume, ScrubRefused::NotPaused), (Cancel, ScrubRefused::NotUnderWay)]
        {
            assert_eq!(state.command(command, 0, 10), Err(expected));
        }
        state.command(Start, 0, 10).unwrap();
        assert_eq!(state.command(Start, 0, 10), Err(ScrubRefused::UnderWay));
        state.advance(WalkPosition(700));
        state.command(Pause, 5, 10).unwrap();
        assert_eq!(state.stage, Stage::Paused { position: 700, until_ms: 5 + SCRUB_PAUSE.as_millis() as u64 });
        state.command(Resume, 6, 10).unwrap();
        assert_eq!(state.stage, Stage::Running { position: 700 });
        state.command(Cancel, 7, 10).unwrap();
        assert_eq!((state.stage, state.last_completed_ms), (Stage::Waiting { due_ms: 17 }, None));
    }

    #[test]
    fn a_pause_ends_by_itself_and_a_due_scrub_begins() {
        let mut state = ScrubState::new(1_000);
        assert_eq!(state.wake_up(999), Stage::Waiting { due_ms: 1_000 });
        assert_eq!(state.wake_up(1_000), Stage::Running { position: 0 });
        state.advance(WalkPosition(9));
        state.command(ScrubCommand::Pause, 2_000, 10).unwrap();
        let pause_ms = SCRUB_PAUSE.as_millis() as u64;
        assert!(matches!(state.wake_up(2_000 + pause_ms - 1), Stage::Paused { .. }));
        assert_eq!(state.wake_up(2_000 + pause_ms), Stage::Running { position: 9 });
        state.finish(9_000, 50);
        assert_eq!((state.next_run_ms(), state.last_completed_ms), (Some(9_050), Some(9_000)));
    }
}
