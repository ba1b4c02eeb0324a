//! Names of block files: `<data dir>/<2 hex>/<2 hex>/<64 hex>[.zst]`, `.corrupted` behind it when set aside.

use std::path::{Path, PathBuf};

use garage_util::id::to_hex;

use crate::{encoding::Encoding, hash::BlockHash};

/// The forms a block's file may have, in the order in which they are looked for.
pub const ENCODINGS: [Encoding; 2] = [Encoding::Plain, Encoding::Zstd];
/// Directory for files that are being written, one in each data directory; what is in it at start is left over from a crash.
pub const TEMPORARY_DIR: &str = "garage-tmp";
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

/// The block that a file holds, by its name; `None`: it is no block file (one set aside, or not ours).
pub fn hash_of_file(file: &Path) -> Option<BlockHash> {
    let name = file.file_name()?.to_str()?;
    name.strip_suffix(".zst").unwrap_or(name).parse().ok()
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

/// Whether a file in the temporary directory is one of ours; whatever else someone put there is left alone.
pub fn is_temporary(file: &Path) -> bool {
    let Some((hash, token)) = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.')) else { return false };
    hash.parse::<BlockHash>().is_ok() && token.len() == 16 && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{block_file, hash_of_file, is_temporary, set_aside_file, temporary_file};
    use crate::{encoding::Encoding, hash::BlockHash};

    #[test]
    fn temporaries_are_told_from_other_files() {
        assert!(is_temporary(&temporary_file(Path::new("/data"), BlockHash([7; 32]), 5)));
        for other in ["/data/garage-tmp/notes.txt", "/data/garage-tmp/..", "/data/garage-tmp/0123.0000000000000005", "/"] {
            assert!(!is_temporary(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn names_are_those_that_operators_know() {
        let hash = BlockHash(std::array::from_fn(|index| 0xa0 + index as u8));
        let name = hash.to_string();
        let path = block_file(Path::new("/data"), hash, Encoding::Zstd);
        assert_eq!(path, Path::new("/data/a0/a1").join(format!("{name}.zst")));
        assert_eq!(set_aside_file(&path), Path::new("/data/a0/a1").join(format!("{name}.zst.corrupted")));
        assert_eq!(hash_of_file(&path), Some(hash));
        assert_eq!(hash_of_file(&set_aside_file(&path)), None, "a bad copy is no copy");
        assert_eq!(block_file(Path::new("/data"), hash, Encoding::Plain), Path::new("/data/a0/a1").join(name));
    }
}
