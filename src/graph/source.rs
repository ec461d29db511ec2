//! The text of a graph file as blocks of whole lines, each block on exactly one rank.
//!
//! * A plain file is cut into `ranks` byte ranges of equal size, and each cut moves forward to the
//!   next line start. Every rank finds its two cuts alone, so nothing is exchanged and each byte
//!   is read once: a rank reads 1/ranks of the file.
//! * A gzip stream cannot be entered in the middle. Every rank inflates all of it and keeps every
//!   ranks-th block; inflating costs about 3 ns a byte on every rank, parsing is shared.
//!
//! gzip is recognised by its first two bytes, not by name. Line numbers are counted only when an
//! error needs one (plain) or in passing (gzip, where every rank sees every line).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// Whole lines of the file.
#[derive(Clone, Debug)]
pub struct Block {
    /// The text; every line but the last of the file ends with a newline.
    pub text: Vec<u8>,
    start: Start,
}

/// Where a block starts, as far as it is known without extra work.
#[derive(Clone, Copy, Debug)]
enum Start {
    Byte(u64),
    Line(u64),
}

/// Reads the blocks that belong to one rank.
#[allow(missing_debug_implementations)] // holds a decoder
pub struct LineBlocks {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    gzip: bool,
    block_bytes: usize,
    /// The beginning of a line whose end is not read yet.
    carry: Vec<u8>,
    /// Where `carry` starts in the file, or in the inflated text.
    position: u64,
    /// The line that `carry` starts; counted for gzip only.
    line: u64,
    rank: usize,
    ranks: usize,
    blocks: usize,
}

const BLOCK_BYTES: usize = 4 << 20;
/// Longer lines are not an edge list; without a limit a binary file would be read whole.
const LINE_LIMIT: usize = 4 << 20;

impl LineBlocks {
    /// The share of `rank` in the file.
    pub fn open(path: &Path, rank: usize, ranks: usize) -> Result<Self> {
        Self::with_block_bytes(path, rank, ranks, BLOCK_BYTES)
    }

