//! Ids of users or items, read in place from two mapped files.
//!
//! ```text
//! users.fst    id -> index: a finite state transducer (crate fst), walked and never decoded
//! users.names  index -> id: u64 n | u64 ends[n] | the ids' bytes; id i is bytes[ends[i - 1] .. ends[i]]
//! ```
//! A lookup costs a walk along the id's bytes and one comparison, so that damaged bytes give no id rather than another's.

use std::{io::Write, path::PathBuf};

use recmill_kernels::{Buffer, Mapped};

use crate::{
    Error, IdMap, Result,
    directory::{Damage, fst_walk},
};

/// The ids of a model, in a mapped file.
#[derive(Debug)]
pub struct MappedIds {
    fst: Mapped,
    root: fst_walk::Root,
    names: Mapped,
    ends: Buffer<u64>,
    begin: usize,
}

impl MappedIds {
    /// Takes the mapped files over and checks what can be checked without reading them: lengths, counts and the root.
    pub(crate) fn open(fst: (PathBuf, Mapped), names: (PathBuf, Mapped)) -> Result<Self> {
        Self::new(fst.1, names.1)
            .map_err(|(in_names, damage)| damage.at(if in_names { names.0 } else { fst.0 }))
    }

    fn new(fst: Mapped, names: Mapped) -> std::result::Result<Self, (bool, Damage)> {
        let root = fst_walk::Root::read(fst.bytes()).map_err(|damage| (false, damage))?;
        let (ends, begin) = Self::read_ends(&names).map_err(|damage| (true, damage))?;
        if root.len() != ends.len() as u64 {
            return Err((false, Damage::contradiction("number of ids", root.len().to_string())));
        }
        Ok(Self { fst, root, names, ends, begin })
    }

    fn read_ends(names: &Mapped) -> std::result::Result<(Buffer<u64>, usize), Damage> {
        let bytes = names.bytes();
        let got = bytes.len() as u64;
        let n = bytes
            .first_chunk::<8>()
            .map(|n| u64::from_le_bytes(*n))
            .ok_or(Damage::Length { expected: 8, got })?;
        if n > u64::from(u32::MAX) {
            return Err(Damage::Limit { what: "number of ids", limit: u64::from(u32::MAX), got: n });
        }
        // At most 2^32 ends of 8 bytes: this cannot overflow.
        let begin = 8 + 8 * n;
        if begin > got {
            return Err(Damage::Length { expected: begin, got });
        }
        let ends = Buffer::<u64>::from_mapped(names.clone(), 8, n as usize)
            .map_err(|error| Damage::malformed("list of ids", error))?;
        let last = ends.cpu().and_then(<[u64]>::last).copied().unwrap_or(0);
        match begin.checked_add(last) {
            Some(expected) if expected == got => Ok((ends, begin as usize)),
            expected => Err(Damage::Length { expected: expected.unwrap_or(u64::MAX), got }),
        }
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the index of `id`, if the model knows it.
    pub fn index(&self, id: &str) -> Option<u32> {
        let index = u32::try_from(self.root.find(self.fst.bytes(), id.as_bytes())?).ok()?;
        (self.name(index) == Some(id)).then_some(index)
    }

    /// Returns the id at `index`.
    pub fn name(&self, index: u32) -> Option<&str> {
        let index = index as usize;
        let ends = self.ends.cpu()?;
        let end = *ends.get(index)?;
        let start = if index == 0 { 0 } else { ends[index - 1] };
        let bytes = self.names.bytes().get(self.begin..)?;
        std::str::from_utf8(bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?).ok()
    }

    /// Returns all ids, by index; a damaged one is empty.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.name(index as u32).unwrap_or_default())
    }

    /// Returns the same ids in a map that can grow.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when an id is damaged or there twice.
    pub fn to_id_map(&self) -> Result<IdMap> {
        let mut ids = IdMap::default();
        for index in 0..self.len() as u32 {
            let broken = Error::Inconsistent { what: "id", at: u64::from(index) };
            let Some(name) = self.name(index) else { return Err(broken) };
            if ids.get_or_insert(name)? != index {
                return Err(broken);
            }
        }
        Ok(ids)
    }
}

/// Writes `users.names` or `items.names`.
pub(crate) fn write_names(ids: &IdMap, out: &mut impl Write) -> Result<()> {
    out.write_all(&(ids.len() as u64).to_le_bytes())?;
    let mut end = 0u64;
    for id in ids.iter() {
        end += id.len() as u64;
        out.write_all(&end.to_le_bytes())?;
    }
    for id in ids.iter() {
        out.write_all(id.as_bytes())?;
    }
    Ok(())
}

/// Writes `users.fst` or `items.fst`; needs 4 bytes an id to sort them.
pub(crate) fn write_fst(ids: &IdMap, out: &mut impl Write) -> Result<()> {
    use rayon::prelude::*;
    let io = |error: fst::Error| match error {
        fst::Error::Io(error) => error,
        other => std::io::Error::other(other),
    };
    let name = |index: u32| ids.name(index).unwrap_or_default();
    let mut sorted: Vec<u32> = (0..ids.len() as u32).collect();
    sorted.par_sort_unstable_by(|&a, &b| name(a).as_bytes().cmp(name(b).as_bytes()));
    let mut builder = fst::MapBuilder::new(out).map_err(io)?;
    for index in sorted {
        builder.insert(name(index), u64::from(index)).map_err(io)?;
    }
    builder.finish().map_err(io)?;
    Ok(())
}
