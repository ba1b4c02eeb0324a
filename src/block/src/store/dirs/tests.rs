//! Markers are checked, capacities are kept to, and moving a border moves only what it must.

use std::path::{Path, PathBuf};

use garage_util::disk::{Disk, RealDisk};

use super::{DataDirOptions, DataDirs, DirUsage, MarkerId, OpenStoreError};
use crate::hash::BlockHash;

struct Places {
    root: tempfile::TempDir,
    fresh: u8,
}

impl Places {
    fn new() -> Places {
        Places { root: tempfile::tempdir().unwrap(), fresh: 0 }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
    fn layout_file(&self) -> PathBuf {
        self.path("data_layout")
    }
    /// Opens directories by name and capacity; 0 stands for read-only.
    fn open(&mut self, dirs: &[(&str, u64)]) -> Result<DataDirs, OpenStoreError> {
        let options: Vec<DataDirOptions> = dirs
            .iter()
            .map(|(name, capacity_bytes)| DataDirOptions {
                path: self.path(name),
                usage: if *capacity_bytes == 0 { DirUsage::ReadOnly } else { DirUsage::Writable { capacity_bytes: *capacity_bytes } },
                reserve_bytes: 0,
            })
            .collect();
        let layout_file = self.layout_file();
        DataDirs::open(&RealDisk, &options, &layout_file, || {
            self.fresh += 1;
            MarkerId([self.fresh; 32])
        })
    }
}

fn winner(dirs: &DataDirs, index: u32) -> &Path {
    &dirs.write_order(BlockHash::of(&index.to_le_bytes()))[0].path
}

#[test]
fn blocks_spread_by_capacity_and_a_new_directory_takes_only_its_share() {
    let mut places = Places::new();
    let before = places.open(&[("a", 100), ("b", 300), ("old", 0)][..2]).unwrap();
    let count = 4_000;
    let in_a = (0..count).filter(|index| winner(&before, *index) == places.path("a")).count();
    assert!((800..1_200).contains(&in_a), "a quarter of {count} expected in a, found {in_a}");
    let after = places.open(&[("a", 100), ("b", 300), ("c", 400)]).unwrap();
    for index in 0..count {
        let (was, is) = (winner(&before, index), winner(&after, index));
        assert!(was == is || is == places.path("c"), "block {index} moved from {was:?} to {is:?}");
    }
}

#[test]
fn a_read_only_directory_is_read_last_and_never_written() {
    let mut places = Places::new();
    places.open(&[("a", 1), ("old", 1)]).unwrap();
    let dirs = places.open(&[("old", 0), ("a", 1)]).unwrap();
    let hash = BlockHash::of(b"x");
    assert_eq!(dirs.write_order(hash).len(), 1);
    let read: Vec<&Path> = dirs.read_order(hash).iter().map(|dir| dir.path.as_path()).collect();
    assert_eq!(read, [places.path("a"), places.path("old")]);
}

#[test]
fn a_directory_without_its_marker_or_with_another_is_refused_until_the_list_is_deleted() {
    let mut places = Places::new();
    places.open(&[("a", 1)]).unwrap();
    let marker = places.path("a/garage-marker");
    let text = RealDisk.read(&marker, 100).unwrap();
    RealDisk.remove(&marker).unwrap();
    assert!(matches!(places.open(&[("a", 1)]), Err(OpenStoreError::MarkerMissing { .. })));
    RealDisk.write_new(&marker, MarkerId([9; 32]).to_string().as_bytes(), true).unwrap();
    assert!(matches!(places.open(&[("a", 1)]), Err(OpenStoreError::MarkerDiffers { .. })));
    RealDisk.remove(&places.layout_file()).unwrap();
    places.open(&[("a", 1)]).unwrap();
    RealDisk.remove(&marker).unwrap();
    RealDisk.write_new(&marker, &text, true).unwrap();
    assert!(matches!(places.open(&[("a", 1)]), Err(OpenStoreError::MarkerDiffers { .. })), "the new marker is remembered");
}

#[test]
fn nonsense_in_the_config_is_refused() {
    let mut places = Places::new();
    assert!(matches!(places.open(&[]), Err(OpenStoreError::NothingWritable)));
    assert!(matches!(places.open(&[("a", 0)]), Err(OpenStoreError::NothingWritable)));
    assert!(matches!(places.open(&[("a", 1), ("gone", 0)]), Err(OpenStoreError::Absent { .. })));
    assert!(matches!(places.open(&[("a", 1), ("a", 1)]), Err(OpenStoreError::Same { .. })));
    let zero = [DataDirOptions { path: places.path("z"), usage: DirUsage::Writable { capacity_bytes: 0 }, reserve_bytes: 0 }];
    let opened = DataDirs::open(&RealDisk, &zero, &places.layout_file(), MarkerId::default);
    assert!(matches!(opened, Err(OpenStoreError::NoCapacity { .. })));
}

#[test]
fn one_directory_under_two_names_is_noticed() {
    let mut places = Places::new();
    places.open(&[("a", 1)]).unwrap();
    std::os::unix::fs::symlink(places.path("a"), places.path("b")).unwrap();
    assert!(matches!(places.open(&[("a", 1), ("b", 1)]), Err(OpenStoreError::Same { .. })));
}

#[test]
fn temporaries_of_a_crash_are_removed_at_start() {
    let mut places = Places::new();
    places.open(&[("a", 1)]).unwrap();
    let torn = super::super::paths::temporary_file(&places.path("a"), BlockHash::of(b"x"), 1);
    RealDisk.write_new(&torn, b"half a blo", false).unwrap();
    places.open(&[("a", 1)]).unwrap();
    assert_eq!(RealDisk.len(&torn).unwrap(), None);
}
