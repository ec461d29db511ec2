//! Long tables in CSV. The bytes of all plain files are shared evenly among the ranks, and each
//! cut moves to the next line start; a packed file (gzip, zstd) goes whole to one rank, since it
//! cannot be entered in the middle. A rank parses its text in blocks of whole lines, on all of its
//! threads (`fields`).
//!
//! For blocks of dates, a first pass (`survey`) reads the keys alone and tells which dates stand
//! in which piece of a file, of some 2 MB of whole lines; then a block parses the pieces that hold
//! its dates, and keeps the rows of those dates.
//!
//! Fields may be quoted (RFC 4180), but a line end inside quotes is not supported: cuts and blocks
//! could not tell it from the end of a row. The first line of each file names its columns. Missing
//! is an empty field or NaN, NA, null, None in any case.

mod fields;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};
use rayon::prelude::*;

use self::fields::{Fields, Parsed, is_missing, number, records, truth};
use super::columns::{Column, Kind, Roles};
use super::files::{Packing, text_from};
use super::long::Keys;
use super::names::{MISSING, Names};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::factor::config::Infinite;
use crate::sharding::Sharding;

/// The rows of one rank.
pub(super) struct Share {
    files: Vec<PathBuf>,
    blocks: Vec<Block>,
    pub(super) dates: Vec<i32>,
    pub(super) assets: (Names, Vec<u32>),
    pub(super) industries: (Names, Vec<u32>),
    /// The columns of numbers, which are taken one by one.
    numbers: std::vec::IntoIter<Vec<f64>>,
}

/// Where rows came from.
struct Block {
    file: usize,
    /// Where its text starts in the text of the file.
    position: u64,
    rows: usize,
    /// The rows of the text that these are, if others have been passed over.
    kept: Option<Vec<u32>>,
}

/// A part of a file that one rank reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) file: usize,
    /// Bytes of a plain file, before cuts move to line starts; all of a packed one.
    pub(super) bytes: Range<u64>,
    pub(super) packing: Packing,
}

/// Text that a thread parses at once; little in tests, so that small files have many blocks.
const BLOCK_BYTES: usize = if cfg!(test) { 4 << 10 } else { 2 << 20 };
/// How much of the first file decides which columns hold numbers.
const SAMPLE_BYTES: u64 = 1 << 16;

/// The columns of the first file, by what stands at its beginning.
pub(super) fn columns(files: &[PathBuf]) -> Result<Vec<Column>> {
    let path = &files[0];
    let (reader, _) = text_from(path, 0)?;
    let mut text = Vec::new();
    reader.take(SAMPLE_BYTES).read_to_end(&mut text).map_err(|e| Error::file(path, "read", &e))?;
    if text.len() as u64 == SAMPLE_BYTES {
        let end = text.iter().rposition(|&b| b == b'\n').map_or(text.len(), |end| end + 1);
        text.truncate(end);
    }
    let names = header(&text, path)?;
    // The first field that is not missing decides; others like none of its kind are errors later,
    // so that one slip does not drop a whole factor unseen.
    let mut kinds = vec![None; names.len()];
    let mut record = ByteRecord::new();
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(&text[..]);
    while reader.read_byte_record(&mut record).unwrap_or(false) {
        for (kind, field) in kinds.iter_mut().zip(&record) {
            let field = field.trim_ascii();
            if kind.is_none() && !is_missing(field) {
                *kind = Some(match (number(field), truth(field)) {
                    (Some(_), _) => Kind::Number,
                    (None, Some(_)) => Kind::Boolean,
                    (None, None) => Kind::Text,
                });
            }
        }
    }
    let column =
        |(name, kind): (String, Option<Kind>)| Column { name, kind: kind.unwrap_or(Kind::Number) };
    Ok(names.into_iter().zip(kinds).map(column).collect())
}

/// The names in the first line of `text`.
fn header(text: &[u8], path: &Path) -> Result<Vec<String>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let mut record = ByteRecord::new();
    if !reader.read_byte_record(&mut record).unwrap_or(false) {
        return Err(Error::line(path, 1, "empty; expected a line with the names of the columns"));
    }
    record
        .iter()
        .map(|name| match std::str::from_utf8(name) {
            Ok(name) => Ok(name.trim().to_owned()),
            Err(_) => Err(Error::line(path, 1, "not UTF-8; save the file as UTF-8")),
        })
        .collect()
}

impl Share {
    /// Reads and parses the share of `rank`.
    pub(super) fn read(
        files: Vec<PathBuf>,
        (rank, ranks): (usize, usize),
        roles: &Roles,
        infinite: Infinite,
    ) -> Result<Share> {
        let pieces = pieces(&files, rank, ranks)?;
        Share::read_pieces(files, &pieces, roles, infinite, None)
    }

