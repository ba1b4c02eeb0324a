//! Checks fjall's journals before fjall reads them, because fjall drops what follows a damaged place without saying so.
//!
//! A journal is a row of batches; a synced one was synced before the next was begun. So after a power cut only the last synced batch can
//! be incomplete: it is cut off, nobody was told that it was stored. If whole synced batches follow a damaged place, acknowledged commits
//! are damaged. Batches that were only buffered may be lost in any pattern; they are cut off from the first damaged one on.
//!
//! Format (fjall 3): start = 1, item count u32, sequence number u64; item = 2, value type u8, compression u8, keyspace u64, key length u16,
//! value length u32, stored length u32, key, value; end = 3, XXH3 of the items u64, trailer. Little-endian. The start is outside the
//! checksum, hence the sequence number is checked against the floor that each of our batches carries.

use xxhash_rust::xxh3::Xxh3;

use crate::engine::{COMMIT_NUMBER_KEY, Durability};

/// The key, beside the commit number, under which each batch carries its [`Check`].
pub(crate) const CHECK_KEY: &[u8] = b"journal_check";

/// Sequence numbers that flushes may take between making a batch and writing it.
const SEQUENCE_SLACK: u64 = 1 << 20;
const PAGE: [u8; 4096] = [0; 4096];
const TRAILER: &[u8] = b"FJL\x03";
const ITEM_HEADER_BYTES: usize = 21;

/// What a batch says of itself, inside its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// The batch's sequence number is at least this, and little more.
    pub(crate) sequence_floor: u64,
    /// Belongs to this store; a value that holds a copy of another store's journal is not mistaken for a batch of this one.
    pub(crate) salt: u64,
    /// Whether the batch was synced before it was acknowledged.
    pub(crate) durability: Durability,
}

const CHECK_BYTES: usize = 17;

impl Check {
    pub(crate) fn encode(self) -> [u8; CHECK_BYTES] {
        let mut bytes = [0; CHECK_BYTES];
        bytes[..8].copy_from_slice(&self.sequence_floor.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.salt.to_be_bytes());
        bytes[16] = u8::from(self.durability == Durability::Synced);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Check> {
        let bytes: &[u8; CHECK_BYTES] = bytes.try_into().ok()?;
        Some(Check {
            sequence_floor: u64::from_be_bytes(bytes[..8].try_into().ok()?),
            salt: u64::from_be_bytes(bytes[8..16].try_into().ok()?),
            durability: if bytes[16] == 0 { Durability::Buffered } else { Durability::Synced },
        })
    }
}

/// What follows the last good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing, or space reserved for later.
    Clean,
    /// The remains of one batch, or batches beyond the wanted commit.
    Tail,
    /// Whole synced batches behind a damaged place.
    Damaged,
}

/// What a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where the last good batch ends.
    pub(crate) good_bytes: usize,
    /// The commit of the last good batch.
    pub(crate) last_commit: Option<u64>,
    /// What follows.
    pub(crate) ending: Ending,
}

/// What is known before a journal is scanned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// The commit before the journal's first batch, if another journal holds it.
    pub(crate) commit_before: Option<u64>,
    /// The salt of this store's batches, if known.
    pub(crate) salt: Option<u64>,
    /// The last commit to keep: later ones were answered as failed.
    pub(crate) keep_up_to: Option<u64>,
}

/// Reads batches from the start of `journal` as far as they are good.
pub(crate) fn scan(journal: &[u8], expected: Expected) -> Scan {
    let mut scan = Scan { good_bytes: 0, last_commit: expected.commit_before, ending: Ending::Clean };
    let mut sequence_before = None;
    while let Some(batch) = parse_batch(&journal[scan.good_bytes..]) {
        let follows =
            scan.last_commit.is_none_or(|last| batch.commit == last + 1) && sequence_before.is_none_or(|last| last < batch.sequence);
        if !follows {
            break;
        }
        if expected.keep_up_to.is_some_and(|last| last < batch.commit) {
            scan.ending = Ending::Tail;
            return scan;
        }
        scan.good_bytes += batch.len_bytes;
        (scan.last_commit, sequence_before) = (Some(batch.commit), Some(batch.sequence));
    }
    scan.ending = ending(&journal[scan.good_bytes..], scan.last_commit, expected.salt);
    scan
}

