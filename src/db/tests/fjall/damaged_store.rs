//! The real engine on stores whose journals were torn, zeroed and flipped: every acknowledged commit is there, or the store says that it
//! lost some. Never silently fewer.

use std::path::Path;

use crate::support::{Node, copy_dir, fast_dir, journal, options};
use garage_db::{Mark, OpenError, Reason, StoreId};

const COMMITS: u64 = 40;

/// A killed store with rows `1..=COMMITS`, each committed by itself.
async fn killed_store(dir: &Path) -> StoreId {
    let live = dir.join("live");
    let node = Node::start(options(&live)).await;
    for number in 1..=COMMITS {
        node.put(number, 100).await.unwrap();
    }
    copy_dir(&live, &dir.join("killed"));
    let store_id = node.db.store_id();
    node.stop().await;
    store_id
}

/// Writes the note as it was at an earlier commit.
fn set_note(store: &Path, store_id: StoreId, commit_number: u64) {
    let slot = Mark { store_id, commit_number }.encode();
    let mut file = vec![0; 4096];
    file[..slot.len()].copy_from_slice(&slot);
    file.extend(slot);
    std::fs::write(store.join("commit_note"), file).unwrap();
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Torn,
    Zeroed(usize),
    Flipped(u8),
}

fn harm(bytes: &mut Vec<u8>, offset: usize, harm: Harm) {
    match harm {
        Harm::Torn => bytes.truncate(offset),
        Harm::Zeroed(len_bytes) => {
            let end = (offset + len_bytes).min(bytes.len());
            bytes[offset..end].fill(0);
        }
        Harm::Flipped(bit) => bytes[offset] ^= bit,
    }
}

