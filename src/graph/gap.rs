//! The serialized graphs of the GAP benchmark suite (Beamer, Asanović, Patterson 2015), `.sg`, and
//! with weights `.wsg`.
//!
//! # Format
//! ```text
//! u8 directed, i64 edges, i64 nodes, i64 offsets[nodes + 1], i32 neighbours[edges]
//! ```
//! little-endian and without padding; node i has the neighbours `offsets[i]..offsets[i + 1]`, and
//! ids count from 0. A directed graph is followed by the offsets and neighbours of its incoming
//! edges, which say the same again and are not read. In an undirected one each edge is listed at
//! both ends, and `edges` counts it twice. In a `.wsg` file each neighbour is followed by an i32
//! weight, used with `--weights`.
//!
//! # Cost
//! Each rank reads about 1/ranks of the bytes: its range of nodes is cut by edges, which a binary
//! search in the offsets finds. 8 bytes of memory an edge, all checked against the size of the file
//! before anything is allocated.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::compression::{self, Packing};
use super::ids::{Edges, Numbering};
use super::load::{Listing, Loaded, node_count, same_everywhere};
use crate::communicator::Communicator;
use crate::error::{Error, Result};

const HEADER_BYTES: u64 = 17;

struct Reader<'p> {
    path: &'p Path,
    file: File,
    directed: bool,
    edges: u64,
    n: usize,
    /// Neighbours are followed by weights.
    weights: bool,
}

/// Reads the graph at `path`, which has weights or not. Collective.
pub(super) fn load(
    comm: &Communicator,
    path: &Path,
    weights: bool,
    weighted: bool,
) -> Result<Loaded> {
    let opened = match weighted && !weights {
        true => Err(Error::input(format!(
            "{}: weights: a .sg file has none; expected a .wsg file",
            path.display()
        ))),
        false => Reader::open(path, weights),
    };
    let mut reader = comm.agree(opened)?;
    let numbers = [reader.n as u64, reader.edges, reader.directed.into()];
    same_everywhere(comm, path, &numbers)?;
    let edges = comm.agree(reader.share(comm.rank(), comm.ranks(), weighted))?;
    let numbering = Numbering::Dense { first: 0, n: reader.n };
    let listing = if reader.directed { Listing::Directed } else { Listing::BothWays };
    Ok(Loaded { numbering, edges, listing })
}

