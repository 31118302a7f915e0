//! Feature hashing: keys without a dictionary, into a fixed number of buckets and a sign each.
//!
//! ```text
//! h(key, seed)  MurmurHash3 x86_32 of the key's 4 or 8 bytes, the low byte first
//! bucket        ⌊h(key, seed) n_buckets / 2³²⌋
//! sign          +1 where the lowest bit of h(key, ¬seed) is 0, else −1
//! ```
//!
//! Two keys that fall into one bucket add up with independent signs, so that inner products are right on average; hence a
//! second hash for the sign. A seed a field keeps the keys of two fields apart.
//!
//! # Layout
//!
//! | name   | shape | type     |
//! |--------|-------|----------|
//! | keys   | `[n]` | u32, u64 |
//! | bucket | `[n]` | u32      |
//! | sign   | `[n]` | f32      |
//!
//! # Cost
//! Memory-bound on a GPU: the key read, 8 bytes written. A unit hashes one key.
//!
//! # Determinism
//! Integers only: the same bits on every device.
//!
//! # Source
//! Weinberger et al. 2009, "Feature hashing for large scale multitask learning"; Appleby, MurmurHash3 (public domain).

#[cfg(feature = "gpu")]
use cubecl::prelude::*;
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::buffer::cube::{Gpu, Queue, cubes};
#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::Instance;
use crate::{Buffer, Device, Error, Result, buffer::on_gpu};

const OP: &str = "hash";
const MULTIPLIER_1: u32 = 0xcc9e_2d51;
const MULTIPLIER_2: u32 = 0x1b87_3593;
const ADDEND: u32 = 0xe654_6b64;
const FINAL_1: u32 = 0x85eb_ca6b;
const FINAL_2: u32 = 0xc2b2_ae35;
/// Keys that one task hashes.
const TASK_KEYS: usize = 1 << 14;

/// A key that can be hashed: its bytes are those of little-endian words.
pub trait HashKey: bytemuck::Pod + Send + Sync + sealed::Sealed {
    /// Returns the key's words, low first; of a `u32` the second is not one of them.
    fn words(self) -> [u32; 2];
    /// How many words the key has.
    const WORDS: usize;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

impl HashKey for u32 {
    const WORDS: usize = 1;

    fn words(self) -> [u32; 2] {
        [self, 0]
    }
}

impl HashKey for u64 {
    const WORDS: usize = 2;

    fn words(self) -> [u32; 2] {
        [self as u32, (self >> 32) as u32]
    }
}

/// Where keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureHash {
    /// Buckets there are, at least 1.
    pub n_buckets: u32,
    /// Another seed, other buckets and signs.
    pub seed: u32,
}

impl FeatureHash {
    /// Returns the bucket and the sign of `key`.
    pub fn of<K: HashKey>(self, key: K) -> (u32, f32) {
        let hash = murmur3_key(key, self.seed);
        let bucket = (u64::from(hash) * u64::from(self.n_buckets)) >> 32;
        let sign = if murmur3_key(key, !self.seed) & 1 == 0 { 1.0 } else { -1.0 };
        (bucket as u32, sign)
    }
}