/// Opens the killed store with one harm done to its journal; the rows found, and whether the store says that it lost some.
async fn open_harmed(dir: &Path, offset: usize, kind: Harm, note: Option<(StoreId, u64)>) -> (Vec<u64>, Option<Reason>) {
    let store = dir.join("store");
    copy_dir(&dir.join("killed"), &store);
    if let Some((store_id, commit_number)) = note {
        set_note(&store, store_id, commit_number);
    }
    let (path, mut bytes) = journal(&store);
    harm(&mut bytes, offset, kind);
    std::fs::write(&path, &bytes).unwrap();

    let node = Node::start(options(&store)).await;
    let outcome = (node.numbers().await, node.db.recovering());
    node.put(1_000, 10).await.unwrap();
    node.stop().await;
    let node = Node::start(options(&store)).await;
    assert!(node.numbers().await.contains(&1_000), "the store is usable: {kind:?} at {offset}");
    node.stop().await;
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name().to_string_lossy().starts_with("store") {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    outcome
}

fn sweep(len_bytes: usize) -> impl Iterator<Item = (usize, Harm)> {
    let pages = (0..len_bytes).step_by(4096).map(|offset| (offset, Harm::Zeroed(4096)));
    let sectors = (0..len_bytes).step_by(1536).map(|offset| (offset, Harm::Zeroed(512)));
    let torn = (0..len_bytes).step_by(1499).map(|offset| (offset, Harm::Torn));
    let flips = (0..len_bytes).step_by(499).enumerate().map(|(index, offset)| (offset, Harm::Flipped(1 << (index % 8))));
    pages.chain(sectors).chain(torn).chain(flips)
}

#[tokio::test]
async fn a_harmed_journal_never_silently_loses_an_acknowledged_commit() {
    let dir = fast_dir();
    killed_store(dir.path()).await;
    let len_bytes = journal(&dir.path().join("killed")).1.len();
    let all: Vec<u64> = (1..=COMMITS).collect();
    let mut reported_count = 0;
    for (offset, kind) in sweep(len_bytes) {
        let (numbers, recovering) = open_harmed(dir.path(), offset, kind, None).await;
        assert!(recovering.is_some() || numbers == all, "{kind:?} at {offset}: {} rows", numbers.len());
        reported_count += usize::from(recovering.is_some());
    }
    assert!(reported_count > 20, "the harm reaches the store: {reported_count}");
}

#[tokio::test]
async fn with_a_note_of_some_time_ago_only_the_last_commit_can_be_taken_for_unfinished() {
    let dir = fast_dir();
    let store_id = killed_store(dir.path()).await;
    let len_bytes = journal(&dir.path().join("killed")).1.len();
    let all: Vec<u64> = (1..COMMITS).collect();
    let harms = sweep(len_bytes).filter(|(_, kind)| !matches!(kind, Harm::Torn));
    for (offset, kind) in harms.step_by(2) {
        // A page at the very end is what an unsynced write may lose; one that reaches further back is rot.
        let reaches_end = matches!(kind, Harm::Zeroed(len) if len_bytes <= offset + len);
        let (numbers, recovering) = open_harmed(dir.path(), offset, kind, Some((store_id, 5))).await;
        assert!(recovering.is_some() || reaches_end || numbers.starts_with(&all), "{kind:?} at {offset}: {} rows", numbers.len());
    }
}

#[tokio::test]
async fn an_unacknowledged_last_commit_that_was_torn_is_cut_off_and_the_store_goes_on() {
    let dir = fast_dir();
    let store_id = killed_store(dir.path()).await;
    let (_, bytes) = journal(&dir.path().join("killed"));
    let acknowledged: Vec<u64> = (1..COMMITS).collect();
    // The store's first commit is its id, so row n is commit n + 1: the last acknowledged one is COMMITS.
    for cut_bytes in [1, 2, 5, 13, 14, 60, 150, 200, 300] {
        let offset = bytes.len() - cut_bytes;
        for kind in [Harm::Torn, Harm::Zeroed(4096), Harm::Flipped(4)] {
            let (numbers, recovering) = open_harmed(dir.path(), offset, kind, Some((store_id, COMMITS))).await;
            assert_eq!(recovering, None, "{kind:?}, {cut_bytes} bytes from the end");
            assert_eq!(numbers, acknowledged, "{kind:?}, {cut_bytes} bytes from the end");
        }
    }
}

#[tokio::test]
async fn a_store_of_several_journals_comes_back_whole() {
    let dir = fast_dir();
    let store = dir.path().join("store");
    let mut written = 0;
    let mut journals_count = 0;
    // Each life ends without flushing, so the next one reads journals that the one before sealed.
    while journals_count < 2 {
        let node = Node::start(options(&store)).await;
        assert_eq!((node.numbers().await.len() as u64, node.db.recovering()), (written, None));
        for _ in 0..60 {
            written += 1;
            node.put(written, 400 << 10).await.unwrap();
        }
        node.stop().await;
        journals_count =
            std::fs::read_dir(&store).unwrap().filter(|entry| journal_number(&entry.as_ref().unwrap().path()).is_some()).count();
        assert!(written < 1_000, "fjall begins a new journal after 64 MB");
    }
    let node = Node::start(options(&store)).await;
    assert_eq!((node.numbers().await.len() as u64, node.db.recovering()), (written, None));
    node.stop().await;
}

fn journal_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".jnl")?.parse().ok()
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_moved_aside_whole() {
    let dir = fast_dir();
    let first_id = killed_store(dir.path()).await;
    let store = dir.path().join("store");
    copy_dir(&dir.path().join("killed"), &store);
    std::fs::write(store.join("version"), "nonsense").unwrap();
    let node = Node::start(options(&store)).await;
    assert!(matches!(node.db.recovering(), Some(Reason::Unreadable { .. })));
    assert_ne!(node.db.store_id(), first_id);
    let aside = dir.path().join("store.damaged-1");
    assert_eq!(journal(&aside).1, journal(&dir.path().join("killed")).1, "nothing of it was deleted");
    node.stop().await;
}

#[tokio::test]
async fn a_store_in_use_by_another_process_is_left_alone() {
    let dir = fast_dir();
    let store = dir.path().join("store");
    let node = Node::start(options(&store)).await;
    let refused = Node::try_start(options(&store)).await.err();
    assert!(matches!(refused, Some(OpenError::Engine(garage_db::EngineError::Locked { .. }))), "{refused:?}");
    node.put(1, 10).await.unwrap();
    assert!(!dir.path().join("store.damaged-1").exists());
    node.stop().await;
}
