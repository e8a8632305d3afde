//! Bytes to read: a mapped file, or a buffer.

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

#[derive(Debug)]
pub(super) enum Memory {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Memory {
    /// Maps a file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn map(path: &Path) -> Result<Memory> {
        let cannot = |e: std::io::Error| Error::file(path, "read", &e);
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(Error::input(path, "", "is not a file"));
        }
        if metadata.len() == 0 {
            return Ok(Memory::Owned(Vec::new()));
        }
        // SAFETY: the map is read only and every bit pattern is a valid u8. Nobody may
        // shorten the file while it is mapped, as for every program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
        Ok(Memory::Mapped(map))
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Memory::Mapped(map) => map,
            Memory::Owned(bytes) => bytes,
        }
    }
}
