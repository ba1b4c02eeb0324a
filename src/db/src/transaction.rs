//! What an operation sees and changes: the store, what earlier operations of the same batch changed, and its own changes.
//!
//! Changes go straight into the batch's overlay; an undo list takes those of a failed operation out again.

use std::{collections::BTreeMap, iter::Peekable, ops::Bound};

use bytes::Bytes;

use crate::{
    engine::{Change, Direction, EngineError, Keyspace, RangeIterator, Snapshot, WriteBatch},
    limits::KEY_BYTES_MAX,
    memory::is_empty_range,
};

/// The changes of a batch not yet written: for each keyspace, key to new value or `None` for deleted.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    keyspaces: BTreeMap<Keyspace, BTreeMap<Bytes, Option<Bytes>>>,
    undo: Vec<Undo>,
    len_bytes: usize,
}

/// A change of the running operation and what it replaced in the overlay.
#[derive(Debug)]
struct Undo {
    keyspace: Keyspace,
    key: Bytes,
    previous: Option<Option<Bytes>>,
    len_bytes_before: usize,
}

impl Overlay {
    fn set(&mut self, keyspace: Keyspace, key: Bytes, value: Option<Bytes>) {
        let len_bytes_before = self.len_bytes;
        self.len_bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        let previous = self.keyspaces.entry(keyspace).or_default().insert(key.clone(), value);
        self.undo.push(Undo { keyspace, key, previous, len_bytes_before });
    }

    /// Keeps the changes of the operation that just ended.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes the changes of the operation that just ended out again, last first.
    pub(crate) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            let rows = self.keyspaces.entry(undo.keyspace).or_default();
            match undo.previous {
                Some(value) => rows.insert(undo.key, value),
                None => rows.remove(&undo.key),
            };
            self.len_bytes = undo.len_bytes_before;
        }
    }

    /// Bytes of keys and values put since the start of the batch; a key put twice counts twice.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(crate) fn into_batch(self, commit_number: u64) -> WriteBatch {
        debug_assert!(self.undo.is_empty(), "the last operation was neither kept nor rolled back");
        let rows = self.keyspaces.into_iter().flat_map(|(keyspace, rows)| rows.into_iter().map(move |(key, value)| (keyspace, key, value)));
        WriteBatch { commit_number, changes: rows.map(|(keyspace, key, value)| Change { keyspace, key, value }).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keyspaces.values().all(BTreeMap::is_empty)
    }
}

/// One operation's view of the store, with its changes. Reads see everything accepted before, and the operation's own changes.
pub struct Transaction<'a> {
    base: &'a dyn Snapshot,
    overlay: &'a mut Overlay,
    commit_number: u64,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(base: &'a dyn Snapshot, overlay: &'a mut Overlay, commit_number: u64) -> Transaction<'a> {
        Transaction { base, overlay, commit_number }
    }

    /// The commit number under which the changes become durable, if the operation succeeds and changes something.
    pub fn commit_number(&self) -> u64 {
        self.commit_number
    }

    /// The value of a key.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.overlay.keyspaces.get(&keyspace).and_then(|rows| rows.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(keyspace, key),
        }
    }

    /// Sets a key's value. Keys are at most [`KEY_BYTES_MAX`] long and not empty.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.set(keyspace, key.into(), Some(value.into()));
    }

    /// Deletes a key; nothing happens if there is none.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Bytes>) {
        self.set(keyspace, key.into(), None);
    }

    fn set(&mut self, keyspace: Keyspace, key: Bytes, value: Option<Bytes>) {
        assert!(!key.is_empty() && key.len() <= KEY_BYTES_MAX, "{keyspace:?}: a key of {} bytes", key.len());
        self.overlay.set(keyspace, key, value);
    }

    /// Keys and values between two bounds.
    pub fn range<'b>(&'b self, keyspace: Keyspace, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> RangeIterator<'b> {
        if is_empty_range(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let base = self.base.range(keyspace, from, to, direction);
        let Some(rows) = self.overlay.keyspaces.get(&keyspace).filter(|rows| !rows.is_empty()) else { return base };
        let rows = rows.range::<[u8], _>((from, to)).map(|(key, value)| (key.clone(), value.clone()));
        match direction {
            Direction::Forward => Box::new(Merge { base: base.peekable(), overlay: rows.peekable(), direction }),
            Direction::Backward => Box::new(Merge { base: base.peekable(), overlay: rows.rev().peekable(), direction }),
        }
    }

    /// Keys and values of all keys that start with `prefix`.
    pub fn prefix<'b>(&'b self, keyspace: Keyspace, prefix: &[u8], direction: Direction) -> RangeIterator<'b> {
        Snapshot::prefix(self, keyspace, prefix, direction)
    }
}

/// So that code written for a snapshot reads inside an operation too.
impl Snapshot for Transaction<'_> {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Transaction::get(self, keyspace, key)
    }
    fn range<'b>(&'b self, keyspace: Keyspace, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> RangeIterator<'b> {
        Transaction::range(self, keyspace, from, to, direction)
    }
}

