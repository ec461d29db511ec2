//! METIS graph files: adjacency lists as text, which METIS, KaHIP and NetworKit read and write
//! (METIS manual 5.1, section 4.1).
//!
//! # Format
//! ```text
//! NODES EDGES [FMT [NCON]]
//! [SIZE] [VERTEX_WEIGHT]... NEIGHBOUR [EDGE_WEIGHT] NEIGHBOUR [EDGE_WEIGHT]...
//! ```
//! The line of each node lists its neighbours, counted from 1; a blank line is a node without any.
//! Lines that start with `%` are comments and do not count. The graph is undirected: each edge
//! stands in the lines of both its ends, and EDGES counts it once. FMT is three digits: sizes,
//! vertex weights (NCON of them) and edge weights are present or not. Edge weights are weights with
//! `--weights`; the rest is skipped.
//!
//! # Cost
//! Each rank parses its share of the lines. Which node a line belongs to depends on the lines
//! before it, so ranks count from 0 and gather the numbers of lines (16 bytes for each 256 KiB of
//! text) before nodes get their index.

use std::path::Path;

use rayon::prelude::*;

use super::compression::line_at;
use super::edge_list::{PIECE_BYTES, cut_at_lines, excerpt, integer, parse_weight};
use super::ids::{Edges, Numbering};
use super::load::{Listing, Loaded, index_from_1, node_count, same_everywhere};
use super::source::{HeadLines, LineBlocks};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

#[derive(Clone, PartialEq, Debug)]
struct Header {
    n: usize,
    /// Undirected edges.
    edges: u64,
    /// Numbers before the neighbours of a line: the size and the weights of the vertex.
    skipped: usize,
    edge_weights: bool,
    /// The bytes before the line of the first node.
    bytes: u64,
    /// The line of the header.
    line: u64,
}

/// What a rank has read; the nodes of each piece are counted from its first one.
#[derive(Default, Debug)]
struct Share {
    pieces: Vec<Piece>,
    /// Of all pieces in their order.
    edges: Edges,
}

/// The lines of some nodes.
#[derive(Clone, Default, PartialEq, Debug)]
struct Piece {
    /// Where it starts in the text of the file.
    position: u64,
    nodes: u64,
    /// How many edges they have.
    edges: usize,
    /// The last node that has neighbours, and where its line is in the text of the file.
    last: Option<(u64, u64)>,
}

/// Reads the graph at `path`. Collective.
pub(super) fn load(comm: &Communicator, path: &Path, weighted: bool) -> Result<Loaded> {
    let header = comm.agree(Header::read(path, weighted))?;
    same_everywhere(comm, path, &[header.n as u64, header.edges, header.bytes])?;
    let share = comm.agree(read_share(path, &header, comm.rank(), comm.ranks(), weighted))?;
    let pieces = share.pieces.iter();
    let counts: Vec<u64> = pieces.flat_map(|piece| [piece.position, piece.nodes]).collect();
    let (counts, _) = comm.all_gather_vec(&counts)?;
    let mut starts: Vec<(u64, u64)> = counts.chunks_exact(2).map(|c| (c[0], c[1])).collect();
    starts.sort_unstable();
    let mut lines = 0;
    for (_, nodes) in &mut starts {
        lines += std::mem::replace(nodes, lines);
    }
    let edges = comm.agree(shift(path, &header, share, &starts))?;
    let loops = edges.edges.iter().filter(|edge| edge.0 == edge.1).count() as u64;
    let sums = comm.all_reduce_vec(&[edges.edges.len() as u64, loops], Op::Sum)?;
    let counted = header.check(lines, sums[0], sums[1]);
    comm.agree(counted.map_err(|what| Error::line(path, header.line, what)))?;
    let numbering = Numbering::Dense { first: 1, n: header.n };
    Ok(Loaded { numbering, edges, listing: Listing::BothWays })
}

