//! Arrays of floats in numpy's `.npy` files, as far as recorded drives use them.
//!
//! Format: magic, version, length of the header, a Python dictionary literal with `descr`,
//! `fortran_order` and `shape`, then the values (numpy's `numpy/lib/format.py`). Versions 1 to 3,
//! 4- and 8-byte floats of both byte orders, C order. Everything else is refused by name; the
//! libraries for the format bring a parser of Python literals that takes longer to build than this
//! crate's own reader of it. Cost: one pass over the file.

use std::path::Path;

use crate::error::{Error, Result};

/// The largest file that is read: a day of poses at 20 Hz is far below it.
const LARGEST_BYTES: u64 = 1 << 30;

/// An array of floats, row-major.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    /// Its lengths, the slowest first.
    pub shape: Vec<usize>,
    /// Its values; 4-byte floats are widened.
    pub values: Vec<f64>,
}

/// Reads an array from a file.
pub fn read(path: &Path) -> Result<Array> {
    let failed = |e: std::io::Error| Error::file(path, "read", &e);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > LARGEST_BYTES {
        return Err(Error::input(format!(
            "{}: {length} bytes; expected an array of poses of at most {LARGEST_BYTES}",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    parse(&bytes).map_err(|what| Error::input(format!("{}: {what}", path.display())))
}

/// Reads an array whose rows have `columns` values; 1 stands for an array of one dimension.
pub fn read_rows(path: &Path, columns: usize) -> Result<Array> {
    let array = read(path)?;
    let fits = match array.shape[..] {
        [_] => columns == 1,
        [_, found] => found == columns,
        _ => false,
    };
    if fits {
        return Ok(array);
    }
    let wanted = if columns == 1 { "(rows,)".into() } else { format!("(rows, {columns})") };
    Err(Error::input(format!(
        "{}: an array of shape {:?}; expected {wanted}",
        path.display(),
        array.shape
    )))
}

/// The array in the bytes of a file, or what is wrong with them.
fn parse(bytes: &[u8]) -> std::result::Result<Array, String> {
    let cut = || "the header is cut short".to_string();
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("not a numpy array: it does not start with \\x93NUMPY".into());
    }
    let (length, start) = match bytes.get(6).ok_or_else(cut)? {
        1 => (u16::from_le_bytes(array_at(bytes, 8).ok_or_else(cut)?) as usize, 10),
        2 | 3 => (u32::from_le_bytes(array_at(bytes, 8).ok_or_else(cut)?) as usize, 12),
        other => return Err(format!("version {other} of the numpy format; expected 1 to 3")),
    };
    let end = start + length;
    let header = std::str::from_utf8(bytes.get(start..end).ok_or_else(cut)?)
        .map_err(|_| "the header is not text".to_string())?;
    if value_of(header, "fortran_order")?.starts_with("True") {
        return Err("an array in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let shape = shape_of(value_of(header, "shape")?)?;
    let count = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    let descr = value_of(header, "descr")?;
    let descr = descr.trim_start_matches(['\'', '"']).split(['\'', '"']).next().unwrap_or("");
    let (size, read): (usize, fn(&[u8]) -> f64) = match descr {
        "<f8" => (8, |b| f64::from_le_bytes(fixed(b))),
        ">f8" => (8, |b| f64::from_be_bytes(fixed(b))),
        "<f4" => (4, |b| f64::from(f32::from_le_bytes(fixed(b)))),
        ">f4" => (4, |b| f64::from(f32::from_be_bytes(fixed(b)))),
        _ => return Err(format!("values of type '{descr}'; expected floats, such as '<f8'")),
    };
    let data = &bytes[end..];
    match count.and_then(|n| n.checked_mul(size)) {
        Some(wanted) if wanted == data.len() => {}
        _ => return Err(format!("{} bytes of values do not fit shape {shape:?}", data.len())),
    }
    Ok(Array { shape, values: data.chunks_exact(size).map(read).collect() })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The first bytes of a chunk that `chunks_exact` made long enough.
fn fixed<const N: usize>(chunk: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| chunk[i])
}

/// What follows a key of the header.
fn value_of<'a>(header: &'a str, key: &str) -> std::result::Result<&'a str, String> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let at = quoted.iter().find_map(|q| Some(header.find(q.as_str())? + q.len()));
    let value = at.and_then(|at| header[at..].trim_start().strip_prefix(':'));
    value.map(str::trim_start).ok_or_else(|| format!("the header has no {key}: {header}"))
}

/// The numbers of a tuple such as `(1200, 3)`.
fn shape_of(text: &str) -> std::result::Result<Vec<usize>, String> {
    let wrong = || format!("a shape that is no tuple of numbers: {text}");
    let inner = text.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or_else(wrong)?.0;
    let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().map_err(|_| wrong())).collect()
}

/// The bytes of a file with such an array, for tests of readers.
#[cfg(test)]
pub(crate) fn bytes_of(shape: &[usize], values: &[f64]) -> Vec<u8> {
    let lengths: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({lengths}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x93, b'N', b'U', b'M', b'P', b'Y', version, 0];
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_supported_layout_is_read() {
        let values = [1.5f64, -0.25, 1e10];
        type Bytes = fn(f64) -> Vec<u8>;
        let kinds: [(&str, Bytes); 4] = [
            ("<f8", |v| v.to_le_bytes().to_vec()),
            (">f8", |v| v.to_be_bytes().to_vec()),
            ("<f4", |v| (v as f32).to_le_bytes().to_vec()),
            (">f4", |v| (v as f32).to_be_bytes().to_vec()),
        ];
        for version in 1..=3 {
            for (descr, bytes) in kinds {
                let data: Vec<u8> = values.iter().flat_map(|&v| bytes(v)).collect();
                for (shape, text) in [(vec![3], "(3,)"), (vec![1, 3], "(1, 3)")] {
                    let header = format!(
                        "{{'descr': '{descr}', 'fortran_order': False, 'shape': {text}, }}   \n"
                    );
                    let array = parse(&with_header(version, &header, &data)).unwrap();
                    assert_eq!(array, Array { shape, values: values.to_vec() });
                }
            }
        }
        assert_eq!(parse(&bytes_of(&[0, 3], &[])).unwrap().shape, [0, 3]);
        let scalar = "{'descr': '<f8', 'fortran_order': False, 'shape': ()}";
        assert_eq!(parse(&with_header(1, scalar, &[0; 8])).unwrap().values, [0.0]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let header = |d: &str, f: &str, s: &str| {
            format!("{{'descr': {d}, 'fortran_order': {f}, 'shape': {s}}}")
        };
        let cases = [
            (b"PK\x03\x04".to_vec(), "not a numpy array"),
            (with_header(4, "{}", &[]), "version 4"),
            (with_header(1, &header("'<f8'", "True", "(1,)"), &[0; 8]), "Fortran"),
            (with_header(1, &header("'<i8'", "False", "(1,)"), &[0; 8]), "type '<i8'"),
            (with_header(1, &header("[('a', '<f8')]", "False", "(1,)"), &[0; 8]), "floats"),
            (with_header(1, &header("'<f8'", "False", "(2,)"), &[0; 8]), "8 bytes of values"),
            (with_header(1, &header("'<f8'", "False", "(x,)"), &[0; 8]), "no tuple"),
            (
                with_header(1, &header("'<f8'", "False", "(99999999999, 99999999999)"), &[]),
                "do not fit",
            ),
            (with_header(1, "{'descr': '<f8'}", &[]), "no fortran_order"),
        ];
        for (bytes, wanted) in cases {
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains(wanted), "{error:?} has no {wanted:?}");
        }
        let whole = bytes_of(&[2], &[1.0, 2.0]);
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn shapes_of_rows_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, bytes_of(&[2, 3], &[0.0; 6])).unwrap();
        assert_eq!(read_rows(&path, 3).unwrap().values.len(), 6);
        let error = read_rows(&path, 4).unwrap_err();
        assert!(error.message.contains("expected (rows, 4)"), "{error}");
        assert!(read_rows(&path, 1).unwrap_err().message.contains("(rows,)"));
        assert!(read(&folder.path().join("none.npy")).unwrap_err().message.contains("none.npy"));
    }
}
