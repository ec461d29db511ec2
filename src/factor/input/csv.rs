//! Long tables in CSV. The bytes of all plain files are shared evenly among the ranks, and each
//! cut moves to the next line start; a packed file (gzip, zstd) goes whole to one rank, since it
//! cannot be entered in the middle. A rank parses its text in blocks of whole lines, on all of its
//! threads.
//!
//! Fields may be quoted (RFC 4180), but a line end inside quotes is not supported: cuts and blocks
//! could not tell it from the end of a row. The first line of each file names its columns. Missing
//! is an empty field or NaN, NA, null, None in any case.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

use csv::{ByteRecord, ReaderBuilder};
use rayon::prelude::*;

use super::columns::{Column, Kind, Roles};
use super::files::{Packing, text_from};
use super::names::{MISSING, Names};
use crate::error::{Error, Result};
use crate::factor::config::Infinite;
use crate::factor::dates;

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
}

/// A part of a file that one rank reads.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Piece {
    file: usize,
    /// Bytes of a plain file, before cuts move to line starts; all of a packed one.
    bytes: Range<u64>,
    packing: Packing,
}

/// Which fields of a record are wanted.
struct Fields {
    columns: usize,
    date: usize,
    asset: usize,
    industry: Option<usize>,
    numbers: Vec<usize>,
    names: Vec<String>,
    infinite: Infinite,
}

/// What a block of lines holds.
#[derive(Default)]
struct Parsed {
    dates: Vec<i32>,
    assets: (Names, Vec<u32>),
    industries: (Names, Vec<u32>),
    numbers: Vec<Vec<f64>>,
}

const BLOCK_BYTES: usize = 2 << 20;
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
fn header(text: &[u8], path: &std::path::Path) -> Result<Vec<String>> {
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
        let mut share = Share {
            files,
            blocks: Vec::new(),
            dates: Vec::new(),
            assets: Default::default(),
            industries: Default::default(),
            numbers: Vec::new().into_iter(),
        };
        let mut numbers = vec![Vec::new(); roles.numbers().count()];
        for piece in pieces(&share.files, rank, ranks)? {
            share.read_piece(&piece, roles, infinite, &mut numbers)?;
        }
        share.numbers = numbers.into_iter();
        Ok(share)
    }

    /// The file of a row and its line in it, from 1.
    pub(super) fn locate(&self, mut row: usize) -> Result<(usize, u64)> {
        for block in &self.blocks {
            if row < block.rows {
                return Ok((block.file, self.line(block.file, block.position, row)?));
            }
            row -= block.rows;
        }
        Ok((0, 0))
    }

    /// The next column of `Roles::numbers`.
    pub(super) fn next_numbers(&mut self) -> Vec<f64> {
        self.numbers.next().unwrap_or_default()
    }

    /// The line of row `row` of the text that starts at `position`.
    fn line(&self, file: usize, position: u64, row: usize) -> Result<u64> {
        let (reader, before) = text_from(&self.files[file], position)?;
        let mut reader = records(reader);
        let mut record = ByteRecord::new();
        for _ in 0..=row {
            if !reader.read_byte_record(&mut record).unwrap_or(false) {
                break;
            }
        }
        Ok(before + record.position().map_or(1, csv::Position::line))
    }

    fn read_piece(
        &mut self,
        piece: &Piece,
        roles: &Roles,
        infinite: Infinite,
        numbers: &mut [Vec<f64>],
    ) -> Result<()> {
        let path = &self.files[piece.file].clone();
        let failed = |e| Error::file(path, "read", &e);
        let mut file = File::open(path).map_err(failed)?;
        let mut first = Vec::new();
        let (reader, _) = text_from(path, 0)?;
        let mut reader = BufReader::new(reader);
        reader.read_until(b'\n', &mut first).map_err(failed)?;
        let fields = Fields::new(&header(&first, path)?, roles, path, infinite)?;
        let head = first.len() as u64;
        let (mut reader, mut position): (Box<dyn Read + Send>, u64) =
            if piece.packing == Packing::Plain {
                let start = line_start(&mut file, piece.bytes.start.max(head)).map_err(failed)?;
                let end = line_start(&mut file, piece.bytes.end.max(head)).map_err(failed)?;
                file.seek(SeekFrom::Start(start)).map_err(failed)?;
                (Box::new(file.take(end.saturating_sub(start))), start)
            } else {
                (Box::new(reader), head)
            };
        let threads = rayon::current_num_threads();
        let mut carry = Vec::new();
        loop {
            let mut blocks = Vec::new();
            while blocks.len() < threads {
                let block = whole_lines(&mut reader, &mut carry).map_err(failed)?;
                if block.is_empty() {
                    break;
                }
                blocks.push((position, block));
                position += blocks[blocks.len() - 1].1.len() as u64;
            }
            if blocks.is_empty() {
                return Ok(());
            }
            let parsed: Vec<_> = blocks.par_iter().map(|(_, text)| fields.parse(text)).collect();
            for ((position, _), parsed) in blocks.iter().zip(parsed) {
                match parsed {
                    Ok(parsed) => self.append(piece.file, *position, parsed, numbers),
                    Err((row, what)) => {
                        let line = self.line(piece.file, *position, row)?;
                        return Err(Error::line(path, line, what));
                    }
                }
            }
        }
    }

    fn append(&mut self, file: usize, position: u64, parsed: Parsed, numbers: &mut [Vec<f64>]) {
        self.blocks.push(Block { file, position, rows: parsed.dates.len() });
        self.dates.extend(parsed.dates);
        append_texts(&mut self.assets, &parsed.assets);
        append_texts(&mut self.industries, &parsed.industries);
        numbers.iter_mut().zip(parsed.numbers).for_each(|(all, part)| all.extend(part));
    }
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

