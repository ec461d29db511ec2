//! Text edge lists, as SNAP, KONECT and most tools write them.
//!
//! # Format
//! One edge a line: the id of its source, the id of its target, and more columns that are ignored,
//! except that `--weights` reads the third as weight, a finite number ≥ 0. Columns are separated by
//! tabs, spaces and commas, any number of them. Lines that start with `#` or `%` and blank lines
//! are skipped. Lines end with `\n` or `\r\n`, the last one also without. A file without any edge
//! is the empty graph; a file without any byte is an error.
//!
//! If every id of the file is an unsigned integer below 2⁶⁴, ids are integers: ordered by value,
//! and `07` is the node 7. Otherwise all ids are names, UTF-8 text ordered by bytes. Integers are
//! tried first; the file is read again, and only then, when some rank meets an id that is none.
//!
//! # Cost
//! 8 bytes of memory an edge (16 where an id is 2³² or above). Blocks of lines are parsed in pieces
//! by all threads of the rank, and the text is not kept. Lines with two numbers, a separator and
//! nothing else are read 8 digits at a time (Lemire 2018); all others byte by byte.

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;

use super::ids::Edges;
use super::names::NameTable;
use super::source::{EXPECTED, LineBlocks};
use crate::error::Result;

/// Some edges of a file whose ids are integers.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct IntegerEdges {
    /// Those between ids below 2³², which are as good as all in most files.
    pub narrow: Edges,
    /// Source and target of the others.
    pub wide: Vec<(u64, u64)>,
    /// The weights of the others; empty when weights are not read.
    pub wide_weights: Vec<f64>,
}

impl IntegerEdges {
    /// The number of edges.
    pub fn len(&self) -> usize {
        self.narrow.edges.len() + self.wide.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest id; 0 without any.
    pub(super) fn largest(&self) -> u64 {
        let narrow = self.narrow.edges.iter().map(|&(a, b)| a.max(b)).max().unwrap_or(0);
        self.wide.iter().map(|&(a, b)| a.max(b)).max().unwrap_or(0).max(narrow.into())
    }

    /// Adds an edge.
    #[inline]
    pub(super) fn push(&mut self, from: u64, to: u64, weight: Option<f64>) {
        if (from | to) >> 32 == 0 {
            self.narrow.edges.push((from as u32, to as u32));
            self.narrow.weights.extend(weight);
        } else {
            self.wide.push((from, to));
            self.wide_weights.extend(weight);
        }
    }

    /// Removes all edges, and keeps their memory.
    fn clear(&mut self) {
        self.narrow.clear();
        self.wide.clear();
        self.wide_weights.clear();
    }

    /// Adds the edges of another list.
    pub(super) fn append(&mut self, other: &IntegerEdges) {
        self.narrow.append(&other.narrow);
        self.wide.extend_from_slice(&other.wide);
        self.wide_weights.extend_from_slice(&other.wide_weights);
    }
}

/// Some edges of a file whose ids are names.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct NamedEdges {
    /// Source and target of each edge, as positions in `names`.
    pub edges: Vec<(u32, u32)>,
    /// The distinct names of these edges, by first occurrence.
    pub names: NameTable,
    /// The weight of each edge; empty when weights are not read.
    pub weights: Vec<f64>,
}

/// Why the parser stopped inside a piece of text.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Stop {
    /// Not an integer where only integers are accepted.
    NotAnInteger,
    /// A malformed line around the offset.
    Malformed(usize, String),
}

/// The share of `rank` of a file whose ids are integers; `None` if it meets an id that is none.
pub fn read_integers(
    path: &Path,
    rank: usize,
    ranks: usize,
    weighted: bool,
) -> Result<Option<IntegerEdges>> {
    let source = LineBlocks::open(path, rank, ranks)?;
    let mut all = IntegerEdges::default();
    let parse = |text: &[u8], piece: &mut _| parse_integers(text, weighted, piece);
    let whole = read(source, parse, |piece: &mut IntegerEdges| all.append(piece))?;
    Ok(whole.then_some(all))
}

/// The share of `rank` of a file whose ids are taken as names.
pub fn read_names(
    path: &Path,
    rank: usize,
    ranks: usize,
    weighted: bool,
) -> Result<Vec<NamedEdges>> {
    let mut pieces = Vec::new();
    let source = LineBlocks::open(path, rank, ranks)?;
    let parse = |text: &[u8], piece: &mut NamedEdges| {
        *piece = parse_names(text, weighted)?;
        Ok(())
    };
    read(source, parse, |piece| pieces.push(std::mem::take(piece)))?;
    Ok(pieces)
}

/// Enough text to make a task worth its start, and enough pieces to balance.
pub(super) const PIECE_BYTES: usize = 1 << 18;

