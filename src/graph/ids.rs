//! Node ids of the user as dense indices, and back.
//!
//! The index of a node is the position of its id among all distinct ids in order (integers by
//! value, names by bytes). This canonical numbering is the same on any number of ranks, which is
//! the first half of "the same bits on any number of ranks"; `partition` and `pagerank` are the
//! other half.
//!
//! Each rank finds its distinct ids (a bitmap where ids are dense, else a sort), all of them are
//! all-gathered and merged, and each rank then translates its own edges. Every rank keeps the
//! numbering: 8 bytes a node for integers and as much again for the look-up table; 8 bytes and the
//! text for names.

use rayon::prelude::*;

use super::edge_list::{IntegerEdges, NamedEdges};
use super::names::NameTable;
use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// Edges between node indices.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Edges {
    /// Source and target of each edge.
    pub edges: Vec<(u32, u32)>,
    /// The weight of each edge; empty when all weigh 1.
    pub weights: Vec<f64>,
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
pub fn number_integers(
    comm: &Communicator,
    pieces: Vec<IntegerEdges>,
) -> Result<(Numbering, Edges)> {
    let (mut ids, _) = comm.all_gather_vec(&distinct(&pieces))?;
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
    let edges = translate_integers(pieces, ids);
    Ok((numbering, edges))
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

/// The distinct ids of some edges, ascending.
fn distinct(pieces: &[IntegerEdges]) -> Vec<u64> {
    let edges = || pieces.iter().flat_map(|piece| &piece.edges);
    let count: usize = pieces.iter().map(|piece| piece.edges.len()).sum();
    let largest = edges().map(|&(from, to)| from.max(to)).max().unwrap_or(0);
    // A bitmap of at most 8 bytes an edge; it replaces a sort of two ids an edge.
    if largest / 64 < count as u64 {
        let mut seen = vec![0u64; largest as usize / 64 + 1];
        for &(from, to) in edges() {
            seen[from as usize / 64] |= 1 << (from % 64);
            seen[to as usize / 64] |= 1 << (to % 64);
        }
        let mut ids = Vec::with_capacity(seen.iter().map(|w| w.count_ones() as usize).sum());
        for (base, mut word) in (0u64..).step_by(64).zip(seen) {
            while word != 0 {
                ids.push(base + u64::from(word.trailing_zeros()));
                word &= word - 1;
            }
        }
        return ids;
    }
    let mut ids: Vec<u64> = edges().flat_map(|&(from, to)| [from, to]).collect();
    ids.par_sort_unstable();
    ids.dedup();
    ids
}

/// Positions of ids in a sorted list: the high bits of an id lead to a short run to search.
///
/// Dense and hashed ids need about one step; in the worst case it is a binary search.
struct Lookup<'i> {
    ids: &'i [u64],
    base: u64,
    shift: u32,
    /// `starts[b]` is the first position whose id has high bits `b` or more.
    starts: Vec<u32>,
}

impl<'i> Lookup<'i> {
    fn new(ids: &'i [u64]) -> Self {
        let base = ids.first().copied().unwrap_or(0);
        let span = ids.last().copied().unwrap_or(0) - base;
        let shift = (0..64).find(|s| span >> s < 2 * ids.len() as u64 + 1).unwrap_or(63);
        let mut starts = vec![0u32; (span >> shift) as usize + 2];
        for &id in ids {
            starts[((id - base) >> shift) as usize + 1] += 1;
        }
        for bucket in 1..starts.len() {
            starts[bucket] += starts[bucket - 1];
        }
        Lookup { ids, base, shift, starts }
    }

    /// The position of an id that is in the list.
    fn position(&self, id: u64) -> u32 {
        let bucket = ((id - self.base) >> self.shift) as usize;
        let (start, end) = (self.starts[bucket], self.starts[bucket + 1]);
        if end - start <= 1 {
            return start;
        }
        let run = &self.ids[start as usize..end as usize];
        start + run.partition_point(|&other| other < id) as u32
    }
}

fn translate_integers(pieces: Vec<IntegerEdges>, ids: &[u64]) -> Edges {
    let lookup = Lookup::new(ids);
    let translated = pieces.into_par_iter().map(|piece| {
        let position = |id| lookup.position(id);
        let edges = piece.edges.iter().map(|&(a, b)| (position(a), position(b))).collect();
        Edges { edges, weights: piece.weights }
    });
    concat(translated.collect())
}

fn translate_names(pieces: Vec<NamedEdges>, names: &NameTable) -> Edges {
    let translated = pieces.into_par_iter().map(|piece| {
        // Every name of a piece is in the table; an unknown one would be a defect, and the index
        // beyond the end that it gets here is refused by the partition.
        let find = |name| names.find(name).unwrap_or(names.len()) as u32;
        let positions: Vec<u32> = piece.names.iter().map(find).collect();
        let position = |name: u32| positions[name as usize];
        let edges = piece.edges.iter().map(|&(a, b)| (position(a), position(b))).collect();
        Edges { edges, weights: piece.weights }
    });
    concat(translated.collect())
}

pub(super) fn concat(mut pieces: Vec<Edges>) -> Edges {
    let mut all = Edges::default();
    all.edges.reserve_exact(pieces.iter().map(|piece| piece.edges.len()).sum());
    all.weights.reserve_exact(pieces.iter().map(|piece| piece.weights.len()).sum());
    for piece in pieces.drain(..) {
        all.edges.extend_from_slice(&piece.edges);
        all.weights.extend_from_slice(&piece.weights);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(edges: &[(u64, u64)]) -> Vec<IntegerEdges> {
        edges
            .chunks(3)
            .map(|chunk| IntegerEdges { edges: chunk.to_vec(), weights: Vec::new() })
            .collect()
    }

    #[test]
    fn dense_sparse_and_hashed_ids_are_numbered_in_order() {
        let spread: [fn(u64) -> u64; 6] = [
            |i| i,
            |i| 1_000_000 + i * 3,
            |i| i * i * i,
            |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            |i| u64::MAX - i,
            |i| if i % 2 == 0 { i } else { u64::MAX - i },
        ];
        for id in spread {
            for count in [0, 1, 2, 7, 100] {
                let edges: Vec<(u64, u64)> =
                    (0..count).map(|i| (id(i % 50), id((i * 7 + 1) % 60))).collect();
                let mut expected: Vec<u64> = edges.iter().flat_map(|&(a, b)| [a, b]).collect();
                expected.sort();
                expected.dedup();
                let ids = distinct(&pieces(&edges));
                assert_eq!(ids, expected);
                let translated = translate_integers(pieces(&edges), &ids);
                let back: Vec<(u64, u64)> = translated
                    .edges
                    .iter()
                    .map(|&(a, b)| (ids[a as usize], ids[b as usize]))
                    .collect();
                assert_eq!(back, edges);
            }
        }
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
