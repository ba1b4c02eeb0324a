//! What a storage engine promises: keyspaces, snapshots, atomic batches, and honest errors.
//!
//! Every call may block; run them in `Lane::Read` or `Lane::Commit`. One thread writes at a time (the committer); snapshots are taken
//! and read from any thread.

use std::{io, ops::Bound, path::PathBuf};

use bytes::Bytes;

use crate::mark::Mark;

/// A keyspace that a store is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceSpec {
    /// Its name on disk; never reused for something else.
    pub name: &'static str,
    /// Whether values are kept apart from keys, so that scans over keys do not read them.
    pub large_values: bool,
}

/// An index into the list of keyspaces that the store was opened with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Keyspace(pub u8);

impl Keyspace {
    /// The store's own keyspace (store id, commit number). Every store has it; it is in no list of specs.
    pub const META: Keyspace = Keyspace(u8::MAX);

    /// The position of this keyspace in a store of `specs_count` specs: the last place is `META`'s.
    pub(crate) fn index(self, specs_count: usize) -> usize {
        if self == Keyspace::META {
            return specs_count;
        }
        let index = usize::from(self.0);
        assert!(index < specs_count, "{self:?}: the store was opened with {specs_count} keyspaces");
        index
    }
}

/// Where in [`Keyspace::META`] an engine stores the commit number (8 bytes, big-endian).
pub const COMMIT_NUMBER_KEY: &[u8] = b"commit_number";

/// Which end a range is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Greatest key first.
    Backward,
}

/// When a write counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// On stable storage: survives a power cut.
    #[default]
    Synced,
    /// With the operating system: survives a crash of the process only.
    Buffered,
}

/// Keys and values of a range, in order.
pub type RangeIterator<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send + 'a>;

/// A consistent view over all keyspaces. Keep it short: what it can see is not reclaimed while it lives.
pub trait Snapshot: Send + Sync {
    /// The value of a key.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError>;
    /// Keys and values between two bounds. Bounds that exclude everything give nothing.
    fn range<'a>(&'a self, keyspace: Keyspace, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> RangeIterator<'a>;

    /// Keys and values of all keys that start with `prefix`.
    fn prefix<'a>(&'a self, keyspace: Keyspace, prefix: &[u8], direction: Direction) -> RangeIterator<'a> {
        let end = prefix_end(prefix);
        self.range(keyspace, Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded), direction)
    }
}

/// The smallest key greater than every key with this prefix; `None` when there is none (the prefix is empty or all 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// One key's new value; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub keyspace: Keyspace,
    /// Which key.
    pub key: Bytes,
    /// The value, or nothing.
    pub value: Option<Bytes>,
}

/// Changes that become visible and durable together, each key at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Greater by one than that of the batch before; the engine stores it with the batch.
    pub commit_number: u64,
    /// What changes.
    pub changes: Vec<Change>,
}

/// A storage engine. Made closed; [`Engine::open`] opens it.
pub trait Engine: Send + Sync {
    /// Opens the store, creating an empty one where there is none; or opens it again after an error, and then everything
    /// acknowledged is there and nothing of a failed batch is.
    ///
    /// After an error, snapshots go on reading the handle from before until this succeeds. Nothing happens if the store is open and well.
    /// Errors: `Damaged` when what was acknowledged cannot be read back: call [`Engine::set_aside`] to go on with an empty store.
    fn open(&self) -> Result<(), EngineError>;
    /// A consistent view of everything written so far. May wait for an `open` in progress.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError>;
    /// Writes a batch, all of it or nothing; with `Synced` it is on stable storage on return.
    ///
    /// Errors: `StorageFull` and `Poisoned` changed nothing; after any other error call [`Engine::open`], which removes what was half done.
    fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<(), EngineError>;
    /// Forces every write so far to stable storage.
    fn sync(&self) -> Result<(), EngineError>;
    /// The commit number of the last batch in the store; 0 in an empty one.
    fn commit_number(&self) -> Result<u64, EngineError>;
    /// The note beside the store; `None` if there is none or it cannot be read.
    fn read_mark(&self) -> Result<Option<Mark>, EngineError>;
    /// Replaces the note beside the store.
    fn write_mark(&self, mark: &Mark, durability: Durability) -> Result<(), EngineError>;
    /// Moves the store and its note aside, never deleting them, and opens an empty store in their place. Says where the old one is.
    fn set_aside(&self) -> Result<String, EngineError>;
}

/// Why the engine could not do what was asked. Cheap to clone: every operation of a failed batch is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Too little space: nothing was changed; reads go on.
    #[error(
        "the disk of the metadata directory has {available_bytes} bytes left and writes need {needed_bytes}; free space or lower metadata_min_free"
    )]
    StorageFull {
        /// Space left.
        available_bytes: u64,
        /// Space that has to be left (`metadata_min_free`).
        needed_bytes: u64,
    },
    /// An earlier failure has closed the store for writing until it is opened again, which is done at the next write.
    #[error("the metadata store is being opened again after a failure ({cause}); try again")]
    Poisoned {
        /// What failed.
        cause: String,
    },
    /// Stored bytes are not what was written.
    #[error("the metadata store is damaged: {what}")]
    Damaged {
        /// Which part, and how it shows.
        what: String,
    },
    /// Another process has the store open.
    #[error("{}: another process has this metadata store open; stop it first", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store was written by a newer version.
    #[error("{}: this metadata store was written by a newer version; start that version", path.display())]
    TooNew {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store is not open.
    #[error("the metadata store is not open")]
    Closed,
    /// The operating system refused.
    #[error("{doing}: {cause}")]
    Io {
        /// What was attempted, with the path.
        doing: String,
        /// The kind of refusal.
        kind: io::ErrorKind,
        /// The system's words.
        cause: String,
    },
}

impl EngineError {
    /// An I/O error with what was attempted.
    pub fn io(doing: impl Into<String>, error: &io::Error) -> EngineError {
        EngineError::Io { doing: doing.into(), kind: error.kind(), cause: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_without_it() {
        for (prefix, end) in [("a", Some(vec![b'b'])), ("", None)] {
            assert_eq!(prefix_end(prefix.as_bytes()), end, "{prefix:?}");
        }
        assert_eq!(prefix_end(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255, 255]), None);
    }
}
