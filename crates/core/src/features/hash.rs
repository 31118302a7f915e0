//! Feature hashing: a category's bucket from its text alone, the same on every machine and in every release.
//!
//! The hash is MurmurHash3 x86_32 over the UTF-8 bytes, read as little-endian words of four:
//!
//! ```text
//! for each word k:    k = rotl(k * 0xcc9e2d51, 15) * 0x1b873593;  h = rotl(h ^ k, 13) * 5 + 0xe6546b64
//! for the 1-3 bytes left, as a word with zeros above:                h = h ^ rotl(k * 0xcc9e2d51, 15) * 0x1b873593
//! at the end:         h ^= length;  h = (h ^ h >> 16) * 0x85ebca6b;  h = (h ^ h >> 13) * 0xc2b2ae35;  h ^ h >> 16
//! ```
//! and the bucket is the hash modulo the number of buckets.
//!
//! Source: Appleby 2011 (MurmurHash3); Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".

/// Returns the bucket of a category, below `buckets`; 0 where there are none.
pub fn hash_category(text: &[u8], seed: u32, buckets: u32) -> u32 {
    murmur3(text, seed).checked_rem(buckets).unwrap_or(0)
}

/// Returns MurmurHash3 x86_32 of some bytes.
pub fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mix = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut h = seed;
    for word in words {
        h ^= mix(u32::from_le_bytes(*word));
        h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !rest.is_empty() {
        h ^= mix(rest.iter().rev().fold(0, |k, &byte| k << 8 | u32::from(byte)));
    }
    // The length counts modulo 2^32, as in the original.
    h ^= bytes.len() as u32;
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
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
    fn hashes_are_those_of_the_published_test_vectors() {
        for (text, seed, expected) in [
            ("", 0, 0),
            ("", 1, 0x514e_28b7),
            ("", 0xffff_ffff, 0x81f1_6f39),
            ("a", 0x9747_b28c, 0x7fa0_9ea6),
            ("aa", 0x9747_b28c, 0x5d21_1726),
            ("aaa", 0x9747_b28c, 0x283e_0130),
            ("aaaa", 0x9747_b28c, 0x5a97_808a),
            ("abc", 0, 0xb3dd_93fa),
            ("Hello, world!", 0x9747_b28c, 0x2488_4cba),
            ("The quick brown fox jumps over the lazy dog", 0x9747_b28c, 0x2fa8_26cd),
        ] {
            assert_eq!(murmur3(text.as_bytes(), seed), expected, "{text}");
        }
        assert_eq!(murmur3(&[0xff; 4], 0), 0x7629_3b50);
        assert_eq!(murmur3(&[0x21, 0x43, 0x65, 0x87], 0x5082_edee), 0x2362_f9de);
    }

    #[test]
    fn buckets_are_in_range() {
        assert_eq!(hash_category(b"abc", 0, 1000), 0xb3dd_93fa % 1000);
        assert_eq!(hash_category(b"abc", 0, 1), 0);
        assert_eq!(hash_category(b"abc", 0, 0), 0);
    }
}