/// Returns MurmurHash3 x86_32 of `bytes`.
///
/// # Source
/// Appleby, MurmurHash3 (public domain).
pub fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mut words = bytes.chunks_exact(4);
    let hash = words
        .by_ref()
        .fold(seed, |hash, word| mix(hash, u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let tail = words.remainder().iter().rev().fold(0, |tail, &byte| (tail << 8) | u32::from(byte));
    finish(hash ^ scramble(tail), bytes.len() as u32)
}

/// Returns [`murmur3`] of the key's bytes, the low byte first.
pub fn murmur3_key<K: HashKey>(key: K, seed: u32) -> u32 {
    let words = key.words();
    finish(words[..K::WORDS].iter().fold(seed, |hash, &word| mix(hash, word)), 4 * K::WORDS as u32)
}

fn scramble(word: u32) -> u32 {
    word.wrapping_mul(MULTIPLIER_1).rotate_left(15).wrapping_mul(MULTIPLIER_2)
}

fn mix(hash: u32, word: u32) -> u32 {
    (hash ^ scramble(word)).rotate_left(13).wrapping_mul(5).wrapping_add(ADDEND)
}

fn finish(hash: u32, len: u32) -> u32 {
    let hash = hash ^ len;
    let hash = (hash ^ (hash >> 16)).wrapping_mul(FINAL_1);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(FINAL_2);
    hash ^ (hash >> 16)
}

/// Returns the bucket and the sign of every key, on the keys' device.
///
/// # Shapes
/// - `keys`: `[n]`; both that are returned: `[n]`
///
/// # Errors
/// [`Error::Parameter`] for no buckets; [`Error::OutOfMemory`], [`Error::BufferTooLarge`].
///
/// # Source
/// Weinberger et al. 2009.
pub fn hash_features<K: HashKey>(keys: &Buffer<K>, to: FeatureHash) -> Result<(Buffer<u32>, Buffer<f32>)> {
    if to.n_buckets == 0 {
        return Err(Error::Parameter { op: OP, what: "n_buckets", expected: "at least 1", got: 0.0 });
    }
    match keys.device() {
        Device::Cpu => on_cpu(keys.cpu().unwrap_or_default(), to),
        device => on_gpu!(OP, device, R => on_cube::<R, K>(keys, to, device)),
    }
}

/// The definition of [`hash_features`]: each key by its bytes.
pub fn hash_features_reference<K: HashKey>(keys: &[K], to: FeatureHash) -> Vec<(u32, f32)> {
    let hash = |key: &K, seed| {
        let bytes: Vec<u8> = key.words()[..K::WORDS].iter().flat_map(|word| word.to_le_bytes()).collect();
        murmur3(&bytes, seed)
    };
    let bucket = |hash: u32| (u64::from(hash) * u64::from(to.n_buckets) / (1 << 32)) as u32;
    keys.iter()
        .map(|key| (bucket(hash(key, to.seed)), if hash(key, !to.seed) % 2 == 0 { 1.0 } else { -1.0 }))
        .collect()
}

fn on_cpu<K: HashKey>(keys: &[K], to: FeatureHash) -> Result<(Buffer<u32>, Buffer<f32>)> {
    let mut buckets = Buffer::zeros(keys.len(), Device::Cpu, "buckets of keys")?;
    let mut signs = Buffer::zeros(keys.len(), Device::Cpu, "signs of keys")?;
    let buckets_mut = buckets.cpu_mut().unwrap_or_default().par_chunks_mut(TASK_KEYS);
    let out = buckets_mut.zip(signs.cpu_mut().unwrap_or_default().par_chunks_mut(TASK_KEYS));
    keys.par_chunks(TASK_KEYS).zip(out).for_each(|(keys, (buckets, signs))| {
        for ((key, bucket), sign) in keys.iter().zip(buckets).zip(signs) {
            (*bucket, *sign) = to.of(*key);
        }
    });
    Ok((buckets, signs))
}

#[cfg(feature = "gpu")]
fn on_cube<R: Gpu, K: HashKey>(
    keys: &Buffer<K>,
    to: FeatureHash,
    device: Device,
) -> Result<(Buffer<u32>, Buffer<f32>)> {
    let queue = Queue::<R>::new(device)?;
    // Every key is one unit's.
    let buckets = queue.unwritten::<u32>(keys.len(), "buckets of keys")?;
    let signs = queue.unwritten::<f32>(keys.len(), "signs of keys")?;
    if !keys.is_empty() {
        hash_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, keys.len().div_ceil(256)),
            CubeDim::new_1d(256),
            queue.words_arg(OP, keys)?,
            queue.arg(OP, &buckets)?,
            queue.arg(OP, &signs)?,
            to.n_buckets,
            to.seed,
            K::WORDS,
        );
    }
    Ok((buckets, signs))
}

/// The word, its highest `by` bits behind the others.
#[cfg(feature = "gpu")]
#[cube]
fn rotated(word: u32, #[comptime] by: u32) -> u32 {
    (word << by) | (word >> comptime!(32u32 - by))
}

