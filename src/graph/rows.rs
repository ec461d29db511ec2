//! The edges that end in a contiguous range of nodes, by target: a CSR of the transposed graph.
//!
//! Row `i` lists the sources of node `range.start + i` in ascending order, and equal sources by
//! ascending weight. That order is canonical: it depends on the graph alone, not on the order of
//! lines, ranks or messages, and a sum over a row is the same bits everywhere.
//!
//! Built by counting sort: one pass to count, one to place, then short sorts inside the rows; two
//! random accesses an edge, where a sort of all edges would need log₂ of their number. Holds 4
//! bytes an edge (12 with weights) and 8 a node.

use std::ops::Range;

use rayon::prelude::*;

use super::column::Column;

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
    pub(super) fn build(
        range: Range<usize>,
        keys: &[u64],
        weights: &[f64],
        duplicates: Duplicates,
    ) -> Self {
        let row = |key: u64| ends(key).1 as usize - range.start;
        let mut offsets = vec![0usize; range.len() + 1];
        keys.iter().for_each(|&key| offsets[row(key) + 1] += 1);
        for i in 0..range.len() {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut sources = vec![0u32; keys.len()];
        let mut placed = vec![0f64; weights.len()];
        for (i, &key) in keys.iter().enumerate() {
            let at = &mut next[row(key)];
            sources[*at] = ends(key).0;
            if !weights.is_empty() {
                placed[*at] = weights[i];
            }
            *at += 1;
        }
        drop(next);
        let mut rows = Rows { range, offsets, sources: sources.into(), weights: placed.into() };
        rows.sort();
        if duplicates == Duplicates::Merge {
            rows.merge();
        }
        rows
    }

    /// The number of edges.
    pub fn edges(&self) -> usize {
        self.sources.len()
    }

    fn sort(&mut self) {
        if self.weights.is_empty() {
            split_rows(&self.offsets, self.sources.to_mut())
                .par_iter_mut()
                .with_min_len(256)
                .for_each(|row| row.sort_unstable());
            return;
        }
        let sources = split_rows(&self.offsets, self.sources.to_mut());
        let weights = split_rows(&self.offsets, self.weights.to_mut());
        sources.into_par_iter().zip(weights).with_min_len(256).for_each(|(sources, weights)| {
            let mut row: Vec<(u32, f64)> =
                sources.iter().copied().zip(weights.iter().copied()).collect();
            row.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            for (i, (source, weight)) in row.into_iter().enumerate() {
                (sources[i], weights[i]) = (source, weight);
            }
        });
    }

    /// Keeps the last of equal sources in each row, which is the heaviest.
    pub(super) fn merge(&mut self) {
        let (sources, weights) = (self.sources.to_mut(), self.weights.to_mut());
        let mut kept = 0;
        let mut start = 0;
        for row in 0..self.range.len() {
            let end = self.offsets[row + 1];
            for i in start..end {
                if i + 1 < end && sources[i] == sources[i + 1] {
                    continue;
                }
                sources[kept] = sources[i];
                if !weights.is_empty() {
                    weights[kept] = weights[i];
                }
                kept += 1;
            }
            start = end;
            self.offsets[row + 1] = kept;
        }
        sources.truncate(kept);
        sources.shrink_to_fit();
        weights.truncate(kept);
        weights.shrink_to_fit();
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

fn split_rows<'v, T>(offsets: &[usize], mut values: &'v mut [T]) -> Vec<&'v mut [T]> {
    let mut rows = Vec::with_capacity(offsets.len() - 1);
    for row in offsets.windows(2) {
        let (head, tail) = values.split_at_mut(row[1] - row[0]);
        rows.push(head);
        values = tail;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_sorted_edges_whatever_their_order() {
        let mut edges: Vec<(u32, u32, f64)> =
            (0..60u32).map(|i| (i * 7 % 11, 5 + i * i % 9, f64::from(i % 3))).collect();
        let mut sorted = edges.clone();
        sorted.sort_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)).then(a.2.total_cmp(&b.2)));
        let mut merged: Vec<(u32, u32, f64)> = Vec::new();
        for &edge in &sorted {
            match merged.last_mut() {
                Some(last) if (last.0, last.1) == (edge.0, edge.1) => *last = edge,
                _ => merged.push(edge),
            }
        }
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
}
