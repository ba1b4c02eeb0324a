//! The part of a file system that the block store needs, behind a trait so that the simulation can lose, tear and rot files.
//!
//! All calls block: run them in `Lane::File`. Paths are absolute or relative to the working directory.
//! A file becomes durable in steps, each a call: content (`write_new`, synced), name (`rename`), directory entry (`sync_dir`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Space on the file system that holds a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged writer may still use.
    pub available_bytes: u64,
    /// The whole file system.
    pub total_bytes: u64,
    /// Tells file systems apart, so that two directories on one are not counted twice.
    pub file_system: u64,
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Writes a new file and, if `synced`, forces its content to stable storage. The directory entry is not yet durable.
    ///
    /// Errors: `AlreadyExists` rather than touch a file that is there; after any other error a part of the file may be there.
    fn write_new(&self, path: &Path, content: &[u8], synced: bool) -> io::Result<()>;
    /// Renames over whatever is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Forces a directory's entries to stable storage.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The whole content. Errors: `FileTooLarge`, before memory is taken, for a file longer than `limit_bytes`.
    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The file's length in bytes; `None` if there is none.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Makes one directory in a parent that exists; not yet durable. One that is there already is left as it is.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory and its parents, durable.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The paths in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Space left where `path` is.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write_new(&self, path: &Path, content: &[u8], synced: bool) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(content)?;
        if synced {
            file.sync_all()?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let len_bytes = file.metadata()?.len();
        if limit_bytes < len_bytes {
            return Err(too_large(path, limit_bytes));
        }
        let mut content = Vec::with_capacity(usize::try_from(len_bytes).map_err(|_| too_large(path, limit_bytes))?);
        // Its length may change under us; what is read past the limit is as wrong as what was there before.
        file.take(limit_bytes.saturating_add(1)).read_to_end(&mut content)?;
        if limit_bytes < content.len() as u64 { Err(too_large(path, limit_bytes)) } else { Ok(content) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            done => done,
        }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        self.create_dir(dir)?;
        self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(path)?;
        // The field types differ between platforms, hence conversions that do nothing on this one.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let (unit, available, total) = (stat.fragment_size() as u64, u64::from(stat.blocks_available()), u64::from(stat.blocks()));
        let file_system = std::os::unix::fs::MetadataExt::dev(&fs::metadata(path)?);
        Ok(Space { available_bytes: available.saturating_mul(unit), total_bytes: total.saturating_mul(unit), file_system })
    }
}

fn too_large(path: &Path, limit_bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is longer than the {limit_bytes} bytes such a file may have", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::{Disk, RealDisk};

    #[test]
    fn a_new_file_is_never_written_over_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        RealDisk.write_new(&path, b"first", true).unwrap();
        assert_eq!(RealDisk.write_new(&path, b"second", true).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(RealDisk.read(&path, 5).unwrap(), b"first");
    }

    #[test]
    fn a_file_past_the_limit_is_refused_and_one_at_the_limit_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        RealDisk.write_new(&path, b"12345", false).unwrap();
        assert_eq!(RealDisk.read(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(RealDisk.read(&path, 5).unwrap(), b"12345");
    }

    #[test]
    fn directories_are_made_with_their_parents_and_making_them_again_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x/y/z");
        RealDisk.create_dir_all(&deep).unwrap();
        RealDisk.create_dir_all(&deep).unwrap();
        RealDisk.create_dir(&deep).unwrap();
        assert_eq!(RealDisk.list(&dir.path().join("x")).unwrap(), [dir.path().join("x/y")]);
        assert_eq!(RealDisk.len(&deep).unwrap(), None, "a directory is no file");
        assert_eq!(RealDisk.create_dir(&dir.path().join("q/r")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn space_tells_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let space = RealDisk.space(dir.path()).unwrap();
        assert!(space.available_bytes <= space.total_bytes && 0 < space.total_bytes);
    }
}
