//! Node ids of the user as dense indices, and back.
//!
//! The index of a node is the position of its id among all distinct ids in order (integers by
//! value, names by bytes). This canonical numbering is the same on any number of ranks, which is
//! the first half of "the same bits on any number of ranks"; `partition` and `pagerank` are the
//! other half.
//!
//! Each rank finds its distinct ids (a bitmap where ids are dense, else sorts), all ranks unite
//! theirs, and each then translates its own edges where they are (`id_lookup`). Every rank keeps
//! the numbering: 8 bytes a node for integers; 8 bytes and the text for names. While integers are
//! numbered, an edge takes 8 bytes if both ids are below 2³², else 16.

use rayon::prelude::*;

use super::edge_list::{IntegerEdges, NamedEdges};
use super::id_lookup::{DenseIds, SparseIds, distinct};
use super::names::NameTable;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

/// Edges between node indices.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Edges {
    /// Source and target of each edge.
    pub edges: Vec<(u32, u32)>,
    /// The weight of each edge; empty when all weigh 1.
    pub weights: Vec<f64>,
}

impl Edges {
    /// Adds the edges of another list.
    pub(super) fn append(&mut self, other: &Edges) {
        self.edges.extend_from_slice(&other.edges);
        self.weights.extend_from_slice(&other.weights);
    }

    /// Removes all edges, and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.edges.clear();
        self.weights.clear();
    }

    /// Drops the edges from `at` on, and their memory.
    pub(super) fn truncate(&mut self, at: usize) {
        self.edges.truncate(at);
        self.edges.shrink_to_fit();
        self.weights.truncate(at);
        self.weights.shrink_to_fit();
    }
}

/// The distinct ids of a graph in order; the index of a node is its position.
#[derive(Clone, PartialEq, Debug)]
pub enum Numbering {
    /// All ids are integers.
    Integers(Vec<u64>),
    /// All ids are names.
    Names(NameTable),
    /// The ids are consecutive, whether or not an edge names them.
    Dense {
        /// The id of the first node.
        first: u64,
        /// The number of nodes.
        n: usize,
    },
}

/// The id of a node as the user wrote it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NodeId<'n> {
    /// An integer.
    Integer(u64),
    /// A name.
    Name(&'n str),
}

impl std::fmt::Display for NodeId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeId::Integer(id) => id.fmt(f),
            NodeId::Name(name) => f.write_str(name),
        }
    }
}

/// Indices are 32 bits wide, and their number has to fit as well.
pub(super) const MAX_NODES: usize = u32::MAX as usize;

impl Numbering {
    /// The number of nodes.
    pub fn len(&self) -> usize {
        match self {
            Numbering::Integers(ids) => ids.len(),
            Numbering::Names(names) => names.len(),
            Numbering::Dense { n, .. } => *n,
        }
    }

    /// Whether the graph has no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of the node at `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn id(&self, index: usize) -> NodeId<'_> {
        match self {
            Numbering::Integers(ids) => NodeId::Integer(ids[index]),
            Numbering::Dense { first, .. } => NodeId::Integer(first + index as u64),
            // Names were checked when they were read.
            Numbering::Names(names) => {
                NodeId::Name(std::str::from_utf8(names.get(index)).unwrap_or("\u{fffd}"))
            }
        }
    }

    /// The index of the node whose id is written `text`.
    pub fn find(&self, text: &str) -> Option<usize> {
        match self {
            Numbering::Names(names) => names.find(text.as_bytes()),
            Numbering::Integers(ids) => ids.binary_search(&text.parse().ok()?).ok(),
            Numbering::Dense { first, n } => {
                let index = text.parse::<u64>().ok()?.checked_sub(*first)?;
                usize::try_from(index).ok().filter(|index| index < n)
            }
        }
    }

    fn checked(self) -> Result<Self> {
        if self.len() > MAX_NODES {
            return Err(Error::input(format!(
                "the graph has {} nodes; at most {MAX_NODES} are supported",
                self.len()
            )));
        }
        Ok(self)
    }
}

