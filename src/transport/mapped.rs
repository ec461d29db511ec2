//! Files that are read in place: the pages of a mapped file exist once a node, however many ranks
//! read them, and only those that are touched are read from the disk.
//!
//! Cost: none a byte beyond that of reading memory; a page fault for each 4 KiB that nobody on the
//! node has touched yet.

#![allow(unsafe_code)] // a mapped file is memory that others can change; see `Mapped::open`

use std::fs::File;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use bytemuck::AnyBitPattern;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// A file in memory, read only. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Arc<Mmap>>,
}

impl Mapped {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Mapped> {
        let file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
        let metadata = file.metadata().map_err(|e| Error::file(path, "read", &e))?;
        if !metadata.is_file() {
            return Err(Error::input(format!("{}: not a regular file", path.display())));
        }
        if metadata.len() == 0 {
            return Ok(Mapped { map: None });
        }
        // SAFETY: the mapping is private and read only, and only types for which all bits are
        // values are read from it (`AnyBitPattern`), so a change of the file can change numbers
        // but not break a rule of a type; readers check what they use as an index after they have
        // copied it. Files of this project are replaced by renaming (`files::write_atomically`),
        // which leaves a mapped file as it is. A foreign program that cuts the file short while it
        // is mapped ends this process with a bus error, as it would any program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::file(path, "map", &e))?;
        Ok(Mapped { map: Some(Arc::new(map)) })
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..])
    }

    /// The bytes in `range` as values; `None` if they are outside the file, not a whole number of
    /// values, or not aligned to them.
    pub fn slice<T: AnyBitPattern>(&self, range: Range<usize>) -> Option<MappedSlice<T>> {
        let bytes = self.bytes().get(range.clone())?;
        bytemuck::try_cast_slice::<u8, T>(bytes).ok()?;
        Some(MappedSlice { file: self.clone(), range, values: PhantomData })
    }
}

/// Values in a mapped file, which lives as long as they do.
#[derive(Clone, Debug)]
pub struct MappedSlice<T> {
    file: Mapped,
    range: Range<usize>,
    values: PhantomData<T>,
}

impl<T: AnyBitPattern> Deref for MappedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // Checked when it was made, and neither the range nor the address of the map changes.
        bytemuck::cast_slice(&self.file.bytes()[self.range.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_file_and_bad_ranges_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let numbers: Vec<u32> = (0..100).map(|i| i * i).collect();
        std::fs::write(&path, bytemuck::cast_slice::<u32, u8>(&numbers)).unwrap();
        let file = Mapped::open(&path).unwrap();
        assert_eq!(file.bytes().len(), 400);
        let slice = file.slice::<u32>(40..80).unwrap();
        drop(file);
        assert_eq!(slice[..], numbers[10..20]);
        let file = Mapped::open(&path).unwrap();
        assert!(file.slice::<u32>(40..81).is_none(), "no whole number of values");
        assert!(file.slice::<u32>(41..81).is_none(), "not aligned");
        assert!(file.slice::<u32>(396..404).is_none(), "beyond the end");
        std::fs::write(&path, "").unwrap();
        assert!(Mapped::open(&path).unwrap().bytes().is_empty());
        for (path, what) in [(folder.path(), "not a regular file"), (Path::new("no"), "open")] {
            let error = Mapped::open(path).unwrap_err();
            assert!(error.message.contains(what) && error.exit_code() == 2, "{error}");
        }
    }
}
