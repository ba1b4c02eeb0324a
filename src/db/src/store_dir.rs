//! The directory of a fjall store: checking its journals before fjall opens it, the note in it, moving it aside.
//!
//! The note lies inside the directory, so that a store and its note are moved together by one rename.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    engine::{Durability, EngineError},
    journal::{Ending, Expected, scan},
    mark::{Mark, SLOT_BYTES, SLOT_DISTANCE_BYTES},
};

const NOTE_FILE: &str = "commit_note";
const VERSION_FILE: &str = "version";

/// Maps an I/O error to one that says what was attempted on which path.
fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    move |error| EngineError::io(format!("{doing} {}", path.display()), &error)
}

/// Makes sure that fjall finds either a store whose journals are good to their end, or none.
///
/// Returns the last commit found in the journals. Cuts off an incomplete last batch, and with `keep_up_to` every batch after that commit.
/// Errors: `Damaged` when acknowledged commits in the journals cannot be read.
pub(crate) fn prepare(dir: &Path, salt: Option<u64>, keep_up_to: Option<u64>) -> Result<Option<u64>, EngineError> {
    std::fs::create_dir_all(dir).map_err(at("creating", dir))?;
    if !exists(&dir.join(VERSION_FILE))? && !exists(&dir.join(NOTE_FILE))? && !is_empty(dir)? {
        // A crash while the store was first made: nothing was ever acknowledged, but only a person may delete what lies there.
        let aside = move_aside(dir)?;
        tracing::warn!("{}: an unfinished metadata store was moved to {}", dir.display(), aside.display());
        std::fs::create_dir_all(dir).map_err(at("creating", dir))?;
    }
    let journals = journals(dir)?;
    let mut last_commit = None;
    for (index, path) in journals.iter().enumerate() {
        let expected = Expected { commit_before: last_commit, salt, keep_up_to };
        last_commit = check_journal(path, expected, &journals[index + 1..])?;
    }
    Ok(last_commit)
}

/// Checks one journal, and cuts its end off if that is unfinished and no `later` journal goes on from there.
fn check_journal(path: &Path, expected: Expected, later: &[PathBuf]) -> Result<Option<u64>, EngineError> {
    let bytes = std::fs::read(path).map_err(at("reading", path))?;
    let scan = scan(&bytes, expected);
    match scan.ending {
        Ending::Clean => {}
        Ending::Tail if are_blank(later)? => {
            tracing::warn!(
                "{}: cutting off an unfinished commit at byte {}, after commit {:?}",
                path.display(),
                scan.good_bytes,
                scan.last_commit
            );
            cut(path, scan.good_bytes as u64).map_err(at("cutting the end off", path))?;
        }
        Ending::Tail | Ending::Damaged => {
            let what = format!("{}: unreadable at byte {}, after commit {:?}", path.display(), scan.good_bytes, scan.last_commit);
            return Err(EngineError::Damaged { what });
        }
    }
    Ok(scan.last_commit)
}

