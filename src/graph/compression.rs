//! How a graph file is packed: plain, gzip or zstd, recognised by its first bytes, not its name.
//!
//! Neither stream can be entered in the middle, so whoever reads a packed file reads all of it:
//! about 3 ns a byte of text for gzip, 1 ns for zstd.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// How the bytes of a file are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Bytes of a file, unpacked.
pub(super) type Unpacked = Box<dyn Read + Send>;

impl Packing {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }

    /// The error of reading from [`Packing::unpack`] when `bytes` of text had come out.
    pub(super) fn read_error(self, path: &Path, bytes: u64, error: &io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        let damaged = matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput);
        let (name, tool) = match self {
            Packing::Gzip if damaged => ("gzip", "gzip"),
            // What the zstd library finds has no kind of its own.
            Packing::Zstd if damaged || error.kind() == Other => ("zstd", "zstd"),
            _ => return Error::file(path, "read", error),
        };
        Error::input(format!(
            "{}: the {name} data is truncated or corrupt after {bytes} bytes of text ({error}); \
             check it with '{tool} -t', or fetch the file again",
            path.display(),
        ))
    }

    /// The bytes of `file` from its start.
    pub(super) fn unpack(self, mut file: File) -> io::Result<Unpacked> {
        file.seek(SeekFrom::Start(0))?;
        let file = BufReader::with_capacity(1 << 18, file);
        Ok(match self {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
            // Reads all frames of the file, as `zstd -d` does.
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        })
    }
}

/// A graph file that was opened: its size on disk and how it is packed. `None` if it is empty.
pub(super) fn open(path: &Path) -> Result<Option<(File, u64, Packing)>> {
    let mut file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
    let metadata = file.metadata().map_err(|e| Error::file(path, "read", &e))?;
    if !metadata.is_file() {
        return Err(Error::input(format!(
            "{}: not a regular file; expected a graph file, plain, gzip or zstd",
            path.display()
        )));
    }
    let mut magic = Vec::new();
    let read = file.by_ref().take(4).read_to_end(&mut magic);
    read.map_err(|e| Error::file(path, "read", &e))?;
    Ok((!magic.is_empty()).then_some((file, metadata.len(), Packing::of(&magic))))
}

/// The line (from 1) in which the byte at `position` of the text of a file stands.
pub(super) fn line_at(path: &Path, position: u64) -> Result<u64> {
    let Some((file, _, packing)) = open(path)? else {
        return Ok(1);
    };
    let failed = |e: io::Error| packing.read_error(path, position, &e);
    let mut reader = packing.unpack(file).map_err(failed)?.take(position);
    let mut buffer = vec![0; 1 << 18];
    let mut line = 1;
    loop {
        match reader.read(&mut buffer).map_err(failed)? {
            0 => return Ok(line),
            read => line += buffer[..read].iter().filter(|&&b| b == b'\n').count() as u64,
        }
    }
}