const HEADER: &str = "expected the header of a METIS graph: NODES EDGES [FMT [NCON]]";

impl Header {
    fn read(path: &Path, weighted: bool) -> Result<Header> {
        let mut head = HeadLines::open(path)?;
        loop {
            let Some(line) = head.next_line()? else {
                return Err(head.error(format!("the file ends here; {HEADER}")));
            };
            if line.trim_start().starts_with('%') {
                continue;
            }
            let header = Header::parse(&line, head.rest(), weighted);
            let header = header.map_err(|what| head.error(what))?;
            return Ok(Header { bytes: head.bytes, line: head.lines, ..header });
        }
    }

    fn parse(line: &str, rest: Option<u64>, weighted: bool) -> std::result::Result<Header, String> {
        let shown = excerpt(line.as_bytes());
        let words: Vec<&str> = line.split_whitespace().collect();
        let numbers: Option<Vec<u64>> = words.iter().map(|word| integer(word.as_bytes())).collect();
        let numbers = numbers.filter(|numbers| (2..=4).contains(&numbers.len()));
        let Some(numbers) = numbers else {
            return Err(format!("'{shown}'; {HEADER}"));
        };
        let flags = numbers.get(2).copied().unwrap_or(0);
        if flags > 111 || [flags % 10, flags / 10 % 10].iter().any(|&digit| digit > 1) {
            return Err(format!("the FMT {flags} is unknown; expected three digits 0 or 1"));
        }
        let [sizes, vertex_weights, edge_weights] = [flags / 100, flags / 10 % 10, flags % 10];
        let per_vertex = numbers.get(3).copied().unwrap_or(1);
        if per_vertex > 1 << 10 {
            return Err(format!("NCON {per_vertex}: at most 1024 weights of a vertex"));
        }
        if weighted && edge_weights == 0 {
            return Err("weights: this graph has none; its FMT does not end in 1".into());
        }
        let (n, edges) = (node_count(numbers[0])?, numbers[1]);
        // A node takes a byte at least, and a neighbour two; a self-loop may be listed once.
        let fits = |rest: u64| n as u64 <= rest + 1 && edges <= rest.div_ceil(2);
        if let Some(rest) = rest.filter(|&rest| !fits(rest)) {
            return Err(format!(
                "the header promises {n} nodes and {edges} edges, more than the {rest} bytes after \
                 it can hold"
            ));
        }
        let skipped = (sizes + vertex_weights * per_vertex) as usize;
        Ok(Header { n, edges, skipped, edge_weights: edge_weights == 1, bytes: 0, line: 0 })
    }

    fn check(&self, lines: u64, listed: u64, loops: u64) -> std::result::Result<(), String> {
        // The last line may be blank and without an end, that is, not there.
        if lines + 1 < self.n as u64 {
            return Err(format!(
                "the header promises {} nodes, but the file has lines for {lines}; is it cut off?",
                self.n
            ));
        }
        let twice = self.edges.saturating_mul(2);
        if twice != listed && twice != listed + loops {
            return Err(format!(
                "the header promises {} edges, each listed at both ends, but the file lists \
                 {listed} neighbours",
                self.edges
            ));
        }
        Ok(())
    }
}

fn read_share(
    path: &Path,
    header: &Header,
    rank: usize,
    ranks: usize,
    weighted: bool,
) -> Result<Share> {
    let mut source = LineBlocks::after_head(path, header.bytes, rank, ranks)?;
    // The neighbours of a hub make a long line, and the header showed that this is no binary file.
    source.line_limit = usize::MAX;
    let mut share = Share::default();
    while let Some(block) = source.next_block()? {
        let cuts = cut_at_lines(&block.text, PIECE_BYTES);
        let parsed: Vec<_> = cuts
            .par_windows(2)
            .map(|cut| {
                let text = &block.text[cut[0]..cut[1]];
                parse_lines(text, block.position + cut[0] as u64, header, weighted)
            })
            .collect();
        for (piece, &start) in parsed.into_iter().zip(&cuts) {
            match piece {
                Ok((piece, edges)) => {
                    share.pieces.push(piece);
                    share.edges.append(&edges);
                }
                Err((offset, what)) => return Err(source.error(&block, start + offset, &what)),
            }
        }
        source.recycle(block);
    }
    Ok(share)
}

