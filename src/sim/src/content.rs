//! What clients write: each write has a number of its own, from which its whole content follows, so that whatever is read names its write.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use garage_util::id::to_hex;
use md5::{Digest, Md5};
use parking_lot::Mutex;

/// A write's number. 0: nothing was ever written, or it was deleted.
pub type Value = u32;

/// All writes of a history. Cheap to clone.
#[derive(Clone, Default)]
pub struct Contents(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    /// Write 1 first.
    writes: Vec<Write>,
    by_etag: BTreeMap<String, Value>,
}

#[derive(Clone)]
struct Write {
    len_bytes: usize,
    etag: String,
}

/// A new write's number and what it consists of.
pub struct Fresh {
    /// The number.
    pub value: Value,
    /// The content, or those of its parts in order.
    pub pieces: Vec<Bytes>,
}

impl Contents {
    /// A new content stored by one put.
    pub fn fresh(&self, len_bytes: usize) -> Fresh {
        self.register(&[len_bytes], |pieces| md5_hex(&pieces[0]))
    }
    /// A new content stored in parts.
    pub fn fresh_parts(&self, part_lens_bytes: &[usize]) -> Fresh {
        self.register(part_lens_bytes, |pieces| {
            let sums: Vec<u8> = pieces.iter().flat_map(|piece| Md5::digest(piece).to_vec()).collect();
            format!("{}-{}", md5_hex(&sums), pieces.len())
        })
    }

    fn register(&self, lens_bytes: &[usize], etag_of: impl Fn(&[Bytes]) -> String) -> Fresh {
        let mut written = self.0.lock();
        let value = written.writes.len() as Value + 1;
        let mut rest = bytes_of(value, lens_bytes.iter().sum());
        let pieces: Vec<Bytes> = lens_bytes.iter().map(|len_bytes| rest.split_to(*len_bytes)).collect();
        let etag = etag_of(&pieces);
        written.by_etag.insert(etag.clone(), value);
        written.writes.push(Write { len_bytes: lens_bytes.iter().sum(), etag });
        Fresh { value, pieces }
    }

    /// The write whose content has this ETag.
    pub fn value_of(&self, etag: &str) -> Option<Value> {
        self.0.lock().by_etag.get(etag).copied()
    }
    /// The ETag of a write's content.
    pub fn etag_of(&self, value: Value) -> Option<String> {
        Some(self.0.lock().writes.get(value.checked_sub(1)? as usize)?.etag.clone())
    }
    /// Whether these bytes are the write's content.
    pub fn is_content_of(&self, value: Value, bytes: &[u8]) -> bool {
        let len_bytes = value.checked_sub(1).and_then(|index| self.0.lock().writes.get(index as usize).map(|write| write.len_bytes));
        len_bytes.is_some_and(|len_bytes| bytes_of(value, len_bytes) == bytes)
    }
}

fn md5_hex(bytes: &[u8]) -> String {
    to_hex(&Md5::digest(bytes))
}

fn bytes_of(value: Value, len_bytes: usize) -> Bytes {
    let mut bytes = vec![0; len_bytes];
    blake3::Hasher::new().update(&value.to_le_bytes()).finalize_xof().fill(&mut bytes);
    Bytes::from(bytes)
}
