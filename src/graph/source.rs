//! The text of a graph file as blocks of whole lines, each block on exactly one rank.
//!
//! * A plain file is cut into `ranks` byte ranges of equal size, and each cut moves forward to the
//!   next line start. Every rank finds its two cuts alone, so nothing is exchanged and each byte
//!   is read once: a rank reads 1/ranks of the file.
//! * A gzip or zstd stream cannot be entered in the middle. Every rank unpacks all of it and keeps
//!   every ranks-th block; parsing is shared.
//!
//! Formats with a header read it with `HeadLines` and start the blocks after it. Line numbers
//! are counted only when an error needs one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::compression::{self, Packing, Unpacked};
use super::progress;
use crate::error::{Error, Result};

/// Whole lines of the file.
#[derive(Clone, Debug)]
pub struct Block {
    /// The text; every line but the last of the file ends with a newline.
    pub text: Vec<u8>,
    /// Where it starts in the text of the file.
    pub position: u64,
}

/// Reads the blocks that belong to one rank.
#[allow(missing_debug_implementations)] // holds a decoder
pub struct LineBlocks {
    path: PathBuf,
    reader: Unpacked,
    packing: Packing,
    block_bytes: usize,
    /// The longest line that is read.
    pub(super) line_limit: usize,
    /// The beginning of a line whose end is not read yet.
    carry: Vec<u8>,
    /// The memory of a block that nobody needs any more.
    spare: Vec<u8>,
    /// Where `carry` starts in the text of the file.
    position: u64,
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
        Self::after(path, 0, (rank, ranks), block_bytes)
    }

    /// The share of `rank` of `ranks` in what follows the header of a file.
    pub(super) fn after_head(path: &Path, head: u64, rank: usize, ranks: usize) -> Result<Self> {
        Self::after(path, head, (rank, ranks), BLOCK_BYTES)
    }

    fn after(
        path: &Path,
        head: u64,
        (rank, ranks): (usize, usize),
        block_bytes: usize,
    ) -> Result<Self> {
        let (mut file, bytes, packing) = compression::open(path)?.ok_or_else(|| empty(path))?;
        let read_error = |e: io::Error| packing.read_error(path, 0, &e);
        let (reader, position, own_bytes): (Unpacked, u64, Option<u64>) = if packing
            == Packing::Plain
        {
            let rest = bytes.saturating_sub(head);
            let cut = |rank: usize| (u128::from(rest) * rank as u128 / ranks as u128) as u64 + head;
            let start = line_start(&mut file, cut(rank)).map_err(read_error)?;
            let end = line_start(&mut file, cut(rank + 1)).map_err(read_error)?;
            file.seek(SeekFrom::Start(start)).map_err(read_error)?;
            (Box::new(file.take(end - start)), start, Some(end - start))
        } else {
            let mut reader = packing.unpack(file).map_err(read_error)?;
            io::copy(&mut reader.by_ref().take(head), &mut io::sink()).map_err(read_error)?;
            (reader, head, None)
        };
        progress::stage("read", own_bytes);
        let (path, carry) = (path.to_path_buf(), Vec::new());
        Ok(LineBlocks {
            path,
            reader,
            packing,
            block_bytes,
            line_limit: LINE_LIMIT,
            carry,
            spare: Vec::new(),
            position,
            rank,
            ranks,
            blocks: 0,
        })
    }

    /// The next block of this rank, or `None` at its end.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        let plain = self.packing == Packing::Plain;
        loop {
            let position = self.position;
            let Some(mut text) = self.next_lines()? else {
                return if !plain && position == 0 { Err(empty(&self.path)) } else { Ok(None) };
            };
            if position == 0 && text.starts_with(b"\xef\xbb\xbf") {
                // A byte order mark becomes blanks, so that offsets stay true.
                text[..3].fill(b' ');
            }
            self.position += text.len() as u64;
            self.blocks += 1;
            if plain || (self.blocks - 1) % self.ranks == self.rank {
                return Ok(Some(Block { text, position }));
            }
        }
    }

    /// Takes back a block, so that the next one need not fetch memory from the system.
    pub(super) fn recycle(&mut self, block: Block) {
        self.spare = block.text;
    }

    /// About `block_bytes` of whole lines.
    fn next_lines(&mut self) -> Result<Option<Vec<u8>>> {
        let mut text = std::mem::take(&mut self.spare);
        text.clear();
        text.append(&mut self.carry);
        loop {
            text.reserve(self.block_bytes);
            let wanted = self.block_bytes as u64;
            let read = self.reader.by_ref().take(wanted).read_to_end(&mut text);
            let read = read.map_err(|e| self.packing.read_error(&self.path, self.position, &e))?;
            progress::advance(read as u64);
            if read < self.block_bytes {
                return Ok((!text.is_empty()).then_some(text));
            }
            if let Some(last) = text[text.len() - read..].iter().rposition(|&b| b == b'\n') {
                let end = text.len() - read + last + 1;
                self.carry.extend_from_slice(&text[end..]);
                text.truncate(end);
                return Ok(Some(text));
            }
            if text.len() > self.line_limit {
                let block = Block { text, position: self.position };
                let what = format!("a line of more than {} bytes: {EXPECTED}", self.line_limit);
                return Err(self.error(&block, 0, &what));
            }
        }
    }

    /// The error that `what` is wrong in the line around `offset` of `block`.
    pub fn error(&self, block: &Block, offset: usize, what: &str) -> Error {
        let inside = offset.min(block.text.len()) as u64;
        match compression::line_at(&self.path, block.position + inside) {
            Ok(line) => Error::line(&self.path, line, what),
            Err(error) => error,
        }
    }
}

