//! Lengths and sha256 sums: taken while a file is written, compared when it is read.
//!
//! Each 64 MiB has a sum of its own, so that a large file is checked by all cores and a damaged one is known by place.

use std::io::{self, Write};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Result,
    directory::{Damage, disk::DiskFile},
};

/// Bytes that share one sum.
pub(crate) const BLOCK_BYTES: usize = 64 << 20;

/// What config.json says of another file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The file's length.
    pub bytes: u64,
    /// The sha256 of each 64 MiB, in hexadecimal.
    pub sha256: Vec<String>,
}

impl FileRecord {
    /// Compares length and every sum.
    pub(crate) fn check(&self, bytes: &[u8]) -> std::result::Result<(), Damage> {
        self.check_length(bytes.len() as u64)?;
        let damaged = bytes
            .par_chunks(BLOCK_BYTES)
            .zip(&self.sha256)
            .enumerate()
            .find_first(|(_, (block, sum))| sha256(block) != **sum);
        match damaged {
            Some((at, (block, _))) => {
                Err(Damage::Hash { at: (at * BLOCK_BYTES) as u64, block_bytes: block.len() as u64 })
            }
            None => Ok(()),
        }
    }

    /// Compares the length alone, with the number of sums that goes with it.
    pub(crate) fn check_length(&self, got: u64) -> std::result::Result<(), Damage> {
        if self.bytes != got {
            return Err(Damage::Length { expected: self.bytes, got });
        }
        if self.sha256.len() as u64 != got.div_ceil(BLOCK_BYTES as u64) {
            return Err(Damage::contradiction("number of sha256 sums", self.sha256.len().to_string()));
        }
        Ok(())
    }
}

/// Returns the sha256 of `bytes` in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A file whose sums are taken on the way to the disk; writes are gathered to 1 MiB.
pub(crate) struct HashedFile<'a> {
    file: DiskFile<'a>,
    pending: Vec<u8>,
    hasher: Sha256,
    in_block: usize,
    record: FileRecord,
}

const PENDING_BYTES: usize = 1 << 20;

impl<'a> HashedFile<'a> {
    pub(crate) fn new(file: DiskFile<'a>) -> Self {
        let record = FileRecord { bytes: 0, sha256: Vec::new() };
        Self { file, pending: Vec::with_capacity(PENDING_BYTES), hasher: Sha256::new(), in_block: 0, record }
    }

    /// Writes the rest, makes it durable and returns length and sums.
    pub(crate) fn finish(mut self) -> Result<FileRecord> {
        self.flush()?;
        if self.in_block > 0 {
            self.record.sha256.push(hex(self.hasher.finalize_reset().as_slice()));
        }
        self.file.sync()?;
        Ok(self.record)
    }

    /// Hashes and writes `bytes`.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.record.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.in_block));
            self.hasher.update(now);
            self.in_block += now.len();
            if self.in_block == BLOCK_BYTES {
                self.record.sha256.push(hex(self.hasher.finalize_reset().as_slice()));
                self.in_block = 0;
            }
            bytes = later;
        }
        Ok(())
    }
}

impl Write for HashedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() + bytes.len() > PENDING_BYTES {
            self.flush()?;
        }
        if bytes.len() >= PENDING_BYTES {
            self.put(bytes)?;
        } else {
            self.pending.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let result = self.put(&pending);
        self.pending = pending;
        self.pending.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Disk;

    #[test]
    fn a_damaged_block_is_told_by_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, path) = (Disk::default(), folder.path().join("file"));
        let mut bytes: Vec<u8> = (0..BLOCK_BYTES + (3 << 20)).map(|i| (i >> 12) as u8).collect();
        let mut file = HashedFile::new(disk.create_file(&path).unwrap());
        // Pieces below, at and above the size of the buffer.
        let (small, rest) = bytes.split_at(1000);
        let (large, rest) = rest.split_at(3 << 20);
        file.write_all(small).unwrap();
        file.write_all(large).unwrap();
        rest.chunks(PENDING_BYTES / 3).for_each(|piece| file.write_all(piece).unwrap());
        let record = file.finish().unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), bytes);
        assert_eq!((record.bytes, record.sha256.len()), (bytes.len() as u64, 2));
        assert_eq!(record.sha256[1], sha256(&bytes[BLOCK_BYTES..]));
        assert_eq!(record.check(&bytes), Ok(()));
        bytes[BLOCK_BYTES + 5] ^= 1;
        let damage = Damage::Hash { at: BLOCK_BYTES as u64, block_bytes: 3 << 20 };
        assert_eq!(record.check(&bytes), Err(damage));
        let damage = Damage::Length { expected: bytes.len() as u64, got: 7 };
        assert_eq!(record.check(&bytes[..7]), Err(damage));
    }

    #[test]
    fn the_sum_of_nothing_is_the_published_one() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
