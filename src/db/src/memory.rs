//! A storage engine in memory whose disk can lose unsynced writes, fill up, fail and be exchanged. Deterministic.
//!
//! Rows are kept in versions: each batch makes one, a snapshot reads at one, and a crash goes back to one. A version of a row is forgotten
//! once no snapshot and no crash can need it.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    engine::{
        COMMIT_NUMBER_KEY, Change, Direction, Durability, Engine, EngineError, Keyspace, KeyspaceSpec, RangeIterator, Snapshot, WriteBatch,
    },
    mark::Mark,
};

/// The values of one key, oldest version first, each with the version it came with.
type Versions = Vec<(u64, Option<Bytes>)>;

/// An engine in memory. Clones share one store, as processes share a disk.
#[derive(Clone)]
pub struct MemoryEngine {
    shared: Arc<RwLock<State>>,
}

#[derive(Clone, Default)]
struct Store {
    keyspaces: Vec<BTreeMap<Bytes, Versions>>,
    version: u64,
    /// The greatest version on stable storage: a crash goes back no further.
    durable: u64,
    mark: Option<Mark>,
    durable_mark: Option<Mark>,
}

struct State {
    specs_count: usize,
    store: Store,
    aside: Vec<Store>,
    /// How many snapshots read at each version.
    readers: BTreeMap<u64, usize>,
    /// Counts crashes and exchanges: a snapshot from before one reads nothing.
    epoch: u64,
    poisoned: Option<String>,
    full: bool,
    damaged: bool,
    failures_to_come: usize,
    /// A batch whose write failed: a crash may find it on the disk all the same.
    half_done: Option<WriteBatch>,
}

impl MemoryEngine {
    /// An empty store with these keyspaces.
    pub fn new(specs: &[KeyspaceSpec]) -> MemoryEngine {
        MemoryEngine { shared: Arc::new(RwLock::new(State::with_store(specs.len(), Store::empty(specs.len())))) }
    }

    /// Power is cut: of the batches not yet on stable storage the first `keep` survive, the rest is gone. One whose write failed counts as
    /// the last of them, until the engine was opened again. Snapshots from before read no more.
    pub fn crash(&self, keep: usize) {
        let mut state = self.shared.write();
        let specs_count = state.specs_count;
        let half_done = state.half_done.take();
        let store = &mut state.store;
        if let Some(batch) = half_done {
            store.apply_batch(&batch, specs_count, store.durable);
        }
        store.cut((store.durable + keep as u64).min(store.version));
        store.mark = store.durable_mark;
        state.forget_readers();
        state.poisoned = None;
    }

    /// How many batches a crash may lose now.
    pub fn unsynced_count(&self) -> usize {
        let state = self.shared.read();
        (state.store.version - state.store.durable) as usize + usize::from(state.half_done.is_some())
    }

    /// Fills or empties the disk: while full, writes are refused with `StorageFull`.
    pub fn set_full(&self, full: bool) {
        self.shared.write().full = full;
    }

    /// Makes the next `count` writes fail with an I/O error; the engine is then poisoned until it is opened again.
    pub fn fail_writes(&self, count: usize) {
        self.shared.write().failures_to_come = count;
    }

    /// Makes the store unreadable: the next `open` answers `Damaged`, until the store is set aside.
    pub fn damage(&self) {
        self.shared.write().damaged = true;
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        let mut state = self.shared.write();
        state.store = Store::empty(state.specs_count);
        state.forget_readers();
        (state.poisoned, state.half_done, state.damaged) = (None, None, false);
    }

    /// A copy of the whole disk, as a file system's snapshot would make it.
    pub fn image(&self) -> MemoryEngine {
        let state = self.shared.read();
        MemoryEngine { shared: Arc::new(RwLock::new(State::with_store(state.specs_count, state.store.clone()))) }
    }

    /// How many stores were set aside.
    pub fn aside_count(&self) -> usize {
        self.shared.read().aside.len()
    }
}

impl State {
    fn with_store(specs_count: usize, store: Store) -> State {
        State {
            specs_count,
            store,
            aside: Vec::new(),
            readers: BTreeMap::new(),
            epoch: 0,
            poisoned: None,
            full: false,
            damaged: false,
            failures_to_come: 0,
            half_done: None,
        }
    }

    fn forget_readers(&mut self) {
        self.readers.clear();
        self.epoch += 1;
    }

    fn refusal(&mut self, batch: &WriteBatch) -> Result<(), EngineError> {
        if let Some(cause) = &self.poisoned {
            return Err(EngineError::Poisoned { cause: cause.clone() });
        }
        if self.full {
            return Err(EngineError::StorageFull { available_bytes: 0, needed_bytes: 1 });
        }
        if self.failures_to_come > 0 {
            self.failures_to_come -= 1;
            let error = EngineError::io("writing in memory", &std::io::Error::other("planned failure"));
            self.poisoned = Some(error.to_string());
            self.half_done = Some(batch.clone());
            return Err(error);
        }
        Ok(())
    }
}

