//! Versions of a key besides the current one: reading, deleting and changing them, and settling what replicas differ in.
//!
//! Invariants:
//! - a version changes only through a round on the register of its key: what was decided upon is what is changed;
//! - nothing is answered from a version that a minority may be alone with, before a quorum has it;
//! - a locked version is not deleted, by whatever path; the time of a lock is the smallest clock of the quorum that was asked.
//!
//! Round trips: reading a version 1, deleting or changing one 3. `doc/adr/0009-versions-of-a-key.md` has the reasons.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use garage_db::Snapshot;
use garage_rpc::register::{
    Entry, WriteId,
    slots::{self, Effect, Head, Merged, Slot, SlotRow, live_newest_first, merged, seen},
};
use garage_table::{
    Group,
    group::{Decision, MergeRow, RegisterRead, RequestContext, TableError, Updated},
    message::{HeldRow, Want},
    schema::StoreError,
};
use garage_util::encoding::Stored;

use super::{BucketRef, FoundObject, Objects};
use crate::{
    error::{ClientError, ModelError},
    index,
    listing::{
        replica::Query,
        replica_versions::{KEY_SLOTS_MAX, KeyAnswer, KeyQuery},
    },
    rows::{
        OLDER_VERSION, VERSION,
        bucket::Versioning,
        object::{ObjectLock, ObjectMeta, RetentionMode, StoredSlot, VersionRow, VersionState, null_slot, slot_key},
    },
    schema::{current_row, older_row},
};

/// Older versions that a promotion asks for at first.
const CANDIDATES_FIRST: u32 = 8;
/// Keys changed at once by one request.
const KEYS_AT_ONCE: usize = 64;

/// A version that was looked for.
#[derive(Debug)]
pub enum Version {
    /// An object.
    Object(Box<FoundObject>),
    /// A delete marker.
    Marker(Marker),
    /// There is none.
    Missing,
}

/// A delete marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Its slot.
    pub slot: Slot,
    /// When it was made, in milliseconds since 1970.
    pub modified_ms: u64,
}

/// A version to delete, with what the client demands of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionToDelete {
    /// Which.
    pub slot: Slot,
    /// ETags without quotes, one of which it must have; `*` stands for any.
    pub etags: Option<Vec<String>>,
    /// Only if its row is still this one: for deletions that nobody asked for.
    pub mark: Option<Mark>,
}

/// What tells whether a version is as it was when its end was decided.
pub type Mark = (garage_util::hlc::Stamp, WriteId, bool);

/// Whether a retention of governance mode may be overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Governance {
    /// It holds.
    Obeyed,
    /// The client may bypass it, and said so.
    Bypassed,
}

/// What became of a version to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedVersion {
    /// It was a delete marker.
    pub was_marker: bool,
    /// It was there.
    pub existed: bool,
}

/// A key as a quorum knows it.
#[derive(Clone, Debug)]
pub(crate) struct KeyState {
    /// The smallest clock of those who answered, in milliseconds since 1970.
    pub now_ms: u64,
    /// The newest row of the register.
    pub head: Option<(Entry, VersionRow)>,
    /// The slots that were asked for.
    pub rows: BTreeMap<Slot, Merged<VersionState>>,
    /// Slots that some replica counts among its newest older versions, or has as a head that is no longer current.
    candidates: BTreeSet<Slot>,
    /// Any older version that is not a candidate is older than this place in the order.
    bound: Option<garage_util::hlc::Stamp>,
}

/// Which head a state of a key is about.
enum About {
    /// The newest that anyone has.
    Newest,
    /// That of a round. One above it does not count, and never will: it is left out.
    Round(Option<(Entry, VersionRow)>),
}

