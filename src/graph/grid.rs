//! Two dimensions: the ranks of a row of a grid share the edges into their nodes by source.
//!
//! Ranks lie in R rows of C columns, row by row. Row r of the grid has the nodes that its C ranks
//! own in one dimension, a contiguous range; sources are cut into C contiguous ranges with about
//! equal numbers of edges. Rank (r, c) has the edges into row r from column c: its tile. It reads
//! the values of column c (by `shared_vector_of`, so once a node of the job) and adds up what its
//! tile says about each node of row r; the owner of a node gets the sum.
//!
//! # The same bits as in one dimension
//! The sum over a row of edges is a left fold in the order of sources (`reduce::gather`: rows that
//! lie across; `reduce::blocked`: rows with few entries in a block), and the additions of a fold
//! cannot be regrouped: partial sums that are added afterwards have other bits, whatever tree adds
//! them. A fixed tree over column blocks in one dimension too would have cost a pass over all sums
//! for each block. So partial sums are not reduced: **the fold itself travels**. Rank (r, c)
//! receives the sums as far as column c − 1 has come, goes on with its own sources, and passes them
//! to c + 1; the last column delivers them to the owners. These are the additions of one dimension
//! in their order. Parts of rows that are summed in 16 lanes are not cut: they go whole to the side
//! of the cut that has their middle, which then reads a little more than its column. In graphs
//! whose table fits the caches such a part is the whole row of a hub (`reduce::gather`, along); so
//! there a grid is right, but saves little, and `--partition auto` takes none.
//!
//! # Traffic of an iteration
//! Each row passes C − 1 times its sums from rank to rank, as a reduce-scatter does, and the last
//! column sends the (C − 1)/C that others own: 8·n/R·(1 + 1/C) bytes a rank at most, besides the
//! values. The C columns work at the same time on K different chunks of rows, so a step takes
//! (K + C − 1)/K of the work of a tile. K = 4C chunks, at most 128, each of whole windows of
//! `reduce::blocked`.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::cost::Sizes;
use super::partition::{GRAIN, Partition};
use super::rows::Rows;
use super::scheme::GridShape;
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::reduce::blocked::{BlockedRows, Csr};
use crate::reduce::gather::{LANES, Precision, Real, lies_across};
use crate::sharding::Sharding;

/// Set in the length of a row that is summed in lanes.
const IN_LANES: u32 = 1 << 31;

/// How many chunks of rows pass through the columns.
pub(super) fn chunks(rows: usize, columns: usize, grain: usize) -> usize {
    // Not more stages than calls that a communicator keeps prepared.
    const MOST: usize = 128;
    if columns == 1 { 1 } else { (4 * columns).min(MOST).min(rows.div_ceil(grain)).max(1) }
}

/// What the cost model has to know about a graph of `n` nodes.
pub(super) fn sizes<P: Precision>(n: usize) -> Sizes {
    let cuttable = BlockedRows::<P>::pays(n);
    Sizes {
        wire: size_of::<P::Wire>(),
        sum: size_of::<P::Sum>(),
        grain: if cuttable { BlockedRows::<P>::usual_height() } else { GRAIN },
        cuttable,
    }
}

/// The edges of a rank of a grid, and how sums pass.
#[derive(Debug)]
pub(super) struct Tile<P: Precision> {
    /// The ranks of the row, by column.
    row: Communicator,
    kernel: Kernel<P>,
    chunks: Vec<Range<usize>>,
    /// Which nodes of the row which of its ranks own.
    owners: Sharding,
    /// The counts of each stage, from each column to each.
    stages: Vec<Arc<[usize]>>,
    /// Of all nodes of the row.
    sums: Vec<P::Sum>,
    incoming: Vec<P::Sum>,
    /// The sources of the tile, ascending.
    pub(super) reads: Vec<u32>,
    /// How many edges it has.
    pub(super) edges: u64,
}

/// The loops over the edges of a tile.
#[derive(Debug)]
enum Kernel<P: Precision> {
    /// Row after row: graphs whose tables fit the caches.
    Plain { rows: PlainRows<P>, in_lanes: Vec<bool> },
    /// By blocks of sources.
    Blocked(BlockedRows<P>),
}

