//! A typed run of numbers that lives on one device.
//!
//! This file and its folder are the only ones that name where numbers are stored. An operation matches on the device
//! once, in its public function, and is otherwise written against slices (CPU) or one generic `R: Gpu`.

#[cfg(feature = "gpu")]
pub(crate) mod cube;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
pub(crate) mod nvrtc;
#[cfg(feature = "cuda-sources")]
pub(crate) mod pretend;
#[cfg(feature = "gpu")]
pub(crate) mod shared;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use std::{ops::Range, sync::Arc};

use bytemuck::{Pod, Zeroable};

use crate::{
    Device, Error, Result,
    memory::{self, Reservation, prefer_large_pages},
};

/// The one match of an operation on its device: runs `$work` with `$runtime` naming the runtime of `$device`; an error for
/// the CPU, and for a runtime left out of this build.
macro_rules! on_gpu {
    ($op:expr, $device:expr, $runtime:ident => $work:expr) => {
        match $device {
            #[cfg(feature = "cuda-sources")]
            device if $crate::buffer::pretend::chip_of(device).is_some() => {
                type $runtime = $crate::buffer::pretend::PretendRuntime;
                $work
            }
            #[cfg(feature = "cuda")]
            $crate::Device::Cuda(_) => {
                type $runtime = $crate::buffer::cuda::CudaRuntime;
                $work
            }
            #[cfg(feature = "wgpu")]
            $crate::Device::Wgpu(_) => {
                type $runtime = $crate::buffer::wgpu::WgpuRuntime;
                $work
            }
            device => Err(match device.check() {
                Err(unavailable) => unavailable,
                Ok(()) => $crate::Error::NotOnDevice { op: $op, device },
            }),
        }
    };
}
pub(crate) use on_gpu;

/// Bytes that somebody else keeps alive, such as a memory-mapped file.
#[derive(Clone)]
pub struct Mapped(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Mapped {
    /// Shares `owner`'s bytes; they must not change while any buffer over them lives.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(owner))
    }

    /// Returns all the bytes.
    pub fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped[{} bytes]", self.bytes().len())
    }
}

/// What an allocation is called in an error.
const ALLOCATE: &str = "allocate";

/// A cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// What holds a buffer's numbers.
pub(crate) enum Storage<T> {
    Owned(Vec<T>),
    /// As `Owned`, beginning at a cache line: a row of whole lines then crosses none.
    Aligned(Vec<Line>),
    Mapped(Mapped, Range<usize>),
    #[cfg(feature = "cuda")]
    Cuda(cube::CubeStorage<cuda::CudaRuntime>),
    #[cfg(feature = "cuda-sources")]
    Pretend(cube::CubeStorage<pretend::PretendRuntime>),
    #[cfg(feature = "wgpu")]
    Wgpu(cube::CubeStorage<wgpu::WgpuRuntime>),
}

/// A contiguous run of values of `T` on one device.
///
/// Not `Clone`: an alias on a GPU and a copy on a CPU would not be the same thing. Share it by `Arc<Buffer>`, copy it
/// by [`Buffer::try_copy`].
pub struct Buffer<T> {
    pub(crate) storage: Storage<T>,
    len: usize,
    device: Device,
    /// Gives the bytes back on drop; mapped bytes are not ours to count.
    _reservation: Option<Reservation>,
}

