//! Matrix Market files: a sparse matrix as text, the format of the SuiteSparse collection
//! (Boisvert, Pozo, Remington 1996, NISTIR 5935).
//!
//! # Format
//! ```text
//! %%MatrixMarket matrix coordinate pattern|real|integer general|symmetric
//! % comments
//! ROWS COLUMNS ENTRIES
//! ROW COLUMN [VALUE]
//! ```
//! The entry (i, j) is an edge from node i to node j, both counted from 1. `symmetric` files list
//! one half, on and below the diagonal, and each entry is an edge both ways. Values are weights
//! with `--weights` and ignored otherwise, also where they are 0. The matrix must be square. A node
//! is a row, so rows without entries are nodes as well (networkx would have them only if they were
//! added).
//!
//! # Cost
//! That of a text edge list without the numbering of its ids: each rank parses its share.

use std::path::Path;

use super::edge_list::{Stop, excerpt, for_each_edge, read};
use super::ids::{Edges, Numbering};
use super::load::{Listing, Loaded, index_from_1, node_count, same_everywhere};
use super::source::{EXPECTED, HeadLines, LineBlocks};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

/// What the first line starts with.
pub(super) const BANNER: &str = "%%MatrixMarket";

#[derive(Clone, PartialEq, Debug)]
struct Header {
    n: usize,
    entries: u64,
    symmetric: bool,
    /// The bytes before the first entry.
    bytes: u64,
    /// The line with the sizes.
    line: u64,
}

/// Reads the matrix at `path`. Collective.
pub(super) fn load(comm: &Communicator, path: &Path, weighted: bool) -> Result<Loaded> {
    let header = comm.agree(Header::read(path, weighted))?;
    let numbers = [header.n as u64, header.entries, header.symmetric.into(), header.bytes];
    same_everywhere(comm, path, &numbers)?;
    let edges = comm.agree(read_share(path, &header, (comm.rank(), comm.ranks()), weighted))?;
    let entries = comm.all_reduce_vec(&[edges.edges.len() as u64], Op::Sum)?[0];
    comm.agree(header.check(entries).map_err(|what| Error::line(path, header.line, what)))?;
    let listing = if header.symmetric { Listing::Halves } else { Listing::Directed };
    Ok(Loaded { numbering: Numbering::Dense { first: 1, n: header.n }, edges, listing })
}

impl Header {
    fn read(path: &Path, weighted: bool) -> Result<Header> {
        let mut head = HeadLines::open(path)?;
        let banner = head.next_line()?.unwrap_or_default();
        let symmetric = parse_banner(&banner, weighted).map_err(|what| head.error(what))?;
        loop {
            let Some(line) = head.next_line()? else {
                return Err(head.error(format!("the file ends here; {SIZES}")));
            };
            if line.trim().is_empty() || line.trim_start().starts_with('%') {
                continue;
            }
            let sizes = parse_sizes(&line, head.rest());
            let (n, entries) = sizes.map_err(|what| head.error(what))?;
            return Ok(Header { n, entries, symmetric, bytes: head.bytes, line: head.lines });
        }
    }

    /// What a damaged size line would cost is memory for its nodes, so they are compared with the
    /// entries that are there.
    fn check(&self, entries: u64) -> std::result::Result<(), String> {
        if entries != self.entries {
            return Err(format!(
                "the header promises {} entries, but the file has {entries}; fetch it again",
                self.entries
            ));
        }
        let limit = EMPTY_NODES + EMPTY_NODES_PER_ENTRY * entries;
        if self.n as u64 > limit {
            return Err(format!(
                "the header promises {} nodes for {entries} entries; at most {limit} are accepted",
                self.n
            ));
        }
        Ok(())
    }
}

/// So many nodes without edges are taken for meant, and so many more for each entry.
const EMPTY_NODES: u64 = 1 << 24;
const EMPTY_NODES_PER_ENTRY: u64 = 64;

const SIZES: &str = "expected a line with the numbers of rows, columns and entries";

