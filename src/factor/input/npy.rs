//! Arrays of one or two dimensions in numpy's own format (NEP 1), read a row at a time, so that a
//! rank reads its dates and nothing else. The header is a short Python literal with three known
//! keys; a general parser of Python literals would be the larger dependency.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// An array in a file.
#[derive(Debug)]
pub(super) struct Array {
    path: PathBuf,
    file: File,
    /// Where the values start.
    start: u64,
    kind: u8,
    bytes: usize,
    big_endian: bool,
    /// Rows and columns; an array of one dimension is one row.
    pub(super) shape: [usize; 2],
    /// How many dimensions it has.
    pub(super) dimensions: usize,
}

impl Array {
    pub(super) fn open(path: &Path) -> Result<Array> {
        let bad = |what: &str| Error::input(format!("{}: {what}", path.display()));
        let mut file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
        let mut head = [0; 10];
        file.read_exact(&mut head).map_err(|e| Error::file(path, "read its header", &e))?;
        if !head.starts_with(b"\x93NUMPY") {
            return Err(bad("not a .npy file"));
        }
        let mut start = 10;
        let mut length = usize::from(u16::from_le_bytes([head[8], head[9]]));
        if head[6] > 1 {
            let mut high = [0; 2];
            file.read_exact(&mut high).map_err(|e| Error::file(path, "read its header", &e))?;
            length += usize::from(u16::from_le_bytes(high)) << 16;
            start += 2;
        }
        let mut text = Vec::new();
        let read = file.by_ref().take(length as u64).read_to_end(&mut text);
        read.map_err(|e| Error::file(path, "read its header", &e))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = |key: &str| {
            let after = text.split_once(&format!("'{key}':"))?.1;
            Some(after.trim_start())
        };
        let [descr, order, shape] = ["descr", "fortran_order", "shape"].map(value);
        let (Some(descr), Some(order), Some(shape)) = (descr, order, shape) else {
            return Err(bad("a .npy header without descr, fortran_order or shape"));
        };
        let descr = descr.trim_start_matches('\'').split('\'').next().unwrap_or("");
        let (kind, bytes) = match descr.as_bytes() {
            [b'<' | b'>' | b'|' | b'=', kind, size] => {
                (*kind, usize::from(size.wrapping_sub(b'0')))
            }
            _ => (0, 0),
        };
        if !matches!((kind, bytes), (b'f', 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8) | (b'b', 1)) {
            return Err(bad(&format!("values of type '{descr}'; expected f4, f8 or integers")));
        }
        let inside = shape.trim_start_matches('(').split(')').next().unwrap_or("");
        let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
        let sizes: Option<Vec<usize>> = sizes.map(|size| size.parse().ok()).collect();
        let shape = match sizes.as_deref() {
            Some([columns]) => [1, *columns],
            Some([rows, columns]) => [*rows, *columns],
            _ => return Err(bad("expected one or two dimensions")),
        };
        let dimensions = sizes.map_or(0, |sizes| sizes.len());
        if order.starts_with("True") && dimensions == 2 && shape[0] > 1 && shape[1] > 1 {
            return Err(bad(
                "in Fortran order; save numpy.ascontiguousarray(matrix), dates × assets",
            ));
        }
        let start = start + length as u64;
        let needed = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(bytes));
        let held = file.metadata().map_err(|e| Error::file(path, "read", &e))?.len();
        if needed.is_none_or(|needed| held.saturating_sub(start) < needed as u64) {
            return Err(bad("shorter than its header says; the file is damaged"));
        }
        let big_endian = descr.starts_with('>');
        let path = path.to_path_buf();
        Ok(Array { path, file, start, kind, bytes, big_endian, shape, dimensions })
    }

    /// The values of a row.
    pub(super) fn row(&self, row: usize) -> Result<Vec<f64>> {
        let mut bytes = vec![0; self.shape[1] * self.bytes];
        let at = self.start + (row * bytes.len()) as u64;
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|e| Error::file(&self.path, "read", &e))?;
        if self.big_endian {
            bytes.chunks_mut(self.bytes).for_each(<[u8]>::reverse);
        }
        Ok(match (self.kind, self.bytes) {
            (b'f', 8) => values(&bytes, f64::from_le_bytes),
            (b'f', _) => values(&bytes, |b| f64::from(f32::from_le_bytes(b))),
            (b'i', 1) => values(&bytes, |b| f64::from(i8::from_le_bytes(b))),
            (b'i', 2) => values(&bytes, |b| f64::from(i16::from_le_bytes(b))),
            (b'i', 4) => values(&bytes, |b| f64::from(i32::from_le_bytes(b))),
            (b'i', _) => values(&bytes, |b| i64::from_le_bytes(b) as f64),
            (_, 1) => values(&bytes, |b| f64::from(u8::from_le_bytes(b))),
            (_, 2) => values(&bytes, |b| f64::from(u16::from_le_bytes(b))),
            (_, 4) => values(&bytes, |b| f64::from(u32::from_le_bytes(b))),
            _ => values(&bytes, |b| u64::from_le_bytes(b) as f64),
        })
    }
}

fn values<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn types_and_shapes_are_read() {
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n")
        };
        let file = write(&header("<i2", "(2, 3)"), &[1, 0, 2, 0, 3, 0, 0xff, 0xff, 5, 0, 6, 1]);
        let array = Array::open(file.path()).unwrap();
        assert_eq!((array.shape, array.dimensions), ([2, 3], 2));
        assert_eq!(array.row(0).unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(array.row(1).unwrap(), [-1.0, 5.0, 262.0]);
        let file = write(&header(">f4", "(1,)"), &1.5f32.to_be_bytes());
        let array = Array::open(file.path()).unwrap();
        assert_eq!((array.shape, array.dimensions), ([1, 1], 1));
        assert_eq!(array.row(0).unwrap(), [1.5]);
        let file = write(&header("<f8", "(0, 3)"), &[]);
        assert_eq!(Array::open(file.path()).unwrap().shape, [0, 3]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let message = |file: tempfile::NamedTempFile| Array::open(file.path()).unwrap_err().message;
        let header = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2)}";
        assert!(message(write(header, &[0; 32])).contains("Fortran"));
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}";
        assert!(message(write(header, &[0; 31])).contains("shorter"));
        let header = "{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}";
        assert!(message(write(header, &[0; 32])).contains("type '|O'"));
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2, 2)}";
        assert!(message(write(header, &[0; 64])).contains("dimensions"));
        assert!(message(write("{}", &[])).contains("without descr"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "date,asset\n").unwrap();
        assert!(message(file).contains("not a .npy"));
    }
}
