//! Saving a checkpoint: all ranks write their files at once, rank 0 makes it complete.
//!
//! Cost: one pass over the own values, which writes and checksums them in pieces that stay in the
//! cache, one flush per file, and a few small messages.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::State;
use super::folders::{self, Name, crash_point};
use super::manifest::{self, Manifest, RankFile, StoredPiece};
use super::plain;
use super::tensors::{self, Piece, Place, TensorInfo};
use super::words::{broadcast_words, gather_words, same_on_all};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::files;

/// Saves `step` into `folder` and returns the folder of the checkpoint. Collective.
///
/// All ranks give the same `step` and `tensors`; their pieces together hold every element of every
/// tensor exactly once, else nothing is written and the error names the elements. Pieces may be
/// empty and in any order. `state` is that of rank 0. Afterwards the last `keep` checkpoints are
/// there (0: all). On an error the ones before are untouched, and what was written is removed; only
/// where an old one cannot be removed, the error comes after the new one is complete.
///
/// A step that was saved before is saved again beside it, under another name, before the old one
/// may go (see [`crate::optimizer::checkpoint`], 'Going back').
pub fn save(
    comm: &Communicator,
    folder: &Path,
    step: u64,
    tensors: &[TensorInfo],
    pieces: &[Piece<'_>],
    state: &State,
    keep: usize,
) -> Result<PathBuf> {
    same_on_all(comm, "steps or tensors to save", &(step, tensors))?;
    let places = agree_on_places(comm, tensors, pieces)?;
    let name = begin(comm, folder, step)?;
    let written = write_all(comm, folder, name, tensors, pieces, &places);
    let written = written.and_then(|files| {
        let is_root = comm.rank() == 0;
        let finish = || finish(folder, name, Manifest::new(name, tensors, files, state));
        comm.agree(if is_root { finish() } else { Ok(()) })
    });
    if let Err(error) = written {
        if comm.rank() == 0 {
            // The error that led here is the one to report; the next save tries again.
            folders::remove(&name.part(folder)).ok();
        }
        return Err(error);
    }
    let is_root = comm.rank() == 0;
    comm.agree(if is_root { folders::keep_last(folder, keep) } else { Ok(()) })?;
    Ok(name.path(folder))
}

/// Checks that the pieces of all ranks hold every element once, and returns where they are, by
/// rank, on rank 0. Collective.
pub(super) fn agree_on_places(
    comm: &Communicator,
    tensors: &[TensorInfo],
    pieces: &[Piece<'_>],
) -> Result<Vec<Vec<Place>>> {
    let lists = pieces.iter().map(|piece| (piece.tensor, piece.start, piece.values.len()));
    let refused = |what: String| Error::input(format!("checkpoint: {what}"));
    let checked = tensors::check_tensors(tensors).map_err(refused);
    comm.agree(checked.and_then(|()| tensors::check_pieces(tensors, lists.clone())))?;
    let words = lists.filter(|&(_, _, len)| len > 0);
    let words: Vec<u64> =
        words.flat_map(|(tensor, start, len)| [tensor, start, len].map(|n| n as u64)).collect();
    let by_rank: Vec<Vec<Place>> = gather_words(comm, &words)?
        .into_iter()
        .enumerate()
        .map(|(rank, words)| {
            let place = |word: &[u64]| Place {
                tensor: word[0] as usize,
                start: word[1] as usize,
                len: word[2] as usize,
                rank,
            };
            words.chunks_exact(3).map(place).collect()
        })
        .collect();
    let cover = || tensors::check_coverage(tensors, &mut by_rank.concat()).map_err(refused);
    comm.agree(if comm.rank() == 0 { cover() } else { Ok(()) })?;
    Ok(by_rank)
}

/// Rank 0 makes the folder and tells the others its name. Collective.
fn begin(comm: &Communicator, folder: &Path, step: u64) -> Result<Name> {
    let begun = if comm.rank() == 0 { folders::begin(folder, step).map(Some) } else { Ok(None) };
    let begun = comm.agree(begun)?;
    let words = begun.map_or(Vec::new(), |name| vec![name.generation]);
    let generation = broadcast_words(comm, words)?.first().copied().unwrap_or(1);
    Ok(Name { generation, step })
}

/// A rank looks for the folder that rank 0 made.
fn check_folder_seen(rank: usize, part: &Path) -> Result<()> {
    if part.is_dir() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{}: rank 0 made this folder, and rank {rank} does not see it; checkpoints need a file \
         system that all nodes share",
        part.display()
    )))
}

