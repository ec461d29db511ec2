//! Row sums of a sparse matrix whose table is larger than the caches: `sum[row] = Σ weight ·
//! table[source]`, block of sources after block of sources.
//!
//! # Idea
//! A gather from a table of 16 MB costs a miss in the second-level cache and mostly one in the
//! translation buffer: 1.7 ns an entry (two cores of a Zen 4, uniform graph of 4 Mi nodes). Here
//! the table is cut into blocks of [`BLOCK_BYTES`], which stay in the second-level cache while all
//! rows take what they need of them (cache blocking: Nishtala et al. 2007; Beamer et al. 2017
//! compare it with propagation blocking for PageRank). Rows are cut into windows, so that an entry
//! of 4 bytes names both: the source inside its block and the row inside its window.
//!
//! Entries of a block and window lie in steps: the first entries of all rows, then the second ones,
//! and so on. So neighbours in the list belong to different rows, and their additions do not wait
//! for each other. A row with 64 entries or more in a block is summed by vector gathers
//! instead, in the way of `gather` for rows that lie along.
//!
//! # The same bits everywhere
//! A row adds up block after block, from +0: its entries one by one in their order, or the sum of
//! the long part. Which of them it is depends on the row and the size of blocks alone; windows,
//! ranks and threads change nothing.
//!
//! # Memory traffic
//! 4 bytes an entry (and the weight), streamed, and for each block the sums of all rows once read
//! and written.
//!
//! A block of 1 MiB was faster than of 512 KiB, 2 MiB and 4 MiB (uniform graph of 4 Mi nodes, f32).
//! Entries of a block in the order of their sources, so that the table is streamed and the sums are
//! random, in windows of 2¹⁶ rows one after another: uniform graph 0.58 for 0.66 ns an edge in f32
//! but 1.05 for 0.90 in f64, Kronecker graphs of scale 20 and 22 the same or slower (Zen 4, where
//! an access to the second-level cache takes 0.85 ns on one core: 0.42 an edge on two).
//! Not tried: vector gathers for the short rows. With two or three entries of a row in a block, the
//! permutation that groups rows of equal counts would cost as many accesses as the entries.

#![allow(unsafe_code)] // accesses without a bounds check for each index; `build` checks them

use rayon::prelude::*;

use super::gather::{BadIndex, Block, BlockSums, LANES, Precision, Real, along};

/// Bytes of the table that stay in the second-level cache together with a window of sums.
pub const BLOCK_BYTES: usize = 1 << 20;
/// From this size of the table on blocks pay.
pub const PAYS_FROM_BYTES: usize = 6 << 20;
/// Entries of a row in a block from which vector gathers pay.
const LONG: usize = 64;

/// Sixteen long parts of rows.
#[derive(Clone, Debug)]
struct LongRows {
    /// Their rows; the unused ones at the end have no entries.
    rows: [u32; LANES],
    lengths: [u32; LANES],
    /// The position of their entries.
    at: usize,
}

/// Rows whose sums are taken again and again, by blocks of sources.
#[derive(Debug)]
pub struct BlockedRows<P: Precision> {
    table_len: usize,
    rows: usize,
    /// log₂ of the sources of a block; a window has 2^(32 − shift) rows.
    shift: u32,
    /// Where the entries of each window and block start; window-major.
    starts: Vec<usize>,
    entries: Vec<u32>,
    weights: Vec<P::Sum>,
    /// Where the long rows of each window and block start.
    long_starts: Vec<usize>,
    long: Vec<LongRows>,
    long_entries: Vec<u32>,
    long_weights: Vec<P::Sum>,
    kernel: BlockSums<P>,
}

/// One window while it is built.
#[derive(Debug, Default)]
struct Window<S> {
    /// Entries of each block, short rows.
    counts: Vec<usize>,
    entries: Vec<u32>,
    weights: Vec<S>,
    long_counts: Vec<usize>,
    long: Vec<LongRows>,
    long_entries: Vec<u32>,
    long_weights: Vec<S>,
}

