//! Buffers on a GPU, and the queue that a kernel is launched on.
//!
//! This folder names cubecl's runtimes and devices, and no other does: `wgpu.rs` and `cuda.rs` find the devices of one
//! kind each, and [`Gpu`] is what they have in common. An operation gets a [`Queue`], makes its buffers there, and passes
//! them to its kernel by [`Queue::arg`], whose length is the buffer's own.
//!
//! cubecl 0.10 hides an allocation that its device refuses and then reads old numbers. So no buffer is larger than the
//! device binds at once, its bytes are taken from the budget of `memory` first, and a device whose thread has panicked, or
//! that has failed to answer once, counts as lost from then on.

use std::{
    cell::Cell,
    collections::HashSet,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytemuck::Pod;
use cubecl::{
    ir::{ElemType, FloatKind, features::TypeUsage},
    prelude::*,
    server::Handle,
};

use super::{Buffer, Storage, reserve};
use crate::{Device, Error, Result, device::Features};

/// A device allocation, and the queue that orders work on it.
#[derive(Clone)]
pub(crate) struct CubeStorage<R: Runtime> {
    client: ComputeClient<R>,
    handle: Handle,
}

/// A runtime that buffers live on.
pub(crate) trait Gpu: Runtime {
    /// Returns the queue of `device`, which is of this runtime's kind.
    fn client_of(device: Device) -> Result<ComputeClient<Self>>;

    /// Returns where a buffer on this runtime lives; `None` for any other.
    fn storage<T>(buffer: &Buffer<T>) -> Option<&CubeStorage<Self>>;

    /// Makes a buffer's storage of an allocation.
    fn wrap<T>(storage: CubeStorage<Self>) -> Storage<T>;
}

/// Devices that no longer answer.
static LOST: Mutex<Option<HashSet<Device>>> = Mutex::new(None);
/// Whether a device's thread has panicked; which device's, its name does not say.
static PANICKED: AtomicBool = AtomicBool::new(false);
/// Devices being opened: a panic then is an answer, that this one does not open.
static OPENING: AtomicUsize = AtomicUsize::new(0);
/// What the thread of a device that did not open said last.
static REFUSAL: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// Whether a panic of this thread is caught and told in other words.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

fn mark_lost(device: Device) {
    LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(device);
}

fn is_lost(device: Device) -> bool {
    let lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    PANICKED.load(Ordering::SeqCst) || lost.as_ref().is_some_and(|lost| lost.contains(&device))
}

/// Returns what `open` gives; why it does not when it panics, as cubecl does where a driver lists a device and does not open it.
pub(super) fn opening<T>(open: impl FnOnce() -> T) -> std::result::Result<T, String> {
    OPENING.fetch_add(1, Ordering::SeqCst);
    let opened = caught(open);
    OPENING.fetch_sub(1, Ordering::SeqCst);
    let said = REFUSAL.lock().unwrap_or_else(PoisonError::into_inner).take();
    opened.ok_or_else(|| {
        said.map_or_else(
            || "its driver does not open it".into(),
            |said| format!("its driver does not open it: {said}"),
        )
    })
}

/// Returns what `work` gives; `None` when it panics, which nothing is printed of.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    watch_device_threads();
    let before = TOLD.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    TOLD.set(before);
    done
}

/// From here on, a panic in a thread that serves a device is noticed; cubecl itself logs it and goes on.
fn watch_device_threads() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |about| {
            let thread = std::thread::current();
            let serves = |name: &str| name.starts_with("DSU-") || name.starts_with("DSD-");
            let serves_device = thread.name().is_some_and(serves);
            if serves_device && OPENING.load(Ordering::SeqCst) > 0 {
                let said = about.payload_as_str().and_then(|said| said.lines().next()).map(str::to_owned);
                *REFUSAL.lock().unwrap_or_else(PoisonError::into_inner) = said;
                return;
            }
            if serves_device {
                PANICKED.store(true, Ordering::SeqCst);
            }
            if !TOLD.try_with(Cell::get).unwrap_or(false) {
                before(about);
            }
        }));
    });
}

/// Where the kernels of one device are launched.
pub(crate) struct Queue<R: Gpu> {
    pub(crate) client: ComputeClient<R>,
    device: Device,
}

impl<R: Gpu> Queue<R> {
    /// Returns the queue of `device`.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::DeviceLost`] when the device has failed before.
    pub(crate) fn new(device: Device) -> Result<Self> {
        if is_lost(device) {
            return Err(Error::DeviceLost { device, doing: "an earlier operation" });
        }
        let client = R::client_of(device)?;
        watch_device_threads();
        Ok(Self { client, device })
    }

