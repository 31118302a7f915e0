//! Files mapped into memory: the one place of this crate with `unsafe`.

use std::path::Path;

use recmill_kernels::Mapped;

use crate::Result;

#[cfg(target_endian = "big")]
compile_error!("model directories are little-endian and are read in place");

/// Maps the file `path` for reading; nothing is read until it is touched.
///
/// # Errors
/// [`crate::Error::Io`] when it cannot be opened or mapped.
pub(crate) fn map(path: &Path) -> Result<Mapped> {
    let file = fs_err::File::open(path)?;
    #[expect(unsafe_code, reason = "a mapped file is the only way to serve a model larger than memory")]
    // SAFETY: the bytes must not change while they are mapped. Versions are immutable: this library writes a file under
    // another name and never opens one in `versions/N` for writing; a version that is pruned is unlinked, which leaves
    // the mapping whole. The bytes are only ever read as plain numbers, for which any bit pattern is valid.
    let map = unsafe { memmap2::Mmap::map(file.file()) }?;
    Ok(Mapped::new(map))
}

/// Maps a file that has no name any more, such as a temporary one, and that nobody writes to from now on.
///
/// # Errors
/// Those of the system's call.
pub(crate) fn map_unnamed(file: std::fs::File) -> std::io::Result<Mapped> {
    #[expect(unsafe_code, reason = "examples that are larger than memory are read in place")]
    // SAFETY: the bytes must not change while they are mapped. The file has no name, so no other process can open it, and
    // its only handle is taken here and closed. The bytes are only ever read as plain numbers.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Mapped::new(map))
}
