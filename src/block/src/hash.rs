//! The name of a block: the BLAKE3 hash of its bytes after encryption and before compression.

garage_util::id32!(
    /// Names a block.
    BlockHash
);

impl BlockHash {
    /// The hash of a block's bytes. Run it in `Lane::Compute` for anything of a block's size.
    pub fn of(content: &[u8]) -> BlockHash {
        BlockHash(*blake3::hash(content).as_bytes())
    }

    /// What chooses the block's ring partition: the hash of its name, as for every partition key, so that the references to a block
    /// (a group whose partition key is this name) live where the block does.
    pub fn placement_hash(&self) -> [u8; 32] {
        *blake3::hash(&self.0).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::BlockHash;

    #[test]
    fn the_hash_is_plain_blake3() {
        // The empty input of the test vectors that BLAKE3's authors publish.
        let expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(BlockHash::of(b"").to_string(), expected);
    }
}