fn ending(rest: &[u8], last_commit: Option<u64>, salt: Option<u64>) -> Ending {
    // Page by page: most of it is space reserved for later.
    let Some(page) = rest.chunks(PAGE.len()).position(|chunk| chunk != &PAGE[..chunk.len()]) else { return Ending::Clean };
    let first = page * PAGE.len();
    let ours = |batch: &Batch| salt.is_none_or(|salt| batch.check.salt == salt) && last_commit.is_none_or(|last| last < batch.commit);
    // The torn batch itself may be whole but for its start, so a batch counts only from the one after it on: a later start, and a commit
    // beyond the next.
    let next = last_commit.map_or(0, |last| last + 1);
    let starts = (first..rest.len()).filter(|&position| rest[position] == 1);
    let mut batches = starts.filter_map(|position| parse_items(&rest[position..])).filter(ours);
    let follows = |batch: Batch| batch.check.durability == Durability::Synced && (next < batch.commit || batch.well_placed);
    if batches.any(follows) { Ending::Damaged } else { Ending::Tail }
}

struct Batch {
    len_bytes: usize,
    sequence: u64,
    commit: u64,
    check: Check,
    /// Whether the sequence number is what the check says.
    well_placed: bool,
}

fn parse_batch(bytes: &[u8]) -> Option<Batch> {
    parse_items(bytes).filter(|batch| batch.well_placed)
}

