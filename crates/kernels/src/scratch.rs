//! Working memory of kernels: aligned, counted against the budget, and kept for the length of one operation.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

use crate::{Buffer, Device, Result};

/// Numbers on the CPU that begin at a cache line, zero at first.
pub(crate) struct Scratch(Buffer<f32>);

impl Scratch {
    /// Allocates `len` zeros within the budget.
    pub(crate) fn new(len: usize) -> Result<Self> {
        Buffer::zeros(len, Device::Cpu, "working memory of a kernel").map(Self)
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.cpu().unwrap_or_default()
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.cpu_mut().unwrap_or_default()
    }
}

/// Working memories that the tasks of one operation hand on: never more than tasks that run at once.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pool<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Lends one to `work`, made by `make` when none is idle.
    pub(crate) fn lend<R>(
        &self,
        make: impl FnOnce() -> Result<T>,
        work: impl FnOnce(&mut T) -> R,
    ) -> Result<R> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut lent = match idle {
            Some(lent) => lent,
            None => make()?,
        };
        let result = work(&mut lent);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(lent);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_aligned_and_lent_again() {
        let pool = Pool::new();
        let make = || Scratch::new(17);
        pool.lend(make, |scratch| {
            assert_eq!((scratch.len(), scratch.as_ptr() as usize % 64), (17, 0));
            scratch[16] = 5.0;
        })
        .unwrap();
        assert_eq!(pool.lend(|| panic!("one is idle"), |scratch| scratch[16]).unwrap(), 5.0);
    }
}
