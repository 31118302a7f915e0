//! Named arrays in one file, in the safetensors format: written as a stream, read in place.
//!
//! ```text
//! u64 length of header | header: JSON {name: {dtype, shape, data_offsets}}, padded with spaces to 64 bytes | values
//! ```
//! Tensors with larger numbers come first, so that every one is aligned for its type.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use bytemuck::Pod;
use recmill_kernels::{Buffer, Mapped};
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use crate::{
    Error, Result,
    directory::{Damage, FileRecord, hash::HashedFile},
};

/// A header longer than this is refused before it is parsed.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// More tensors than this in a file are refused.
const MAX_TENSORS: usize = 1 << 16;

/// Writes a tensor's values.
pub(crate) type WriteValues<'a> = Box<dyn Fn(&mut dyn Write) -> Result<()> + 'a>;

/// A tensor about to be written.
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    /// Writes exactly the bytes that dtype and shape promise.
    pub(crate) write: WriteValues<'a>,
}

impl Tensor<'_> {
    /// Returns the bytes of its values.
    pub(crate) fn bytes(&self) -> Result<u64> {
        self.shape
            .iter()
            .try_fold(width(self.dtype), |bytes, &n| bytes.checked_mul(n))
            .ok_or(Error::Inconsistent { what: "size of a tensor", at: u64::MAX })
    }
}

/// Returns the bytes of one number.
pub(crate) fn width(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

/// Writes `tensors` to `file`, one after another, without holding more than one write of theirs.
///
/// # Errors
/// [`Error::Inconsistent`] when one writes more or fewer bytes than it promised.
pub(crate) fn write(mut file: HashedFile<'_>, tensors: &mut [Tensor<'_>]) -> Result<FileRecord> {
    tensors.sort_by_key(|tensor| std::cmp::Reverse(width(tensor.dtype)));
    let mut header = serde_json::Map::new();
    let mut begin = 0u64;
    for tensor in tensors.iter() {
        let end = begin + tensor.bytes()?;
        header.insert(
            tensor.name.clone(),
            serde_json::json!({"dtype": tensor.dtype.to_string(), "shape": tensor.shape, "data_offsets": [begin, end]}),
        );
        begin = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(std::io::Error::from)?;
    header.resize((header.len() + 8).next_multiple_of(64) - 8, b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (at, tensor) in tensors.iter().enumerate() {
        let mut counted = Counted { inner: &mut file, bytes: 0 };
        (tensor.write)(&mut counted)?;
        if counted.bytes != tensor.bytes()? {
            return Err(Error::Inconsistent { what: "length of a tensor", at: at as u64 });
        }
    }
    file.finish()
}

struct Counted<'a, W> {
    inner: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A mapped file whose header has been checked: the tensors cover its bytes exactly, each as long as its shape says.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    mapped: Mapped,
    begin: usize,
    header: Metadata,
}

impl TensorFile {
    /// Checks the header of the file at `path`; no value is touched.
    pub(crate) fn new(path: &Path, mapped: Mapped) -> Result<Self> {
        Self::check(&mapped)
            .map(|(begin, header)| Self { path: path.to_owned(), mapped, begin, header })
            .map_err(|damage| damage.at(path))
    }

    fn check(mapped: &Mapped) -> std::result::Result<(usize, Metadata), Damage> {
        let bytes = mapped.bytes();
        let length = bytes.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        if length > MAX_HEADER_BYTES {
            return Err(Damage::Limit { what: "length of the header", limit: MAX_HEADER_BYTES, got: length });
        }
        let (length, header) = SafeTensors::read_metadata(bytes)
            .map_err(|error| Damage::malformed("safetensors header", error))?;
        let n = header.offset_keys().len();
        if n > MAX_TENSORS {
            let limit = MAX_TENSORS as u64;
            return Err(Damage::Limit { what: "number of tensors", limit, got: n as u64 });
        }
        Ok((8 + length, header))
    }

    /// Returns the names of all tensors.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Returns whether there is a tensor called `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// Returns the values of tensor `name`, which must have this type and shape, in place.
    pub(crate) fn values<T: Pod>(&self, name: &str, dtype: Dtype, shape: &[u64]) -> Result<Buffer<T>> {
        let wrong = || Damage::contradiction("tensor", name).at(&self.path);
        let info = self.header.info(name).ok_or_else(wrong)?;
        let same_shape = info.shape.iter().map(|&n| n as u64).eq(shape.iter().copied());
        if info.dtype != dtype || !same_shape || width(dtype) != size_of::<T>() as u64 {
            return Err(wrong());
        }
        let len = (info.data_offsets.1 - info.data_offsets.0) / size_of::<T>();
        Ok(Buffer::from_mapped(self.mapped.clone(), self.begin + info.data_offsets.0, len)?)
    }

    /// Returns the length of the one-dimensional tensor `name`.
    pub(crate) fn length(&self, name: &str) -> Result<u64> {
        match self.header.info(name).map(|info| &info.shape[..]) {
            Some(&[n]) => Ok(n as u64),
            _ => Err(Damage::contradiction("tensor", name).at(&self.path)),
        }
    }
}