impl KeyState {
    fn of(query: &KeyQuery, mut answers: Vec<KeyAnswer>, about: &About) -> KeyState {
        let newest = |answers: &[KeyAnswer]| answers.iter().filter_map(|answer| answer.head.clone()).max_by_key(|(entry, _)| *entry);
        let head = match about {
            About::Newest => newest(&answers),
            About::Round(held) => held.clone(),
        };
        let entry = head.as_ref().map(|(entry, _)| *entry);
        for answer in &mut answers {
            answer.head.take_if(|(other, _)| entry < Some(*other));
        }
        let heads: Vec<Option<(Entry, Head<VersionState>)>> =
            answers.iter().map(|answer| answer.head.as_ref().map(|(entry, row)| (*entry, row.to_head()))).collect();
        let see = |(index, slot): (usize, &Slot)| {
            let of_replica = answers.iter().zip(&heads).map(|(answer, head)| {
                seen(*slot, head.as_ref().map(|(entry, head)| (*entry, head)), answer.rows.get(index).cloned().flatten())
            });
            (*slot, merged(of_replica))
        };
        let mut rows: BTreeMap<Slot, Merged<VersionState>> = query.slots.iter().enumerate().map(see).collect();
        if let (About::Round(_), Some((entry, row))) = (about, &head) {
            let head = row.to_head();
            if let Some(merged) = rows.get_mut(&head.slot) {
                merged.row = seen(head.slot, Some((*entry, &head)), merged.row.take());
            }
        }
        let older = answers.iter().flat_map(|answer| answer.older.iter().map(|(slot, _)| *slot));
        let outdated = heads.iter().flatten().filter(|(entry, _)| head.as_ref().is_some_and(|(newest, _)| newest != entry));
        let outdated: BTreeSet<Slot> = outdated.map(|(_, head)| head.slot).collect();
        // What all of them list alike, they know alike.
        if outdated.is_empty()
            && answers.windows(2).all(|pair| pair[0].older == pair[1].older)
            && let Some(first) = answers.first()
        {
            for (slot, row) in &first.older {
                rows.entry(*slot).or_insert_with(|| Merged { row: Some(row.clone()), settled: true });
            }
        }
        let candidates = older.chain(outdated).filter(|slot| !rows.contains_key(slot)).collect();
        let cut = answers.iter().filter(|answer| answer.truncated);
        let bound = cut.filter_map(|answer| answer.older.last().map(|(_, row)| row.origin.order)).max();
        let now_ms = answers.iter().map(|answer| answer.now_ms).min().unwrap_or(0);
        KeyState { now_ms, head, rows, candidates, bound }
    }

    fn current_slot(&self) -> Option<Slot> {
        self.head.as_ref().filter(|(_, row)| row.to_head().content.is_some()).map(|(_, row)| row.slot())
    }

    fn row(&self, slot: Slot) -> Option<&SlotRow<VersionState>> {
        self.rows.get(&slot).and_then(|merged| merged.row.as_ref())
    }

    /// The head as it is, with changes of other versions. Where none was current, the newest known version is from now on: a write that
    /// was never answered may have left it.
    fn head_with(&self, effects: Vec<Effect<VersionState>>) -> Head<VersionState> {
        match &self.head {
            Some((entry, row)) if self.current_slot().is_some() => {
                let head = row.to_head();
                Head { origin: Some(head.origin_as(*entry)), effects, ..head }
            }
            _ => self.promoted(&BTreeSet::new(), effects),
        }
    }

    /// The newest known version as the current one, apart from those that are gone.
    fn promoted(&self, gone: &BTreeSet<Slot>, mut effects: Vec<Effect<VersionState>>) -> Head<VersionState> {
        match newest_live(self, gone) {
            Some((slot, row)) => {
                effects.retain(|effect| effect.slot != slot);
                Head { slot, origin: Some(row.origin), content: row.content, effects }
            }
            None => Head { effects, ..Head::new(Slot::Null, None) },
        }
    }

    /// Whether there is a version though none is current: whoever finds it makes it current first.
    fn is_orphaned(&self) -> bool {
        self.current_slot().is_none() && self.rows.values().filter_map(|merged| merged.row.as_ref()).any(SlotRow::is_live)
    }

