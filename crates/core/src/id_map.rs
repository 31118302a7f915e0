//! Text ids to small numbers and back: append-only, so that an index never changes its meaning.
//!
//! All ids lie in one run of bytes; the hash table holds indices only. An id costs its bytes plus about 20.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::{Error, Result};

/// Numbers ids from 0 in the order of their first appearance.
#[derive(Clone, Debug)]
pub struct IdMap {
    bytes: Vec<u8>,
    /// Id `i` is `bytes[ends[i - 1] .. ends[i]]`.
    ends: Vec<u64>,
    table: HashTable<u32>,
    hasher: FixedState,
}

impl Default for IdMap {
    fn default() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), table: HashTable::new(), hasher: FixedState::default() }
    }
}

impl IdMap {
    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the index of `id`, if it has appeared.
    pub fn get(&self, id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(id.as_bytes());
        self.table.find(hash, |&index| self.at(index) == id.as_bytes()).copied()
    }

    /// Returns the index of `id`, which gets the next free one when it is new.
    ///
    /// # Errors
    /// [`Error::TooManyIds`] when all u32 indices are taken.
    pub fn get_or_insert(&mut self, id: &str) -> Result<u32> {
        let hash = self.hasher.hash_one(id.as_bytes());
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        let at = |index: u32| slice(bytes, ends, index);
        let found = self.table.entry(hash, |&i| at(i) == id.as_bytes(), |&i| hasher.hash_one(at(i)));
        match found {
            hashbrown::hash_table::Entry::Occupied(entry) => Ok(*entry.get()),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let index =
                    u32::try_from(ends.len()).ok().filter(|&i| i < u32::MAX).ok_or(Error::TooManyIds)?;
                entry.insert(index);
                self.bytes.extend_from_slice(id.as_bytes());
                self.ends.push(self.bytes.len() as u64);
                Ok(index)
            }
        }
    }

    /// Returns the id at `index`.
    pub fn name(&self, index: u32) -> Option<&str> {
        // Only whole `str`s are ever appended, so the bytes between two ends are always UTF-8.
        ((index as usize) < self.len()).then(|| std::str::from_utf8(self.at(index)).unwrap_or_default())
    }

    /// Returns all ids, by index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.name(index as u32).unwrap_or_default())
    }

    /// Returns the bytes of all ids, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns where each id ends in [`IdMap::bytes`].
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Leaves out the ids that `keep` says no to; the others get new indices in their order.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        if keep.iter().all(|&keep| keep) {
            return;
        }
        let mut kept = Self::default();
        for (index, &keep) in keep.iter().enumerate() {
            if keep {
                // There are fewer than before, so there is an index for each.
                let _ = kept.get_or_insert(self.name(index as u32).unwrap_or_default());
            }
        }
        *self = kept;
    }

    fn at(&self, index: u32) -> &[u8] {
        slice(&self.bytes, &self.ends, index)
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[u64], index: u32) -> &'a [u8] {
    let index = index as usize;
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    &bytes[start..ends[index] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_never_changes_its_meaning() {
        let mut ids = IdMap::default();
        for (i, id) in ["b", "", "a", "ü", "b"].iter().enumerate() {
            assert_eq!(ids.get_or_insert(id).unwrap(), [0, 1, 2, 3, 0][i]);
        }
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["b", "", "a", "ü"]);
        assert_eq!((ids.get("a"), ids.get("c"), ids.name(3), ids.name(4)), (Some(2), None, Some("ü"), None));
    }
}
