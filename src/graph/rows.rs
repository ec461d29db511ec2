//! The edges that end in a contiguous range of nodes, by target: a CSR of the transposed graph.
//!
//! Row `i` lists the sources of node `range.start + i` in ascending order, and equal sources by
//! ascending weight. That order is canonical: it depends on the graph alone, not on the order of
//! lines, ranks or messages, and a sum over a row is the same bits everywhere.
//!
//! Built by counting sort: the lengths of the rows are known first, so each edge goes straight to
//! its row (`Filling`), in whatever portions edges come; then short sorts inside the rows. Two
//! random accesses an edge, where a sort of all edges would need log₂ of their number. Holds 4
//! bytes an edge (12 with weights) and 8 a node, from the first edge on; nothing besides.

use std::ops::Range;

use rayon::prelude::*;

use super::column::Column;
use super::row_sort;
use crate::error::{Error, Result};

/// What several edges from one node to another mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Duplicates {
    /// Their weights add up: two edges are one of weight 2.
    #[default]
    Sum,
    /// They are one edge; with weights the heaviest of them.
    Merge,
}

/// Incoming edges of the nodes in `range`.
#[derive(Clone, PartialEq, Debug)]
pub struct Rows {
    /// The nodes.
    pub range: Range<usize>,
    /// Row `i` is `sources[offsets[i]..offsets[i + 1]]`.
    pub offsets: Vec<usize>,
    /// The sources of all rows; as often as there are edges.
    pub sources: Column<u32>,
    /// The weight of each edge; empty when all weigh 1.
    pub weights: Column<f64>,
}

/// An edge as one number that orders by target, then source.
pub(super) fn key(from: u32, to: u32) -> u64 {
    u64::from(to) << 32 | u64::from(from)
}

/// The source and the target of a key.
pub(super) fn ends(key: u64) -> (u32, u32) {
    (key as u32, (key >> 32) as u32)
}

impl Rows {
    /// From edges in any order, given as keys (see [`key`]), all with their target in `range`.
    #[cfg(test)]
    pub(super) fn build(
        range: Range<usize>,
        keys: &[u64],
        weights: &[f64],
        duplicates: Duplicates,
    ) -> Self {
        let mut lengths = vec![0; range.len()];
        keys.iter().for_each(|&key| lengths[ends(key).1 as usize - range.start] += 1);
        let mut filling = Filling::new(range, lengths.into_iter(), !weights.is_empty());
        filling.place(keys, weights);
        filling.finish(duplicates).unwrap()
    }

    /// The number of edges.
    pub fn edges(&self) -> usize {
        self.sources.len()
    }

    /// Keeps one of equal sources in each row; with weights the last, which is the heaviest.
    pub(super) fn merge(&mut self) {
        let (sources, weights) = (self.sources.to_mut(), self.weights.to_mut());
        arrange(&mut self.offsets, sources, weights, Work { sort: false, merge: true });
    }

    /// All edges as (source, target, weight).
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, f64)> {
        (0..self.range.len()).flat_map(move |row| {
            let target = (self.range.start + row) as u32;
            (self.offsets[row]..self.offsets[row + 1]).map(move |i| {
                (self.sources[i], target, self.weights.get(i).copied().unwrap_or(1.0))
            })
        })
    }
}

/// Rows of known lengths, into which edges are put in any order and in any number of portions.
#[derive(Debug)]
pub(super) struct Filling {
    range: Range<usize>,
    /// Entry `i + 1` is where the next edge of row `i` goes: at last, where the row ends.
    offsets: Vec<usize>,
    sources: Vec<u32>,
    weights: Vec<f64>,
    /// Rows that threads fill side by side: the first row of each part, and its first edge.
    parts: Vec<(usize, usize)>,
    placed: usize,
}

/// More threads would mostly read edges of the others.
const MOST_PARTS: usize = 8;