/// The matrix as it comes: row `i` has the ascending `sources[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Csr<'a> {
    /// One more than there are rows.
    pub offsets: &'a [usize],
    /// The sources of all rows.
    pub sources: &'a [u32],
    /// A weight for each, or none for all.
    pub weights: &'a [f64],
}

impl<P: Precision> BlockedRows<P> {
    /// Whether blocks pay for a table of this length. The same for all ranks of a graph.
    pub fn pays(table_len: usize) -> bool {
        table_len * size_of::<P::Wire>() >= PAYS_FROM_BYTES
    }

    /// From rows whose sources are ascending and below `table_len`, or the result is an error.
    pub fn build(table_len: usize, csr: Csr<'_>) -> Result<Self, BadIndex> {
        let shift = (BLOCK_BYTES / size_of::<P::Wire>()).ilog2();
        Self::build_for(table_len, csr, shift, P::choose(!csr.weights.is_empty()))
    }

    fn build_for(
        table_len: usize,
        csr: Csr<'_>,
        shift: u32,
        kernel: BlockSums<P>,
    ) -> Result<Self, BadIndex> {
        let rows = csr.offsets.len().saturating_sub(1);
        let fits = csr.offsets.last().is_none_or(|&end| end == csr.sources.len())
            && csr.offsets.is_sorted()
            && (csr.weights.is_empty() || csr.weights.len() == csr.sources.len())
            && table_len <= i32::MAX as usize;
        if !fits {
            return Err(BadIndex);
        }
        let blocks = table_len.div_ceil(1 << shift).max(1);
        let height = 1usize << (32 - shift);
        let window = |w: usize| {
            let rows = w * height..((w + 1) * height).min(rows);
            Window::build(csr, rows, table_len, blocks, shift)
        };
        let mut all = BlockedRows {
            table_len,
            rows,
            shift,
            starts: vec![0],
            entries: Vec::new(),
            weights: Vec::new(),
            long_starts: vec![0],
            long: Vec::new(),
            long_entries: Vec::new(),
            long_weights: Vec::new(),
            kernel,
        };
        // A few at a time, so that what they take beside the entries stays small.
        let windows: Vec<usize> = (0..rows.div_ceil(height)).collect();
        for some in windows.chunks(rayon::current_num_threads()) {
            let some: Vec<_> =
                some.par_iter().map(|&w| window(w)).collect::<Result<_, BadIndex>>()?;
            some.into_iter().for_each(|window| all.take(window));
        }
        // The loops may read 16 more.
        all.long_entries.extend([0; LANES]);
        if !csr.weights.is_empty() {
            all.long_weights.extend([P::Sum::default(); LANES]);
        }
        Ok(all)
    }

    fn take(&mut self, window: Window<P::Sum>) {
        let offset = self.long_entries.len();
        for (count, long) in window.counts.iter().zip(&window.long_counts) {
            self.starts.push(self.starts[self.starts.len() - 1] + count);
            self.long_starts.push(self.long_starts[self.long_starts.len() - 1] + long);
        }
        append(&mut self.entries, window.entries);
        append(&mut self.weights, window.weights);
        let moved = |rows: LongRows| LongRows { at: rows.at + offset, ..rows };
        self.long.extend(window.long.into_iter().map(moved));
        append(&mut self.long_entries, window.long_entries);
        append(&mut self.long_weights, window.long_weights);
    }

    /// How many of the ascending `sources` of a row lie before a cut at the source `at`. Short
    /// parts are cut there; a long one, which is summed in lanes, goes whole to the side that has
    /// its middle.
    pub fn cut(sources: &[u32], at: usize) -> usize {
        Self::cut_for(sources, at, (BLOCK_BYTES / size_of::<P::Wire>()).ilog2())
    }

    fn cut_for(sources: &[u32], at: usize, shift: u32) -> usize {
        let cut = sources.partition_point(|&source| (source as usize) < at);
        let block = at >> shift << shift;
        let start = sources[..cut].partition_point(|&source| (source as usize) < block);
        let next = block + (1 << shift);
        let end = cut + sources[cut..].partition_point(|&source| (source as usize) < next);
        if end - start < LONG || cut == start || cut == end {
            return cut;
        }
        if cut > start + (end - start) / 2 { end } else { start }
    }