    /// Reads and parses pieces of files; the rows of `only` those dates, if they are given.
    pub(super) fn read_pieces(
        files: Vec<PathBuf>,
        pieces: &[Piece],
        roles: &Roles,
        infinite: Infinite,
        only: Option<RangeInclusive<i32>>,
    ) -> Result<Share> {
        let mut share = Share {
            files,
            blocks: Vec::new(),
            dates: Vec::new(),
            assets: Default::default(),
            industries: Default::default(),
            numbers: Vec::new().into_iter(),
        };
        let mut numbers = vec![Vec::new(); roles.numbers().count()];
        for piece in pieces {
            let path = share.files[piece.file].clone();
            let fields =
                |names: &[String]| Fields::new(names, roles, &path, infinite, only.clone());
            read_piece(
                &path,
                piece,
                fields,
                |parsed| parsed,
                |position, _, parsed| {
                    share.append(piece.file, position, parsed, &mut numbers);
                },
            )?;
        }
        share.numbers = numbers.into_iter();
        Ok(share)
    }

    /// The file of a row and its line in it, from 1.
    pub(super) fn locate(&self, mut row: usize) -> Result<(usize, u64)> {
        for block in &self.blocks {
            if row < block.rows {
                let row = block.kept.as_ref().map_or(row, |kept| kept[row] as usize);
                let path = &self.files[block.file];
                return Ok((block.file, line_of(path, block.position, row)?));
            }
            row -= block.rows;
        }
        Ok((0, 0))
    }

    /// The next column of `Roles::numbers`.
    pub(super) fn next_numbers(&mut self) -> Vec<f64> {
        self.numbers.next().unwrap_or_default()
    }

    fn append(&mut self, file: usize, position: u64, parsed: Parsed, numbers: &mut [Vec<f64>]) {
        let all = parsed.kept.is_empty();
        let kept = if all { None } else { Some(parsed.kept) };
        self.blocks.push(Block { file, position, rows: parsed.dates.len(), kept });
        self.dates.extend(parsed.dates);
        append_texts(&mut self.assets, &parsed.assets);
        append_texts(&mut self.industries, &parsed.industries);
        numbers.iter_mut().zip(parsed.numbers).for_each(|(all, part)| all.extend(part));
    }
}

/// The line of row `row` of the text of a file that starts at `position`.
fn line_of(path: &Path, position: u64, row: usize) -> Result<u64> {
    let (reader, before) = text_from(path, position)?;
    let mut reader = records(reader);
    let mut record = ByteRecord::new();
    for _ in 0..=row {
        if !reader.read_byte_record(&mut record).unwrap_or(false) {
            break;
        }
    }
    Ok(before + record.position().map_or(1, csv::Position::line))
}

/// Parses the blocks of whole lines of a piece and turns each into what `of` makes of it, on all
/// threads; then calls `take` with the position of each block in the text of the file, its bytes,
/// and that, in order.
fn read_piece<T: Send>(
    path: &Path,
    piece: &Piece,
    fields: impl FnOnce(&[String]) -> Result<Fields>,
    of: impl Fn(Parsed) -> T + Sync,
    mut take: impl FnMut(u64, u64, T),
) -> Result<()> {
    let failed = |e| Error::file(path, "read", &e);
    let mut file = File::open(path).map_err(failed)?;
    let mut first = Vec::new();
    let (reader, _) = text_from(path, 0)?;
    let mut reader = BufReader::new(reader);
    reader.read_until(b'\n', &mut first).map_err(failed)?;
    let fields = fields(&header(&first, path)?)?;
    let head = first.len() as u64;
    let (mut reader, mut position): (Box<dyn Read + Send>, u64) = if piece.packing == Packing::Plain
    {
        let start = line_start(&mut file, piece.bytes.start.max(head)).map_err(failed)?;
        let end = line_start(&mut file, piece.bytes.end.max(head)).map_err(failed)?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        (Box::new(file.take(end.saturating_sub(start))), start)
    } else {
        (Box::new(reader), head)
    };
    let mut carry = Vec::new();
    loop {
        let mut blocks = Vec::new();
        while blocks.len() < rayon::current_num_threads() {
            let block = whole_lines(&mut reader, &mut carry).map_err(failed)?;
            if block.is_empty() {
                break;
            }
            blocks.push(block);
        }
        if blocks.is_empty() {
            return Ok(());
        }
        let parsed: Vec<_> = blocks.par_iter().map(|text| fields.parse(text).map(&of)).collect();
        for (text, parsed) in blocks.iter().zip(parsed) {
            let bytes = text.len() as u64;
            match parsed {
                Ok(parsed) => take(position, bytes, parsed),
                Err((row, what)) => {
                    return Err(Error::line(path, line_of(path, position, row)?, what));
                }
            }
            position += bytes;
        }
    }
}