impl<T: Pod> Buffer<T> {
    /// Allocates `len` zeros on `device`; `what` names them in an error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::BufferTooLarge`], [`Error::Unavailable`].
    pub fn zeros(len: usize, device: Device, what: &'static str) -> Result<Self> {
        if device != Device::Cpu {
            return on_gpu!(ALLOCATE, device, R => cube::Queue::<R>::new(device)?.zeros(len, what));
        }
        let reservation = reserve::<T>(len, device, what)?;
        let whole = size_of::<T>() > 0 && size_of::<Line>().is_multiple_of(size_of::<T>());
        let memory_failed = |_| refused::<T>(len, device, what);
        let storage = if whole {
            let n = len.div_ceil(size_of::<Line>() / size_of::<T>());
            let mut lines = Vec::new();
            lines.try_reserve_exact(n).map_err(memory_failed)?;
            prefer_large_pages(lines.spare_capacity_mut());
            lines.resize(n, Line::zeroed());
            Storage::Aligned(lines)
        } else {
            let mut values = Vec::new();
            values.try_reserve_exact(len).map_err(memory_failed)?;
            prefer_large_pages(values.spare_capacity_mut());
            values.resize(len, T::zeroed());
            Storage::Owned(values)
        };
        Ok(Self { storage, len, device, _reservation: Some(reservation) })
    }

    /// Takes `values` over as a buffer on the CPU; `what` names them in an error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the CPU's budget has not as many bytes left.
    pub fn from_vec(values: Vec<T>, what: &'static str) -> Result<Self> {
        let reservation = reserve::<T>(values.len(), Device::Cpu, what)?;
        let len = values.len();
        Ok(Self {
            storage: Storage::Owned(values),
            len,
            device: Device::Cpu,
            _reservation: Some(reservation),
        })
    }

    /// Returns the values: without a copy where the buffer owns them on the CPU.
    ///
    /// # Errors
    /// As [`Buffer::to_vec`].
    pub fn into_vec(self) -> Result<Vec<T>> {
        match self.storage {
            Storage::Owned(values) => Ok(values),
            _ => self.to_vec(),
        }
    }

    /// Copies `values` to `device`; `what` names them in an error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::BufferTooLarge`], [`Error::Unavailable`].
    pub fn from_slice(values: &[T], device: Device, what: &'static str) -> Result<Self> {
        let len = values.len();
        if device != Device::Cpu {
            return on_gpu!(ALLOCATE, device, R => cube::Queue::<R>::new(device)?.upload(values, what));
        }
        let mut buffer = Self::zeros(len, device, what)?;
        if let Some(owned) = buffer.cpu_mut() {
            owned.copy_from_slice(values);
        }
        Ok(buffer)
    }

    /// Reads `len` values at `byte_offset` of `mapped` in place, without a copy.
    ///
    /// # Errors
    /// [`Error::Shape`] when the range passes the end or is not aligned for `T`.
    pub fn from_mapped(mapped: Mapped, byte_offset: usize, len: usize) -> Result<Self> {
        let misfit = |got| Error::Shape { op: "map", what: "mapped bytes", expected: len, got };
        let byte_len = len.checked_mul(size_of::<T>()).ok_or(misfit(0))?;
        let end = byte_offset.checked_add(byte_len).ok_or(misfit(0))?;
        let bytes = mapped.bytes().get(byte_offset..end).ok_or(misfit(mapped.bytes().len()))?;
        let got = bytemuck::try_cast_slice::<u8, T>(bytes).map(<[T]>::len).unwrap_or(0);
        if got != len {
            return Err(misfit(got));
        }
        Ok(Self {
            storage: Storage::Mapped(mapped, byte_offset..end),
            len,
            device: Device::Cpu,
            _reservation: None,
        })
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns where the values live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the values where they are in this process's memory, and `None` on a GPU.
    pub fn cpu(&self) -> Option<&[T]> {
        match &self.storage {
            Storage::Owned(values) => Some(values),
            Storage::Aligned(lines) => Some(&bytemuck::cast_slice(lines)[..self.len]),
            Storage::Mapped(mapped, range) => Some(bytemuck::cast_slice(&mapped.bytes()[range.clone()])),
            #[cfg(feature = "gpu")]
            _ => None,
        }
    }

    /// Returns the values for writing; `None` on a GPU, and for mapped bytes, which are never written.
    pub fn cpu_mut(&mut self) -> Option<&mut [T]> {
        match &mut self.storage {
            Storage::Owned(values) => Some(values),
            Storage::Aligned(lines) => Some(&mut bytemuck::cast_slice_mut(lines)[..self.len]),
            _ => None,
        }
    }

    /// Copies the values back to the host; waits for the work that writes them.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device no longer answers.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        match &self.storage {
            Storage::Owned(values) => Ok(values.clone()),
            Storage::Aligned(lines) => Ok(bytemuck::cast_slice(lines)[..self.len].to_vec()),
            Storage::Mapped(mapped, range) => {
                Ok(bytemuck::cast_slice(&mapped.bytes()[range.clone()]).to_vec())
            }
            #[cfg(feature = "cuda")]
            Storage::Cuda(storage) => storage.download(self.device, self.len),
            #[cfg(feature = "cuda-sources")]
            Storage::Pretend(storage) => storage.download(self.device, self.len),
            #[cfg(feature = "wgpu")]
            Storage::Wgpu(storage) => storage.download(self.device, self.len),
        }
    }

    /// Copies the buffer to `device`; `what` names the copy in an error.
    ///
    /// # Errors
    /// As [`Buffer::from_slice`] and [`Buffer::to_vec`].
    pub fn try_copy(&self, device: Device, what: &'static str) -> Result<Self> {
        match self.cpu() {
            Some(values) => Self::from_slice(values, device, what),
            None => Self::from_slice(&self.to_vec()?, device, what),
        }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer<{}>[{}] on {}", std::any::type_name::<T>(), self.len, self.device)
    }
}