    /// Rows of a window: the grain of [`BlockedRows::sums`].
    pub fn height(&self) -> usize {
        1 << (32 - self.shift)
    }

    /// [`BlockedRows::height`] of all rows that [`BlockedRows::build`] makes.
    pub fn usual_height() -> usize {
        1 << (32 - (BLOCK_BYTES / size_of::<P::Wire>()).ilog2())
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of windows.
    pub fn windows(&self) -> usize {
        self.rows.div_ceil(self.height())
    }

    fn blocks(&self) -> usize {
        self.table_len.div_ceil(1 << self.shift).max(1)
    }

    /// Entries up to each window and in total: what a window costs.
    pub fn prefix(&self) -> Vec<u64> {
        let long = |at: usize| self.long.get(at).map_or(self.long_entries.len() - LANES, |l| l.at);
        let starts = (0..=self.windows()).map(|w| w * self.blocks());
        starts.map(|i| (self.starts[i] + long(self.long_starts[i])) as u64).collect()
    }

    /// The sums of the rows of some windows, into `sums`, which is as long as they are.
    ///
    /// # Panics
    /// If `table` or `sums` have another length than the rows were built for.
    pub fn sums(&self, windows: std::ops::Range<usize>, table: &[P::Wire], sums: &mut [P::Sum]) {
        sums.fill(P::Sum::default());
        self.add(windows, table, sums);
    }

    /// [`BlockedRows::sums`] that go on from what `sums` holds: rows that were cut in two (see
    /// [`BlockedRows::cut`]) get the same bits from one half after the other as in one piece.
    ///
    /// # Panics
    /// As `sums` does.
    pub fn add(&self, windows: std::ops::Range<usize>, table: &[P::Wire], sums: &mut [P::Sum]) {
        assert_eq!(table.len(), self.table_len, "rows are built for a table");
        let height = self.height();
        let first = windows.start * height;
        assert_eq!(sums.len(), (windows.end * height).min(self.rows) - first, "sums of the rows");
        for block in 0..self.blocks() {
            let source = block << self.shift;
            let part = &table[source..(source + (1 << self.shift)).min(table.len())];
            for (window, sums) in windows.clone().zip(sums.chunks_mut(height)) {
                let list = window * self.blocks() + block;
                self.add_short(self.starts[list]..self.starts[list + 1], part, sums);
                for rows in &self.long[self.long_starts[list]..self.long_starts[list + 1]] {
                    self.add_long(rows, table, sums);
                }
            }
        }
    }

    /// Adds entries one by one. `part` is their block of the table and `sums` their window.
    #[inline]
    fn add_short(&self, list: std::ops::Range<usize>, part: &[P::Wire], sums: &mut [P::Sum]) {
        let mask = (1u32 << self.shift) - 1;
        let value = |entry: u32| {
            // SAFETY: `build` saw that the source lies in the table, so its place in the block is
            // one of the part.
            P::widen(*unsafe { part.get_unchecked((entry & mask) as usize) })
        };
        let mut add = |entry: u32, value: P::Sum| {
            // SAFETY: `build` put rows of this window into the entry, and `sums` has all of them.
            let sum = unsafe { sums.get_unchecked_mut((entry >> self.shift) as usize) };
            *sum = *sum + value;
        };
        let entries = &self.entries[list.clone()];
        if self.weights.is_empty() {
            entries.iter().for_each(|&entry| add(entry, value(entry)));
        } else {
            let weights = &self.weights[list];
            let weighted = entries.iter().zip(weights);
            weighted.for_each(|(&entry, &weight)| add(entry, value(entry) * weight));
        }
    }

    fn add_long(&self, long: &LongRows, table: &[P::Wire], sums: &mut [P::Sum]) {
        let weights =
            if self.long_weights.is_empty() { &[] } else { &self.long_weights[long.at..] };
        let block: Block<'_, P> = along(&self.long_entries[long.at..], weights, &long.lengths);
        let mut parts = [P::Sum::default(); LANES];
        // SAFETY: `build` compared all indices with the length of the table, and chose a loop for
        // this processor; the lists end with 16 more entries.
        unsafe { (self.kernel)(&block, table, &mut parts) };
        let real = long.lengths.iter().take_while(|&&length| length > 0).count();
        for (&row, part) in long.rows[..real].iter().zip(parts) {
            sums[row as usize] = sums[row as usize] + part;
        }
    }
}

/// Appends a part. The first is not copied: where nodes are ordered by degree it has most entries.
fn append<T>(all: &mut Vec<T>, mut part: Vec<T>) {
    match all.is_empty() {
        true => *all = part,
        false => all.append(&mut part),
    }
}

/// The part of a row in one block.
struct Part {
    row: u32,
    block: usize,
    range: std::ops::Range<usize>,
}

/// The parts of a row, block after block.
fn parts(csr: Csr<'_>, row: usize, at: u32, shift: u32) -> impl Iterator<Item = Part> {
    let (mut start, end) = (csr.offsets[row], csr.offsets[row + 1]);
    std::iter::from_fn(move || {
        let block = *csr.sources[..end].get(start)? >> shift;
        let next = csr.sources[start..end].iter().position(|&s| s >> shift != block);
        let range = start..next.map_or(end, |n| start + n);
        start = range.end;
        Some(Part { row: at, block: block as usize, range })
    })
}

impl<S: Real> Window<S> {
    fn build(
        csr: Csr<'_>,
        rows: std::ops::Range<usize>,
        table_len: usize,
        blocks: usize,
        shift: u32,
    ) -> Result<Self, BadIndex> {
        let all = || rows.clone().zip(0u32..).flat_map(|(row, at)| parts(csr, row, at, shift));
        let good = rows.clone().all(|row| {
            let sources = &csr.sources[csr.offsets[row]..csr.offsets[row + 1]];
            sources.is_sorted() && sources.last().is_none_or(|&s| (s as usize) < table_len)
        });
        if !good {
            return Err(BadIndex);
        }
        // Where each step of each block starts.
        let mut steps = vec![0usize; blocks * LONG + 1];
        let mut long: Vec<Part> = Vec::new();
        let mut counts = vec![0; blocks];
        for part in all() {
            if part.range.len() < LONG {
                counts[part.block] += part.range.len();
                (0..part.range.len()).for_each(|k| steps[part.block * LONG + k + 1] += 1);
            } else {
                long.push(part);
            }
        }
        for i in 1..steps.len() {
            steps[i] += steps[i - 1];
        }
        let weighted = !csr.weights.is_empty();
        let total = steps[blocks * LONG];
        let mut window = Window {
            counts,
            entries: vec![0; total],
            weights: vec![S::default(); if weighted { total } else { 0 }],
            ..Window::default()
        };
        let mask = (1u32 << shift) - 1;
        for part in all().filter(|part| part.range.len() < LONG) {
            for (k, at) in part.range.enumerate() {
                let place = &mut steps[part.block * LONG + k];
                window.entries[*place] = part.row << shift | (csr.sources[at] & mask);
                if weighted {
                    window.weights[*place] = S::from_f64(csr.weights[at]);
                }
                *place += 1;
            }
        }
        window.take_long(csr, long, blocks);
        Ok(window)
    }

    fn take_long(&mut self, csr: Csr<'_>, mut long: Vec<Part>, blocks: usize) {
        long.sort_by_key(|part| (part.block, part.row));
        self.long_counts = vec![0; blocks];
        for of_block in long.chunk_by(|a, b| a.block == b.block) {
            for parts in of_block.chunks(LANES) {
                let mut rows =
                    LongRows { rows: [0; LANES], lengths: [0; LANES], at: self.long_entries.len() };
                for (lane, part) in parts.iter().enumerate() {
                    rows.rows[lane] = part.row;
                    rows.lengths[lane] = part.range.len() as u32;
                    self.long_entries.extend_from_slice(&csr.sources[part.range.clone()]);
                    if !csr.weights.is_empty() {
                        let weights = csr.weights[part.range.clone()].iter();
                        self.long_weights.extend(weights.map(|&w| S::from_f64(w)));
                    }
                }
                self.long.push(rows);
                self.long_counts[parts[0].block] += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "blocked_tests.rs"]
mod tests;