impl Store {
    fn empty(specs_count: usize) -> Store {
        Store { keyspaces: vec![BTreeMap::new(); specs_count + 1], ..Store::default() }
    }

    fn apply(&mut self, change: &Change, specs_count: usize, needed_from: u64) {
        let versions = self.keyspaces[change.keyspace.index(specs_count)].entry(change.key.clone()).or_default();
        // Of the versions that every reader is past, only the newest can still be read.
        let past_count = versions.iter().take_while(|(version, _)| *version <= needed_from).count();
        versions.drain(..past_count.saturating_sub(1));
        versions.push((self.version, change.value.clone()));
    }

    fn apply_batch(&mut self, batch: &WriteBatch, specs_count: usize, needed_from: u64) {
        self.version += 1;
        for change in &batch.changes {
            self.apply(change, specs_count, needed_from);
        }
        let number = Bytes::copy_from_slice(&batch.commit_number.to_be_bytes());
        let commit = Change { keyspace: Keyspace::META, key: Bytes::from_static(COMMIT_NUMBER_KEY), value: Some(number) };
        self.apply(&commit, specs_count, needed_from);
    }

    fn cut(&mut self, version: u64) {
        for keyspace in &mut self.keyspaces {
            keyspace.retain(|_, versions| {
                versions.retain(|(made, _)| *made <= version);
                !versions.is_empty()
            });
        }
        self.version = version;
        self.durable = version;
    }

    fn get(&self, index: usize, key: &[u8], version: u64) -> Option<Bytes> {
        visible(self.keyspaces[index].get(key)?, version)
    }
}

fn visible(versions: &Versions, version: u64) -> Option<Bytes> {
    versions.iter().rev().find(|(made, _)| *made <= version).and_then(|(_, value)| value.clone())
}

impl Engine for MemoryEngine {
    fn open(&self) -> Result<(), EngineError> {
        let mut state = self.shared.write();
        if state.damaged {
            return Err(EngineError::Damaged { what: "planned damage".into() });
        }
        if state.poisoned.is_some() && state.full {
            return Err(EngineError::StorageFull { available_bytes: 0, needed_bytes: 1 });
        }
        state.poisoned = None;
        state.half_done = None;
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let mut state = self.shared.write();
        let (version, epoch, specs_count) = (state.store.version, state.epoch, state.specs_count);
        *state.readers.entry(version).or_default() += 1;
        Ok(Box::new(MemorySnapshot { shared: self.shared.clone(), version, epoch, specs_count }))
    }

    fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<(), EngineError> {
        let mut state = self.shared.write();
        state.refusal(batch)?;
        let specs_count = state.specs_count;
        let oldest_reader = state.readers.keys().next().copied().unwrap_or(u64::MAX);
        let store = &mut state.store;
        let needed_from = oldest_reader.min(store.durable);
        store.apply_batch(batch, specs_count, needed_from);
        if durability == Durability::Synced {
            store.durable = store.version;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.shared.write();
        if let Some(cause) = &state.poisoned {
            return Err(EngineError::Poisoned { cause: cause.clone() });
        }
        state.store.durable = state.store.version;
        Ok(())
    }

    fn commit_number(&self) -> Result<u64, EngineError> {
        let state = self.shared.read();
        let bytes = state.store.get(state.specs_count, COMMIT_NUMBER_KEY, state.store.version);
        decode_commit_number(bytes.as_deref())
    }

    fn read_mark(&self) -> Result<Option<Mark>, EngineError> {
        Ok(self.shared.read().store.mark)
    }

    fn write_mark(&self, mark: &Mark, durability: Durability) -> Result<(), EngineError> {
        let store = &mut self.shared.write().store;
        store.mark = Some(*mark);
        if durability == Durability::Synced {
            store.durable_mark = Some(*mark);
        }
        Ok(())
    }

    fn set_aside(&self) -> Result<String, EngineError> {
        let mut state = self.shared.write();
        let empty = Store::empty(state.specs_count);
        let old = std::mem::replace(&mut state.store, empty);
        state.aside.push(old);
        state.forget_readers();
        (state.poisoned, state.half_done, state.damaged) = (None, None, false);
        Ok(format!("memory.damaged-{}", state.aside.len()))
    }
}

/// The commit number from its stored bytes; 0 where there are none.
pub(crate) fn decode_commit_number(bytes: Option<&[u8]>) -> Result<u64, EngineError> {
    let Some(bytes) = bytes else { return Ok(0) };
    let number = bytes.try_into().map_err(|_| EngineError::Damaged { what: format!("the commit number has {} bytes", bytes.len()) })?;
    Ok(u64::from_be_bytes(number))
}

struct MemorySnapshot {
    shared: Arc<RwLock<State>>,
    version: u64,
    epoch: u64,
    specs_count: usize,
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut state = self.shared.write();
        if state.epoch != self.epoch {
            return;
        }
        if let Some(count) = state.readers.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                state.readers.remove(&self.version);
            }
        }
    }
}

