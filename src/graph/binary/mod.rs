//! The binary format of this project, `.rwg`: a graph as the iteration needs it.
//!
//! # Format
//! Little-endian. A header of 64 bytes, then sections that each start at a multiple of 64:
//! ```text
//! 0  "rwgraph\n"   8  u32 version = 1   12 u32 flags   16 u64 nodes   24 u64 edges
//! 32 u64 first id, if ids are consecutive              40 u64 bytes of text, if ids are names
//! 48 u32 CRC-32 of the last section    52 u64 zero     60 u32 CRC-32 of the bytes before it
//!
//! u64 offsets[nodes + 1]    row i is offsets[i]..offsets[i + 1] of sources and weights
//! u32 sources[edges]        ascending in a row
//! f64 weights[edges]        with the flag 1, ascending for equal sources
//! u32 out_degrees[nodes]    edges out of a node
//! f64 out_weights[nodes]    with the flag 1, their weights
//! u32 node_at[nodes]        with the flag 8: which node stands at which place (see `order`)
//! u64 ids[nodes]            with the flag 16, ascending; with the flag 32 where each name ends
//! u8  text[…]               with the flag 32, the names, ascending
//! u32 checks[…]             the CRC-32 of each MiB from byte 64 to here
//! ```
//! Flags: 1 weights, 2 undirected, 4 repeated edges are merged, 8 ordered by degree, 16 ids are
//! integers, 32 ids are names. Rows, sources and degrees count nodes by their places.
//!
//! # Why
//! What takes time with text (parsing, numbering, sorting by target, degrees) was done once, when
//! the file was written; a rank takes its rows as they are. The file is mapped, so its pages exist
//! once a node. What a rank reads it compares with the checks first. Cost: 4 bytes an edge read
//! and summed, 28 to 40 bytes a node.

mod read;
mod write;

pub use read::load;
pub use write::write;

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// The first bytes of a file.
pub(super) const MAGIC: [u8; 8] = *b"rwgraph\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
/// Each section starts at a multiple of this.
const ALIGNMENT: u128 = 64;
/// Bytes under one checksum.
const CHUNK: usize = 1 << 20;

const WEIGHTED: u32 = 1;
const UNDIRECTED: u32 = 2;
const MERGED: u32 = 4;
const ORDERED: u32 = 8;
const INTEGERS: u32 = 16;
const NAMES: u32 = 32;

/// What the first 64 bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Header {
    flags: u32,
    nodes: u64,
    edges: u64,
    first: u64,
    text: u64,
    /// The CRC-32 of the last section.
    checks: u32,
}

impl Header {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        for (at, number) in [(16, self.nodes), (24, self.edges), (32, self.first), (40, self.text)]
        {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..52].copy_from_slice(&self.checks.to_le_bytes());
        let crc = crc32(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file at `path`, whose contents are `file`.
    fn parse(path: &Path, file: &[u8]) -> Result<Header> {
        let Some((header, _)) = file.split_first_chunk::<HEADER_BYTES>() else {
            let what = format!("the file ends inside the header; {EXPECTED}");
            return Err(wrong(path, file.len(), what));
        };
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if header[..8] != MAGIC {
            return Err(wrong(path, 0, format!("other first bytes than 'rwgraph'; {EXPECTED}")));
        }
        if u32_at(8) != VERSION {
            let what = format!(
                "version {} of the format; this program reads version {VERSION}; convert the \
                 graph again",
                u32_at(8)
            );
            return Err(wrong(path, 8, what));
        }
        if u32_at(60) != crc32(&header[..60]) {
            return Err(wrong(path, 60, format!("the header does not fit its checksum; {AGAIN}")));
        }
        Ok(Header {
            flags: u32_at(12),
            nodes: u64_at(16),
            edges: u64_at(24),
            first: u64_at(32),
            text: u64_at(40),
            checks: u32_at(48),
        })
    }
}

/// Where the sections are.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Layout {
    offsets: Range<usize>,
    sources: Range<usize>,
    weights: Range<usize>,
    out_degrees: Range<usize>,
    out_weights: Range<usize>,
    node_at: Range<usize>,
    ids: Range<usize>,
    text: Range<usize>,
    checks: Range<usize>,
}

impl Layout {
    /// `None` if the file would be larger than memory can be.
    fn of(header: &Header) -> Option<Layout> {
        let mut at = HEADER_BYTES as u128;
        let mut section = |present: bool, count: u64, width: u128| {
            let start = at.next_multiple_of(ALIGNMENT);
            at = start + if present { u128::from(count) * width } else { 0 };
            Some(usize::try_from(start).ok()?..usize::try_from(at).ok()?)
        };
        let (n, m) = (header.nodes, header.edges);
        let weighted = header.has(WEIGHTED);
        let offsets = section(true, n.checked_add(1)?, 8)?;
        let sources = section(true, m, 4)?;
        let weights = section(weighted, m, 8)?;
        let out_degrees = section(true, n, 4)?;
        let out_weights = section(weighted, n, 8)?;
        let node_at = section(header.has(ORDERED), n, 4)?;
        let ids = section(header.has(INTEGERS) || header.has(NAMES), n, 8)?;
        let text = section(header.has(NAMES), header.text, 1)?;
        let start = text.end.checked_next_multiple_of(ALIGNMENT as usize)?;
        let chunks = (start - HEADER_BYTES).div_ceil(CHUNK);
        let checks = start..start.checked_add(chunks.checked_mul(4)?)?;
        Some(Layout {
            offsets,
            sources,
            weights,
            out_degrees,
            out_weights,
            node_at,
            ids,
            text,
            checks,
        })
    }
}

const EXPECTED: &str = "expected a graph that 'rankwise graph convert' wrote";
const AGAIN: &str = "it was damaged after it was written; convert the graph again";

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn wrong(path: &Path, at: usize, what: impl std::fmt::Display) -> Error {
    Error::input(format!("{} byte {at}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_every_changed_bit_is_seen() {
        let header =
            Header { flags: 5, nodes: 3, edges: 1 << 40, first: 1, text: 9, checks: 0xdead_beef };
        let bytes = header.to_bytes();
        let path = Path::new("g.rwg");
        assert_eq!(Header::parse(path, &bytes), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(path, &changed).unwrap_err().exit_code(), 2, "bit {bit}");
        }
        for length in 0..HEADER_BYTES {
            let error = Header::parse(path, &bytes[..length]).unwrap_err();
            assert!(error.message.contains("ends inside the header"), "{error}");
        }
    }

    #[test]
    fn sections_are_aligned_and_do_not_overlap() {
        for flags in 0..64 {
            for (nodes, edges) in [(0, 0), (1, 1), (7, 100), (1 << 20, 1 << 24)] {
                let header = Header { flags, nodes, edges, text: nodes * 3, ..Header::default() };
                let layout = Layout::of(&header).unwrap();
                let mut end = HEADER_BYTES;
                for section in [
                    &layout.offsets,
                    &layout.sources,
                    &layout.weights,
                    &layout.out_degrees,
                    &layout.out_weights,
                    &layout.node_at,
                    &layout.ids,
                    &layout.text,
                    &layout.checks,
                ] {
                    assert!(section.start % 64 == 0 && section.start >= end, "{layout:?}");
                    end = section.end;
                }
            }
        }
        let huge = Header { nodes: u64::MAX, edges: u64::MAX, ..Header::default() };
        assert_eq!(Layout::of(&huge), None);
        assert_eq!(Layout::of(&Header { nodes: 1, ..huge }), None);
    }
}
