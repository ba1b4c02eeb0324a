//! What the objects of a load hold: noise that neither compresses nor repeats, and that a reader can check without keeping it.
//!
//! Every object is the same noise with its own number stamped on each page, so no two blocks are equal and none costs a random generator.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Each page begins with the object's number.
const PAGE_BYTES: usize = 4_096;
/// Length of that number.
const STAMP_BYTES: usize = 8;
/// Any two loads have the same noise, so that one can check what the other wrote.
const SEED: u64 = 0x6c6f_6164;

/// The contents of objects of one size.
#[derive(Debug)]
pub struct Content {
    noise: Vec<u8>,
}

impl Content {
    /// Contents of `size_bytes` each.
    pub fn new(size_bytes: usize) -> Content {
        let mut noise = vec![0; size_bytes];
        ChaCha8Rng::seed_from_u64(SEED).fill_bytes(&mut noise);
        Content { noise }
    }

    /// The size of each object.
    pub fn size_bytes(&self) -> usize {
        self.noise.len()
    }

    /// The content of object `index`.
    pub fn object(&self, index: u64) -> Bytes {
        let mut object = self.noise.clone();
        for page in object.chunks_mut(PAGE_BYTES) {
            let stamp = index.to_be_bytes();
            let len = page.len().min(STAMP_BYTES);
            page[..len].copy_from_slice(&stamp[STAMP_BYTES - len..]);
        }
        object.into()
    }

    /// Whether `found` is what object `index` holds from `offset` on.
    pub fn matches(&self, index: u64, offset: usize, found: &[u8]) -> bool {
        let Some(end) = offset.checked_add(found.len()).filter(|end| *end <= self.noise.len()) else { return false };
        let mut at = offset;
        while at < end {
            let page_start = at - at % PAGE_BYTES;
            let page_end = (page_start + PAGE_BYTES).min(self.noise.len());
            let stamp_len = (page_end - page_start).min(STAMP_BYTES);
            let stamp = &index.to_be_bytes()[STAMP_BYTES - stamp_len..];
            let stop = end.min(if at < page_start + stamp_len { page_start + stamp_len } else { page_end });
            let expected = if at < page_start + stamp_len { &stamp[at - page_start..stop - page_start] } else { &self.noise[at..stop] };
            if expected != &found[at - offset..stop - offset] {
                return false;
            }
            at = stop;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_part_of_an_object_matches_it_and_no_other(size in 0_usize..20_000, index: u64, cut: (usize, usize), flip: Option<usize>) {
            let content = Content::new(size);
            let object = content.object(index);
            let (mut from, mut to) = (cut.0 % (size + 1), cut.1 % (size + 1));
            if to < from { std::mem::swap(&mut from, &mut to); }
            let mut part = object[from..to].to_vec();
            prop_assert!(content.matches(index, from, &part));
            if let Some(flip) = flip && !part.is_empty() {
                let at = flip % part.len();
                part[at] ^= 1;
                prop_assert!(!content.matches(index, from, &part));
            }
        }
        #[test]
        fn two_objects_differ_in_every_page(left: u64, right: u64) {
            prop_assume!(left != right);
            let content = Content::new(3 * PAGE_BYTES);
            let (left, right) = (content.object(left), content.object(right));
            for (left, right) in left.chunks(PAGE_BYTES).zip(right.chunks(PAGE_BYTES)) {
                prop_assert_ne!(left, right);
            }
        }
    }

    #[test]
    fn nothing_matches_past_the_end() {
        let content = Content::new(10);
        assert!(!content.matches(1, 5, &[0; 6]));
        assert!(!content.matches(1, usize::MAX, &[0]));
        assert!(content.matches(1, 10, &[]));
    }
}