impl Snapshot for MemorySnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.shared.read();
        if state.epoch != self.epoch {
            return Err(EngineError::Closed);
        }
        Ok(state.store.get(keyspace.index(self.specs_count), key, self.version))
    }

    fn range<'a>(&'a self, keyspace: Keyspace, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> RangeIterator<'a> {
        let index = keyspace.index(self.specs_count);
        let (from, to) = (from.map(Bytes::copy_from_slice), to.map(Bytes::copy_from_slice));
        Box::new(MemoryRange { snapshot: self, index, from, to, direction, ended: false })
    }
}

/// What is left of a range; the store is locked for one step at a time.
struct MemoryRange<'a> {
    snapshot: &'a MemorySnapshot,
    index: usize,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    direction: Direction,
    ended: bool,
}

impl Iterator for MemoryRange<'_> {
    type Item = Result<(Bytes, Bytes), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || is_empty_range(&self.from, &self.to) {
            return None;
        }
        let state = self.snapshot.shared.read();
        if state.epoch != self.snapshot.epoch {
            self.ended = true;
            return Some(Err(EngineError::Closed));
        }
        let version = self.snapshot.version;
        let mut rows = state.store.keyspaces[self.index].range::<Bytes, _>((self.from.as_ref(), self.to.as_ref()));
        let seen = |(key, versions): (&Bytes, &Versions)| visible(versions, version).map(|value| (key.clone(), value));
        let found = match self.direction {
            Direction::Forward => rows.find_map(seen),
            Direction::Backward => rows.rev().find_map(seen),
        };
        match (&found, self.direction) {
            (None, _) => self.ended = true,
            (Some((key, _)), Direction::Forward) => self.from = Bound::Excluded(key.clone()),
            (Some((key, _)), Direction::Backward) => self.to = Bound::Excluded(key.clone()),
        }
        found.map(Ok)
    }
}

/// Whether two bounds leave no key between them. `BTreeMap::range` panics on some of these.
pub(crate) fn is_empty_range<K: AsRef<[u8]>>(from: &Bound<K>, to: &Bound<K>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from.as_ref() > to.as_ref(),
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from.as_ref() >= to.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::MemoryEngine;
    use crate::engine::{Change, Durability, Engine, Keyspace, KeyspaceSpec, Snapshot, WriteBatch};

    const SPECS: [KeyspaceSpec; 1] = [KeyspaceSpec { name: "rows", large_values: false }];

    fn put(engine: &MemoryEngine, commit_number: u64, value: &'static str, durability: Durability) {
        let change = Change { keyspace: Keyspace(0), key: Bytes::from_static(b"k"), value: Some(Bytes::from_static(value.as_bytes())) };
        engine.write(&WriteBatch { commit_number, changes: vec![change] }, durability).unwrap();
    }

    fn read(snapshot: &dyn Snapshot) -> Option<Bytes> {
        snapshot.get(Keyspace(0), b"k").unwrap()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_the_chosen_prefix_of_the_rest() {
        for keep in 0..5 {
            let engine = MemoryEngine::new(&SPECS);
            put(&engine, 1, "1", Durability::Synced);
            put(&engine, 2, "2", Durability::Buffered);
            put(&engine, 3, "3", Durability::Buffered);
            assert_eq!(engine.unsynced_count(), 2);
            engine.crash(keep);
            let number = 1 + keep.min(2) as u64;
            assert_eq!(engine.commit_number().unwrap(), number);
            assert_eq!(read(&*engine.snapshot().unwrap()), Some(number.to_string().into()));
        }
    }

    #[test]
    fn a_snapshot_sees_its_own_time_only() {
        let engine = MemoryEngine::new(&SPECS);
        put(&engine, 1, "1", Durability::Synced);
        let before = engine.snapshot().unwrap();
        for number in 2..10 {
            put(&engine, number, "later", Durability::Synced);
        }
        assert_eq!(read(&*before), Some("1".into()));
        assert_eq!(read(&*engine.snapshot().unwrap()), Some("later".into()));
        engine.crash(0);
        assert!(before.get(Keyspace(0), b"k").is_err(), "a process that was killed reads nothing");
    }
}
