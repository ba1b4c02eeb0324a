//! The data directories of a node: which there are, whether each is what it was, and which one takes a block.
//!
//! Every directory carries a marker file with a random id. The markers seen are kept in `data_layout` in the metadata directory: a
//! directory that lost its marker, or shows another, is a disk that is not mounted or was exchanged, and the node does not start on it.
//!
//! A block goes to the directory that wins a lottery over the block's hash, weighted by capacity (rendezvous hashing): adding or growing
//! a directory moves only the blocks it wins. Reads look into the winner first and then into all others, so nothing has to move at once.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use garage_util::{
    disk::Disk,
    encoding::{DecodeError, Stored},
};
use serde::{Deserialize, Serialize};

use super::paths::{MARKER_FILE, TEMPORARY_DIR, is_temporary};
use crate::hash::BlockHash;

garage_util::id32!(
    /// The random id in a data directory's marker file.
    MarkerId
);

/// A data directory as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDirOptions {
    /// Where it is.
    pub path: PathBuf,
    /// What it is for.
    pub usage: DirUsage,
    /// Left free for others on its file system, beyond what every directory leaves free, in bytes.
    pub reserve_bytes: u64,
}

/// What a data directory is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirUsage {
    /// Takes new blocks, in proportion to its capacity among the others.
    Writable {
        /// Bytes, above 0; only the proportions count.
        capacity_bytes: u64,
    },
    /// An old place: read, never written.
    ReadOnly,
}

/// Why the data directories cannot be used; all are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Nothing to write to.
    #[error("data_dir: no entry is writable; give at least one of them a capacity above 0")]
    NothingWritable,
    /// A capacity of zero.
    #[error("data_dir: {} has capacity 0; give it a size, or read_only = true to drain it", .path.display())]
    NoCapacity {
        /// The directory.
        path: PathBuf,
    },
    /// One directory configured twice, or two with one marker.
    #[error("data_dir: {} and {} are the same directory; leave one out", .first.display(), .second.display())]
    Same {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A read-only directory that is not there.
    #[error("data_dir: {} is read_only and does not exist; mount it, or remove the entry", .path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// A known directory without the marker it had.
    #[error("data_dir: {} has no {MARKER_FILE} file although it had one; is its disk mounted? If it was emptied or replaced on purpose, delete {}", .path.display(), .layout_file.display())]
    MarkerMissing {
        /// The directory.
        path: PathBuf,
        /// Where markers are remembered.
        layout_file: PathBuf,
    },
    /// A known directory with another marker.
    #[error("data_dir: the {MARKER_FILE} file in {} is not the one it had; is another disk mounted there? If it was moved on purpose, delete {}", .path.display(), .layout_file.display())]
    MarkerDiffers {
        /// The directory.
        path: PathBuf,
        /// Where markers are remembered.
        layout_file: PathBuf,
    },
    /// A marker that is no id.
    #[error("{} does not hold 64 hexadecimal digits; restore it from the data directory's backup, or delete it together with the data_layout file", .path.display())]
    MarkerDamaged {
        /// The marker file.
        path: PathBuf,
    },
    /// The memory of markers cannot be read.
    #[error("{}: {reason}; if all data disks are mounted, delete it and start again", .path.display())]
    LayoutDamaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: DecodeError,
    },
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] garage_util::runtime::Interrupted),
}

/// A data directory in use.
#[derive(Clone, Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Left free for others on its file system, in bytes.
    pub(super) reserve_bytes: u64,
    /// Its weight among the others; 0 takes no new blocks.
    weight: u64,
    /// What it is in the lottery; a read-only directory without marker takes no part.
    marker: MarkerId,
    /// It had no marker before this start: it was added, or its disk was replaced.
    is_new: bool,
}

impl DataDir {
    /// Whether it was made at this start.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
    /// Whether it takes new blocks.
    pub fn is_writable(&self) -> bool {
        0 < self.weight
    }
}

/// All data directories of a node, in the order of the config.
#[derive(Clone, Debug)]
pub struct DataDirs(Vec<DataDir>);

/// The markers seen, by directory.
#[derive(Serialize, Deserialize, Default, PartialEq)]
struct KnownMarkers {
    markers: BTreeMap<PathBuf, MarkerId>,
}

impl Stored for KnownMarkers {
    const WHAT: &'static str = "data directory list";
}

const MARKER_LEN_MAX_BYTES: u64 = 1024;
const LAYOUT_LEN_MAX_BYTES: u64 = 16 * 1024 * 1024;