    pub(super) fn with_block_bytes(
        path: &Path,
        rank: usize,
        ranks: usize,
        block_bytes: usize,
    ) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
        let metadata = file.metadata().map_err(|e| Error::file(path, "read", &e))?;
        if !metadata.is_file() {
            return Err(Error::input(format!(
                "{}: not a regular file; expected an edge list, plain or gzip",
                path.display()
            )));
        }
        let bytes = metadata.len();
        if bytes == 0 {
            return Err(empty(path));
        }
        let read_error = |e: io::Error| Error::file(path, "read", &e);
        let mut magic = Vec::new();
        file.by_ref().take(2).read_to_end(&mut magic).map_err(read_error)?;
        let gzip = magic == [0x1f, 0x8b];
        let (reader, position): (Box<dyn Read + Send>, u64) = if gzip {
            file.seek(SeekFrom::Start(0)).map_err(read_error)?;
            (Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file))), 0)
        } else {
            let cut = |rank: usize| (u128::from(bytes) * rank as u128 / ranks as u128) as u64;
            let start = line_start(&mut file, cut(rank)).map_err(read_error)?;
            let end = line_start(&mut file, cut(rank + 1)).map_err(read_error)?;
            file.seek(SeekFrom::Start(start)).map_err(read_error)?;
            (Box::new(file.take(end - start)), start)
        };
        let (path, carry) = (path.to_path_buf(), Vec::new());
        Ok(LineBlocks {
            path,
            reader,
            gzip,
            block_bytes,
            carry,
            position,
            line: 1,
            rank,
            ranks,
            blocks: 0,
        })
    }

    /// The next block of this rank, or `None` at its end.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        loop {
            let position = self.position;
            let Some(mut text) = self.next_lines()? else {
                return if self.gzip && position == 0 { Err(empty(&self.path)) } else { Ok(None) };
            };
            if position == 0 && text.starts_with(b"\xef\xbb\xbf") {
                // A byte order mark becomes blanks, so that offsets stay true.
                text[..3].fill(b' ');
            }
            self.position += text.len() as u64;
            if !self.gzip {
                return Ok(Some(Block { text, start: Start::Byte(position) }));
            }
            let (line, index) = (self.line, self.blocks);
            self.line += newlines(&text);
            self.blocks += 1;
            if index % self.ranks == self.rank {
                return Ok(Some(Block { text, start: Start::Line(line) }));
            }
        }
    }

    /// About `block_bytes` of whole lines.
    fn next_lines(&mut self) -> Result<Option<Vec<u8>>> {
        let mut text = std::mem::take(&mut self.carry);
        loop {
            text.reserve(self.block_bytes);
            let wanted = self.block_bytes as u64;
            let read = self.reader.by_ref().take(wanted).read_to_end(&mut text);
            let read = read.map_err(|e| self.read_error(&e))?;
            if read < self.block_bytes {
                return Ok((!text.is_empty()).then_some(text));
            }
            if let Some(last) = text[text.len() - read..].iter().rposition(|&b| b == b'\n') {
                let end = text.len() - read + last + 1;
                self.carry = text.split_off(end);
                return Ok(Some(text));
            }
            if text.len() > LINE_LIMIT {
                let block = Block { text, start: self.start() };
                let what = format!("a line of more than {LINE_LIMIT} bytes: {}", EXPECTED);
                return Err(self.error(&block, 0, &what));
            }
        }
    }

    fn start(&self) -> Start {
        if self.gzip { Start::Line(self.line) } else { Start::Byte(self.position) }
    }

    fn read_error(&self, error: &io::Error) -> Error {
        let damaged = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        );
        if self.gzip && damaged {
            return Error::input(format!(
                "{}: the gzip data is truncated or corrupt after {} bytes of text ({error}); \
                 check it with 'gzip -t', or fetch the file again",
                self.path.display(),
                self.position,
            ));
        }
        Error::file(&self.path, "read", error)
    }

    /// The error that `what` is wrong in the line around `offset` of `block`.
    pub fn error(&self, block: &Block, offset: usize, what: &str) -> Error {
        let inside = newlines(&block.text[..offset.min(block.text.len())]);
        let first = match block.start {
            Start::Line(line) => Ok(line),
            Start::Byte(position) => lines_before(&self.path, position).map(|lines| lines + 1),
        };
        match first {
            Ok(first) => Error::line(&self.path, first + inside, what),
            Err(error) => Error::file(&self.path, "read", &error),
        }
    }
}

/// What every message about the format ends with.
pub(super) const EXPECTED: &str =
    "expected a text edge list (two node ids a line, separated by tabs, spaces or a comma)";

fn empty(path: &Path) -> Error {
    Error::input(format!("{}: the file is empty; {EXPECTED}", path.display()))
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().filter(|&&b| b == b'\n').count() as u64
}

fn lines_before(path: &Path, position: u64) -> io::Result<u64> {
    let mut reader = File::open(path)?.take(position);
    let mut buffer = vec![0; 1 << 18];
    let mut lines = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += newlines(&buffer[..read]),
        }
    }
}