/// A batch whose items agree with their checksum.
fn parse_items(bytes: &[u8]) -> Option<Batch> {
    let mut reader = Reader { bytes, position: 0 };
    if reader.take(1)? != [1] {
        return None;
    }
    let items_count = u32::from_le_bytes(reader.array()?);
    let sequence = u64::from_le_bytes(reader.array()?);
    let items_from = reader.position;
    let (mut commit, mut check) = (None, None);
    for _ in 0..items_count {
        let (key, value) = reader.item()?;
        match key {
            COMMIT_NUMBER_KEY => commit = Some(u64::from_be_bytes(value.try_into().ok()?)),
            CHECK_KEY => check = Check::decode(value),
            _ => {}
        }
    }
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[items_from..reader.position]);
    if reader.take(1)? != [3] || u64::from_le_bytes(reader.array()?) != hasher.digest() || reader.take(TRAILER.len())? != TRAILER {
        return None;
    }
    let check = check?;
    let well_placed = check.sequence_floor <= sequence && sequence - check.sequence_floor <= SEQUENCE_SLACK;
    Some(Batch { len_bytes: reader.position, sequence, commit: commit?, check, well_placed })
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len_bytes: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(len_bytes)?;
        let taken = self.bytes.get(self.position..end)?;
        self.position = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Key and value of an item as stored.
    fn item(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        if self.take(1)? != [2] {
            return None;
        }
        let header = self.take(ITEM_HEADER_BYTES - 1)?;
        let key_bytes = u16::from_le_bytes(header[10..12].try_into().ok()?);
        let stored_bytes = u32::from_le_bytes(header[16..20].try_into().ok()?);
        Some((self.take(usize::from(key_bytes))?, self.take(stored_bytes as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::{CHECK_KEY, Check, Ending, Expected, Scan, TRAILER, scan};
    use crate::engine::{COMMIT_NUMBER_KEY, Durability};

    const SALT: u64 = 77;

    fn item(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0];
        bytes.extend(9u64.to_le_bytes());
        bytes.extend((key.len() as u16).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend(key);
        bytes.extend(value);
        bytes
    }

    fn batch(commit: u64, value: &[u8]) -> Vec<u8> {
        batch_with(commit, value, Durability::Synced)
    }

    fn batch_with(commit: u64, value: &[u8], durability: Durability) -> Vec<u8> {
        let sequence = commit * 3;
        let check = Check { sequence_floor: sequence - 1, salt: SALT, durability };
        let items = [item(b"row", value), item(COMMIT_NUMBER_KEY, &commit.to_be_bytes()), item(CHECK_KEY, &check.encode())].concat();
        let mut bytes = vec![1];
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(&items);
        bytes.push(3);
        bytes.extend(xxh3_64(&items).to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    fn journal(commits: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        commits.flat_map(|commit| batch(commit, b"value")).collect()
    }

    fn expected() -> Expected {
        Expected { salt: Some(SALT), ..Expected::default() }
    }

    #[test]
    fn a_whole_journal_is_clean_with_and_without_reserved_space() {
        let mut bytes = journal(1..=9);
        let good_bytes = bytes.len();
        let whole = Scan { good_bytes, last_commit: Some(9), ending: Ending::Clean };
        assert_eq!(scan(&bytes, expected()), whole);
        bytes.extend(vec![0; 5000]);
        assert_eq!(scan(&bytes, expected()), whole);
    }

    #[test]
    fn an_incomplete_last_batch_is_a_tail_wherever_it_is_torn_or_zeroed() {
        let good = journal(1..=3);
        let last = batch(4, b"value");
        for position in 1..last.len() {
            let torn = [good.as_slice(), &last[..position], &[0; 64]].concat();
            assert_eq!(
                scan(&torn, expected()),
                Scan { good_bytes: good.len(), last_commit: Some(3), ending: Ending::Tail },
                "torn at {position}"
            );
            let zeroed = [good.as_slice(), &vec![0; position], &last[position..]].concat();
            assert_eq!(scan(&zeroed, expected()).good_bytes, good.len(), "zeroed up to {position}");
            assert_ne!(scan(&zeroed, expected()).ending, Ending::Damaged, "zeroed up to {position}");
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_batch_is_damage() {
        let whole = journal(1..=4);
        let last_bytes = batch(4, b"value").len();
        for position in 0..whole.len() - last_bytes {
            for bit in [0x01, 0x40] {
                let mut bytes = whole.clone();
                bytes[position] ^= bit;
                let scan = scan(&bytes, expected());
                // A flip in a sequence number may leave it well placed: then nothing is lost.
                let unharmed = scan.ending == Ending::Clean && scan.last_commit == Some(4);
                assert!(scan.ending == Ending::Damaged || unharmed, "position {position}: {scan:?}");
            }
        }
    }

    #[test]
    fn a_value_that_looks_like_a_batch_of_another_store_is_not_taken_for_one() {
        let good = journal(1..=3);
        let mut foreign = batch(9, b"value");
        // Another salt: the checksum is made anew, as it would be in another store.
        let salt_at = foreign.len() - 13 - 9;
        foreign[salt_at..salt_at + 8].copy_from_slice(&1u64.to_be_bytes());
        let (items, end) = (13, foreign.len() - 13);
        let checksum = xxh3_64(&foreign[items..end]);
        foreign[end + 1..end + 9].copy_from_slice(&checksum.to_le_bytes());
        let last = batch(4, &foreign);
        let torn = [good.as_slice(), &last[..last.len() - 5]].concat();
        assert_eq!(scan(&torn, expected()).ending, Ending::Tail);
        assert_eq!(scan(&torn, Expected::default()).ending, Ending::Damaged, "without a salt it would be");
    }

    #[test]
    fn buffered_batches_behind_a_damaged_one_are_a_tail() {
        let good = journal(1..=3);
        let mut hole = batch_with(4, b"value", Durability::Buffered);
        hole.fill(0);
        let behind = |durability| scan(&[good.as_slice(), &hole, &batch_with(5, b"value", durability)].concat(), expected()).ending;
        assert_eq!(behind(Durability::Buffered), Ending::Tail);
        assert_eq!(behind(Durability::Synced), Ending::Damaged);
    }

    #[test]
    fn commits_beyond_the_wanted_one_are_a_tail_and_a_gap_between_journals_is_damage() {
        let bytes = journal(5..=9);
        let kept = scan(&bytes, Expected { keep_up_to: Some(7), ..expected() });
        assert_eq!(kept, Scan { good_bytes: journal(5..=7).len(), last_commit: Some(7), ending: Ending::Tail });
        assert_eq!(scan(&bytes, Expected { commit_before: Some(4), ..expected() }).ending, Ending::Clean);
        assert_eq!(scan(&bytes, Expected { commit_before: Some(3), ..expected() }).ending, Ending::Damaged);
    }
}