/// Parses all text of a rank in pieces, which `take` gets in their order. False, and no more
/// pieces, if an id is no integer. `parse` replaces what a piece holds: pieces are used again, so
/// that no block fetches memory from the system, which would cost as much as to parse it.
pub(super) fn read<P: Send + Default>(
    mut source: LineBlocks,
    parse: impl Fn(&[u8], &mut P) -> std::result::Result<(), Stop> + Sync,
    mut take: impl FnMut(&mut P),
) -> Result<bool> {
    let mut pieces: Vec<P> = Vec::new();
    while let Some(block) = source.next_block()? {
        let cuts = cut_at_lines(&block.text, PIECE_BYTES);
        pieces.resize_with(pieces.len().max(cuts.len() - 1), P::default);
        let work = cuts.par_windows(2).zip(&mut pieces);
        let parsed: Vec<_> =
            work.map(|(cut, piece)| parse(&block.text[cut[0]..cut[1]], piece)).collect();
        for ((result, piece), &start) in parsed.into_iter().zip(&mut pieces).zip(&cuts) {
            match result {
                Ok(()) => take(piece),
                Err(Stop::NotAnInteger) => return Ok(false),
                Err(Stop::Malformed(offset, what)) => {
                    return Err(source.error(&block, start + offset, &what));
                }
            }
        }
        source.recycle(block);
    }
    Ok(true)
}

/// Offsets `0 = c₀ < c₁ < … = len` that are line starts, about `bytes` apart.
pub(super) fn cut_at_lines(text: &[u8], bytes: usize) -> Vec<usize> {
    let mut cuts = vec![0];
    let mut at = 0;
    while at < text.len() {
        let wanted = (at + bytes).min(text.len());
        at = text[wanted..].iter().position(|&b| b == b'\n').map_or(text.len(), |n| wanted + n + 1);
        cuts.push(at);
    }
    cuts
}

fn parse_integers(
    text: &[u8],
    weighted: bool,
    piece: &mut IntegerEdges,
) -> std::result::Result<(), Stop> {
    piece.clear();
    piece.narrow.edges.reserve(text.len() / 12);
    let mut at = 0;
    while at < text.len() {
        if !weighted && let Some((from, to, next)) = plain_line(text, at) {
            piece.push(from, to, None);
            at = next;
            continue;
        }
        let (edge, next) = next_edge(text, at, weighted)?;
        at = next;
        if let Some(edge) = edge {
            let (Some(from), Some(to)) = (integer(edge.from), integer(edge.to)) else {
                return Err(Stop::NotAnInteger);
            };
            piece.push(from, to, weighted.then_some(edge.weight));
        }
    }
    Ok(())
}

fn parse_names(text: &[u8], weighted: bool) -> std::result::Result<NamedEdges, Stop> {
    let mut piece = NamedEdges::default();
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    for_each_edge(text, weighted, |from, to, weight, offset| {
        let mut position = |name| {
            if let Some(&position) = known.get(name) {
                return Ok(position);
            }
            check_name(name).map_err(|what| Stop::Malformed(offset, what))?;
            // A piece of text holds fewer names than bytes, far below 2³².
            let position = piece.names.len() as u32;
            piece.names.push(name);
            known.insert(name, position);
            Ok(position)
        };
        let edge = (position(from)?, position(to)?);
        piece.edges.push(edge);
        if weighted {
            piece.weights.push(weight);
        }
        Ok(())
    })?;
    Ok(piece)
}

fn check_name(name: &[u8]) -> std::result::Result<(), String> {
    if name.contains(&0) {
        return Err(format!("{BINARY}; {EXPECTED}"));
    }
    match std::str::from_utf8(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("the node id '{}' is not UTF-8 text; {EXPECTED}", excerpt(name))),
    }
}

const BINARY: &str = "a zero byte: this is a binary file";

/// Calls `edge(source id, target id, weight, offset)` for each edge of whole lines of text.
/// The weight is 1 unless weights are read.
pub(super) fn for_each_edge<'t>(
    text: &'t [u8],
    weighted: bool,
    mut edge: impl FnMut(&'t [u8], &'t [u8], f64, usize) -> std::result::Result<(), Stop>,
) -> std::result::Result<(), Stop> {
    let mut at = 0;
    while at < text.len() {
        let (found, next) = next_edge(text, at, weighted)?;
        if let Some(found) = found {
            edge(found.from, found.to, found.weight, at)?;
        }
        at = next;
    }
    Ok(())
}

/// The columns of a line.
struct Line<'t> {
    from: &'t [u8],
    to: &'t [u8],
    /// 1 unless weights are read.
    weight: f64,
}

/// The edge in the line that starts at `line`, if it has one, and where the next line starts.
fn next_edge(
    text: &[u8],
    line: usize,
    weighted: bool,
) -> std::result::Result<(Option<Line<'_>>, usize), Stop> {
    let at = skip(text, line, |b| b == b' ' || b == b'\t');
    if let None | Some(b'\n' | b'\r' | b'#' | b'%') = text.get(at) {
        return Ok((None, next_line(text, line, at)?));
    }
    let from_end = skip(text, at, |b| !ends_token(b));
    let to_start = skip(text, from_end, is_separator);
    let to_end = skip(text, to_start, |b| !ends_token(b));
    if from_end == at || to_end == to_start {
        return Err(two_ids_expected(text, line));
    }
    let (mut rest, mut weight) = (to_end, 1.0);
    if weighted {
        let start = skip(text, to_end, is_separator);
        rest = skip(text, start, |b| !ends_token(b));
        weight = parse_weight(&text[start..rest]).map_err(|w| Stop::Malformed(line, w))?;
    }
    let next = if text.get(rest) == Some(&b'\n') { rest + 1 } else { next_line(text, line, rest)? };
    let edge = Line { from: &text[at..from_end], to: &text[to_start..to_end], weight };
    Ok((Some(edge), next))
}