impl<'p> Reader<'p> {
    fn open(path: &'p Path, weights: bool) -> Result<Self> {
        let wrong = |at: u64, what: &str| wrong(path, at, what);
        let Some((mut file, bytes, packing)) = compression::open(path)? else {
            return Err(wrong(0, &format!("the file is empty; {EXPECTED}")));
        };
        if packing != Packing::Plain {
            return Err(wrong(0, "packed; unpack it, so that each rank can read its share"));
        }
        if bytes < HEADER_BYTES {
            return Err(wrong(bytes, &format!("the file ends inside the header; {EXPECTED}")));
        }
        let mut header = [0; HEADER_BYTES as usize];
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut header));
        read.map_err(|e| Error::file(path, "read", &e))?;
        let directed = match header[0] {
            0 => false,
            1 => true,
            other => return Err(wrong(0, &format!("{other} for 'directed'; {EXPECTED}"))),
        };
        let number = |at: usize, name: &str| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::try_from(i64::from_le_bytes(word))
                .map_err(|_| wrong(at as u64, &format!("a negative number of {name}; {EXPECTED}")))
        };
        let (edges, nodes) = (number(1, "edges")?, number(9, "nodes")?);
        let side = (u128::from(nodes) + 1) * 8 + u128::from(edges) * if weights { 8 } else { 4 };
        let expected = u128::from(HEADER_BYTES) + side * if directed { 2 } else { 1 };
        if u128::from(bytes) != expected {
            return Err(wrong(
                1,
                &format!(
                    "{edges} edges and {nodes} nodes take {expected} bytes, but the file has \
                     {bytes}; {EXPECTED}"
                ),
            ));
        }
        let n = node_count(nodes).map_err(|what| wrong(9, &what))?;
        Ok(Reader { path, file, directed, edges, n, weights })
    }

    fn wrong(&self, at: u64, what: &str) -> Error {
        wrong(self.path, at, what)
    }

    fn read_error(&self, error: &io::Error) -> Error {
        Error::file(self.path, "read", error)
    }

    fn offset_at(node: usize) -> u64 {
        HEADER_BYTES + node as u64 * 8
    }

    /// A reader of the file from `position`.
    fn from(&self, position: u64) -> Result<BufReader<&File>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(position)).map_err(|e| self.read_error(&e))?;
        Ok(BufReader::with_capacity(1 << 18, file))
    }

    /// One of the offsets, as it stands in the file.
    fn offset(&mut self, node: usize) -> Result<i64> {
        let mut word = [0; 8];
        let at = self.file.seek(SeekFrom::Start(Self::offset_at(node)));
        at.and_then(|_| self.file.read_exact(&mut word)).map_err(|e| self.read_error(&e))?;
        Ok(i64::from_le_bytes(word))
    }

    /// The first node of `rank`, so that nodes before it have about `rank / ranks` of the edges.
    ///
    /// The cuts ascend even if the offsets do not: of two searches that part at a middle, the one
    /// for more edges goes right.
    fn cut(&mut self, rank: usize, ranks: usize) -> Result<usize> {
        let wanted = u128::from(self.edges + self.n as u64) * rank as u128 / ranks as u128;
        let (mut low, mut high) = (0, self.n);
        if rank == ranks {
            return Ok(high);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let cost = i128::from(self.offset(middle)?) + middle as i128;
            match cost < wanted as i128 {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// The edges of the nodes of `rank`.
    fn share(&mut self, rank: usize, ranks: usize, weighted: bool) -> Result<Edges> {
        let (start, end) = (self.cut(rank, ranks)?, self.cut(rank + 1, ranks)?);
        let offsets = self.offsets(start, end)?;
        let first = offsets[0];
        let count = (offsets[offsets.len() - 1] - first) as usize;
        let width = if self.weights { 8 } else { 4 };
        let position = Self::offset_at(self.n + 1) + first * width;
        let mut reader = self.from(position)?;
        let mut edges = Edges::default();
        edges.edges.reserve_exact(count);
        edges.weights.reserve_exact(if weighted { count } else { 0 });
        let mut at = position;
        for (node, range) in (start..end).zip(offsets.windows(2)) {
            for _ in range[0]..range[1] {
                let neighbour = self.node(&mut reader, at)?;
                edges.edges.push((node as u32, neighbour));
                if self.weights {
                    let weight = self.word(&mut reader)?;
                    if weighted && weight < 0 {
                        let what = format!("the weight {weight}; expected a number >= 0");
                        return Err(self.wrong(at + 4, &what));
                    }
                    if weighted {
                        edges.weights.push(f64::from(weight));
                    }
                }
                at += width;
            }
        }
        Ok(edges)
    }

    /// `offsets[start..=end]`, checked: they ascend from 0 to the number of edges.
    fn offsets(&self, start: usize, end: usize) -> Result<Vec<u64>> {
        let mut reader = self.from(Self::offset_at(start))?;
        let mut offsets: Vec<u64> = Vec::with_capacity(end - start + 1);
        for node in start..=end {
            let mut word = [0; 8];
            reader.read_exact(&mut word).map_err(|e| self.read_error(&e))?;
            let offset = i64::from_le_bytes(word);
            let least = offsets.last().copied().unwrap_or(0);
            let fixed = (node == 0 && offset != 0)
                || (node == self.n && u64::try_from(offset) != Ok(self.edges));
            match u64::try_from(offset) {
                Ok(offset) if offset >= least && offset <= self.edges && !fixed => {
                    offsets.push(offset);
                }
                _ => {
                    let what = format!(
                        "the offset {offset} of node {node}; expected numbers that ascend from 0 \
                         to {} edges",
                        self.edges
                    );
                    return Err(self.wrong(Self::offset_at(node), &what));
                }
            }
        }
        Ok(offsets)
    }

    fn word(&self, reader: &mut impl Read) -> Result<i32> {
        let mut word = [0; 4];
        reader.read_exact(&mut word).map_err(|e| self.read_error(&e))?;
        Ok(i32::from_le_bytes(word))
    }

    fn node(&self, reader: &mut impl Read, at: u64) -> Result<u32> {
        let node = self.word(reader)?;
        match u32::try_from(node) {
            Ok(index) if (index as usize) < self.n => Ok(index),
            _ => {
                let last = self.n as i64 - 1;
                Err(self.wrong(at, &format!("the neighbour {node}; expected 0 to {last}")))
            }
        }
    }
}

const EXPECTED: &str = "expected a serialized graph of the GAP benchmarks";

fn wrong(path: &Path, at: u64, what: &str) -> Error {
    Error::input(format!("{} byte {at}: {what}", path.display()))
}