impl Filling {
    /// Rows of the nodes in `range`, as many as there are `lengths`.
    pub(super) fn new(
        range: Range<usize>,
        lengths: impl Iterator<Item = u32>,
        weighted: bool,
    ) -> Self {
        let mut offsets = Vec::with_capacity(range.len() + 1);
        let mut end = 0;
        offsets.push(0);
        for length in lengths {
            offsets.push(end);
            end += length as usize;
        }
        let threads = rayon::current_num_threads().min(MOST_PARTS);
        let first_edge = |part: usize| (end as u128 * part as u128 / threads as u128) as usize;
        let parts = (0..threads)
            .map(|part| match part {
                0 => (0, 0),
                _ => {
                    let row = offsets[1..].partition_point(|&start| start < first_edge(part));
                    (row, offsets.get(row + 1).copied().unwrap_or(end))
                }
            })
            .collect();
        let weights = vec![0.0; if weighted { end } else { 0 }];
        Filling { range, offsets, sources: vec![0; end], weights, parts, placed: 0 }
    }

    /// Puts edges, given as keys (see [`key`]), into their rows.
    pub(super) fn place(&mut self, keys: &[u64], weights: &[f64]) {
        self.placed += keys.len();
        let (mut next, mut sources) = (&mut self.offsets[1..], &mut self.sources[..]);
        let mut placed = &mut self.weights[..];
        let mut shares = Vec::with_capacity(self.parts.len());
        for (i, &(row, edge)) in self.parts.iter().enumerate() {
            let (row_end, edge_end) = match self.parts.get(i + 1) {
                Some(&(row, edge)) => (row, edge),
                None => (row + next.len(), edge + sources.len()),
            };
            let (own_next, own_sources, own_weights);
            (own_next, next) = next.split_at_mut(row_end - row);
            (own_sources, sources) = sources.split_at_mut(edge_end - edge);
            let weighted = if placed.is_empty() { 0 } else { edge_end - edge };
            (own_weights, placed) = placed.split_at_mut(weighted);
            shares.push(Share {
                first: self.range.start + row,
                edge,
                next: own_next,
                sources: own_sources,
                weights: own_weights,
            });
        }
        match &mut shares[..] {
            [only] => only.place(keys, weights),
            many => many.par_iter_mut().for_each(|share| share.place(keys, weights)),
        }
    }

    /// The rows in canonical order, now that all edges are there.
    pub(super) fn finish(mut self, duplicates: Duplicates) -> Result<Rows> {
        if self.placed != self.sources.len() {
            return Err(Error::internal(format!(
                "{} edges came for rows with {}",
                self.placed,
                self.sources.len()
            )));
        }
        let work = Work { sort: true, merge: duplicates == Duplicates::Merge };
        arrange(&mut self.offsets, &mut self.sources, &mut self.weights, work);
        let Filling { range, offsets, sources, weights, .. } = self;
        Ok(Rows { range, offsets, sources: sources.into(), weights: weights.into() })
    }
}

/// What a thread fills.
struct Share<'s> {
    /// The node of its first row.
    first: usize,
    /// Its first edge.
    edge: usize,
    next: &'s mut [usize],
    sources: &'s mut [u32],
    weights: &'s mut [f64],
}

impl Share<'_> {
    /// Puts those of the edges that end in its rows there.
    fn place(&mut self, keys: &[u64], weights: &[f64]) {
        for (i, &key) in keys.iter().enumerate() {
            let (from, to) = ends(key);
            // A node before the first row becomes a number beyond the last.
            let Some(next) = self.next.get_mut((to as usize).wrapping_sub(self.first)) else {
                continue;
            };
            let at = *next - self.edge;
            *next += 1;
            self.sources[at] = from;
            if let Some(&weight) = weights.get(i) {
                self.weights[at] = weight;
            }
        }
    }
}

/// What [`arrange`] does to each row.
#[derive(Clone, Copy)]
struct Work {
    sort: bool,
    merge: bool,
}

/// Some rows, for one task.
struct Portion<'p> {
    /// Where the first row starts, among all edges.
    start: usize,
    /// Where each row ends.
    ends: &'p mut [usize],
    sources: &'p mut [u32],
    weights: &'p mut [f64],
}

