//! SHA-256 over several arrays: equal for equal arrays only.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The bytes that are hashed by one task.
const PIECE_BYTES: usize = 1 << 22;

/// Arrays that have been added so far.
///
/// Every array is hashed in pieces of [`PIECE_BYTES`], in parallel; the digests are hashed together, each array behind its name and
/// length.
#[derive(Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.update(name);
        self.0.update((bytes.len() as u64).to_le_bytes());
        let digests: Vec<_> = bytes.par_chunks(PIECE_BYTES).map(Sha256::digest).collect();
        digests.iter().for_each(|digest| self.0.update(digest));
    }

    /// Returns the hash in hexadecimal.
    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
