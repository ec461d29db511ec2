//! Loading a checkpoint at any number of ranks: found, verified, then read by byte ranges.
//!
//! Rank 0 lists the folder and sends the manifest to the others. Each file is verified by one
//! rank; each rank reads what overlaps its requests, sorted by file, with one file open at a time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::State;
use super::folders::{self, Name};
use super::manifest::{self, Manifest, RankFile, StoredPiece};
use super::tensors::{self, PieceMut, TensorInfo};
use super::words::{broadcast_bytes, broadcast_words};
use crate::communicator::Communicator;
use crate::error::{Error, ErrorKind, Result};

/// Which checkpoint of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The last one saved that is intact; damaged ones are named in [`Checkpoint::refused`].
    Latest,
    /// That of a step; if it is damaged, an error.
    Step(u64),
}

/// A verified checkpoint: the same on all ranks.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The step after which it was saved.
    pub step: u64,
    /// What was saved beside tensors.
    pub state: State,
    /// Its tensors.
    pub tensors: Vec<TensorInfo>,
    /// Later checkpoints that were refused, each as a message that names the file and what is
    /// wrong with it. Tell the user: the run goes on from an older step than was saved.
    pub refused: Vec<String>,
    files: Vec<RankFile>,
    /// Every piece with the number of its file, by tensor and first element.
    pieces: Vec<(StoredPiece, usize)>,
}

/// The steps of the complete checkpoints in `folder`, in the order of saving; none if there is no
/// such folder. They are not verified. Collective.
pub fn steps(comm: &Communicator, folder: &Path) -> Result<Vec<u64>> {
    let list = || match folder.try_exists() {
        Ok(false) => Ok(Vec::new()),
        _ => folders::list(folder).map(|listing| listing.complete),
    };
    let names = comm.agree(if comm.rank() == 0 { list() } else { Ok(Vec::new()) })?;
    broadcast_words(comm, names.iter().map(|name| name.step).collect())
}

/// Opens a checkpoint and reads all of its tensors into the requests of the ranks. `tensors` are
/// those of the checkpoint, in any order: one that is missing on either side, or has another
/// shape, is an error that names it. Requests are indexed by `tensors`; those of several ranks may
/// overlap. On an error, their contents are unspecified. Collective.
pub fn load(
    comm: &Communicator,
    folder: &Path,
    which: Which,
    tensors: &[TensorInfo],
    requests: &mut [PieceMut<'_>],
) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(comm, folder, which)?;
    comm.agree(checkpoint.refuse_others(tensors))?;
    checkpoint.read(comm, tensors, requests)?;
    Ok(checkpoint)
}

impl Checkpoint {
    /// Finds a checkpoint and verifies all of its files. Collective.
    pub fn open(comm: &Communicator, folder: &Path, which: Which) -> Result<Checkpoint> {
        let listing = if comm.rank() == 0 { find(folder, which) } else { Ok(Found::default()) };
        let Found { candidates, steps } = comm.agree(listing)?;
        let mut words = vec![candidates.len() as u64];
        words.extend(steps);
        let words = broadcast_words(comm, words)?;
        let (count, steps) = words.split_first().map_or((0, &[][..]), |(&n, steps)| (n, steps));
        let mut refused = Vec::new();
        for candidate in 0..count as usize {
            match verified(comm, folder, candidates.get(candidate).copied()) {
                Ok((path, manifest)) => return Ok(Checkpoint::new(path, manifest, refused)),
                Err(error) if error.kind == ErrorKind::Input => refused.push(error.to_string()),
                // No damage to a file: communication failed.
                Err(error) => return Err(error),
            }
        }
        comm.agree(Err(none_is_intact(folder, which, &refused, steps)))
    }

    fn new(path: PathBuf, manifest: Manifest, refused: Vec<String>) -> Checkpoint {
        let Manifest { step, state, tensors, files, .. } = manifest;
        let all = files.iter().enumerate();
        let all = all.flat_map(|(number, file)| file.pieces.iter().map(move |&p| (p, number)));
        let mut pieces: Vec<(StoredPiece, usize)> = all.collect();
        pieces.sort_unstable_by_key(|&(StoredPiece(tensor, start, ..), _)| (tensor, start));
        Checkpoint { path, step, state, tensors, refused, files, pieces }
    }