/// Numbers the nodes of a graph with integer ids and translates the edges of this rank.
/// Collective.
pub fn number_integers(comm: &Communicator, edges: IntegerEdges) -> Result<(Numbering, Edges)> {
    let largest = comm.all_reduce_vec(&[edges.largest()], Op::Max)?[0];
    let count = comm.all_reduce_vec(&[edges.len() as u64], Op::Sum)?[0];
    if is_dense(largest, count, comm.ranks()) {
        let ids = DenseIds::collect(comm, largest, |own| {
            let insert = |a: u64, b: u64| {
                own.insert(a);
                own.insert(b);
            };
            let narrow = edges.narrow.edges.par_iter().with_min_len(1 << 14);
            narrow.for_each(|&(a, b)| insert(a.into(), b.into()));
            edges.wide.iter().for_each(|&(a, b)| insert(a, b));
        })?;
        let numbering = Numbering::Integers(ids.list()).checked()?;
        return Ok((numbering, translate_integers(edges, |id| ids.position(id))));
    }
    let narrow = edges.narrow.edges.iter().map(|&(a, b)| (a.into(), b.into()));
    let own = narrow.chain(edges.wide.iter().copied()).flat_map(|(a, b)| [a, b]);
    let (mut ids, _) = comm.all_gather_vec(&distinct(own))?;
    if comm.ranks() > 1 {
        // Stable, since that sort finds the sorted runs of the ranks and merges them.
        ids.par_sort();
        ids.dedup();
    }
    ids.shrink_to_fit();
    let numbering = Numbering::Integers(ids).checked()?;
    let Numbering::Integers(ids) = &numbering else {
        return Err(Error::internal("integer ids turned into names"));
    };
    let lookup = SparseIds::new(ids);
    let edges = translate_integers(edges, |id| lookup.position(id));
    Ok((numbering, edges))
}

/// Whether a bit for each number up to the largest id is little memory, on every rank: a byte for
/// each edge of all ranks together, or 8 MiB.
fn is_dense(largest: u64, edges: u64, ranks: usize) -> bool {
    largest / 8 <= (edges / ranks as u64).max(8 << 20)
}

/// The edges between positions of ids; their lists shrink as far as they are translated.
fn translate_integers(edges: IntegerEdges, position: impl Fn(u64) -> u32 + Sync) -> Edges {
    let IntegerEdges { narrow: mut all, mut wide, wide_weights } = edges;
    let own = all.edges.par_iter_mut().with_min_len(1 << 14);
    own.for_each(|edge| *edge = (position(edge.0.into()), position(edge.1.into())));
    all.weights.extend_from_slice(&wide_weights);
    // From the end of the list, so that it can shrink; into the order of the weights again.
    const PORTION: usize = 1 << 20;
    let first = all.edges.len();
    while !wide.is_empty() {
        let at = wide.len().saturating_sub(PORTION);
        all.edges.extend(wide[at..].iter().rev().map(|&(a, b)| (position(a), position(b))));
        wide.truncate(at);
        wide.shrink_to_fit();
    }
    all.edges[first..].reverse();
    all
}

/// Numbers the nodes of a graph with names and translates the edges of this rank. Collective.
pub fn number_names(comm: &Communicator, pieces: Vec<NamedEdges>) -> Result<(Numbering, Edges)> {
    let own = NameTable::sorted(pieces.iter().flat_map(|piece| piece.names.iter()));
    let (words, _) = comm.all_gather_vec(&own.to_words())?;
    let names = NameTable::from_words(&words);
    drop((own, words));
    let numbering = Numbering::Names(names).checked()?;
    let Numbering::Names(names) = &numbering else {
        return Err(Error::internal("names turned into integer ids"));
    };
    let edges = translate_names(pieces, names);
    Ok((numbering, edges))
}

