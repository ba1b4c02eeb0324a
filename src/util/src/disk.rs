//! The part of a file system that the block store needs, behind a trait so that the simulation can lose, tear and rot files.
//!
//! All calls block: run them in `Lane::File`. Paths are absolute or relative to the working directory.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Space on the file system that holds a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged writer may still use.
    pub available_bytes: u64,
    /// The whole file system.
    pub total_bytes: u64,
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Writes a new file and, if `synced`, forces its content to stable storage. The directory entry is not yet durable.
    fn write_new(&self, path: &Path, content: &[u8], synced: bool) -> io::Result<()>;
    /// Renames over whatever is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Forces a directory's entries to stable storage.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The whole content.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The file's length in bytes; `None` if there is none.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Makes a directory and its parents, durable.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The paths in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Space left where `path` is.
    fn space(&self, path: &Path) -> io::Result<Space>;
}
