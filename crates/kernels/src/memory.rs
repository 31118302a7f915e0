//! The byte budget of each device: every allocation of this crate is reserved here first.
//!
//! GPU runtimes may hide a failed allocation and go on with wrong numbers, and Linux hands out more host memory than
//! there is. So one function, `reserve`, compares what is asked with what is left and refuses with both figures,
//! before anything is allocated. A `Reservation` gives its bytes back when it is dropped with its buffer.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Device, Error, Result};

#[derive(Clone, Copy)]
struct Ledger {
    limit: u64,
    used: u64,
}

static LEDGERS: Mutex<Option<HashMap<Device, Ledger>>> = Mutex::new(None);

/// Bytes of a device's budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    device: Device,
    bytes: u64,
}

/// Sets how many bytes this crate may hold on `device` at once; without a call there is no limit of ours.
///
/// Buffers that exist already are counted and stay.
pub fn set_budget(device: Device, bytes: u64) {
    with_ledger(device, |ledger| ledger.limit = bytes);
}

/// Sets the budget that `device` begins with, unless one has been set.
#[cfg(feature = "gpu")]
pub(crate) fn begin_budget(device: Device, bytes: u64) {
    with_ledger(device, |ledger| {
        if ledger.limit == u64::MAX {
            ledger.limit = bytes;
        }
    });
}

/// Returns the bytes that this crate holds on `device`; memory-mapped files are not counted.
pub fn used(device: Device) -> u64 {
    with_ledger(device, |ledger| ledger.used)
}

/// Returns the bytes that may still be allocated on `device`.
pub fn available(device: Device) -> u64 {
    with_ledger(device, |ledger| ledger.limit.saturating_sub(ledger.used))
}

/// Asks the C library to keep large blocks that are freed for the next that are asked for, instead of giving their pages back.
///
/// A training takes and frees the same sizes in every step, and the system clears every page that it gives anew. For a
/// whole process, which keeps its peak from then on; so it is for programs that train and end. Does nothing where the C
/// library is not glibc.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a call of the C library that takes two numbers")]
    // SAFETY: it has no preconditions.
    unsafe {
        // The most that the first takes: larger blocks are mapped, each by itself.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Asks the system for large pages under memory that nothing was written to yet, where it is long enough for some.
///
/// Rows of a table are read in no order: with pages of 4 KiB most reads of a large one also wait for the page's place to be
/// looked up (benches/record has what that is of a step). Linux alone has this; elsewhere, and where it is switched off, nothing happens.
pub(crate) fn prefer_large_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let bytes = size_of_val(memory);
        let first = memory.as_mut_ptr().cast::<u8>();
        let skipped = first.align_offset(PAGE);
        let whole = bytes.saturating_sub(skipped) / PAGE * PAGE;
        if whole >= 4 * PAGE {
            #[expect(unsafe_code, reason = "a call of the system on memory that is ours")]
            // SAFETY: the range lies in `memory`; the advice changes how it is backed and nothing that can be read.
            unsafe {
                libc::madvise(first.add(skipped).cast(), whole, libc::MADV_HUGEPAGE);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Takes `bytes` from the budget of `device`, or says how many were asked for and how many there are.
pub(crate) fn reserve(device: Device, what: &'static str, bytes: u64) -> Result<Reservation> {
    with_ledger(device, |ledger| {
        let available = ledger.limit.saturating_sub(ledger.used);
        if bytes > available {
            return Err(Error::OutOfMemory { device, what, asked: bytes, available });
        }
        ledger.used += bytes;
        Ok(Reservation { device, bytes })
    })
}

impl Drop for Reservation {
    fn drop(&mut self) {
        with_ledger(self.device, |ledger| ledger.used -= self.bytes);
    }
}

fn with_ledger<R>(device: Device, change: impl FnOnce(&mut Ledger) -> R) -> R {
    // A panic elsewhere cannot leave two plain numbers inconsistent, so a poisoned lock is as good as a healthy one.
    let mut ledgers: MutexGuard<'_, _> = LEDGERS.lock().unwrap_or_else(PoisonError::into_inner);
    let ledger = ledgers.get_or_insert_default().entry(device).or_insert(Ledger { limit: u64::MAX, used: 0 });
    change(ledger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_is_an_error_and_a_drop_gives_back() {
        let device = Device::Cuda(901); // a ledger of this test's own
        set_budget(device, 100);
        let first = reserve(device, "a test", 60).unwrap();
        assert_eq!(
            reserve(device, "a test", 41).unwrap_err(),
            Error::OutOfMemory { device, what: "a test", asked: 41, available: 40 }
        );
        drop(first);
        assert_eq!((used(device), available(device)), (0, 100));
        reserve(device, "a test", 100).unwrap();
    }
}