fn translate_names(pieces: Vec<NamedEdges>, names: &NameTable) -> Edges {
    let mut all = Edges::default();
    // A few at a time, each dropped then.
    let wave = 4 * rayon::current_num_threads();
    let mut pieces = pieces.into_iter();
    while pieces.len() > 0 {
        let some: Vec<NamedEdges> = pieces.by_ref().take(wave).collect();
        let translated = some.into_par_iter().map(|piece| translate_piece(piece, names));
        translated.collect::<Vec<_>>().iter().for_each(|edges| all.append(edges));
    }
    all
}

fn translate_piece(piece: NamedEdges, names: &NameTable) -> Edges {
    // Every name of a piece is in the table; an unknown one would be a defect, and the index
    // beyond the end that it gets here is refused by the partition.
    let find = |name| names.find(name).unwrap_or(names.len()) as u32;
    let positions: Vec<u32> = piece.names.iter().map(find).collect();
    let position = |name: u32| positions[name as usize];
    let edges = piece.edges.iter().map(|&(a, b)| (position(a), position(b))).collect();
    Edges { edges, weights: piece.weights }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    #[test]
    fn dense_sparse_and_hashed_ids_are_numbered_in_order() {
        let spread: [fn(u64) -> u64; 7] = [
            |i| i,
            |i| 1_000_000 + i * 3,
            |i| i * i * i,
            |i| (1 << 32) - 30 + i,
            |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            |i| u64::MAX - i,
            |i| if i % 2 == 0 { i } else { u64::MAX - i },
        ];
        for (id, ranks) in spread.into_iter().flat_map(|id| [1, 2, 3].map(|ranks| (id, ranks))) {
            for count in [0, 1, 2, 7, 100] {
                let edge = |i: u64| (id(i % 50), id((i * 7 + 1) % 60), i as f64);
                let edges: Vec<(u64, u64, f64)> = (0..count).map(edge).collect();
                let mut expected: Vec<u64> = edges.iter().flat_map(|e| [e.0, e.1]).collect();
                expected.sort();
                expected.dedup();
                let numbered = launch::threads(ranks, |comm| {
                    let mut own = IntegerEdges::default();
                    let part = edges.iter().skip(comm.rank()).step_by(ranks);
                    part.for_each(|&(a, b, weight)| own.push(a, b, Some(weight)));
                    number_integers(comm, own)
                });
                let mut back = Vec::new();
                for (numbering, translated) in numbered.unwrap() {
                    assert_eq!(numbering, Numbering::Integers(expected.clone()));
                    let of = |index: u32| expected[index as usize];
                    let all = translated.edges.iter().zip(&translated.weights);
                    back.extend(all.map(|(&(a, b), &weight)| (of(a), of(b), weight)));
                }
                back.sort_by(|a, b| a.2.total_cmp(&b.2));
                assert_eq!(back, edges, "{ranks} ranks");
            }
        }
    }

    #[test]
    fn bitmaps_are_for_dense_ids() {
        assert!(is_dense(0, 0, 1) && is_dense(8 << 23, 0, 64) && !is_dense(u64::MAX, 1 << 40, 2));
        assert!(is_dense(1 << 30, 1 << 27, 1) && !is_dense(1 << 30, 1 << 27, 2));
    }

    #[test]
    fn names_are_numbered_by_bytes() {
        let mut piece = NamedEdges::default();
        ["b", "a", "Z", "é"].iter().for_each(|name| piece.names.push(name.as_bytes()));
        piece.edges = vec![(0, 1), (2, 3), (1, 1)];
        piece.weights = vec![0.5, 1.0, 2.0];
        let names = NameTable::sorted(piece.names.iter());
        let edges = translate_names(vec![piece.clone(), piece], &names);
        assert_eq!(edges.edges, [(2, 1), (0, 3), (1, 1), (2, 1), (0, 3), (1, 1)]);
        assert_eq!(edges.weights, [0.5, 1.0, 2.0, 0.5, 1.0, 2.0]);
        let numbering = Numbering::Names(names);
        let shown: Vec<String> = (0..4).map(|i| numbering.id(i).to_string()).collect();
        assert_eq!(shown, ["Z", "a", "b", "é"]);
        assert!(numbering.id(0) < numbering.id(1));
    }
}