/// [`murmur3_key`] of the words from `at` on.
#[cfg(feature = "gpu")]
#[cube]
fn hash_words(words: &Array<u32>, at: usize, seed: u32, #[comptime] n: usize) -> u32 {
    let mut hash = seed;
    #[unroll]
    for k in 0..n {
        let word = words[at + k] * MULTIPLIER_1;
        hash ^= rotated(word, 15u32) * MULTIPLIER_2;
        hash = rotated(hash, 13u32) * 5u32 + ADDEND;
    }
    hash ^= comptime!(4 * n as u32);
    hash = (hash ^ (hash >> 16u32)) * FINAL_1;
    hash = (hash ^ (hash >> 13u32)) * FINAL_2;
    hash ^ (hash >> 16u32)
}

#[cfg(feature = "gpu")]
#[cube(launch)]
fn hash_kernel(
    keys: &Array<u32>,
    buckets: &mut Array<u32>,
    signs: &mut Array<f32>,
    n_buckets: u32,
    seed: u32,
    #[comptime] words: usize,
) {
    if ABSOLUTE_POS < buckets.len() {
        let at = ABSOLUTE_POS * words;
        buckets[ABSOLUTE_POS] = u32::mul_hi(hash_words(keys, at, seed, words), n_buckets);
        let odd = hash_words(keys, at, !seed, words) & 1u32;
        signs[ABSOLUTE_POS] = 1.0 - 2.0 * f32::cast_from(odd);
    }
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    let to = FeatureHash { n_buckets: 1000, seed: 7 };
    vec![
        Instance::new("hash, u32", move |device| {
            hash_features(&Buffer::<u32>::zeros(100, device, "an instance")?, to).map(drop)
        }),
        Instance::new("hash, u64", move |device| {
            hash_features(&Buffer::<u64>::zeros(100, device, "an instance")?, to).map(drop)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let cases: [(&[u8], u32, u32); 14] = [
            (b"", 0, 0),
            (b"", 1, 0x514e_28b7),
            (b"", 0xffff_ffff, 0x81f1_6f39),
            (&[0xff; 4], 0, 0x7629_3b50),
            (&[0x21, 0x43, 0x65, 0x87], 0, 0xf55b_516b),
            (&[0x21, 0x43, 0x65, 0x87], 0x5082_edee, 0x2362_f9de),
            (&[0x21, 0x43, 0x65], 0, 0x7e4a_8634),
            (&[0x21, 0x43], 0, 0xa0f7_b07a),
            (&[0x21], 0, 0x7266_1cf4),
            (&[0; 4], 0, 0x2362_f9de),
            (&[0; 3], 0, 0x85f0_b427),
            (b"aaaa", 0x9747_b28c, 0x5a97_808a),
            (b"Hello, world!", 0x9747_b28c, 0x2488_4cba),
            (b"The quick brown fox jumps over the lazy dog", 0x9747_b28c, 0x2fa8_26cd),
        ];
        for (bytes, seed, expected) in cases {
            assert_eq!(murmur3(bytes, seed), expected, "{bytes:?} {seed}");
        }
        assert_eq!(murmur3_key(0x8765_4321_u32, 0), 0xf55b_516b);
        assert_eq!(murmur3_key(u64::from_le_bytes(*b"aaaabbbb"), 9), murmur3(b"aaaabbbb", 9));
    }

    #[test]
    fn buckets_and_signs_are_spread_evenly_and_apart() {
        let to = FeatureHash { n_buckets: 50, seed: 3 };
        let mut counts = [[0; 2]; 50];
        for key in 0..50_000u32 {
            let (bucket, sign) = to.of(key);
            counts[bucket as usize][usize::from(sign > 0.0)] += 1;
        }
        assert!(counts.as_flattened().iter().all(|n| (400..600).contains(n)), "{counts:?}");
        assert_eq!(FeatureHash { n_buckets: 1, seed: 3 }.of(u64::MAX).0, 0);
    }
}