#[derive(Debug)]
struct PlainRows<P: Precision> {
    offsets: Vec<usize>,
    sources: Vec<u32>,
    weights: Vec<P::Sum>,
}

impl<P: Precision> Tile<P> {
    /// Moves the edges of one dimension to their tiles. Collective.
    pub(super) fn new(
        comm: &Communicator,
        graph: &Partition,
        shape: GridShape,
        cuts: &Sharding,
    ) -> Result<Self> {
        let (n, columns) = (graph.sharding.n(), shape.columns);
        let row = comm.grid(shape.rows, columns)?.row;
        let moved = share::<P>(&row, &graph.rows, cuts)?;
        let kernel = comm.agree(Kernel::new(n, &moved))?;
        let first = comm.rank() / columns * columns;
        let counts: Vec<usize> =
            (first..first + columns).map(|rank| graph.sharding.count(rank)).collect();
        let owners = Sharding::from_counts(&counts);
        let grain = sizes::<P>(n).grain;
        let chunks = cut_chunks(owners.n(), columns, grain);
        let stages = stages(&chunks, &owners);
        let mut read = vec![false; n];
        moved.sources.iter().for_each(|&source| read[source as usize] = true);
        let reads = (0..n as u32).filter(|&source| read[source as usize]).collect();
        let sums = vec![P::Sum::default(); owners.n()];
        let (edges, incoming) = (moved.sources.len() as u64, Vec::new());
        Ok(Tile { row, kernel, chunks, owners, stages, sums, incoming, reads, edges })
    }

    /// Bytes of sums that this rank receives in a step: from ranks, and from ranks of other nodes.
    pub(super) fn bytes_a_step(&self) -> [u64; 2] {
        let (columns, me) = (self.row.ranks(), self.row.rank());
        let mut bytes = [0; 2];
        for counts in &self.stages {
            for from in 0..columns {
                let sums = (counts[from * columns + me] * size_of::<P::Sum>()) as u64;
                bytes[0] += sums;
                bytes[1] += if self.row.topology().same_node(from, me) { 0 } else { sums };
            }
        }
        bytes
    }

    /// The sums over all edges into the `own` nodes. Collective over the row.
    pub(super) fn sums(&mut self, table: &[P::Wire], own: &mut [P::Sum]) -> Result<()> {
        let (columns, me) = (self.row.ranks(), self.row.rank());
        if me == 0 {
            self.sums.fill(P::Sum::default());
        }
        let own_range = self.owners.range(me);
        for (stage, counts) in self.stages.iter().enumerate() {
            let chunk_of =
                |column: usize| stage.checked_sub(column).and_then(|k| self.chunks.get(k)).cloned();
            let mine = chunk_of(me);
            if let Some(chunk) = &mine {
                self.kernel.add(chunk.clone(), table, &mut self.sums[chunk.clone()]);
            }
            if counts.iter().all(|&count| count == 0) {
                continue;
            }
            let input = match mine {
                None => 0..0,
                Some(chunk) if me + 1 < columns => chunk,
                // What the last column owns itself stays, and comes after all others.
                Some(chunk) => chunk.start..chunk.end.min(own_range.start).max(chunk.start),
            };
            let received = (0..columns).map(|from| counts[from * columns + me]).sum();
            self.incoming.resize(received, P::Sum::default());
            self.row.all_to_all_by(counts, &self.sums[input], &mut self.incoming)?;
            let mut rest = &self.incoming[..];
            if me > 0
                && let Some(chunk) = chunk_of(me - 1)
            {
                self.sums[chunk.clone()].copy_from_slice(&rest[..chunk.len()]);
                rest = &rest[chunk.len()..];
            }
            if me + 1 < columns
                && let Some(chunk) = chunk_of(columns - 1)
            {
                let part = overlap(&chunk, &own_range);
                if !part.is_empty() {
                    let at = part.start - own_range.start;
                    own[at..at + part.len()].copy_from_slice(rest);
                }
            }
        }
        if me + 1 == columns {
            own.copy_from_slice(&self.sums[own_range]);
        }
        Ok(())
    }
}