/// Sorts or merges all rows.
fn arrange(offsets: &mut [usize], sources: &mut Vec<u32>, weights: &mut Vec<f64>, work: Work) {
    let weighted = !weights.is_empty();
    let cuts = cut(offsets);
    let kept: Vec<usize> = portions(&cuts, offsets, sources, weights)
        .into_par_iter()
        .map_init(Scratch::default, |scratch, portion| portion.arrange(work, scratch))
        .collect();
    if !work.merge {
        return;
    }
    // Close the gaps that portions left at their ends.
    let (mut row, mut start, mut all) = (1, 0, 0);
    for (kept, (rows, edges)) in kept.into_iter().zip(cuts) {
        sources.copy_within(start..start + kept, all);
        if weighted {
            weights.copy_within(start..start + kept, all);
        }
        offsets[row..row + rows].iter_mut().for_each(|end| *end -= start - all);
        (row, start, all) = (row + rows, start + edges, all + kept);
    }
    sources.truncate(all);
    sources.shrink_to_fit();
    weights.truncate(all);
    weights.shrink_to_fit();
}

/// Cuts rows into portions that make a task worth its start: their numbers of rows and edges.
fn cut(offsets: &[usize]) -> Vec<(usize, usize)> {
    const TASK_EDGES: usize = 1 << 16;
    const TASK_ROWS: usize = 1 << 14;
    let mut cuts = Vec::new();
    let (mut row, rows) = (0, offsets.len() - 1);
    while row < rows {
        let limit = offsets[row] + TASK_EDGES;
        let most = &offsets[row + 1..(row + TASK_ROWS).min(rows) + 1];
        let count = (most.partition_point(|&end| end <= limit)).max(1);
        cuts.push((count, offsets[row + count] - offsets[row]));
        row += count;
    }
    cuts
}

fn portions<'p>(
    cuts: &[(usize, usize)],
    offsets: &'p mut [usize],
    mut sources: &'p mut [u32],
    mut weights: &'p mut [f64],
) -> Vec<Portion<'p>> {
    let mut portions = Vec::with_capacity(cuts.len());
    let (mut start, weighted) = (0, !weights.is_empty());
    let mut ends = &mut offsets[1..];
    for &(rows, edges) in cuts {
        let (own_ends, own_sources, own_weights);
        (own_ends, ends) = ends.split_at_mut(rows);
        (own_sources, sources) = sources.split_at_mut(edges);
        (own_weights, weights) = weights.split_at_mut(if weighted { edges } else { 0 });
        portions.push(Portion {
            start,
            ends: own_ends,
            sources: own_sources,
            weights: own_weights,
        });
        start += edges;
    }
    portions
}

/// Memory that a thread keeps from row to row.
#[derive(Default)]
struct Scratch {
    sources: Vec<u32>,
    row: Vec<(u32, f64)>,
}

impl Portion<'_> {
    /// Arranges its rows, and returns how many edges are left.
    fn arrange(self, work: Work, scratch: &mut Scratch) -> usize {
        let Portion { start, ends, sources, weights } = self;
        let (mut at, mut kept) = (0, 0);
        for end in ends {
            let row = at..*end - start;
            at = row.end;
            if work.sort && weights.is_empty() {
                row_sort::sort(&mut sources[row.clone()], &mut scratch.sources);
            } else if work.sort {
                sort_weighted(
                    &mut sources[row.clone()],
                    &mut weights[row.clone()],
                    &mut scratch.row,
                );
            }
            if work.merge {
                kept = merge_row(sources, weights, row, kept);
                *end = start + kept;
            }
        }
        if work.merge { kept } else { at }
    }
}

fn sort_weighted(sources: &mut [u32], weights: &mut [f64], row: &mut Vec<(u32, f64)>) {
    row.clear();
    row.extend(sources.iter().copied().zip(weights.iter().copied()));
    row.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    for (i, &(source, weight)) in row.iter().enumerate() {
        (sources[i], weights[i]) = (source, weight);
    }
}