fn reserve<T>(len: usize, device: Device, what: &'static str) -> Result<Reservation> {
    let bytes =
        (len as u64).checked_mul(size_of::<T>() as u64).ok_or_else(|| refused::<T>(len, device, what))?;
    memory::reserve(device, what, bytes)
}

fn refused<T>(len: usize, device: Device, what: &'static str) -> Error {
    let asked = (len as u64).saturating_mul(size_of::<T>() as u64);
    Error::OutOfMemory { device, what, asked, available: memory::available(device) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_buffer_reads_in_place_and_refuses_what_does_not_fit() {
        let words: Vec<u64> = vec![1, 2, 3];
        struct Bytes(Vec<u64>);
        impl AsRef<[u8]> for Bytes {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        let mapped = Mapped::new(Bytes(words));
        let buffer = Buffer::<u64>::from_mapped(mapped.clone(), 8, 2).unwrap();
        assert_eq!(buffer.cpu(), Some(&[2, 3][..]));
        assert_eq!(buffer.into_vec().unwrap(), [2, 3]);
        assert!(Buffer::<u64>::from_mapped(mapped.clone(), 8, 3).is_err());
        assert!(Buffer::<u64>::from_mapped(mapped.clone(), 4, 1).is_err());
        assert!(Buffer::<u64>::from_mapped(mapped, 8, usize::MAX).is_err());
    }

    #[test]
    fn values_go_in_and_come_out_without_a_copy() {
        let values = vec![1.5f32; 100];
        let place = values.as_ptr();
        let out = Buffer::from_vec(values, "a test").unwrap().into_vec().unwrap();
        assert_eq!((out.as_ptr(), out), (place, vec![1.5; 100]));
    }

    #[test]
    fn a_new_buffer_begins_at_a_cache_line() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut buffer = Buffer::<f32>::zeros(len, Device::Cpu, "a test").unwrap();
            assert_eq!(buffer.cpu().unwrap().as_ptr() as usize % 64, 0);
            buffer.cpu_mut().unwrap().fill(1.0);
            assert_eq!(buffer.to_vec().unwrap(), vec![1.0; len]);
            assert_eq!(
                Buffer::<[u8; 3]>::zeros(len, Device::Cpu, "a test").unwrap().cpu().unwrap().len(),
                len
            );
        }
    }

    #[test]
    fn an_absurd_length_is_an_error() {
        let error = Buffer::<u64>::zeros(usize::MAX / 16, Device::Cpu, "a test").unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { what: "a test", .. }), "{error}");
    }
}