    /// Copies `values` to the device.
    pub(crate) fn upload<T: Pod>(&self, values: &[T], what: &'static str) -> Result<Buffer<T>> {
        let reservation = reserve::<T>(values.len(), self.device, what)?;
        self.guard::<T>(values.len(), what)?;
        // A binding of no bytes is refused by some drivers.
        let handle = match values {
            [] => self.client.empty(16),
            values => self.client.create_from_slice(bytemuck::cast_slice(values)),
        };
        Ok(self.wrap(handle, values.len(), reservation))
    }

    /// Allocates `len` values that the next kernel writes, every one; until then they are anything.
    pub(crate) fn unwritten<T: Pod>(&self, len: usize, what: &'static str) -> Result<Buffer<T>> {
        let reservation = reserve::<T>(len, self.device, what)?;
        self.guard::<T>(len, what)?;
        let handle = self.client.empty((len * size_of::<T>()).max(16));
        Ok(self.wrap(handle, len, reservation))
    }

    /// Allocates `len` zeros.
    pub(crate) fn zeros<T: Pod>(&self, len: usize, what: &'static str) -> Result<Buffer<T>> {
        let bytes = len * size_of::<T>();
        if !bytes.is_multiple_of(4) {
            return self.upload(&vec![T::zeroed(); len], what);
        }
        let buffer = self.unwritten::<T>(len, what)?;
        let words = bytes / 4;
        if words > 0
            && let Some(storage) = R::storage(&buffer)
        {
            let cube_dim = CubeDim::new_1d(256);
            let cube_count = cubes(&self.client, words.div_ceil(256));
            // SAFETY: the allocation above has this many words.
            #[expect(unsafe_code, reason = "the buffer is written as words, whatever its type")]
            let words = unsafe { ArrayArg::from_raw_parts(storage.handle.clone(), words) };
            zero_kernel::launch::<R>(&self.client, cube_count, cube_dim, words);
        }
        Ok(buffer)
    }

    /// Returns `buffer` as a kernel's argument of as many elements as it has.
    ///
    /// # Errors
    /// [`Error::MixedDevices`] when it lives elsewhere.
    pub(crate) fn arg<T: Pod>(&self, op: &'static str, buffer: &Buffer<T>) -> Result<ArrayArg<R>> {
        match R::storage(buffer) {
            Some(storage) if buffer.device() == self.device => {
                // SAFETY: a buffer's allocation holds its length of values.
                #[expect(unsafe_code, reason = "cubecl takes lengths on trust")]
                Ok(unsafe { ArrayArg::from_raw_parts(storage.handle.clone(), buffer.len()) })
            }
            _ => Err(Error::MixedDevices { op }),
        }
    }

    /// As [`Queue::arg`], for a kernel that reads or writes vectors of `width` values; inside, the length counts vectors.
    ///
    /// # Errors
    /// [`Error::MixedDevices`]; [`Error::Shape`] when the length is no whole number of vectors.
    pub(crate) fn vector_arg<T: Pod>(
        &self,
        op: &'static str,
        buffer: &Buffer<T>,
        width: usize,
    ) -> Result<ArrayArg<R>> {
        if !buffer.len().is_multiple_of(width) {
            let expected = buffer.len().next_multiple_of(width);
            return Err(Error::Shape { op, what: "a buffer read in vectors", expected, got: buffer.len() });
        }
        self.arg(op, buffer)
    }

    /// As [`Queue::arg`], for a kernel that reads 16-bit values two to a word; the upper half of a last odd word is anything.
    ///
    /// # Errors
    /// [`Error::MixedDevices`].
    pub(crate) fn words_arg<T: Pod>(&self, op: &'static str, buffer: &Buffer<T>) -> Result<ArrayArg<R>> {
        match R::storage(buffer) {
            Some(storage) if buffer.device() == self.device => {
                // SAFETY: devices hand out and bind whole words, so the last one is there even where it is half used.
                #[expect(unsafe_code, reason = "cubecl takes lengths on trust")]
                Ok(unsafe {
                    ArrayArg::from_raw_parts(
                        storage.handle.clone(),
                        (buffer.len() * size_of::<T>()).div_ceil(4),
                    )
                })
            }
            _ => Err(Error::MixedDevices { op }),
        }
    }