/// The lines of `text`, or the offset of the line that is malformed, and why.
fn parse_lines(
    text: &[u8],
    position: u64,
    header: &Header,
    weighted: bool,
) -> std::result::Result<(Piece, Edges), (usize, String)> {
    let mut piece = Piece { position, ..Piece::default() };
    let mut edges = Edges::default();
    edges.edges.reserve(text.len() / 8);
    let mut at = 0;
    for line in text.split_inclusive(|&b| b == b'\n') {
        let start = at;
        at += line.len();
        let mut words = line
            .split(|&b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
            .filter(|word| !word.is_empty())
            .peekable();
        if words.peek().is_some_and(|word| word.starts_with(b"%")) {
            continue;
        }
        // Packed files are not checked by their size; no piece holds so many lines that this wraps.
        let node = piece.nodes as u32;
        let listed = edges.edges.len();
        add_line(&mut edges, node, &mut words, header, weighted).map_err(|what| (start, what))?;
        if edges.edges.len() > listed {
            piece.last = Some((piece.nodes, position + start as u64));
        }
        piece.nodes += 1;
    }
    piece.edges = edges.edges.len();
    Ok((piece, edges))
}

fn add_line<'t>(
    edges: &mut Edges,
    node: u32,
    words: &mut impl Iterator<Item = &'t [u8]>,
    header: &Header,
    weighted: bool,
) -> std::result::Result<(), String> {
    let mut skipped = 0;
    while skipped < header.skipped {
        match words.next() {
            // A blank line after the last node is none.
            None if skipped == 0 => return Ok(()),
            Some(word) if integer(word).is_some() => skipped += 1,
            word => {
                let word = excerpt(word.unwrap_or_default());
                return Err(format!(
                    "'{word}' where the sizes and weights of a vertex are due; expected {} whole \
                     numbers before its neighbours",
                    header.skipped
                ));
            }
        }
    }
    while let Some(word) = words.next() {
        let neighbour = index_from_1(word, header.n).ok_or_else(|| {
            format!("'{}' is not a neighbour; expected 1 to {}", excerpt(word), header.n)
        })?;
        if header.edge_weights {
            let Some(weight) = words.next() else {
                let word = excerpt(word);
                return Err(format!("no weight after the neighbour {word}; the FMT promises one"));
            };
            if weighted {
                edges.weights.push(parse_weight(weight)?);
            }
        }
        edges.edges.push((node, neighbour));
    }
    Ok(())
}

/// Adds the number of the first node of each piece to its nodes, now that it is known.
fn shift(path: &Path, header: &Header, share: Share, starts: &[(u64, u64)]) -> Result<Edges> {
    let Share { pieces, mut edges } = share;
    let mut rest = &mut edges.edges[..];
    for piece in pieces {
        let found = starts.binary_search_by_key(&piece.position, |start| start.0);
        let first = found.map_or(0, |at| starts[at].1);
        let beyond = piece.last.filter(|&(node, _)| first + node >= header.n as u64);
        if let Some((node, position)) = beyond {
            let (node, n) = (first + node + 1, header.n);
            let what = format!("neighbours of node {node}, but the header promises {n} nodes");
            return Err(Error::line(path, line_at(path, position)?, what));
        }
        let own;
        (own, rest) = rest.split_at_mut(piece.edges);
        // Below the number of nodes, as was just checked.
        own.iter_mut().for_each(|edge| edge.0 += first as u32);
    }
    Ok(edges)
}