/// Whether journals hold nothing but reserved space: fjall may begin a new one behind a batch that failed.
fn are_blank(journals: &[PathBuf]) -> Result<bool, EngineError> {
    for path in journals {
        if std::fs::read(path).map_err(at("reading", path))?.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn cut(path: &Path, len_bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len_bytes)?;
    file.sync_all()
}

/// The journals, oldest first.
fn journals(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("listing", dir))? {
        let path = entry.map_err(at("listing", dir))?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        let what = || format!("{}: a journal's name is a number", path.display());
        journals.push((number.ok_or_else(|| EngineError::Damaged { what: what() })?, path));
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

fn exists(path: &Path) -> Result<bool, EngineError> {
    path.try_exists().map_err(at("looking for", path))
}

fn is_empty(dir: &Path) -> Result<bool, EngineError> {
    Ok(std::fs::read_dir(dir).map_err(at("listing", dir))?.next().is_none())
}

/// Renames the directory to `<dir>.damaged-<n>` with the first free `n`, durably.
pub(crate) fn move_aside(dir: &Path) -> Result<PathBuf, EngineError> {
    let mut number = 1;
    let aside = loop {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let candidate = PathBuf::from(name);
        if !exists(&candidate)? {
            break candidate;
        }
        number += 1;
    };
    std::fs::rename(dir, &aside).map_err(at("moving aside", dir))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(at("syncing", parent))?;
    Ok(aside)
}

/// The newest mark in the note of the store at `dir`; `None` if there is no note or no slot of it is whole.
pub(crate) fn read_note(dir: &Path) -> Result<Option<Mark>, EngineError> {
    let path = dir.join(NOTE_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Mark::newest_in(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("reading", &path)(error)),
    }
}

/// Whether the slot to write next is the second one.
fn first_slot_is_newest(path: &Path) -> Result<bool, EngineError> {
    let bytes = std::fs::read(path).map_err(at("reading", path))?;
    let newest = Mark::newest_in(&bytes);
    Ok(newest.is_some() && Mark::decode(&bytes) == newest)
}

/// The note of an open store, written in place: its two slots are on disk from the start, so a full disk does not stop it.
pub(crate) struct Note {
    file: File,
    path: PathBuf,
    second_slot: bool,
}

impl Note {
    /// Opens the note of the store at `dir`, or makes one with `mark` in both slots.
    pub(crate) fn open(dir: &Path, mark: &Mark) -> Result<Note, EngineError> {
        let path = dir.join(NOTE_FILE);
        let is_new = read_note(dir)?.is_none();
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at("opening", &path))?;
        let second_slot = first_slot_is_newest(&path)?;
        let mut note = Note { file, path, second_slot };
        if is_new {
            note.write(mark, Durability::Buffered)?;
            note.write(mark, Durability::Synced)?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("syncing", dir))?;
        }
        Ok(note)
    }

    /// Writes the slot that is not the newest.
    pub(crate) fn write(&mut self, mark: &Mark, durability: Durability) -> Result<(), EngineError> {
        let offset_bytes = if self.second_slot { SLOT_DISTANCE_BYTES as u64 } else { 0 };
        let slot: [u8; SLOT_BYTES] = mark.encode();
        self.file.write_all_at(&slot, offset_bytes).map_err(at("writing", &self.path))?;
        self.second_slot = !self.second_slot;
        if durability == Durability::Synced {
            self.file.sync_data().map_err(at("syncing", &self.path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{move_aside, prepare};
    use crate::{
        engine::{Change, Durability, Engine, EngineError, Keyspace, KeyspaceSpec, WriteBatch},
        fjall_engine::{FjallEngine, FjallOptions},
    };

    fn engine(dir: &std::path::Path) -> FjallEngine {
        let specs = [KeyspaceSpec { name: "rows", large_values: false }];
        let engine = FjallEngine::new(FjallOptions { min_free_bytes: 0, ..FjallOptions::new(dir, &specs) });
        engine.open().unwrap();
        engine
    }

    fn put(engine: &FjallEngine, commit_number: u64) -> Result<(), EngineError> {
        let change = Change { keyspace: Keyspace(0), key: commit_number.to_be_bytes().to_vec().into(), value: Some("value".into()) };
        engine.write(&WriteBatch { commit_number, changes: vec![change] }, Durability::Synced)
    }

    #[test]
    fn a_batch_that_reached_the_journal_but_was_answered_as_failed_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let writer = engine(dir.path());
        (1..=3).for_each(|commit_number| put(&writer, commit_number).unwrap());
        drop(writer);
        assert_eq!(prepare(dir.path(), None, Some(2)).unwrap(), Some(2));
        let reopened = engine(dir.path());
        assert_eq!(reopened.commit_number().unwrap(), 2);
        assert_eq!(reopened.snapshot().unwrap().get(Keyspace(0), &3u64.to_be_bytes()).unwrap(), None);
        put(&reopened, 3).unwrap();
    }

    #[test]
    fn stores_moved_aside_never_replace_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        for number in 1..=3 {
            std::fs::create_dir(&store).unwrap();
            assert_eq!(move_aside(&store).unwrap(), dir.path().join(format!("store.damaged-{number}")));
        }
    }

    #[test]
    fn a_store_whose_making_was_interrupted_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        std::fs::write(store.join("0.jnl"), []).unwrap();
        put(&engine(&store), 1).unwrap();
        assert!(dir.path().join("store.damaged-1").join("0.jnl").exists());
    }
}
