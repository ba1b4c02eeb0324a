//! What coordinator, replicas and shell say to each other. The content of rows travels beside these, carried by the shell.

use garage_util::hlc::Stamp;
use serde::{Deserialize, Serialize};

use super::{ApplyAnswer, Entry, PrepareAnswer, WriteId};

/// A write that has sent its version to someone, as it asks replicas for traces of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnWrite {
    /// The write.
    pub id: WriteId,
    /// The first stamp it was ever sent under: older memories are of no interest to it.
    pub first: Stamp,
}

/// What a coordinator asks of a replica. Sending it again does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// What is held? Answered by [`Answer::Row`].
    Query,
    /// Accept nothing below this ballot any more. Answered by [`Answer::Prepare`].
    Prepare {
        /// The ballot: a fresh tick above everything the coordinator was told.
        ballot: Stamp,
        /// The asking write, if its version was sent to anyone before.
        own: Option<OwnWrite>,
    },
    /// Hold this entry. Its content goes along. Answered by [`Answer::Apply`].
    Apply {
        /// The new entry.
        entry: Entry,
        /// The ballot it is sent under.
        ballot: Stamp,
    },
}

/// A replica's answer. The content of the row it names goes along with `Row` and `Promised`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To a query: what is held.
    Row(Option<Entry>),
    /// To a prepare.
    Prepare(PrepareAnswer),
    /// To an apply.
    Apply(ApplyAnswer),
}

/// Numbers what one coordinator sends: an answer counts only for the phase it answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Phase(pub u32);

/// Whose content goes along with a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content<N> {
    /// None: a query or a prepare.
    Nothing,
    /// The content of the operation's own write.
    Own,
    /// The content that these nodes answered with in the phase before (never empty): another's write is written back.
    AnsweredBy(Vec<N>),
}

/// What the shell does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<N> {
    /// Nothing until the next input.
    Wait,
    /// Send `message` to the nodes in `to`, and report each answer, or the lack of one, with `phase`.
    ///
    /// A query may go to the nearest first ([`super::QuorumSets::first_quorum`]) and to the others after a hedge delay or a failure;
    /// everything else goes to all at once. What was sent in earlier phases need not be cancelled: its answers are ignored.
    Send {
        /// To hand back with the answers.
        phase: Phase,
        /// What to send.
        message: Message,
        /// To whom.
        to: Vec<N>,
        /// What goes along with an apply.
        content: Content<N>,
    },
    /// Call [`super::Coordinator::on_tick`] with a fresh stamp above `above`, after a back-off (with jitter, growing with `refused_rounds`)
    /// when `refused_rounds` is not 0.
    Tick {
        /// Everything the coordinator was told lies at or below this.
        above: Stamp,
        /// How many rounds in a row met a rival; 0: tick at once.
        refused_rounds: u32,
    },
    /// Test the condition against this row (`None`: there is none) and call [`super::Coordinator::on_test`].
    Test {
        /// The newest row.
        newest: Option<Entry>,
        /// Who answered with it, and so with its content. Empty when there is no row.
        answered_by: Vec<N>,
    },
    /// The end.
    Done(Outcome<N>),
}

/// How an operation ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<N> {
    /// The write took effect, at this stamp. Others may have followed.
    Written {
        /// The stamp at which a quorum held it.
        stamp: Stamp,
    },
    /// The condition does not hold, and nothing was written.
    PreconditionFailed {
        /// The row it was tested against.
        newest: Option<Entry>,
    },
    /// What a read found.
    Value {
        /// The row; `None`: there is none.
        entry: Option<Entry>,
        /// Who answered with it, and so with its content. Empty when there is no row.
        answered_by: Vec<N>,
    },
    /// The write may have taken effect, or may do so yet, or never: 503, and never 200 or 412.
    Unknown,
    /// No quorum could be had; a write left no trace. 503.
    Unreachable,
    /// Rivals won [`super::ROUNDS_MAX`] rounds; a write left no trace. A conditional write answers 409, others 503.
    Contended,
}