    /// As [`Queue::words_arg`], for a kernel that writes the words, too: there must be no half one.
    ///
    /// # Errors
    /// [`Error::MixedDevices`]; [`Error::Shape`] when the values are no whole number of words.
    pub(crate) fn whole_words_arg<T: Pod>(
        &self,
        op: &'static str,
        buffer: &Buffer<T>,
    ) -> Result<ArrayArg<R>> {
        let bytes = buffer.len() * size_of::<T>();
        if !bytes.is_multiple_of(4) {
            let expected = bytes.next_multiple_of(4) / size_of::<T>();
            return Err(Error::Shape { op, what: "a buffer read in words", expected, got: buffer.len() });
        }
        self.words_arg(op, buffer)
    }

    /// Waits for everything that this thread has launched.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) fn wait(&self) -> Result<()> {
        match caught(|| cubecl::future::block_on(self.client.sync())) {
            Some(Ok(())) if !is_lost(self.device) => Ok(()),
            _ => {
                mark_lost(self.device);
                Err(Error::DeviceLost { device: self.device, doing: "waiting for it" })
            }
        }
    }

    fn guard<T>(&self, len: usize, what: &'static str) -> Result<()> {
        let asked = (len as u64).saturating_mul(size_of::<T>() as u64);
        let limit = max_buffer_bytes(&self.client);
        match asked <= limit {
            true => Ok(()),
            false => Err(Error::BufferTooLarge { device: self.device, what, asked, limit }),
        }
    }

    fn wrap<T>(&self, handle: Handle, len: usize, reservation: crate::memory::Reservation) -> Buffer<T> {
        let storage = R::wrap(CubeStorage { client: self.client.clone(), handle });
        Buffer { storage, len, device: self.device, _reservation: Some(reservation) }
    }
}

/// Returns the widest vector that rows of `dim` f32 values are a whole number of: 4, 2 or 1.
pub(crate) fn vector_width(dim: usize) -> usize {
    [4, 2, 1].into_iter().find(|&width| dim.is_multiple_of(width)).unwrap_or(1)
}

/// Returns a grid of at least `n` cubes, folded where an axis holds fewer; a kernel leaves out those past the last.
pub(crate) fn cubes<R: Runtime>(client: &ComputeClient<R>, n: usize) -> CubeCount {
    let (most, ..) = client.properties().hardware.max_cube_count;
    let most = most.min(65_535) as usize;
    CubeCount::Static(n.min(most) as u32, n.div_ceil(most) as u32, 1)
}

/// Returns the most bytes that one buffer may have.
pub(super) fn max_buffer_bytes<R: Runtime>(client: &ComputeClient<R>) -> u64 {
    client.properties().memory.max_page_size
}

/// Returns what kernels on the device may count on.
pub(super) fn features<R: Runtime>(client: &ComputeClient<R>) -> Features {
    let properties = client.properties();
    let hardware = &properties.hardware;
    let stores = |kind| {
        let usage = properties.features.types.storage.get(&ElemType::Float(kind).into());
        usage.is_some_and(|usage| usage.contains(TypeUsage::Buffer))
    };
    Features {
        max_buffer_bytes: max_buffer_bytes(client),
        plane_size: (hardware.plane_size_min, hardware.plane_size_max),
        shared_bytes: hardware.max_shared_memory_size as u64,
        max_units: hardware.max_units_per_cube,
        f16: stores(FloatKind::F16),
        bf16: stores(FloatKind::BF16),
    }
}

impl<R: Runtime> CubeStorage<R> {
    pub(super) fn new(client: ComputeClient<R>, handle: Handle) -> Self {
        Self { client, handle }
    }

    pub(super) fn parts(&self) -> (ComputeClient<R>, Handle) {
        (self.client.clone(), self.handle.clone())
    }

    pub(super) fn download<T: Pod>(&self, device: Device, len: usize) -> Result<Vec<T>> {
        let doing = "reading a buffer back";
        if is_lost(device) {
            return Err(Error::DeviceLost { device, doing });
        }
        if len == 0 {
            return Ok(Vec::new());
        }
        // cubecl gives an error where the device's thread has answered with one, and panics where that thread is gone.
        let handle = self.handle.clone();
        let client = &self.client;
        let bytes = match caught(|| client.read_one(handle)) {
            Some(Ok(bytes)) if !is_lost(device) => bytes,
            _ => {
                mark_lost(device);
                return Err(Error::DeviceLost { device, doing });
            }
        };
        // The bytes need not be aligned for `T`.
        let mut values = vec![T::zeroed(); len];
        let into: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        into.copy_from_slice(&bytes[..into.len()]);
        Ok(values)
    }
}

#[cube(launch)]
fn zero_kernel(words: &mut Array<u32>) {
    if ABSOLUTE_POS < words.len() {
        words[ABSOLUTE_POS] = 0;
    }
}
