//! Writing tensors to one plain safetensors file, in the shapes of the model, for other software.
//!
//! Rank 0 writes the header; then every rank writes the values that it owns at their place in the
//! file (so all nodes must see it), and rank 0 gives the file its name once all of it is on the
//! disk. Cost: one pass over the own values; no memory and no messages beyond the header.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::plain;
use super::save::agree_on_places;
use super::tensors::{Piece, TensorInfo};
use super::words::{broadcast_words, same_on_all};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::files;

/// Writes `tensors` to `path`, each under its name, in the order given. Collective; pieces as in
/// [`super::save()`].
pub fn export(
    comm: &Communicator,
    path: &Path,
    tensors: &[TensorInfo],
    pieces: &[Piece<'_>],
) -> Result<()> {
    same_on_all(comm, "tensors to export", &tensors)?;
    agree_on_places(comm, tensors, pieces)?;
    let header = comm.agree(plain::header(tensors, Some("pt")))?;
    let token = broadcast_words(comm, vec![token()])?[0];
    let is_root = comm.rank() == 0;
    let on_root = |write: &dyn Fn() -> Result<()>| if is_root { write() } else { Ok(()) };
    let temporary = comm.agree(temporary_name(path, token))?;
    let written = comm
        .agree(on_root(&|| write_header(path, &temporary, &header, tensors)))
        .and_then(|()| comm.agree(write_pieces(&temporary, header.len(), tensors, pieces)))
        .and_then(|()| comm.agree(on_root(&|| put_in_place(&temporary, path))));
    if written.is_err() && is_root {
        // The error that led here is the one to report.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Something that no file of an earlier run has in its name, on any node.
fn token() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64).rotate_left(20) ^ u64::from(std::process::id())
}

fn temporary_name(path: &Path, token: u64) -> Result<PathBuf> {
    files::check_folder(path)?;
    match path.file_name() {
        Some(name) if !path.is_dir() => {
            let name = name.to_string_lossy();
            Ok(path.with_file_name(format!(".{name}.{token:016x}.tmp")))
        }
        _ => Err(Error::input(format!(
            "{}: is a folder; expected the name of a file to write",
            path.display()
        ))),
    }
}

/// Makes the temporary file with its full length.
fn write_header(
    path: &Path,
    temporary: &Path,
    header: &[u8],
    tensors: &[TensorInfo],
) -> Result<()> {
    let values: usize = tensors.iter().map(|tensor| tensor.elements() * size_of::<f32>()).sum();
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
        file.write_all(header)?;
        file.set_len((header.len() + values) as u64)?;
        file.sync_all()
    };
    write().map_err(|e| Error::file(path, "create a file in its folder", &e))
}

fn write_pieces(
    temporary: &Path,
    header: usize,
    tensors: &[TensorInfo],
    pieces: &[Piece<'_>],
) -> Result<()> {
    let mut starts = vec![header as u64];
    starts.extend(tensors.iter().scan(header as u64, |end, tensor| {
        *end += (tensor.elements() * size_of::<f32>()) as u64;
        Some(*end)
    }));
    let write = |file: File| {
        for piece in pieces {
            let at = starts[piece.tensor] + (piece.start * size_of::<f32>()) as u64;
            file.write_all_at(bytemuck::cast_slice(piece.values), at)?;
        }
        file.sync_all()
    };
    OpenOptions::new().write(true).open(temporary).and_then(write).map_err(|e| {
        let hint = if e.kind() == io::ErrorKind::NotFound {
            " (rank 0 made it; an export needs a file system that all nodes share)"
        } else {
            ""
        };
        Error::input(format!("{}: cannot write it: {e}{hint}", temporary.display()))
    })
}

fn put_in_place(temporary: &Path, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::rename(temporary, path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|e| Error::file(path, "rename its temporary file", &e))
}
