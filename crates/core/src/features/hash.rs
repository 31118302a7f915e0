//! Feature hashing: a category's bucket from its text alone, the same on every machine and in every release.
//!
//! The hash is MurmurHash3 x86_32 over the UTF-8 bytes, and the bucket is the hash modulo the number of buckets.
//!
//! Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".

use recmill_kernels::murmur3;

/// Returns the bucket of a category, below `buckets`; 0 where there are none.
pub fn hash_category(text: &[u8], seed: u32, buckets: u32) -> u32 {
    murmur3(text, seed).checked_rem(buckets).unwrap_or(0)
}

/// Returns 64 bits that stand for a text where only equality matters, such as the name of a group.
pub(super) fn hash_text(text: &str) -> u64 {
    let low = u64::from(murmur3(text.as_bytes(), 0x9747_b28c));
    let high = u64::from(murmur3(text.as_bytes(), 0x2f0b_4a17));
    mix64(high << 32 | low)
}

/// Returns well-mixed bits of a number: the finalizer of splitmix64.
pub(super) fn mix64(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_range() {
        assert_eq!(hash_category(b"abc", 0, 1000), 0xb3dd_93fa % 1000);
        assert_eq!(hash_category(b"abc", 0, 1), 0);
        assert_eq!(hash_category(b"abc", 0, 0), 0);
    }
}