    /// Rows that only some have, to be written by a change that builds upon them.
    fn unsettled_effects(&self, skip: &BTreeSet<Slot>) -> Vec<Effect<VersionState>> {
        let current = self.head.as_ref().map(|(_, row)| row.slot());
        let open = self.rows.iter().filter(|(slot, merged)| !merged.settled && Some(**slot) != current && !skip.contains(*slot));
        let effect = |(slot, merged): (&Slot, &Merged<VersionState>)| {
            let row = merged.row.as_ref()?;
            Some(Effect { slot: *slot, origin: row.origin, content: row.content.clone() })
        };
        open.filter_map(effect).collect()
    }
}

/// A change of a key.
enum Change<T> {
    /// The key's new head.
    Write(Head<VersionState>, T),
    /// Nothing is to be done.
    Nothing(T),
}

/// Whether a version is kept from being deleted at `now_ms`.
pub fn is_locked(lock: &ObjectLock, now_ms: u64, governance: Governance) -> bool {
    let retained = lock.retention.is_some_and(|retention| {
        now_ms < retention.until_ms && (retention.mode == RetentionMode::Compliance || governance == Governance::Obeyed)
    });
    retained || lock.legal_hold == Some(true)
}

/// Whether a content belongs to a version that is there, at this replica: what its references are kept for. `None`: this replica never heard
/// of a version with it, or has forgotten that it was deleted.
///
/// A version is dead when this says `Some(false)` or `None` at a read quorum; a write whose row may still come is not told apart from one
/// that will not.
pub fn is_live(snapshot: &dyn Snapshot, group: &Group, content: WriteId) -> Result<Option<bool>, StoreError> {
    let Some((key, slot)) = index::version_of_content(snapshot, group, content)? else { return Ok(None) };
    is_live_version(snapshot, group, &key, slot, content).map(Some)
}

/// Whether `content` is that of the version in a slot of a key, at this replica.
pub fn is_live_version(snapshot: &dyn Snapshot, group: &Group, key: &str, slot: Slot, content: WriteId) -> Result<bool, StoreError> {
    let current = current_row(snapshot, group, key)?.map(|(entry, row)| (entry, row.to_head()));
    let row = seen(slot, current.as_ref().map(|(entry, head)| (*entry, head)), older_row(snapshot, group, key, slot)?);
    Ok(row.is_some_and(|row| row.is_live() && row.origin.id == content))
}

impl Objects {
    /// Asks a quorum about a key: 1 round trip.
    pub(crate) async fn ask_key(&self, group: &Group, query: &KeyQuery, context: RequestContext) -> Result<KeyState, ModelError> {
        self.ask_about(group, query, &About::Newest, context).await
    }

    async fn ask_about(&self, group: &Group, query: &KeyQuery, about: &About, context: RequestContext) -> Result<KeyState, ModelError> {
        let answers = self.tables.query(group, VERSION, Query::Key(query.clone()).to_stored(), self.step(context)).await?;
        let answers = answers.iter().map(|answer| KeyAnswer::from_stored(answer)).collect::<Result<Vec<_>, _>>()?;
        Ok(KeyState::of(query, answers, about))
    }

    /// A version of a key; `None`: the current one. Its content comes along as far as `want` says, if it is the current one.
    pub async fn find_version(
        &self,
        bucket: &BucketRef,
        key: &str,
        slot: Option<Slot>,
        want: Want,
        context: RequestContext,
    ) -> Result<Version, ModelError> {
        let group = bucket.group_of(key);
        let Some(slot) = slot.filter(|_| bucket.versioning != Versioning::Off) else {
            let current = self.find_current(&group, key, want, context).await?;
            return Ok(if slot.is_none_or(|slot| slot == Slot::Null) { current } else { Version::Missing });
        };
        let query = KeyQuery { key: key.to_string(), slots: vec![slot], older: 0 };
        let state = self.ask_key(&group, &query, context).await?;
        let is_settled = state.rows.values().all(|merged| merged.settled) && !state.is_orphaned();
        let state = if is_settled { state } else { self.settle(&group, &query, context).await? };
        Ok(version_of(&group, slot, state.row(slot)))
    }