fn records<R: Read>(reader: R) -> csv::Reader<R> {
    ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader)
}

impl Fields {
    fn new(
        names: &[String],
        roles: &Roles,
        path: &std::path::Path,
        infinite: Infinite,
    ) -> Result<Fields> {
        let place = |wanted: &str| {
            names.iter().position(|name| name == wanted).ok_or_else(|| {
                let what = format!("no column '{wanted}'; there are {}", names.join(", "));
                Error::line(path, 1, what)
            })
        };
        Ok(Fields {
            columns: names.len(),
            date: place(&roles.date)?,
            asset: place(&roles.asset)?,
            industry: roles.industry.as_deref().map(place).transpose()?,
            numbers: roles.numbers().map(place).collect::<Result<_>>()?,
            names: roles.numbers().map(str::to_owned).collect(),
            infinite,
        })
    }

    /// The rows of whole lines; or the row that is wrong, and how.
    fn parse(&self, text: &[u8]) -> std::result::Result<Parsed, (usize, String)> {
        let mut parsed =
            Parsed { numbers: vec![Vec::new(); self.numbers.len()], ..Parsed::default() };
        let mut reader = records(text);
        let mut record = ByteRecord::new();
        let mut last: (Vec<u8>, i32) = Default::default();
        loop {
            let row = parsed.dates.len();
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Ok(parsed),
                Err(e) => return Err((row, e.to_string())),
            }
            self.parse_row(&record, &mut parsed, &mut last).map_err(|what| (row, what))?;
        }
    }

    fn parse_row(
        &self,
        record: &ByteRecord,
        parsed: &mut Parsed,
        last: &mut (Vec<u8>, i32),
    ) -> std::result::Result<(), String> {
        if record.len() != self.columns {
            let (found, expected) = (record.len(), self.columns);
            return Err(format!("{found} fields; expected {expected}, as in the first line"));
        }
        let shown = |field: usize| String::from_utf8_lossy(&record[field]).into_owned();
        // Dates repeat: one is parsed when it changes.
        if last.0 != record[self.date] || last.0.is_empty() {
            let date = dates::parse(&record[self.date]).ok_or_else(|| {
                format!("'{}' is no date; expected YYYY-MM-DD or yyyymmdd", shown(self.date))
            })?;
            *last = (record[self.date].to_vec(), date);
        }
        parsed.dates.push(last.1);
        let asset = record[self.asset].trim_ascii();
        if asset.is_empty() {
            return Err("no asset".into());
        }
        let asset = parsed.assets.0.number(asset);
        parsed.assets.1.push(asset);
        if let Some(industry) = self.industry {
            let text = record[industry].trim_ascii();
            let names = &mut parsed.industries.0;
            let number = if is_missing(text) { MISSING } else { names.number(text) };
            parsed.industries.1.push(number);
        }
        for ((column, &field), name) in
            parsed.numbers.iter_mut().zip(&self.numbers).zip(&self.names)
        {
            let x = number(&record[field])
                .or_else(|| truth(&record[field]).map(|truth| f64::from(u8::from(truth))))
                .ok_or_else(|| {
                    let advice = "a column of text can be left out by factors.exclude";
                    format!("{name}: '{}' is no number; {advice}", shown(field))
                })?;
            match self.infinite {
                Infinite::Error if x.is_infinite() => {
                    let advice = "write it as missing, or set input.infinite";
                    return Err(format!("{name}: '{}' ({advice})", shown(field)));
                }
                _ => column.push(if x.is_infinite() { f64::NAN } else { x }),
            }
        }
        Ok(())
    }
}

fn is_missing(field: &[u8]) -> bool {
    let is = |word: &str| field.eq_ignore_ascii_case(word.as_bytes());
    field.is_empty() || ["nan", "na", "n/a", "null", "none"].into_iter().any(is)
}

/// The number in a field, NaN if it is missing.
fn number(field: &[u8]) -> Option<f64> {
    let field = field.trim_ascii();
    let first = field.first().copied().unwrap_or(b'n');
    if first.is_ascii_alphabetic() && is_missing(field) || field.is_empty() {
        return Some(f64::NAN);
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn truth(field: &[u8]) -> Option<bool> {
    let is = |word: &str| field.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
    match () {
        () if ["true", "yes", "y"].into_iter().any(is) => Some(true),
        () if ["false", "no", "n"].into_iter().any(is) => Some(false),
        () => None,
    }
}
