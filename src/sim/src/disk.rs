//! A disk that keeps, over a crash, exactly what was forced to it: synced contents under directory entries that were synced.
//!
//! Invariants: `durable` changes only by `sync_dir` (entries) and by synced contents; a content that was never synced is torn in half.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use garage_util::disk::{Disk, Space};
use parking_lot::Mutex;

/// Bytes of every simulated disk.
const DISK_BYTES: u64 = 1 << 40;

#[derive(Clone)]
struct File {
    content: Arc<Vec<u8>>,
    synced: bool,
}

#[derive(Default)]
struct Files {
    now: BTreeMap<PathBuf, File>,
    durable: BTreeMap<PathBuf, File>,
    full: bool,
}

/// The files below a directory, at any depth: paths are ordered by their components, so they stand together.
fn under<'a>(files: &'a BTreeMap<PathBuf, File>, dir: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a File)> {
    files.range::<Path, _>((Bound::Included(dir), Bound::Unbounded)).take_while(move |(path, _)| path.starts_with(dir))
}

/// The disk; outlives its node.
#[derive(Default)]
pub struct SimDisk(Mutex<Files>);

impl SimDisk {
    /// The power goes: what was not forced to the disk is lost.
    pub fn crash(&self) {
        let mut files = self.0.lock();
        files.now = files.durable.clone();
    }
    /// Replaced by an empty one.
    pub fn wipe(&self) {
        let mut files = self.0.lock();
        (files.now, files.durable) = Default::default();
    }
    /// A copy of the whole disk as it is now.
    pub fn image(&self) -> SimDisk {
        let files = self.0.lock();
        SimDisk(Mutex::new(Files { now: files.now.clone(), durable: files.durable.clone(), full: false }))
    }
    /// Put back to what it was when the image was made.
    pub fn restore(&self, image: &SimDisk) {
        let (image, mut files) = (image.0.lock(), self.0.lock());
        (files.now, files.durable) = (image.now.clone(), image.durable.clone());
    }
    /// Everything under a directory is gone, as if its disk had been replaced by an empty one.
    pub fn wipe_dir(&self, dir: &Path) {
        let mut files = self.0.lock();
        files.now.retain(|path, _| !path.starts_with(dir));
        files.durable.retain(|path, _| !path.starts_with(dir));
    }
    /// Whether there is no space left.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }
    /// Flips a bit in the middle of a file, if it has any.
    pub fn rot(&self, path: &Path) {
        let mut files = self.0.lock();
        let Files { now, durable, .. } = &mut *files;
        for side in [now, durable] {
            if let Some(file) = side.get_mut(path).filter(|file| !file.content.is_empty()) {
                let mut content = file.content.to_vec();
                let middle = content.len() / 2;
                content[middle] ^= 1;
                file.content = Arc::new(content);
            }
        }
    }
    /// Paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().now.keys().cloned().collect()
    }
}

impl Disk for SimDisk {
    fn write_new(&self, path: &Path, content: &[u8], synced: bool) -> io::Result<()> {
        let mut files = self.0.lock();
        if files.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if files.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.now.insert(path.to_owned(), File { content: Arc::new(content.to_vec()), synced });
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.now.insert(to.to_owned(), file);
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        let Files { now, durable, .. } = &mut *files;
        let is_entry = |path: &Path| path.parent() == Some(dir);
        let gone: Vec<PathBuf> = under(durable, dir).map(|(path, _)| path).filter(|path| is_entry(path)).cloned().collect();
        gone.iter().for_each(|path| drop(durable.remove(path)));
        for (path, file) in under(now, dir).filter(|(path, _)| is_entry(path)) {
            let torn = || Arc::new(file.content[..file.content.len() / 2].to_vec());
            let content = if file.synced { file.content.clone() } else { torn() };
            durable.insert(path.clone(), File { content, synced: true });
        }
        Ok(())
    }
    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let file = self.0.lock().now.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        if limit_bytes < file.content.len() as u64 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(file.content.to_vec()) }
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().now.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.0.lock().now.get(path).map(|file| file.content.len() as u64))
    }
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let files = self.0.lock();
        let child = |(path, _): (&PathBuf, &File)| Some(dir.join(path.strip_prefix(dir).ok()?.components().next()?));
        let mut children: Vec<PathBuf> = under(&files.now, dir).filter_map(child).collect();
        children.dedup();
        Ok(children)
    }
    fn space(&self, _path: &Path) -> io::Result<Space> {
        let available_bytes = if self.0.lock().full { 0 } else { DISK_BYTES };
        Ok(Space { available_bytes, total_bytes: DISK_BYTES, file_system: 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use garage_util::disk::Disk;

    use super::SimDisk;

    #[test]
    fn a_crash_keeps_synced_contents_under_synced_names_only() {
        let disk = SimDisk::default();
        let [kept, torn, unnamed] = ["/d/kept", "/d/torn", "/e/unnamed"].map(Path::new);
        disk.write_new(kept, b"0123", true).unwrap();
        disk.write_new(torn, b"0123", false).unwrap();
        disk.write_new(unnamed, b"0123", true).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.crash();
        assert_eq!(disk.read(kept, 10).unwrap(), b"0123");
        assert_eq!(disk.read(torn, 10).unwrap(), b"01");
        assert!(disk.read(unnamed, 10).is_err());
    }
}
