//! Nodes in an order that makes gathers cheap: by falling degree.
//!
//! Nodes are sorted by ⌊log₂ out-degree⌋, falling, then by in-degree, falling, then by index.
//! * The contributions of hubs, which most gathers want, lie side by side in a few cache lines.
//! * Rows that are neighbours are about equally long, which is what `reduce::gather` likes.
//! * Dangling nodes, which nobody gathers, come last in the table.
//!
//! A function of the graph alone, so the canonical order of sums stays one. Results are given
//! back in the order of the user's ids. It is not done where most edges join nodes with near
//! indices, as in crawls ordered by address: that locality is worth more. Memory: 8 bytes a node.

use rayon::prelude::*;

/// Whether nodes are ordered by degree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Relabel {
    /// Unless most edges are local.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Nodes nearer than this share a stretch of the table that fits the first-level cache.
const NEAR: u32 = 1 << 12;

/// Whether an edge is local.
pub(super) fn is_local(from: u32, to: u32) -> bool {
    from.abs_diff(to) < NEAR
}

impl Relabel {
    /// The decision for a graph of `n` nodes, of whose `edges` so many are `local`.
    pub(super) fn pays(self, n: usize, edges: u64, local: u64) -> bool {
        match self {
            Relabel::Always => true,
            Relabel::Never => false,
            // In a small graph all edges are local, and rows of equal length still help.
            Relabel::Auto => n < 8 * NEAR as usize || 2 * local <= edges,
        }
    }
}

/// A permutation of the nodes, both ways.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The place of each node.
    pub place_of: Vec<u32>,
    /// The node at each place.
    pub node_at: Vec<u32>,
}

impl Order {
    /// By falling degree; see the module comment.
    pub fn by_degree(in_degrees: &[u32], out_degrees: &[u32]) -> Order {
        const DEGREE_BITS: u32 = 26;
        let key = |node: usize| {
            let class = u64::from(32 - out_degrees[node].leading_zeros());
            let degree = u64::from(in_degrees[node].min((1 << DEGREE_BITS) - 1));
            !(class << DEGREE_BITS | degree) << 32 | node as u64
        };
        let mut keys: Vec<u64> = (0..in_degrees.len()).into_par_iter().map(key).collect();
        keys.par_sort_unstable();
        let node_at: Vec<u32> = keys.into_iter().map(|key| key as u32).collect();
        let mut place_of = vec![0; node_at.len()];
        for (place, &node) in node_at.iter().enumerate() {
            place_of[node as usize] = place as u32;
        }
        Order { place_of, node_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs_come_first_and_ties_keep_their_order() {
        let (ins, outs) = ([3, 0, 5, 3, 9, 0], [4, 0, 7, 5, 0, 1]);
        let order = Order::by_degree(&ins, &outs);
        assert_eq!(order.node_at, [2, 0, 3, 5, 4, 1]);
        assert!(order.node_at.iter().zip(0..).all(|(&n, p)| order.place_of[n as usize] == p));
        let none = Order::by_degree(&[], &[]);
        assert!(none.place_of.is_empty());
    }

    #[test]
    fn local_graphs_keep_their_order() {
        assert!(is_local(7, 4000) && !is_local(4096, 0));
        assert!(Relabel::Auto.pays(1000, 10, 10));
        assert!(Relabel::Auto.pays(1 << 20, 100, 50) && !Relabel::Auto.pays(1 << 20, 100, 51));
        assert!(Relabel::Always.pays(1 << 20, 100, 100) && !Relabel::Never.pays(1, 100, 0));
    }
}