    /// Refuses a checkpoint that holds tensors that are not in `tensors`.
    pub fn refuse_others(&self, tensors: &[TensorInfo]) -> Result<()> {
        let known: HashSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
        match self.tensors.iter().find(|tensor| !known.contains(&*tensor.name)) {
            None => Ok(()),
            Some(other) => Err(Error::input(format!(
                "{}: holds a tensor {}, which is unknown here; expected the same model and \
                 optimizer as in the run that saved it",
                self.path.display(),
                other.name
            ))),
        }
    }

    /// Reads some of its tensors, as [`load`] does; it may hold others. Collective.
    pub fn read(
        &self,
        comm: &Communicator,
        tensors: &[TensorInfo],
        requests: &mut [PieceMut<'_>],
    ) -> Result<()> {
        comm.agree(self.read_here(tensors, requests))
    }

    /// The number here of each tensor asked for.
    fn numbers(&self, tensors: &[TensorInfo]) -> Result<Vec<usize>> {
        let own = self.tensors.iter().enumerate();
        let own: HashMap<&str, usize> = own.map(|(i, tensor)| (&*tensor.name, i)).collect();
        let refuse = |what| Err(Error::input(format!("{}: {what}", self.path.display())));
        let number = |tensor: &TensorInfo| match own.get(&*tensor.name) {
            None => refuse(format!("holds no tensor {}", tensor.name)),
            Some(&number) if self.tensors[number].shape != tensor.shape => refuse(format!(
                "tensor {} has the shape {:?}; expected {:?}",
                tensor.name, self.tensors[number].shape, tensor.shape
            )),
            Some(&number) => Ok(number),
        };
        tensors.iter().map(number).collect()
    }

    fn read_here(&self, tensors: &[TensorInfo], requests: &mut [PieceMut<'_>]) -> Result<()> {
        let numbers = self.numbers(tensors)?;
        let ranges = requests.iter().map(|r| (r.tensor, r.start, r.values.len()));
        tensors::check_pieces(tensors, ranges)?;
        let mut parts = Vec::new();
        for (request, wanted) in requests.iter().enumerate() {
            let range = wanted.start..wanted.start + wanted.values.len();
            self.overlaps(numbers[wanted.tensor], range, |file, offset, range| {
                parts.push((file, offset, request, range.start, range.end));
            });
        }
        parts.sort_unstable();
        let mut open: Option<(usize, File)> = None;
        for (file, offset, request, start, end) in parts {
            let path = self.path.join(&self.files[file].name);
            let failed = |e: io::Error| Error::file(&path, "read it", &e);
            let reader = match open.take() {
                Some((number, reader)) if number == file => reader,
                _ => File::open(&path).map_err(failed)?,
            };
            let values = bytemuck::cast_slice_mut(&mut requests[request].values[start..end]);
            reader.read_exact_at(values, offset).map_err(failed)?;
            open = Some((file, reader));
        }
        Ok(())
    }

    /// Calls `found` with file, byte, and part of the request, for each piece that overlaps it.
    fn overlaps(
        &self,
        tensor: usize,
        request: Range<usize>,
        mut found: impl FnMut(usize, u64, Range<usize>),
    ) {
        let first = self.pieces.partition_point(|&(StoredPiece(t, start, len, _), _)| {
            (t, start + len) <= (tensor, request.start)
        });
        for &(StoredPiece(t, start, len, offset), file) in &self.pieces[first..] {
            if t != tensor || start >= request.end {
                break;
            }
            let (from, to) = (start.max(request.start), (start + len).min(request.end));
            let skipped = ((from - start) * size_of::<f32>()) as u64;
            found(file, offset + skipped, from - request.start..to - request.start);
        }
    }
}

/// What rank 0 finds in a folder.
#[derive(Default)]
struct Found {
    /// The checkpoints to try, the last saved first.
    candidates: Vec<Name>,
    /// The steps of all complete checkpoints.
    steps: Vec<u64>,
}

fn find(folder: &Path, which: Which) -> Result<Found> {
    let listing = folders::list(folder)?;
    let steps: Vec<u64> = listing.complete.iter().map(|name| name.step).collect();
    let mut candidates = listing.complete;
    candidates.reverse();
    candidates.retain(|name| which == Which::Latest || which == Which::Step(name.step));
    if !candidates.is_empty() {
        return Ok(Found { candidates, steps });
    }
    let what = match which {
        Which::Step(step) if !steps.is_empty() => {
            format!("holds no checkpoint of step {step}; {}", others(&steps, which))
        }
        _ => format!(
            "holds no complete checkpoint, and {} unfinished; expected a folder with step-*",
            listing.parts.len()
        ),
    };
    Err(Error::input(format!("{}: {what}", folder.display())))
}

/// The steps that could be chosen instead.
fn others(steps: &[u64], which: Which) -> String {
    let others = steps.iter().filter(|&&step| which != Which::Step(step));
    match others.map(u64::to_string).collect::<Vec<_>>() {
        others if others.is_empty() => "there is no other one".into(),
        others => format!("choose another step: {}", others.join(", ")),
    }
}

fn none_is_intact(folder: &Path, which: Which, refused: &[String], steps: &[u64]) -> Error {
    let why = refused.join("; ");
    Error::input(match which {
        Which::Latest => format!("{}: holds no intact checkpoint: {why}", folder.display()),
        Which::Step(step) => {
            format!("the checkpoint of step {step} is refused: {why}; {}", others(steps, which))
        }
    })
}

/// The manifest of a checkpoint all of whose files are as it says. Rank 0 knows the `name`.
/// Collective.
fn verified(comm: &Communicator, folder: &Path, name: Option<Name>) -> Result<(PathBuf, Manifest)> {
    let words = name.map_or(Vec::new(), |name| vec![name.generation, name.step]);
    let words = broadcast_words(comm, words)?;
    let &[generation, step] = &words[..] else {
        return Err(Error::internal("checkpoint: the name of one did not arrive"));
    };
    let name = Name { generation, step };
    let path = name.path(folder);
    let file = path.join(manifest::FILE);
    let text = if comm.rank() == 0 { fs::read(&file) } else { Ok(Vec::new()) };
    let text = comm.agree(text.map_err(|e| Error::file(&file, "read it", &e)))?;
    let text = broadcast_bytes(comm, text)?;
    let manifest = Manifest::decode(&text, name);
    let manifest = manifest.map_err(|what| Error::input(format!("{} {what}", file.display())));
    let manifest = comm.agree(manifest)?;
    let mut share = manifest.files.iter().skip(comm.rank()).step_by(comm.ranks());
    comm.agree(share.try_for_each(|file| verify(&path, file)))?;
    Ok((path, manifest))
}

/// Reads a file whole and compares its length and checksum with the manifest.
fn verify(folder: &Path, file: &RankFile) -> Result<()> {
    let path = folder.join(&file.name);
    let (bytes, checksum) = checksum(&path).map_err(|e| {
        let hint = if e.kind() == io::ErrorKind::NotFound {
            " (it was removed, or not all nodes see the same file system)"
        } else {
            ""
        };
        Error::input(format!("{}: cannot read it: {e}{hint}", path.display()))
    })?;
    let what = if bytes != file.bytes {
        format!("has {bytes} bytes, and the manifest says {}", file.bytes)
    } else if checksum != file.checksum {
        format!("has the checksum {checksum}, and the manifest says {}", file.checksum)
    } else {
        return Ok(());
    };
    Err(Error::input(format!("{} {what}: it is damaged", path.display())))
}

fn checksum(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut crc, mut bytes) = (flate2::Crc::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((bytes, format!("crc32:{:08x}", crc.sum())));
        }
        crc.update(&buffer[..n]);
        bytes += n as u64;
    }
}