/// The first lines of a file, one by one, for formats with a header.
#[allow(missing_debug_implementations)] // holds a decoder
pub(super) struct HeadLines {
    path: PathBuf,
    reader: BufReader<Unpacked>,
    packing: Packing,
    /// The size of the file on disk.
    file_bytes: u64,
    /// Bytes of text read so far.
    pub(super) bytes: u64,
    /// Lines read so far.
    pub(super) lines: u64,
}

/// The longest line of a header or of a comment in it.
const HEAD_LINE_LIMIT: u64 = 1 << 16;

impl HeadLines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (file, file_bytes, packing) = compression::open(path)?.ok_or_else(|| empty(path))?;
        let reader = packing.unpack(file).map_err(|e| packing.read_error(path, 0, &e))?;
        let (path, reader) = (path.to_path_buf(), BufReader::new(reader));
        Ok(HeadLines { path, reader, packing, file_bytes, bytes: 0, lines: 0 })
    }

    /// The first `count` bytes of the text, or all if there are fewer: a look at what it is.
    pub(super) fn first_bytes(path: &Path, count: u64) -> Result<Vec<u8>> {
        let head = Self::open(path)?;
        let mut bytes = Vec::new();
        let read = head.reader.take(count).read_to_end(&mut bytes);
        read.map_err(|e| head.packing.read_error(path, 0, &e))?;
        Ok(bytes)
    }

    /// [`HeadLines::first_bytes`], of a file that may be empty or packed in a damaged way.
    pub(super) fn first_bytes_if_any(path: &Path, count: u64) -> Result<Vec<u8>> {
        let Some((mut file, _, _)) = compression::open(path)? else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        let read =
            file.seek(SeekFrom::Start(0)).and_then(|_| file.take(count).read_to_end(&mut bytes));
        read.map_err(|e| Error::file(path, "read", &e))?;
        Ok(bytes)
    }

    /// The next line without its end; bytes that are not UTF-8 are replaced.
    pub(super) fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(HEAD_LINE_LIMIT).read_until(b'\n', &mut line);
        let read = read.map_err(|e| self.packing.read_error(&self.path, self.bytes, &e))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.bytes += read;
        self.lines += 1;
        if read == HEAD_LINE_LIMIT {
            return Err(self.error(format!("a header line of {HEAD_LINE_LIMIT} bytes or more")));
        }
        let text = String::from_utf8_lossy(&line);
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// The error that `what` is wrong in the line that was read last.
    pub(super) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::line(&self.path, self.lines.max(1), what)
    }

    /// Bytes of text that follow; unknown for a packed file.
    pub(super) fn rest(&self) -> Option<u64> {
        let plain = self.packing == Packing::Plain;
        plain.then(|| self.file_bytes.saturating_sub(self.bytes))
    }
}

/// What every message about the format ends with.
pub(super) const EXPECTED: &str =
    "expected a text edge list (two node ids a line, separated by tabs, spaces or a comma)";

fn empty(path: &Path) -> Error {
    Error::input(format!("{}: the file is empty; {EXPECTED}", path.display()))
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

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    fn plain(text: &[u8]) -> Vec<u8> {
        text.to_vec()
    }

    type Pack = fn(&[u8]) -> Vec<u8>;
    const PACKINGS: [Pack; 3] = [plain, gzip, zstd];

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
        for (text, zip) in texts.into_iter().flat_map(|text| (0..3).map(move |zip| (text, zip))) {
            let path = folder.path().join("file");
            std::fs::write(&path, PACKINGS[zip](text)).unwrap();
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
                    if zip > 0 {
                        lines.sort();
                        expected.sort();
                    }
                    assert_eq!(lines, expected, "{text:?} on {ranks} ranks, packing {zip}");
                }
            }
        }
    }

    #[test]
    fn errors_name_the_line_of_the_whole_file_on_any_rank() {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (1..=50).map(|line| format!("{line}\n")).collect();
        for bytes in PACKINGS.map(|pack| pack(text.as_bytes())) {
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
    fn damaged_zstd_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph.zst");
        let whole = zstd(b"1 2\n2 3\n3 1\n".repeat(50).as_slice());
        for length in 4..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = blocks(&path, 0, 1, 64).unwrap_err();
            assert!(error.message.contains("graph.zst: the zstd data is truncated"), "{error}");
        }
        std::fs::write(&path, [&whole[..], b"trailing text"].concat()).unwrap();
        assert!(blocks(&path, 1, 2, 64).unwrap_err().message.contains("corrupt"));
        std::fs::write(&path, [whole.clone(), whole].concat()).unwrap();
        assert_eq!(blocks(&path, 0, 1, 1 << 20).unwrap()[0].len(), 1200);
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
        for pack in PACKINGS {
            std::fs::write(&path, pack(b"")).unwrap();
            assert!(message(&path).contains("graph: the file is empty"));
        }
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