/// Rows of the store and of the overlay in one order; where both have a key, the overlay's counts.
struct Merge<B: Iterator, O: Iterator> {
    base: Peekable<B>,
    overlay: Peekable<O>,
    direction: Direction,
}

impl<B, O> Iterator for Merge<B, O>
where
    B: Iterator<Item = Result<(Bytes, Bytes), EngineError>>,
    O: Iterator<Item = (Bytes, Option<Bytes>)>,
{
    type Item = Result<(Bytes, Bytes), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.base.peek(), self.overlay.peek()) {
                // An error ends the scan for the caller; it must not be outrun by rows behind it.
                (None, None) | (Some(Err(_)), _) | (Some(_), None) => return self.base.next(),
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(Ok((base, _))), Some((over, _))) if self.direction == Direction::Forward => base.cmp(over),
                (Some(Ok((base, _))), Some((over, _))) => over.cmp(base),
            };
            if order.is_lt() {
                return self.base.next();
            }
            if order.is_eq() {
                self.base.next();
            }
            if let Some((key, Some(value))) = self.overlay.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::Bound};

    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{Overlay, Transaction};
    use crate::{
        engine::{Direction, Durability, Engine, Keyspace, KeyspaceSpec},
        memory::MemoryEngine,
    };

    const SPECS: [KeyspaceSpec; 2] = [KeyspaceSpec { name: "a", large_values: false }, KeyspaceSpec { name: "b", large_values: true }];
    type Model = BTreeMap<(u8, Vec<u8>), Vec<u8>>;
    type Step = (u8, Vec<u8>, Option<Vec<u8>>);

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(255)], 1..4)
    }
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0u8..2, key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..3))), 0..12)
    }
    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
    }

    fn apply(transaction: &mut Transaction<'_>, model: &mut Model, steps: &[Step]) {
        for (keyspace, key, value) in steps.iter().cloned() {
            match value {
                Some(value) => {
                    transaction.put(Keyspace(keyspace), key.clone(), value.clone());
                    model.insert((keyspace, key), value);
                }
                None => {
                    transaction.delete(Keyspace(keyspace), key.clone());
                    model.remove(&(keyspace, key));
                }
            }
        }
    }

    fn expected(model: &Model, keyspace: u8, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
        let above = |key: &Vec<u8>| match from {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
        };
        let below = |key: &Vec<u8>| match to {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
        };
        let rows = model.iter().filter(|((space, key), _)| *space == keyspace && above(key) && below(key));
        let mut rows: Vec<_> = rows.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        if direction == Direction::Backward {
            rows.reverse()
        }
        rows
    }

    fn as_ref(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
        bound.as_ref().map(Vec::as_slice)
    }

    proptest! {
        /// Stored rows, an operation that is kept, one that is rolled back and one that runs: the view is that of a plain map, without
        /// the one rolled back.
        #[test]
        fn an_operation_sees_the_store_under_its_changes(
            stored in steps(), kept in steps(), failed in steps(), own in steps(), from in bound(), to in bound(),
        ) {
            let engine = MemoryEngine::new(&SPECS);
            let mut model = Model::new();
            let empty = engine.snapshot().unwrap();
            let mut overlay = Overlay::default();
            apply(&mut Transaction::new(&*empty, &mut overlay, 1), &mut model, &stored);
            overlay.keep();
            engine.write(&overlay.into_batch(1), Durability::Synced).unwrap();

            let base = engine.snapshot().unwrap();
            let mut overlay = Overlay::default();
            apply(&mut Transaction::new(&*base, &mut overlay, 2), &mut model, &kept);
            overlay.keep();
            apply(&mut Transaction::new(&*base, &mut overlay, 2), &mut model.clone(), &failed);
            overlay.roll_back();
            let mut transaction = Transaction::new(&*base, &mut overlay, 2);
            apply(&mut transaction, &mut model, &own);

            for keyspace in 0..2 {
                for direction in [Direction::Forward, Direction::Backward] {
                    let rows = transaction.range(Keyspace(keyspace), as_ref(&from), as_ref(&to), direction);
                    let rows: Vec<_> = rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
                    prop_assert_eq!(rows, expected(&model, keyspace, &from, &to, direction));
                }
            }
            for ((keyspace, key), value) in &model {
                prop_assert_eq!(transaction.get(Keyspace(*keyspace), key).unwrap(), Some(Bytes::from(value.clone())));
            }

            // What reaches the engine is the same view.
            overlay.keep();
            engine.write(&overlay.into_batch(2), Durability::Synced).unwrap();
            let after = engine.snapshot().unwrap();
            for keyspace in 0..2 {
                let rows: Vec<_> = after.range(Keyspace(keyspace), as_ref(&from), as_ref(&to), Direction::Backward)
                    .map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
                prop_assert_eq!(rows, expected(&model, keyspace, &from, &to, Direction::Backward));
            }
        }
    }
}