    /// Sees to it that the slots of a query are known to a quorum as they are answered.
    pub(crate) async fn settle(&self, group: &Group, query: &KeyQuery, context: RequestContext) -> Result<KeyState, ModelError> {
        let context = self.step(context);
        let read = RegisterRead { table: VERSION, key: null_slot(&query.key), want: Want::Row };
        self.tables.read_one(group, read, context).await?;
        let state = self.ask_key(group, query, context).await?;
        let current = state.head.as_ref().map(|(_, row)| row.slot());
        let mut rows = Vec::new();
        for (slot, merged) in state.rows.iter().filter(|(slot, merged)| !merged.settled && Some(**slot) != current) {
            let Some(row) = &merged.row else { continue };
            let companions = self.content_of(group, row, context).await?;
            rows.push(MergeRow {
                table: OLDER_VERSION,
                key: slot_key(&query.key, *slot),
                row: StoredSlot(row.clone()).to_stored(),
                companions,
            });
        }
        let head_is_open = current.and_then(|slot| state.rows.get(&slot)).is_some_and(|merged| !merged.settled) || state.is_orphaned();
        let repaired = if rows.is_empty() || head_is_open { Ok(()) } else { self.tables.merge(group, rows, context).await };
        match repaired {
            Ok(()) if !head_is_open => Ok(state),
            // A promise stands against it, or the head moved: only a round can tell.
            Ok(()) | Err(TableError::OutcomeUnknown) => {
                let write = |state: &KeyState| {
                    let head = state.head_with(state.unsettled_effects(&BTreeSet::new()));
                    // Its stamp is not known yet, and not asked for.
                    let unknown = Entry { stamp: garage_util::hlc::Stamp::ZERO, id: WriteId::default() };
                    let settled = KeyState { head: Some((unknown, VersionRow::from(head.clone()))), ..state.clone() };
                    Ok(Change::Write(head, settled))
                };
                self.change(group, query, context, write).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The companions of a version's content, to go along with its row; none for what has no content.
    async fn content_of(
        &self,
        group: &Group,
        row: &SlotRow<VersionState>,
        context: RequestContext,
    ) -> Result<Vec<garage_table::message::Companion>, ModelError> {
        if row.content.as_ref().and_then(VersionState::object).is_none() {
            return Ok(Vec::new());
        }
        Ok(self.tables.companions(group, row.origin.id, 0, u32::MAX, context).await?)
    }

    /// Changes a key by a round on its register; `decide` sees what a quorum knew after the round had begun.
    async fn change<'a, T: Clone + Send + Sync + 'a>(
        &'a self,
        group: &'a Group,
        query: &'a KeyQuery,
        context: RequestContext,
        decide: impl Fn(&KeyState) -> Result<Change<T>, ModelError> + Send + Sync + 'a,
    ) -> Result<T, ModelError> {
        let context = self.step(context);
        let decided = parking_lot::Mutex::new(None);
        let choose = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<Option<ModelError>>> {
            let (decide, decided) = (&decide, &decided);
            async move {
                match self.decide_change(group, query, held, context, decide).await {
                    Ok((Change::Write(head, outcome), companions)) => {
                        *decided.lock() = Some(outcome);
                        Decision::Write { content: VersionRow::from(head).to_stored(), companions }
                    }
                    Ok((Change::Nothing(outcome), _)) => {
                        *decided.lock() = Some(outcome);
                        Decision::Refuse(None)
                    }
                    Err(error) => Decision::Refuse(Some(error)),
                }
            }
            .boxed()
        };
        let updated = self.tables.update(group, VERSION, null_slot(&query.key), context, choose).await?;
        if let Updated::Refused(Some(error)) = updated {
            return Err(error);
        }
        let outcome = decided.lock().take();
        outcome.ok_or_else(|| TableError::OutcomeUnknown.into())
    }

    /// As `change`; what is refused because of a row that a minority may be alone with is decided again once a quorum has it.
    async fn change_settled<'a, T: Clone + Send + Sync + 'a>(
        &'a self,
        group: &'a Group,
        query: &'a KeyQuery,
        context: RequestContext,
        decide: impl Fn(&KeyState) -> Result<Change<T>, ModelError> + Send + Sync + 'a,
    ) -> Result<T, ModelError> {
        match self.change(group, query, context, &decide).await {
            Err(ModelError::Client(error)) => {
                let state = self.ask_key(group, &KeyQuery { older: 0, ..query.clone() }, context).await?;
                if state.rows.values().all(|merged| merged.settled) {
                    return Err(error.into());
                }
                self.settle(group, query, context).await?;
                self.change(group, query, context, &decide).await
            }
            outcome => outcome,
        }
    }

    async fn decide_change<T>(
        &self,
        group: &Group,
        query: &KeyQuery,
        held: Option<HeldRow>,
        context: RequestContext,
        decide: &(impl Fn(&KeyState) -> Result<Change<T>, ModelError> + Send + Sync),
    ) -> Result<(Change<T>, Vec<garage_table::message::Companion>), ModelError> {
        let held = held.map(|row| Ok::<_, ModelError>((row.entry, VersionRow::from_stored(&row.content)?))).transpose()?;
        let about = About::Round(held.and_then(|(entry, row)| Some((entry?, row))));
        let state = if query.older == 0 {
            self.ask_about(group, query, &about, context).await?
        } else {
            self.ask_with_older(group, query, &about, context).await?
        };
        let change = decide(&state)?;
        let mut companions = Vec::new();
        if let Change::Write(head, _) = &change {
            let was_current = state.head.as_ref().map(|(entry, row)| row.origin_as(*entry).id);
            let promoted = head.origin.filter(|origin| head.content.is_some() && Some(origin.id) != was_current);
            let effects = head.effects.iter().map(|effect| (effect.origin, effect.content.as_ref()));
            let all = promoted.map(|origin| (origin, head.content.as_ref())).into_iter().chain(effects);
            for (origin, content) in all.filter(|(_, content)| content.and_then(VersionState::object).is_some()) {
                let row = SlotRow { origin, stamp: origin.order, content: content.cloned() };
                companions.extend(self.content_of(group, &row, context).await?);
            }
        }
        Ok((change, companions))
    }

    /// Asks about a key with enough of its older versions to know which is the newest of them that is not asked for by name.
    async fn ask_with_older(
        &self,
        group: &Group,
        query: &KeyQuery,
        about: &About,
        context: RequestContext,
    ) -> Result<KeyState, ModelError> {
        let mut older = query.older.max(CANDIDATES_FIRST);
        loop {
            let asked = KeyQuery { older, ..query.clone() };
            let first = self.ask_about(group, &asked, about, context).await?;
            let slots: BTreeSet<Slot> = first.rows.keys().copied().chain(first.candidates.iter().copied()).collect();
            let state = if first.candidates.is_empty() {
                first
            } else {
                self.ask_about(group, &KeyQuery { slots: slots.into_iter().collect(), ..asked }, about, context).await?
            };
            let named: BTreeSet<Slot> = query.slots.iter().copied().collect();
            let newest = newest_live(&state, &named).map(|(_, row)| row.origin.order);
            let is_known = state.bound.is_none_or(|bound| newest.is_some_and(|newest| bound <= newest));
            if is_known || KEY_SLOTS_MAX as u32 / 2 <= older {
                return Ok(state);
            }
            older *= 4;
        }
    }

    /// Deletes versions of a key for good. Errors: `Locked`, `PreconditionFailed`; then none of them was deleted.
    pub async fn delete_versions(
        &self,
        bucket: &BucketRef,
        key: &str,
        targets: &[VersionToDelete],
        governance: Governance,
        context: RequestContext,
    ) -> Result<Vec<DeletedVersion>, ModelError> {
        let group = bucket.group_of(key);
        let query = KeyQuery { key: key.to_string(), slots: targets.iter().map(|target| target.slot).collect(), older: CANDIDATES_FIRST };
        self.change_settled(&group, &query, context, |state| decide_deletion(state, targets, governance)).await
    }

    /// Deletes a version whose content is lost, if it still has this content; whether it did. Errors: `Locked`.
    pub(crate) async fn discard_version(
        &self,
        group: &Group,
        key: &str,
        slot: Slot,
        content: WriteId,
        context: RequestContext,
    ) -> Result<bool, ModelError> {
        let query = KeyQuery { key: key.to_string(), slots: vec![slot], older: CANDIDATES_FIRST };
        let targets = [VersionToDelete { slot, etags: None, mark: None }];
        let decide = |state: &KeyState| {
            if state.row(slot).is_none_or(|row| !row.is_live() || row.origin.id != content) {
                return Ok(Change::Nothing(Vec::new()));
            }
            decide_deletion(state, &targets, Governance::Bypassed)
        };
        let deleted = self.change_settled(group, &query, context, decide).await?;
        Ok(deleted.iter().any(|deleted| deleted.existed))
    }

    /// Sees to it that a version which was refused after it had been sent is nowhere.
    pub(crate) async fn undo_version(&self, group: &Group, key: &str, id: WriteId, context: RequestContext) -> Result<(), ModelError> {
        let slot = Slot::Id(id);
        let query = KeyQuery { key: key.to_string(), slots: vec![slot], older: CANDIDATES_FIRST };
        let undo = |state: &KeyState| {
            let order = state.row(slot).map_or(garage_util::hlc::Stamp::ZERO, |row| row.origin.order);
            let dead = Effect { slot, origin: slots::Origin { order, id }, content: None };
            Ok(Change::Write(without(state, &BTreeSet::from([slot]), vec![dead]), ()))
        };
        self.change(group, &query, context, undo).await
    }

    /// Changes what is known of a version beside its content: its lock, its tags. `None`: the current one.
    ///
    /// `change` is shown the version and the smallest clock of a quorum, in milliseconds since 1970. It is called again when a rival changed
    /// the key. Neither Last-Modified nor the version's place in the order changes. Errors: `NoSuchKey`, `NoSuchVersion`,
    /// `IsDeleteMarker`, and those of `change`.
    pub async fn change_version(
        &self,
        bucket: &BucketRef,
        key: &str,
        slot: Option<Slot>,
        context: RequestContext,
        change: impl Fn(&mut ObjectMeta, u64) -> Result<(), ClientError> + Send + Sync,
    ) -> Result<Slot, ModelError> {
        let group = bucket.group_of(key);
        let query = KeyQuery { key: key.to_string(), slots: slot.into_iter().collect(), older: 0 };
        self.change_settled(&group, &query, context, |state| decide_meta(state, slot, &change)).await
    }

    /// Deletes versions of many keys; the outcomes are in the order of the keys and their versions.
    pub async fn delete_versions_of(
        &self,
        bucket: &BucketRef,
        keys: Vec<(String, Vec<VersionToDelete>)>,
        governance: Governance,
        context: RequestContext,
    ) -> Vec<Vec<Result<DeletedVersion, ModelError>>> {
        let one = |(key, targets): (String, Vec<VersionToDelete>)| async move {
            self.delete_versions_of_key(bucket, &key, &targets, governance, context).await
        };
        stream::iter(keys).map(one).buffered(KEYS_AT_ONCE).collect().await
    }

    /// All at once; one by one if one of them is refused.
    async fn delete_versions_of_key(
        &self,
        bucket: &BucketRef,
        key: &str,
        targets: &[VersionToDelete],
        governance: Governance,
        context: RequestContext,
    ) -> Vec<Result<DeletedVersion, ModelError>> {
        match self.delete_versions(bucket, key, targets, governance, context).await {
            Ok(deleted) => return deleted.into_iter().map(Ok).collect(),
            Err(error) if targets.len() == 1 => return vec![Err(error)],
            Err(ModelError::Table(error)) => return targets.iter().map(|_| Err(ModelError::Table(error.clone()))).collect(),
            Err(_) => {}
        }
        let mut outcomes = Vec::with_capacity(targets.len());
        for target in targets {
            let deleted = self.delete_versions(bucket, key, std::slice::from_ref(target), governance, context).await;
            outcomes.push(deleted.and_then(|deleted| deleted.into_iter().next().ok_or_else(|| TableError::OutcomeUnknown.into())));
        }
        outcomes
    }

    /// Puts a delete marker over the current object, or deletes it where nothing is kept, if it is still the one with this row.
    pub(crate) async fn expire_current(
        &self,
        bucket: &BucketRef,
        key: &str,
        mark: Mark,
        context: RequestContext,
    ) -> Result<(), ModelError> {
        let (write, _) = self.delete_marker(bucket.versioning, key);
        let (group, id) = (bucket.group_of(key), write.id);
        let test = |row: Option<&HeldRow>| {
            let current = row.and_then(|row| Some((row.entry?, VersionRow::from_stored(&row.content).ok()?)));
            current.is_some_and(|(entry, row)| row.object().is_some() && row.to_head().row(entry).mark() == mark)
        };
        match self.tables.write_if(&group, write, self.step(context), test).await? {
            Ok(_) => Ok(()),
            Err(refusal) => {
                if refusal.was_sent && bucket.versioning == Versioning::Enabled {
                    self.undo_version(&group, key, id, context).await?;
                }
                Err(ClientError::PreconditionFailed { condition: "version" }.into())
            }
        }
    }
}

fn version_of(group: &Group, slot: Slot, row: Option<&SlotRow<VersionState>>) -> Version {
    let Some((row, content)) = row.and_then(|row| Some((row, row.content.as_ref()?))) else { return Version::Missing };
    match content {
        VersionState::DeleteMarker { modified_ms } => Version::Marker(Marker { slot, modified_ms: *modified_ms }),
        VersionState::Object(meta) => Version::Object(Box::new(FoundObject {
            entry: Entry { stamp: row.stamp, id: row.origin.id },
            meta: (**meta).clone(),
            slot: Some(slot),
            group: group.clone(),
            first: None,
        })),
    }
}

/// The newest version that is live and neither named nor current.
fn newest_live(state: &KeyState, named: &BTreeSet<Slot>) -> Option<(Slot, SlotRow<VersionState>)> {
    let current = state.current_slot();
    let others = state.rows.iter().filter(|(slot, _)| !named.contains(*slot) && current != Some(**slot));
    let rows = others.filter_map(|(slot, merged)| Some((*slot, merged.row.clone()?))).collect();
    live_newest_first(rows).into_iter().next()
}

/// The key without some of its versions: if the current one is among them, the next is current.
fn without(state: &KeyState, gone: &BTreeSet<Slot>, mut effects: Vec<Effect<VersionState>>) -> Head<VersionState> {
    effects.extend(state.unsettled_effects(gone));
    let current = state.current_slot();
    if current.is_some_and(|current| !gone.contains(&current)) {
        return state.head_with(effects);
    }
    state.promoted(gone, effects)
}

fn decide_deletion(
    state: &KeyState,
    targets: &[VersionToDelete],
    governance: Governance,
) -> Result<Change<Vec<DeletedVersion>>, ModelError> {
    let (mut outcomes, mut effects, mut gone) = (Vec::new(), Vec::new(), BTreeSet::new());
    for target in targets {
        let row = state.row(target.slot).filter(|row| row.is_live());
        let object = row.and_then(|row| row.content.as_ref()).and_then(VersionState::object);
        check_target(target, row, object)?;
        if object.is_some_and(|object| is_locked(&object.headers.lock, state.now_ms, governance)) {
            return Err(ClientError::Locked.into());
        }
        outcomes.push(DeletedVersion { was_marker: row.is_some() && object.is_none(), existed: row.is_some() });
        if let Some(row) = row
            && gone.insert(target.slot)
        {
            effects.push(Effect { slot: target.slot, origin: row.origin, content: None });
        }
    }
    // What is deleted already, as far as only some know, is not answered as such before a quorum knows.
    if gone.is_empty() && state.unsettled_effects(&gone).is_empty() {
        return Ok(Change::Nothing(outcomes));
    }
    Ok(Change::Write(without(state, &gone, effects), outcomes))
}

fn check_target(target: &VersionToDelete, row: Option<&SlotRow<VersionState>>, object: Option<&ObjectMeta>) -> Result<(), ClientError> {
    if let Some(mark) = target.mark
        && row.map(SlotRow::mark) != Some(mark)
    {
        return Err(ClientError::PreconditionFailed { condition: "version" });
    }
    let Some(etags) = &target.etags else { return Ok(()) };
    let has = |meta: &ObjectMeta| etags.iter().any(|etag| etag == "*" || *etag == meta.etag);
    if object.is_some_and(has) { Ok(()) } else { Err(ClientError::PreconditionFailed { condition: "If-Match" }) }
}

fn decide_meta(
    state: &KeyState,
    slot: Option<Slot>,
    change: &(impl Fn(&mut ObjectMeta, u64) -> Result<(), ClientError> + Send + Sync),
) -> Result<Change<Slot>, ModelError> {
    let current = state.head.as_ref().map(|(entry, row)| {
        let head = row.to_head();
        (head.slot, head.row(*entry))
    });
    let current = current.filter(|(_, row)| row.is_live());
    let (found, row) = match slot {
        None => current.clone().ok_or(ClientError::NoSuchKey)?,
        Some(slot) => {
            let row = state.row(slot).filter(|row| row.is_live()).cloned();
            (slot, row.ok_or(ClientError::NoSuchVersion)?)
        }
    };
    let mut meta = match row.content {
        Some(VersionState::Object(meta)) => meta,
        _ if slot.is_none() => return Err(ClientError::NoSuchKey.into()),
        _ => return Err(ClientError::IsDeleteMarker.into()),
    };
    let before = meta.clone();
    change(&mut meta, state.now_ms)?;
    // Without a current version, the one that is changed becomes it.
    let is_current = current.is_none_or(|(slot, _)| slot == found);
    if meta == before && (state.current_slot() == Some(found) || state.rows.get(&found).is_some_and(|merged| merged.settled)) {
        return Ok(Change::Nothing(found));
    }
    let content = Some(VersionState::Object(meta));
    let head = if is_current {
        Head { slot: found, origin: Some(row.origin), content, effects: state.unsettled_effects(&BTreeSet::from([found])) }
    } else {
        state.head_with(vec![Effect { slot: found, origin: row.origin, content }])
    };
    Ok(Change::Write(head, found))
}

impl Objects {
    /// The newest row of a key's register, as an object, a delete marker, or nothing.
    pub(super) async fn find_current(&self, group: &Group, key: &str, want: Want, context: RequestContext) -> Result<Version, ModelError> {
        let read = RegisterRead { table: VERSION, key: null_slot(key), want };
        let found = self.tables.read_one(group, read, self.step(context)).await?;
        let Some((row, entry)) = found.row.and_then(|row| Some((row.content, row.entry?))) else { return Ok(Version::Missing) };
        let row = VersionRow::from_stored(&row)?;
        if let Some(modified_ms) = row.marker_ms() {
            return Ok(Version::Marker(Marker { slot: row.slot(), modified_ms }));
        }
        let Some(meta) = row.object().cloned() else { return Ok(Version::Missing) };
        let id = row.origin_as(entry).id;
        let first = found.companions.iter().find(|companion| companion.id == id && companion.chunk == 0);
        let first = first.map(crate::rows::payload::chunk_of).transpose()?;
        let entry = Entry { stamp: entry.stamp, id };
        Ok(Version::Object(Box::new(FoundObject { entry, meta, slot: Some(row.slot()), group: group.clone(), first })))
    }
}