/// The numbers in the line that starts at `at`, and where the next one starts; `None` unless the
/// line is two numbers of at most 15 digits with one separator between them, and more text follows.
#[inline]
fn plain_line(text: &[u8], at: usize) -> Option<(u64, u64, usize)> {
    let (from, at) = digits(text, at)?;
    if !is_separator(*text.get(at)?) {
        return None;
    }
    let (to, at) = digits(text, at + 1)?;
    match text.get(at..at + 2)? {
        [b'\n', _] => Some((from, to, at + 1)),
        b"\r\n" => Some((from, to, at + 2)),
        _ => None,
    }
}

/// A number of 1 to 15 digits, and where it ends.
#[inline]
fn digits(text: &[u8], at: usize) -> Option<(u64, usize)> {
    let (high, count) = leading_digits(text, at)?;
    match count {
        0 => None,
        8 => {
            const POWERS: [u64; 8] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000];
            let (low, more) = leading_digits(text, at + 8)?;
            Some((high * POWERS.get(more)? + low, at + 8 + more))
        }
        count => Some((high, at + count)),
    }
}

/// The number that up to 8 digits make, and how many there are: all at once, as bytes of a word.
#[inline]
fn leading_digits(text: &[u8], at: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.get(at..at + 8)?.first_chunk()?);
    let values = word ^ 0x3030_3030_3030_3030;
    // The high bit of bytes above 9; what a carry spoils comes after the first of them.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() as usize / 8;
    if count == 0 {
        return Some((0, 0));
    }
    // The last digit becomes the highest byte; zeros come before the first.
    let values = values << (64 - 8 * count);
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let eight = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    Some((eight, count))
}

#[inline]
fn skip(text: &[u8], start: usize, while_true: impl Fn(u8) -> bool) -> usize {
    let rest = &text[start..];
    start + rest.iter().position(|&b| !while_true(b)).unwrap_or(rest.len())
}

#[inline]
fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b',')
}

#[inline]
fn ends_token(byte: u8) -> bool {
    byte <= b',' && matches!(byte, b' ' | b'\t' | b',' | b'\r' | b'\n')
}

/// The start of the line after the one that starts at `line`, whose rest from `at` is ignored;
/// but zero bytes in it reveal a binary file, and a lone carriage return other line ends.
fn next_line(text: &[u8], line: usize, at: usize) -> std::result::Result<usize, Stop> {
    let end = skip(text, at, |b| b != b'\n');
    let rest = text[at..end].strip_suffix(b"\r").unwrap_or(&text[at..end]);
    if rest.contains(&0) {
        return Err(Stop::Malformed(line, format!("{BINARY}; {EXPECTED}")));
    }
    if rest.contains(&b'\r') {
        let what = "a carriage return inside a line; expected lines that end with a newline";
        return Err(Stop::Malformed(line, what.into()));
    }
    Ok((end + 1).min(text.len()))
}

#[cold]
fn two_ids_expected(text: &[u8], line: usize) -> Stop {
    let end = skip(text, line, |b| b != b'\n' && b != b'\r');
    let line_text = &text[line..end];
    let what = if line_text.contains(&0) {
        format!("{BINARY}; {EXPECTED}")
    } else {
        format!("'{}' is not an edge; {EXPECTED}", excerpt(line_text))
    };
    Stop::Malformed(line, what)
}

/// Up to 40 characters for a message, on one line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).into_owned();
    let short: String = text.trim().chars().take(40).collect();
    let more = if short.len() < text.trim().len() || bytes.len() > 160 { "..." } else { "" };
    format!("{}{more}", short.escape_debug())
}

/// An unsigned integer below 2⁶⁴, in digits only.
#[inline]
pub(super) fn integer(token: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for &byte in token {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits always fit; more are rare (leading zeros, the largest numbers).
        value = if token.len() < 20 {
            value * 10 + u64::from(digit)
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))?
        };
    }
    Some(value)
}

pub(super) fn parse_weight(token: &[u8]) -> std::result::Result<f64, String> {
    let weight = std::str::from_utf8(token).ok().and_then(|text| text.parse::<f64>().ok());
    match weight {
        // Adding 0 turns -0 into 0.
        Some(weight) if weight.is_finite() && weight >= 0.0 => Ok(weight + 0.0),
        _ if token.is_empty() => {
            Err("no third column; expected a weight after the two node ids".into())
        }
        _ => Err(format!("the weight '{}' is not a finite number >= 0", excerpt(token))),
    }
}

#[cfg(test)]
#[path = "edge_list_tests.rs"]
mod tests;
