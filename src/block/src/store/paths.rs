//! Names of block files: `<data dir>/<2 hex>/<2 hex>/<64 hex>[.zst]`, `.corrupted` behind it when set aside.

use std::path::{Path, PathBuf};

use garage_util::id::to_hex;

use crate::{encoding::Encoding, hash::BlockHash};

/// The forms a block's file may have, in the order in which they are looked for.
pub const ENCODINGS: [Encoding; 2] = [Encoding::Plain, Encoding::Zstd];
/// Directory for files that are being written, one in each data directory; what is in it at start is left over from a crash.
pub const TEMPORARY_DIR: &str = "tmp";
/// Names a data directory, by a random id in it.
pub const MARKER_FILE: &str = "garage-marker";

/// The directory of a block's file, and the one above it.
pub fn block_dirs(data_dir: &Path, hash: BlockHash) -> (PathBuf, PathBuf) {
    let upper = data_dir.join(to_hex(&hash.0[..1]));
    let lower = upper.join(to_hex(&hash.0[1..2]));
    (lower, upper)
}

/// The file of a block in one form.
pub fn block_file(data_dir: &Path, hash: BlockHash, encoding: Encoding) -> PathBuf {
    let (dir, _) = block_dirs(data_dir, hash);
    dir.join(match encoding {
        Encoding::Plain => hash.to_string(),
        Encoding::Zstd => format!("{hash}.zst"),
    })
}

/// Where a bad copy goes: beside its place, so that a person finds it.
pub fn set_aside_file(block_file: &Path) -> PathBuf {
    let mut name = block_file.as_os_str().to_owned();
    name.push(".corrupted");
    name.into()
}

/// A name for a file that is being written; `token` is random, since two may write one block after a cancelled attempt.
pub fn temporary_file(data_dir: &Path, hash: BlockHash, token: u64) -> PathBuf {
    data_dir.join(TEMPORARY_DIR).join(format!("{hash}.{token:016x}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{block_file, set_aside_file};
    use crate::{encoding::Encoding, hash::BlockHash};

    #[test]
    fn names_are_those_that_operators_know() {
        let hash = BlockHash(std::array::from_fn(|index| 0xa0 + index as u8));
        let name = hash.to_string();
        let path = block_file(Path::new("/data"), hash, Encoding::Zstd);
        assert_eq!(path, Path::new("/data/a0/a1").join(format!("{name}.zst")));
        assert_eq!(set_aside_file(&path), Path::new("/data/a0/a1").join(format!("{name}.zst.corrupted")));
        assert_eq!(block_file(Path::new("/data"), hash, Encoding::Plain), Path::new("/data/a0/a1").join(name));
    }
}