/// The first position at or after `position` where a line starts; the end of the file if none.
fn line_start(file: &mut File, position: u64) -> io::Result<u64> {
    if position == 0 {
        return Ok(0);
    }
    let mut at = position - 1;
    file.seek(SeekFrom::Start(at))?;
    let mut buffer = [0; 4096];
    loop {
        let read = file.read(&mut buffer)?;
        if let Some(newline) = buffer[..read].iter().position(|&b| b == b'\n') {
            return Ok(at + newline as u64 + 1);
        }
        at += read as u64;
        if read == 0 {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn blocks(path: &Path, rank: usize, ranks: usize, bytes: usize) -> Result<Vec<Vec<u8>>> {
        let mut source = LineBlocks::with_block_bytes(path, rank, ranks, bytes)?;
        let mut blocks = Vec::new();
        while let Some(block) = source.next_block()? {
            blocks.push(block.text);
        }
        Ok(blocks)
    }

    #[test]
    fn every_line_is_on_exactly_one_rank() {
        let folder = tempfile::tempdir().unwrap();
        let texts: [&[u8]; 7] = [
            b"a",
            b"\n",
            b"\n\n\n",
            b"1 2\n3 4",
            b"1 2\r\n33333333333333333333333 4\n\n5 6\n",
            b"a very long first line without any end",
            b"x\ny\nz\nw\nv\nu\nt\ns\nr\nq\np\n",
        ];
        for (text, zip) in texts.into_iter().flat_map(|text| [(text, false), (text, true)]) {
            let path = folder.path().join("file");
            std::fs::write(&path, if zip { gzip(text) } else { text.to_vec() }).unwrap();
            for ranks in 1..=9 {
                for bytes in [1, 2, 3, 7, 64] {
                    let mut lines: Vec<Vec<u8>> = Vec::new();
                    for rank in 0..ranks {
                        for block in blocks(&path, rank, ranks, bytes).unwrap() {
                            lines.extend(block.split_inclusive(|&b| b == b'\n').map(Vec::from));
                        }
                    }
                    let mut expected: Vec<Vec<u8>> =
                        text.split_inclusive(|&b| b == b'\n').map(Vec::from).collect();
                    if zip {
                        lines.sort();
                        expected.sort();
                    }
                    assert_eq!(lines, expected, "{text:?} on {ranks} ranks, gzip {zip}");
                }
            }
        }
    }

    #[test]
    fn errors_name_the_line_of_the_whole_file_on_any_rank() {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (1..=50).map(|line| format!("{line}\n")).collect();
        for bytes in [text.clone().into_bytes(), gzip(text.as_bytes())] {
            let path = folder.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            for ranks in 1..=5 {
                for rank in 0..ranks {
                    let mut source = LineBlocks::with_block_bytes(&path, rank, ranks, 9).unwrap();
                    while let Some(block) = source.next_block().unwrap() {
                        let mut offset = 0;
                        for line in block.text.split_inclusive(|&b| b == b'\n') {
                            let number = std::str::from_utf8(line).unwrap().trim();
                            let error = source.error(&block, offset, "wrong");
                            let end = format!("file line {number}: wrong");
                            assert!(error.message.ends_with(&end), "{error} {end}");
                            offset += line.len();
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn damaged_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph.gz");
        let whole = gzip(b"1 2\n2 3\n3 1\n".repeat(50).as_slice());
        for length in 2..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = blocks(&path, 0, 1, 64).unwrap_err();
            assert!(error.message.contains("graph.gz: the gzip data is truncated"), "{error}");
        }
        let mut corrupt = whole.clone();
        let last = corrupt.len() - 6;
        corrupt[last] ^= 1;
        std::fs::write(&path, &corrupt).unwrap();
        assert!(blocks(&path, 1, 2, 64).unwrap_err().message.contains("corrupt"));
        let twice = [whole.clone(), whole].concat();
        std::fs::write(&path, &twice).unwrap();
        assert_eq!(blocks(&path, 0, 1, 1 << 20).unwrap()[0].len(), 1200);
    }

    #[test]
    fn missing_empty_and_folder_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph");
        let message = |path: &Path| blocks(path, 0, 2, 64).unwrap_err().message;
        assert!(message(&path).contains("graph: cannot open"));
        std::fs::write(&path, "").unwrap();
        assert!(message(&path).contains("graph: the file is empty"));
        std::fs::write(&path, gzip(b"")).unwrap();
        assert!(message(&path).contains("graph: the file is empty"));
        assert!(message(folder.path()).contains("not a regular file"));
    }

    #[test]
    fn endless_lines_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph");
        std::fs::write(&path, [b"1 2\n".to_vec(), vec![b'7'; 3 * LINE_LIMIT]].concat()).unwrap();
        let error = blocks(&path, 0, 1, BLOCK_BYTES).unwrap_err();
        assert!(error.message.contains("line 2: a line of more than"), "{error}");
    }
}
