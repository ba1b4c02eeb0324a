//! Control files in the metadata directory: small, replaced as a whole, durable when the save returns.
//!
//! Invariant: after a crash at any moment a file holds either its old or its new content. Not here: what is in them.

use std::{io, path::PathBuf, sync::Arc};

use garage_util::{
    disk::Disk,
    encoding::{DecodeError, Stored},
    runtime::{Interrupted, Lane, Runtime},
};

/// Length of a control file at most; a layout of 4,096 nodes stays far below.
pub const STATE_FILE_BYTES_MAX: u64 = 64 << 20;

/// A control file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("{path}: {error}; check that the metadata directory is writable and has space")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Its content is damaged or of a newer release.
    #[error("{path}: {error}; restore the file from a backup, or move it away to start without it")]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The node is stopping.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// The control files of one node. Cheap to clone.
#[derive(Clone)]
pub struct StateFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    runtime: Runtime,
}

impl StateFiles {
    /// The files in `dir`, which exists.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, runtime: Runtime) -> StateFiles {
        StateFiles { disk, dir, runtime }
    }

    /// The value in the file `name`; `None` if there is no such file.
    pub async fn load<T: Stored + Send + 'static>(&self, name: &'static str) -> Result<Option<T>, StateError> {
        let (disk, path) = (self.disk.clone(), self.dir.join(name));
        self.runtime
            .blocking(Lane::File, move || {
                let failed = |error| StateError::Io { path: path.clone(), error };
                if disk.len(&path).map_err(failed)?.is_none() {
                    return Ok(None);
                }
                let bytes = disk.read(&path, STATE_FILE_BYTES_MAX).map_err(failed)?;
                T::from_stored(&bytes).map(Some).map_err(|error| StateError::Decode { path: path.clone(), error })
            })
            .await?
    }

    /// Replaces the file `name`; durable on return. Callers order their own saves of one file.
    pub async fn save<T: Stored>(&self, name: &'static str, value: &T) -> Result<(), StateError> {
        let (disk, dir, bytes) = (self.disk.clone(), self.dir.clone(), value.to_stored());
        self.runtime
            .blocking(Lane::File, move || {
                let path = dir.join(name);
                let fresh = dir.join(format!("{name}.new"));
                let write = || {
                    // A crash between write and rename leaves one behind.
                    if disk.len(&fresh)?.is_some() {
                        disk.remove(&fresh)?;
                    }
                    disk.write_new(&fresh, &bytes, true)?;
                    disk.rename(&fresh, &path)?;
                    disk.sync_dir(&dir)
                };
                write().map_err(|error| StateError::Io { path: path.clone(), error })
            })
            .await?
    }

    /// The error for a file that can be read and breaks a rule.
    pub fn damaged(&self, name: &'static str, reason: String) -> StateError {
        StateError::Decode { path: self.dir.join(name), error: DecodeError::Damaged { what: name, reason } }
    }

    /// Available and total bytes where the files are; `None` when the system does not say.
    pub async fn space(&self) -> Option<garage_util::disk::Space> {
        let (disk, dir) = (self.disk.clone(), self.dir.clone());
        self.runtime.blocking(Lane::File, move || disk.space(&dir).ok()).await.ok().flatten()
    }
}