impl DataDirs {
    /// Checks the directories and their markers, makes what is new, and removes what a crash left half written. Blocks.
    pub fn open(
        disk: &dyn Disk,
        options: &[DataDirOptions],
        layout_file: &Path,
        mut fresh: impl FnMut() -> MarkerId,
    ) -> Result<DataDirs, OpenStoreError> {
        check_options(options)?;
        let known = load_known(disk, layout_file)?;
        let mut seen = KnownMarkers::default();
        let mut dirs = Vec::with_capacity(options.len());
        for option in options {
            let mut is_new = false;
            let made = || {
                is_new = true;
                fresh()
            };
            let marker = open_dir(disk, option, known.markers.get(&option.path), layout_file, made)?;
            if let Some(marker) = marker
                && let Some((first, _)) = seen.markers.iter().find(|(_, other)| **other == marker)
            {
                return Err(OpenStoreError::Same { first: first.clone(), second: option.path.clone() });
            }
            seen.markers.extend(marker.map(|marker| (option.path.clone(), marker)));
            let weight = if let DirUsage::Writable { capacity_bytes } = option.usage { capacity_bytes } else { 0 };
            let marker = marker.unwrap_or_default();
            dirs.push(DataDir { path: option.path.clone(), reserve_bytes: option.reserve_bytes, weight, marker, is_new });
        }
        if seen != known {
            save_known(disk, layout_file, &seen)?;
        }
        Ok(DataDirs(dirs))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &DataDir> {
        self.0.iter()
    }

    /// The directories that may take the block, best first; the later ones are for when the earlier are full.
    pub fn write_order(&self, hash: BlockHash) -> Vec<&DataDir> {
        let mut dirs: Vec<&DataDir> = self.0.iter().filter(|dir| dir.is_writable()).collect();
        if 1 < dirs.len() {
            dirs.sort_by(|a, b| lottery(a, hash).total_cmp(&lottery(b, hash)).then(a.marker.cmp(&b.marker)));
        }
        dirs
    }

    /// All directories, in the order in which a block is most likely to be found.
    pub fn read_order(&self, hash: BlockHash) -> Vec<&DataDir> {
        let mut dirs = self.write_order(hash);
        dirs.extend(self.0.iter().filter(|dir| !dir.is_writable()));
        dirs
    }
}

/// The directory's draw for a block, exponentially distributed with its weight as the rate: the smallest wins, with probability in
/// proportion to weight.
fn lottery(dir: &DataDir, hash: BlockHash) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&dir.marker.0).update(&hash.0);
    let mut draw = [0; 8];
    draw.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // 53 bits, which a float holds exactly, moved off zero.
    let uniform = ((u64::from_le_bytes(draw) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln() / dir.weight as f64
}

fn check_options(options: &[DataDirOptions]) -> Result<(), OpenStoreError> {
    if !options.iter().any(|option| matches!(option.usage, DirUsage::Writable { .. })) {
        return Err(OpenStoreError::NothingWritable);
    }
    for (index, option) in options.iter().enumerate() {
        if option.usage == (DirUsage::Writable { capacity_bytes: 0 }) {
            return Err(OpenStoreError::NoCapacity { path: option.path.clone() });
        }
        if options[..index].iter().any(|earlier| earlier.path == option.path) {
            return Err(OpenStoreError::Same { first: option.path.clone(), second: option.path.clone() });
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenStoreError {
    let path = path.to_owned();
    move |source| OpenStoreError::Io { path, source }
}

fn load_known(disk: &dyn Disk, layout_file: &Path) -> Result<KnownMarkers, OpenStoreError> {
    match disk.read(layout_file, LAYOUT_LEN_MAX_BYTES) {
        Ok(bytes) => {
            KnownMarkers::from_stored(&bytes).map_err(|reason| OpenStoreError::LayoutDamaged { path: layout_file.to_owned(), reason })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(KnownMarkers::default()),
        Err(error) => Err(at(layout_file)(error)),
    }
}

fn save_known(disk: &dyn Disk, layout_file: &Path, known: &KnownMarkers) -> Result<(), OpenStoreError> {
    write_durably(disk, layout_file, &known.to_stored()).map_err(at(layout_file))
}

/// The directory's marker; `None` for a read-only one that never had any.
fn open_dir(
    disk: &dyn Disk,
    option: &DataDirOptions,
    known: Option<&MarkerId>,
    layout_file: &Path,
    fresh: impl FnOnce() -> MarkerId,
) -> Result<Option<MarkerId>, OpenStoreError> {
    let (path, layout_file) = (option.path.clone(), layout_file.to_owned());
    let found = read_marker(disk, &path.join(MARKER_FILE))?;
    match (known, found) {
        (Some(_), None) => return Err(OpenStoreError::MarkerMissing { path, layout_file }),
        (Some(known), Some(found)) if *known != found => return Err(OpenStoreError::MarkerDiffers { path, layout_file }),
        _ => {}
    }
    if option.usage == DirUsage::ReadOnly {
        disk.list(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenStoreError::Absent { path: path.clone() },
            _ => at(&path)(error),
        })?;
        return Ok(found);
    }
    prepare_writable(disk, &path).map_err(at(&path))?;
    if let Some(found) = found {
        return Ok(Some(found));
    }
    let marker = fresh();
    write_durably(disk, &path.join(MARKER_FILE), marker.to_string().as_bytes()).map_err(at(&path))?;
    Ok(Some(marker))
}

fn read_marker(disk: &dyn Disk, file: &Path) -> Result<Option<MarkerId>, OpenStoreError> {
    match disk.read(file, MARKER_LEN_MAX_BYTES) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            text.trim().parse().map(Some).map_err(|_| OpenStoreError::MarkerDamaged { path: file.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(file)(error)),
    }
}

/// Makes the directory and its place for temporary files, and empties that of ours.
fn prepare_writable(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let temporary_dir = path.join(TEMPORARY_DIR);
    disk.create_dir_all(&temporary_dir)?;
    for leftover in disk.list(&temporary_dir)?.into_iter().filter(|file| is_temporary(file)) {
        disk.remove(&leftover)?;
    }
    Ok(())
}

fn write_durably(disk: &dyn Disk, file: &Path, content: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.write_new(&temporary, content, true)?;
    disk.rename(&temporary, file)?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests;