/// What both ranges hold; empty inside of `a` if that is nothing.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Rows cut into chunks of whole grains.
fn cut_chunks(rows: usize, columns: usize, grain: usize) -> Vec<Range<usize>> {
    let grains = Sharding::even(rows.div_ceil(grain), chunks(rows, columns, grain));
    let end = |at: usize| (at * grain).min(rows);
    (0..grains.ranks()).map(|k| end(grains.range(k).start)..end(grains.range(k).end)).collect()
}

/// How many sums go from which column to which, stage after stage: in stage s column c has worked
/// on chunk s − c.
fn stages(chunks: &[Range<usize>], owners: &Sharding) -> Vec<Arc<[usize]>> {
    let columns = owners.ranks();
    let stage = |stage: usize| {
        let mut counts = vec![0; columns * columns];
        for column in 0..columns {
            let Some(chunk) = stage.checked_sub(column).and_then(|k| chunks.get(k)) else {
                continue;
            };
            if column + 1 < columns {
                counts[column * columns + column + 1] = chunk.len();
            } else {
                for to in 0..column {
                    counts[column * columns + to] = overlap(chunk, &owners.range(to)).len();
                }
            }
        }
        counts.into()
    };
    (0..chunks.len() + columns - 1).map(stage).collect()
}

/// The edges of a tile, row after row.
#[derive(Debug, Default)]
struct Moved {
    lengths: Vec<u32>,
    sources: Vec<u32>,
    weights: Vec<f64>,
}

/// Sends each rank of the row what the own rows have in its column. Collective over the row.
fn share<P: Precision>(row: &Communicator, rows: &Rows, cuts: &Sharding) -> Result<Moved> {
    let columns = row.ranks();
    let mut parts: Vec<Moved> = (0..columns).map(|_| Moved::default()).collect();
    let blocked = BlockedRows::<P>::pays(cuts.n());
    let row_lengths: Vec<u32> =
        rows.offsets.windows(2).map(|row| (row[1] - row[0]) as u32).collect();
    for (block, lengths) in row_lengths.chunks(LANES).enumerate() {
        let in_lanes = !blocked && !lies_across(lengths);
        for lane in 0..lengths.len() {
            let at = block * LANES + lane;
            let edges = rows.offsets[at]..rows.offsets[at + 1];
            let sources = &rows.sources[edges.clone()];
            let mut start = 0;
            for (column, part) in parts.iter_mut().enumerate() {
                let cut = cuts.range(column).end;
                let end = if column + 1 == columns {
                    sources.len()
                } else if blocked {
                    BlockedRows::<P>::cut(sources, cut)
                } else if in_lanes {
                    let middle = sources.get(sources.len() / 2);
                    if middle.is_some_and(|&m| (m as usize) < cut) { sources.len() } else { 0 }
                } else {
                    sources.partition_point(|&source| (source as usize) < cut)
                };
                let flag = if in_lanes { IN_LANES } else { 0 };
                part.lengths.push((end - start) as u32 | flag);
                part.sources.extend_from_slice(&sources[start..end]);
                if !rows.weights.is_empty() {
                    let weights = &rows.weights[edges.start + start..edges.start + end];
                    part.weights.extend_from_slice(weights);
                }
                start = end;
            }
        }
    }
    Ok(Moved {
        lengths: send(row, &parts, |part| &part.lengths)?,
        sources: send(row, &parts, |part| &part.sources)?,
        weights: send(row, &parts, |part| &part.weights)?,
    })
}

/// Sends part `c` to column `c`; what comes lies in the order of columns, and so of nodes.
fn send<T: Element>(
    row: &Communicator,
    parts: &[Moved],
    of: impl Fn(&Moved) -> &Vec<T>,
) -> Result<Vec<T>> {
    let counts: Vec<usize> = parts.iter().map(|part| of(part).len()).collect();
    let all: Vec<T> = parts.iter().flat_map(&of).copied().collect();
    Ok(row.all_to_all_vec(&all, &counts)?.0)
}