/// Reads the keys of the share of `rank`, and calls `take` with what `of` makes of each piece of it
/// that a block of dates may read by itself: some whole lines, or, again and again for its parts, a
/// packed file.
pub(super) fn survey<T: Send>(
    files: &[PathBuf],
    (rank, ranks): (usize, usize),
    roles: &Roles,
    of: impl Fn(Keys) -> T + Sync,
    mut take: impl FnMut(Piece, T),
) -> Result<()> {
    let keys = Roles {
        date: roles.date.clone(),
        asset: roles.asset.clone(),
        industry: roles.industry.clone(),
        ..Roles::default()
    };
    let of = |parsed: Parsed| {
        let Parsed { dates, assets, industries, .. } = parsed;
        of(Keys { dates, assets, industries: keys.industry.as_ref().map(|_| industries) })
    };
    for piece in pieces(files, rank, ranks)? {
        let path = &files[piece.file];
        let fields = |names: &[String]| Fields::new(names, &keys, path, Infinite::Missing, None);
        read_piece(path, &piece, fields, of, |position, bytes, found| {
            let mut part = piece.clone();
            if piece.packing == Packing::Plain {
                part.bytes = position..position + bytes;
            }
            take(part, found);
        })?;
    }
    Ok(())
}

/// The pieces of all ranks. Collective.
pub(super) fn gather(comm: &Communicator, own: &[Piece], files: &[PathBuf]) -> Result<Vec<Piece>> {
    let packings: Result<Vec<Packing>> = files.iter().map(|path| Packing::of(path)).collect();
    let packings = comm.agree(packings)?;
    let own: Vec<u64> =
        own.iter().flat_map(|p| [p.file as u64, p.bytes.start, p.bytes.end]).collect();
    let all = comm.all_gather_vec(&own)?.0;
    let piece = |&[file, start, end]: &[u64; 3]| Piece {
        file: file as usize,
        bytes: start..end,
        packing: packings[file as usize],
    };
    Ok(all.as_chunks().0.iter().map(piece).collect())
}

/// The share of `rank` in some pieces, in order and with about the same number of bytes for each;
/// neighbours are one piece.
pub(super) fn share<'p>(
    pieces: impl Iterator<Item = &'p Piece>,
    rank: usize,
    ranks: usize,
) -> Vec<Piece> {
    let pieces: Vec<&Piece> = pieces.collect();
    let mut prefix = vec![0];
    for piece in &pieces {
        prefix.push(prefix[prefix.len() - 1] + piece.bytes.end - piece.bytes.start);
    }
    let mut own: Vec<Piece> = Vec::new();
    for piece in &pieces[Sharding::balanced(&prefix, ranks, 1).range(rank)] {
        match own.last_mut() {
            Some(last) if last.file == piece.file && last.bytes.end == piece.bytes.start => {
                last.bytes.end = piece.bytes.end;
            }
            _ => own.push((*piece).clone()),
        }
    }
    own
}

fn append_texts(all: &mut (Names, Vec<u32>), part: &(Names, Vec<u32>)) {
    let places = all.0.merge(&part.0);
    all.1.extend(part.1.iter().map(|&n| places.get(n as usize).copied().unwrap_or(MISSING)));
}

/// The pieces of `rank`: a share of the bytes of all files on end.
fn pieces(files: &[PathBuf], rank: usize, ranks: usize) -> Result<Vec<Piece>> {
    let mut ends = vec![0u64];
    for path in files {
        let bytes = std::fs::metadata(path).map_err(|e| Error::file(path, "read", &e))?.len();
        ends.push(ends[ends.len() - 1] + bytes);
    }
    let total = ends[files.len()];
    let cut = |rank: usize| (u128::from(total) * rank as u128 / ranks as u128) as u64;
    let own = cut(rank)..cut(rank + 1);
    let mut pieces = Vec::new();
    for (file, path) in files.iter().enumerate() {
        let all = ends[file]..ends[file + 1];
        let part = own.start.max(all.start)..own.end.min(all.end);
        let packing = Packing::of(path)?;
        let bytes = match packing {
            _ if part.is_empty() => continue,
            Packing::Plain => part.start - all.start..part.end - all.start,
            // A packed file belongs to the rank with its first byte.
            _ if own.contains(&all.start) => 0..all.end - all.start,
            _ => continue,
        };
        pieces.push(Piece { file, bytes, packing });
    }
    Ok(pieces)
}

/// The first line start at or after `position`.
fn line_start(file: &mut File, position: u64) -> std::io::Result<u64> {
    if position == 0 {
        return Ok(0);
    }
    // A line that starts at `position` has its predecessor's end just before.
    file.seek(SeekFrom::Start(position - 1))?;
    let mut reader = BufReader::new(&mut *file);
    let mut skipped = Vec::new();
    let skipped = reader.read_until(b'\n', &mut skipped)? as u64;
    Ok(position - 1 + skipped)
}

/// About `BLOCK_BYTES` of whole lines; empty at the end.
fn whole_lines(reader: &mut impl Read, carry: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut text = std::mem::take(carry);
    loop {
        let read = reader.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut text)?;
        if read < BLOCK_BYTES {
            return Ok(text);
        }
        if let Some(last) = text.iter().rposition(|&b| b == b'\n') {
            *carry = text.split_off(last + 1);
            return Ok(text);
        }
    }
}