/// Whether the matrix is symmetric.
fn parse_banner(line: &str, weighted: bool) -> std::result::Result<bool, String> {
    let lower = line.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let expected =
        format!("expected '{BANNER} matrix coordinate pattern|real|integer general|symmetric'");
    let [banner, object, layout, field, symmetry] = words[..] else {
        return Err(format!("'{}' is no header; {expected}", excerpt(line.as_bytes())));
    };
    if banner != BANNER.to_lowercase() {
        return Err(format!("'{}' is no header; {expected}", excerpt(line.as_bytes())));
    }
    let allowed: [(&str, &[&str]); 4] = [
        (object, &["matrix"]),
        (layout, &["coordinate"]),
        (field, &["pattern", "real", "integer"]),
        (symmetry, &["general", "symmetric"]),
    ];
    for (word, allowed) in allowed {
        if !allowed.contains(&word) {
            let word = excerpt(word.as_bytes());
            return Err(format!("a matrix of the kind '{word}' is no graph here; {expected}"));
        }
    }
    if weighted && field == "pattern" {
        return Err("weights: a pattern matrix has none".into());
    }
    Ok(symmetry == "symmetric")
}

/// The numbers of nodes and entries, given how many bytes follow.
fn parse_sizes(line: &str, rest: Option<u64>) -> std::result::Result<(usize, u64), String> {
    let shown = excerpt(line.as_bytes());
    let numbers: Option<Vec<u64>> =
        line.split_whitespace().map(|word| super::edge_list::integer(word.as_bytes())).collect();
    let Some([rows, columns, entries]) = numbers.as_deref() else {
        return Err(format!("'{shown}'; {SIZES}"));
    };
    if rows != columns {
        return Err(format!("a matrix of {rows} x {columns}; the matrix of a graph is square"));
    }
    // The shortest entry is "1 1" and the end of the line, which the last one may lack.
    if rest.is_some_and(|rest| u128::from(*entries) * 4 > u128::from(rest) + 1) {
        return Err(format!(
            "the header promises {entries} entries, more than the {} bytes after it can hold",
            rest.unwrap_or(0)
        ));
    }
    Ok((node_count(*rows)?, *entries))
}

fn read_share(
    path: &Path,
    header: &Header,
    (rank, ranks): (usize, usize),
    weighted: bool,
) -> Result<Edges> {
    let source = LineBlocks::after_head(path, header.bytes, rank, ranks)?;
    let mut all = Edges::default();
    let parse = |text: &[u8], piece: &mut _| parse_entries(text, header, weighted, piece);
    read(source, parse, |piece: &mut Edges| all.append(piece))?;
    Ok(all)
}

fn parse_entries(
    text: &[u8],
    header: &Header,
    weighted: bool,
    piece: &mut Edges,
) -> std::result::Result<(), Stop> {
    piece.clear();
    piece.edges.reserve(text.len() / 12);
    for_each_edge(text, weighted, |row, column, weight, offset| {
        let index = |id: &[u8]| {
            index_from_1(id, header.n).ok_or_else(|| {
                let what = format!("'{}' is not a node; expected 1 to {}", excerpt(id), header.n);
                Stop::Malformed(offset, what)
            })
        };
        let (row, column) = (index(row)?, index(column)?);
        if header.symmetric && row < column {
            let what =
                "an entry above the diagonal of a symmetric matrix; expected row >= column, \
                        since such files list one half"
                    .to_string();
            return Err(Stop::Malformed(offset, what));
        }
        piece.edges.push((row, column));
        if weighted {
            piece.weights.push(weight);
        }
        Ok(())
    })
    .map_err(as_entry)
}

/// What the parser of edge lists says of a line, in the words of this format.
fn as_entry(stop: Stop) -> Stop {
    match stop {
        Stop::Malformed(offset, what) => {
            let what = what.replace(EXPECTED, "expected an entry: ROW COLUMN [VALUE]");
            Stop::Malformed(offset, what.replace("the two node ids", "row and column"))
        }
        other => other,
    }
}
