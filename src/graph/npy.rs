//! Vectors and matrices as `.npy` files (NumPy format 1.0): a header in text, then the numbers.
//!
//! Element i belongs to node i in the order of the ids, which an array cannot hold: unless they
//! count from 0, they are written beside it, one a line, to `NAME.nodes.csv`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes columns of one length as an array: one column as a vector, several as a matrix with a
/// row for each node.
pub(super) fn write(
    writer: &mut impl Write,
    columns: &[(&str, &[f64])],
    single: bool,
) -> io::Result<()> {
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    let shape = match columns.len() {
        1 => format!("({rows},)"),
        many => format!("({rows}, {many})"),
    };
    let kind = if single { "<f4" } else { "<f8" };
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // Ten bytes come before it, and the numbers start at a multiple of 64.
    let padding = (header.len() + 11).next_multiple_of(64) - header.len() - 11;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    writer.write_all(b"\x93NUMPY\x01\x00")?;
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    for row in 0..rows {
        for (_, values) in columns {
            match single {
                true => writer.write_all(&(values[row] as f32).to_le_bytes())?,
                false => writer.write_all(&values[row].to_le_bytes())?,
            }
        }
    }
    Ok(())
}

/// Where the ids of the nodes go.
pub(super) fn nodes_path(path: &Path) -> PathBuf {
    path.with_extension("nodes.csv")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_numpy() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[("rank", &[0.5, 1.0 / 3.0])], false).unwrap();
        // As numpy.save writes numpy.array([0.5, 1 / 3]).
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(&bytes[10..10 + header.len()], header.as_bytes());
        assert_eq!((bytes[127], bytes.len()), (b'\n', 128 + 16));
        assert_eq!(bytes[136..], (1.0f64 / 3.0).to_le_bytes());
        let mut bytes = Vec::new();
        write(&mut bytes, &[("a", &[1.0, 2.0, 3.0]), ("b", &[4.0, 5.0, 6.0])], true).unwrap();
        assert!(
            String::from_utf8_lossy(&bytes)
                .contains("'<f4', 'fortran_order': False, 'shape': (3, 2), }")
        );
        let numbers: Vec<f32> =
            bytes[128..].as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(numbers, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