/// Moves a row to `to`, with the last of equal sources, and returns where it ends.
fn merge_row(sources: &mut [u32], weights: &mut [f64], row: Range<usize>, to: usize) -> usize {
    let mut kept = to;
    for i in row {
        if kept == to || sources[kept - 1] != sources[i] {
            sources[kept] = sources[i];
            kept += 1;
        }
        if let Some(&weight) = weights.get(i) {
            weights[kept - 1] = weight;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edges between few nodes, many of them repeated, with weights.
    fn edges(count: u32) -> Vec<(u32, u32, f64)> {
        (0..count).map(|i| (i * 7 % 11, 5 + i * i % 9, f64::from(i % 3))).collect()
    }

    fn merged(sorted: &[(u32, u32, f64)]) -> Vec<(u32, u32, f64)> {
        let mut merged: Vec<(u32, u32, f64)> = Vec::new();
        for &edge in sorted {
            match merged.last_mut() {
                Some(last) if (last.0, last.1) == (edge.0, edge.1) => *last = edge,
                _ => merged.push(edge),
            }
        }
        merged
    }

    fn sorted(mut edges: Vec<(u32, u32, f64)>) -> Vec<(u32, u32, f64)> {
        edges.sort_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)).then(a.2.total_cmp(&b.2)));
        edges
    }

    #[test]
    fn rows_are_the_sorted_edges_whatever_their_order() {
        let mut edges = edges(60);
        let sorted = sorted(edges.clone());
        let merged = merged(&sorted);
        assert!(merged.len() < sorted.len());
        for turn in 0..60 {
            edges.rotate_left(turn);
            let keys: Vec<u64> = edges.iter().map(|e| key(e.0, e.1)).collect();
            let weights: Vec<f64> = edges.iter().map(|e| e.2).collect();
            for (duplicates, expected) in [(Duplicates::Sum, &sorted), (Duplicates::Merge, &merged)]
            {
                let rows = Rows::build(3..17, &keys, &weights, duplicates);
                assert_eq!(&rows.iter().collect::<Vec<_>>(), expected);
                let rows = Rows::build(3..17, &keys, &[], duplicates);
                let plain: Vec<_> = expected.iter().map(|e| (e.0, e.1, 1.0)).collect();
                assert_eq!(rows.iter().collect::<Vec<_>>(), plain);
                assert_eq!(rows.edges(), expected.len());
            }
        }
        let none = Rows::build(4..4, &[], &[], Duplicates::Merge);
        assert_eq!((none.offsets.len(), none.edges()), (1, 0));
    }

    #[test]
    fn any_portions_and_threads_fill_the_same_rows() {
        let edges = edges(200);
        let keys: Vec<u64> = edges.iter().map(|e| key(e.0, e.1)).collect();
        let weights: Vec<f64> = edges.iter().map(|e| e.2).collect();
        let expected = Rows::build(3..17, &keys, &weights, Duplicates::Sum);
        let lengths = || expected.offsets.windows(2).map(|row| (row[1] - row[0]) as u32);
        for threads in [1, 2, 3, 20] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for portion in [1, 7, 200] {
                let rows = pool.install(|| {
                    let mut filling = Filling::new(3..17, lengths(), true);
                    for (keys, weights) in keys.chunks(portion).zip(weights.chunks(portion)) {
                        filling.place(keys, weights);
                    }
                    filling.finish(Duplicates::Sum).unwrap()
                });
                assert_eq!(rows, expected, "{threads} threads, portions of {portion}");
            }
        }
        let mut short = Filling::new(3..17, lengths(), false);
        short.place(&keys[1..], &[]);
        assert!(short.finish(Duplicates::Sum).is_err(), "an edge is missing");
    }

    #[test]
    fn portions_are_merged_and_joined() {
        // Rows of many lengths, more edges than a task takes, each edge up to three times.
        let rows = 40_000u32;
        let mut edges: Vec<(u32, u32, f64)> = Vec::new();
        for row in 0..rows {
            let length = if row == 20_000 { 70_000 } else { row % 9 };
            let edge = |i: u32| (i.wrapping_mul(row + 7) % 50_000, row, f64::from(i % 4));
            edges.extend((0..length).flat_map(|i| vec![edge(i); 1 + i as usize % 3]));
        }
        let keys: Vec<u64> = edges.iter().map(|e| key(e.0, e.1)).collect();
        let weights: Vec<f64> = edges.iter().map(|e| e.2).collect();
        let sorted = sorted(edges);
        let merged = merged(&sorted);
        for (duplicates, expected) in [(Duplicates::Sum, &sorted), (Duplicates::Merge, &merged)] {
            let built = Rows::build(0..rows as usize, &keys, &weights, duplicates);
            assert!(built.iter().eq(expected.iter().copied()));
            let built = Rows::build(0..rows as usize, &keys, &[], duplicates);
            assert!(built.iter().eq(expected.iter().map(|e| (e.0, e.1, 1.0))));
        }
        let mut late = Rows::build(0..rows as usize, &keys, &weights, Duplicates::Sum);
        late.merge();
        assert!(late.iter().eq(merged.iter().copied()));
    }
}