/// Every rank writes its file; rank 0 sees that all are there and gets their records. Collective.
fn write_all(
    comm: &Communicator,
    folder: &Path,
    name: Name,
    tensors: &[TensorInfo],
    pieces: &[Piece<'_>],
    places: &[Vec<Place>],
) -> Result<Vec<RankFile>> {
    let part = name.part(folder);
    comm.agree(check_folder_seen(comm.rank(), &part))?;
    let path = part.join(manifest::rank_file(comm.rank()));
    let (record, data_start) = comm.agree(write_rank_file(&path, tensors, pieces))?;
    let words = [record.bytes, data_start, crc_of(&record.checksum)];
    let records = gather_words(comm, &words)?;
    let files: Vec<RankFile> = records
        .iter()
        .zip(places)
        .enumerate()
        .map(|(rank, (words, places))| {
            let mut offset = words[1];
            let pieces = places.iter().map(|place| {
                let start = offset;
                offset += (place.len * size_of::<f32>()) as u64;
                StoredPiece(place.tensor, place.start, place.len, start)
            });
            RankFile {
                name: manifest::rank_file(rank),
                bytes: words[0],
                checksum: format!("crc32:{:08x}", words[2]),
                pieces: pieces.collect(),
            }
        })
        .collect();
    comm.agree(files.iter().try_for_each(|file| check_seen(&part, file)))?;
    Ok(files)
}

/// The number in a checksum as [`files`] writes it.
fn crc_of(checksum: &str) -> u64 {
    checksum.strip_prefix("crc32:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

/// Writes the pieces of this rank, and returns also where the values start in the file.
fn write_rank_file(
    path: &Path,
    tensors: &[TensorInfo],
    pieces: &[Piece<'_>],
) -> Result<(files::FileRecord, u64)> {
    /// Bytes that are checksummed while they are still in the cache: the capacity of the writer, so
    /// that it does not copy them.
    const CHUNK: usize = 1 << 20;
    let pieces: Vec<&Piece<'_>> = pieces.iter().filter(|p| !p.values.is_empty()).collect();
    let named = |piece: &&Piece<'_>| {
        let name = format!("{}@{}", tensors[piece.tensor].name, piece.start);
        TensorInfo::new(name, &[piece.values.len()])
    };
    let header = plain::header(&pieces.iter().map(named).collect::<Vec<_>>(), None)?;
    crash_point();
    let record = files::write_atomically(path, |writer| -> io::Result<()> {
        crash_point();
        writer.write_all(&header)?;
        for piece in pieces {
            for chunk in bytemuck::cast_slice::<f32, u8>(piece.values).chunks(CHUNK) {
                writer.write_all(chunk)?;
            }
        }
        crash_point();
        Ok(())
    })?;
    crash_point();
    Ok((record, header.len() as u64))
}

/// Rank 0 looks for a file that another rank has written.
fn check_seen(part: &Path, file: &RankFile) -> Result<()> {
    let path = part.join(&file.name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() == file.bytes => Ok(()),
        found => {
            let found = found.map_or_else(|e| e.to_string(), |m| format!("{} bytes", m.len()));
            Err(Error::input(format!(
                "{}: its rank wrote {} bytes, and rank 0 finds: {found}; checkpoints need a file \
                 system that all nodes share",
                path.display(),
                file.bytes
            )))
        }
    }
}

/// Rank 0 writes the manifest and gives the folder its name.
fn finish(folder: &Path, name: Name, manifest: Manifest) -> Result<()> {
    let text = manifest.encode()?;
    files::write_atomically(&name.part(folder).join(manifest::FILE), |writer| {
        crash_point();
        writer.write_all(&text)
    })?;
    crash_point();
    folders::complete(folder, name).map(|_| ())
}
