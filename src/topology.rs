//! Where ranks live: rank → (node, local rank).
//!
//! Ranks of one node share memory. Nodes are numbered by their lowest rank; local ranks follow
//! rank order. Any placement is allowed: uneven nodes, round-robin, one node.

use std::sync::Arc;

/// The placement of all ranks of a communicator. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Topology {
    node_of: Arc<[usize]>,
    local_of: Arc<[usize]>,
    nodes: Arc<[Vec<usize>]>,
}

impl Topology {
    /// From one label a rank; equal labels share a node.
    ///
    /// # Panics
    /// If `labels` is empty.
    pub fn from_labels(labels: &[usize]) -> Self {
        assert!(!labels.is_empty(), "a topology has at least one rank");
        let mut nodes: Vec<Vec<usize>> = Vec::new();
        let mut seen: Vec<usize> = Vec::new();
        let (mut node_of, mut local_of) = (Vec::new(), Vec::new());
        for (rank, label) in labels.iter().enumerate() {
            let node = seen.iter().position(|l| l == label).unwrap_or_else(|| {
                seen.push(*label);
                nodes.push(Vec::new());
                seen.len() - 1
            });
            node_of.push(node);
            local_of.push(nodes[node].len());
            nodes[node].push(rank);
        }
        Topology { node_of: node_of.into(), local_of: local_of.into(), nodes: nodes.into() }
    }

    /// All ranks on one node.
    pub fn one_node(ranks: usize) -> Self {
        Topology::from_labels(&vec![0; ranks])
    }

    /// Every rank on a node of its own: nothing is shared.
    pub fn flat(ranks: usize) -> Self {
        Topology::from_labels(&(0..ranks).collect::<Vec<_>>())
    }

    /// Consecutive ranks fill nodes of `ranks_per_node`; the last may be smaller.
    pub fn blocks(ranks: usize, ranks_per_node: usize) -> Self {
        Topology::from_labels(&(0..ranks).map(|r| r / ranks_per_node.max(1)).collect::<Vec<_>>())
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.node_of.len()
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The node of `rank`.
    pub fn node(&self, rank: usize) -> usize {
        self.node_of[rank]
    }

    /// The position of `rank` among the ranks of its node.
    pub fn local(&self, rank: usize) -> usize {
        self.local_of[rank]
    }

    /// The ranks of `node`, ascending.
    pub fn ranks_of(&self, node: usize) -> &[usize] {
        &self.nodes[node]
    }

    /// The ranks that share a node with `rank`, itself included, ascending.
    pub fn peers(&self, rank: usize) -> &[usize] {
        &self.nodes[self.node_of[rank]]
    }

    /// Whether two ranks share memory.
    pub fn same_node(&self, a: usize, b: usize) -> bool {
        self.node_of[a] == self.node_of[b]
    }

    /// The smallest number of ranks on a node.
    pub fn min_locals(&self) -> usize {
        self.nodes.iter().map(Vec::len).min().unwrap_or(0)
    }

    /// Whether nodes hold consecutive ranks, as many on each, a power of two, and at most as many
    /// on the last: then every node is a subtree of the canonical tree over all ranks.
    pub fn is_aligned(&self) -> bool {
        let (last, first) = (self.nodes() - 1, self.nodes[0].len());
        let fits = |node: usize| match node == last {
            true => self.nodes[node].len() <= first,
            false => self.nodes[node].len() == first,
        };
        (last == 0 || first.is_power_of_two()) && self.node_of.is_sorted() && (0..=last).all(fits)
    }

    /// The largest number of ranks on a node.
    pub fn max_locals(&self) -> usize {
        self.nodes.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The placement of a subset of the ranks, renumbered in the given order.
    pub fn subset(&self, ranks: &[usize]) -> Self {
        Topology::from_labels(&ranks.iter().map(|&r| self.node_of[r]).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_numbered_by_lowest_rank() {
        let topology = Topology::from_labels(&[7, 3, 7, 7, 3]);
        assert_eq!(topology.nodes(), 2);
        assert_eq!(topology.ranks_of(0), [0, 2, 3]);
        assert_eq!(topology.peers(4), [1, 4]);
        assert_eq!((topology.node(3), topology.local(3)), (0, 2));
        assert!(topology.same_node(0, 3) && !topology.same_node(0, 1));
        assert_eq!(topology.min_locals(), 2);
    }

    #[test]
    fn blocks_flat_and_one_node_agree_where_they_meet() {
        assert_eq!(Topology::blocks(5, 1), Topology::flat(5));
        assert_eq!(Topology::blocks(5, 9), Topology::one_node(5));
        assert_eq!(Topology::blocks(5, 2).ranks_of(2), [4]);
        for (ranks, each, aligned) in [(8, 4, true), (7, 4, true), (9, 3, false), (5, 7, true)] {
            assert_eq!(Topology::blocks(ranks, each).is_aligned(), aligned, "{ranks} {each}");
        }
        assert!(!Topology::from_labels(&[0, 1, 0, 1]).is_aligned());
        assert!(!Topology::from_labels(&[0, 1, 1]).is_aligned());
        assert_eq!(Topology::blocks(6, 2).subset(&[1, 4, 5]).peers(1), [1, 2]);
    }
}