impl<P: Precision> Kernel<P> {
    fn new(n: usize, moved: &Moved) -> Result<Self> {
        let bad = || Error::internal("an edge leaves the nodes of the graph");
        let mut offsets = vec![0];
        let mut end = 0;
        for length in &moved.lengths {
            end += (length & !IN_LANES) as usize;
            offsets.push(end);
        }
        if BlockedRows::<P>::pays(n) {
            let (sources, weights) = (&moved.sources[..], &moved.weights[..]);
            let csr = Csr { offsets: &offsets, sources, weights };
            return BlockedRows::build(n, csr).map(Kernel::Blocked).map_err(|_| bad());
        }
        if end != moved.sources.len() || moved.sources.iter().any(|&s| s as usize >= n) {
            return Err(bad());
        }
        let in_lanes = moved.lengths.iter().map(|length| length & IN_LANES != 0).collect();
        let weights = moved.weights.iter().map(|&weight| P::Sum::from_f64(weight)).collect();
        let rows = PlainRows { offsets, sources: moved.sources.clone(), weights };
        Ok(Kernel::Plain { rows, in_lanes })
    }

    /// Goes on with the `sums` of some rows; the start is a multiple of the grain.
    fn add(&self, rows: Range<usize>, table: &[P::Wire], sums: &mut [P::Sum]) {
        match self {
            Kernel::Blocked(blocked) => {
                let height = blocked.height();
                let windows = rows.len().div_ceil(height);
                // A task walks through all blocks of sources, so there is one a thread.
                let many = windows.div_ceil(rayon::current_num_threads()).max(1);
                sums.par_chunks_mut(many * height).enumerate().for_each(|(i, sums)| {
                    let first = rows.start / height + i * many;
                    let last = first + sums.len().div_ceil(height);
                    blocked.add(first..last, table, sums);
                });
            }
            Kernel::Plain { rows: plain, in_lanes } => {
                const ROWS: usize = 1024;
                sums.par_chunks_mut(ROWS).enumerate().for_each(|(i, sums)| {
                    for (sum, row) in sums.iter_mut().zip(rows.start + i * ROWS..) {
                        *sum = plain.add(row, in_lanes[row], table, *sum);
                    }
                });
            }
        }
    }
}

impl<P: Precision> PlainRows<P> {
    /// The additions of `reduce::gather`, from `sum` on.
    fn add(&self, row: usize, in_lanes: bool, table: &[P::Wire], mut sum: P::Sum) -> P::Sum {
        let range = self.offsets[row]..self.offsets[row + 1];
        let value = |at: usize| {
            let value = P::widen(table[self.sources[at] as usize]);
            self.weights.get(at).map_or(value, |&weight| value * weight)
        };
        if !in_lanes {
            range.for_each(|at| sum = sum + value(at));
            return sum;
        }
        let mut lanes = [P::Sum::default(); LANES];
        for (k, at) in range.enumerate() {
            lanes[k % LANES] = lanes[k % LANES] + value(at);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] = lanes[lane] + lanes[lane + width];
            }
            width /= 2;
        }
        sum + lanes[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sum_passes_every_column_and_reaches_its_owner() {
        for columns in 1..=5 {
            for counts in
                [[0, 0, 0, 0, 0], [16, 0, 32, 5, 0], [0, 0, 0, 0, 7], [160, 48, 16, 96, 1]]
            {
                let owners = Sharding::from_counts(&counts[..columns]);
                let chunks = cut_chunks(owners.n(), columns, GRAIN);
                assert_eq!(chunks.iter().map(Range::len).sum::<usize>(), owners.n());
                assert!(chunks.iter().all(|chunk| chunk.start % GRAIN == 0 || chunk.is_empty()));
                let stages = stages(&chunks, &owners);
                let total = |from: usize, to: usize| -> usize {
                    stages.iter().map(|counts| counts[from * columns + to]).sum()
                };
                let last = columns - 1;
                for from in 0..columns {
                    for to in 0..columns {
                        let expected = if from == last && to < last {
                            owners.count(to)
                        } else if from + 1 == to {
                            owners.n()
                        } else {
                            0
                        };
                        assert_eq!(total(from, to), expected, "{from} to {to} of {columns}");
                    }
                }
            }
        }
    }
}
