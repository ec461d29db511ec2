//! What a graph looks like: counts, degrees, and what ranks would have to do and send.
//!
//! Computed on rank 0 from the whole graph: O(edges) for the counts and again for each number of
//! ranks that is asked for.

use serde::Serialize;

use super::cost::{Candidate, Network, ONE_NODE, Reads, cheapest, why};
use super::grid;
use super::ids::Numbering;
use super::partition::balance;
use super::scheme::{Partitioning, Scheme};
use super::whole::Whole;
use crate::error::{Error, Result};
use crate::reduce::gather::Double;
use crate::select::Table;
use crate::topology::Topology;

/// A summary of a graph. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GraphInfo {
    /// Nodes.
    pub vertices: u64,
    /// Directed edges; an undirected one counts twice.
    pub edges: u64,
    /// `consecutive`, `integers` or `names`.
    pub ids: &'static str,
    /// Edges have weights.
    pub weighted: bool,
    /// Each edge is there both ways.
    pub undirected: bool,
    /// Nodes without outgoing weight.
    pub dangling: u64,
    /// Nodes without any edge.
    pub isolated: u64,
    /// Edges from a node to itself.
    pub self_loops: u64,
    /// Edges that repeat another one.
    pub duplicate_edges: u64,
    /// Edges into a node.
    pub in_degree: Degrees,
    /// Edges out of a node.
    pub out_degree: Degrees,
    /// For each number of ranks: the balance, and what an iteration sends.
    pub partitions: Vec<PartitionInfo>,
}

/// The distribution of degrees.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Degrees {
    /// The smallest.
    pub min: u64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: u64,
    /// Nodes by degree, in classes 0, 1, 2–3, 4–7 and so on; empty classes at the end are left out.
    pub classes: Vec<Class>,
}

/// Nodes whose degrees are in a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Class {
    /// The lowest degree.
    pub from: u64,
    /// The highest.
    pub to: u64,
    /// How many nodes.
    pub nodes: u64,
}

/// What a number of ranks would do, each with a range of nodes and the edges into them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PartitionInfo {
    /// How many ranks.
    pub ranks: usize,
    /// Edges of the rank that has most.
    pub most_edges: u64,
    /// Nodes of the rank that has most.
    pub most_nodes: u64,
    /// The most edges of a rank ÷ the mean.
    pub imbalance: f64,
    /// Bytes that all ranks together receive in an iteration if every rank gets every value (f64).
    pub all_gather_bytes: u64,
    /// The same if a rank gets only the values that its edges read.
    pub needed_bytes: u64,
    /// On how many nodes the ranks are taken to lie, in blocks.
    pub nodes: usize,
    /// Edges of the rank that has fewest.
    pub least_edges: u64,
    /// Edges of a rank on average.
    pub mean_edges: f64,
    /// What `pagerank --partition auto` would choose.
    pub chosen: String,
    /// In words.
    pub reason: String,
    /// What each partition would move between these nodes in an iteration (f64).
    pub choices: Vec<Candidate>,
}

/// What is asked about partitions.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Numbers of ranks.
    pub ranks: &'a [usize],
    /// On how many nodes they lie, each with a rank or more; `None` for one rank a node.
    pub nodes: Option<usize>,
    /// Measurements of the network between nodes.
    pub table: Option<&'a Table>,
}

impl Parts<'_> {
    /// Refuses numbers of ranks that no job has, and nodes that would be left without a rank.
    pub fn validate(&self) -> Result<()> {
        const MOST: usize = 1 << 20;
        if let Some(ranks) = self.ranks.iter().find(|ranks| !(1..=MOST).contains(*ranks)) {
            return Err(Error::input(format!("{ranks} ranks: allowed is 1 to {MOST}")));
        }
        let Some(nodes) = self.nodes else {
            return Ok(());
        };
        if nodes == 0 {
            return Err(Error::input("--nodes 0: ranks need at least 1 node"));
        }
        match self.ranks.iter().find(|&&ranks| ranks < nodes) {
            Some(ranks) => Err(Error::input(format!(
                "{ranks} ranks on {nodes} nodes: a node needs at least 1 rank; ask for at most \
                 {ranks} nodes, or for more ranks (--parts)"
            ))),
            None => Ok(()),
        }
    }
}

/// Up to so many ranks partitions are compared: beyond, placing them alone takes seconds.
const MOST_COMPARED: usize = 4096;

/// Looks at a graph, and at its partition for each number of ranks in `parts`.
pub fn info(graph: &Whole, parts: &Parts<'_>) -> GraphInfo {
    let n = graph.nodes();
    let degree = |place: usize| graph.offsets[place + 1] - graph.offsets[place];
    let (mut self_loops, mut duplicates) = (0, 0);
    for place in 0..n {
        let row = &graph.sources[graph.row(place)];
        self_loops += row.iter().filter(|&&source| source as usize == place).count() as u64;
        duplicates += row.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
    }
    let isolated = (0..n).filter(|&place| degree(place) == 0 && graph.out_degrees[place] == 0);
    GraphInfo {
        vertices: n as u64,
        edges: graph.edges() as u64,
        ids: match graph.numbering {
            Numbering::Dense { .. } => "consecutive",
            Numbering::Integers(_) => "integers",
            Numbering::Names(_) => "names",
        },
        weighted: graph.weighted,
        undirected: graph.undirected,
        dangling: graph.out_weights.iter().filter(|&&weight| weight == 0.0).count() as u64,
        isolated: isolated.count() as u64,
        self_loops,
        duplicate_edges: duplicates,
        in_degree: degrees((0..n).map(degree)),
        out_degree: degrees(graph.out_degrees.iter().map(|&d| u64::from(d))),
        partitions: parts.ranks.iter().map(|&ranks| split(graph, ranks, parts)).collect(),
    }
}

fn degrees(all: impl Iterator<Item = u64>) -> Degrees {
    let (mut min, mut max, mut sum, mut count) = (u64::MAX, 0, 0u64, 0u64);
    let mut classes = Vec::new();
    for degree in all {
        (min, max) = (min.min(degree), max.max(degree));
        (sum, count) = (sum + degree, count + 1);
        let class = (64 - degree.leading_zeros()) as usize;
        if classes.len() <= class {
            classes.resize(class + 1, 0);
        }
        classes[class] += 1;
    }
    let class = |(class, nodes): (usize, u64)| match class {
        0 => Class { from: 0, to: 0, nodes },
        _ => Class { from: 1 << (class - 1), to: u64::MAX >> (64 - class), nodes },
    };
    Degrees {
        min: if count == 0 { 0 } else { min },
        mean: sum as f64 / count.max(1) as f64,
        max,
        classes: classes.into_iter().enumerate().map(class).collect(),
    }
}

fn split(graph: &Whole, ranks: usize, parts: &Parts<'_>) -> PartitionInfo {
    const VALUE_BYTES: u64 = 8;
    let n = graph.nodes();
    let lengths = graph.offsets.windows(2).map(|row| (row[1] - row[0]) as u32);
    let sharding = balance(lengths, ranks);
    let (mut most_edges, mut most_nodes, mut needed) = (0, 0, 0);
    let mut least_edges = u64::MAX;
    let mut reads = Reads::new(&sharding);
    // The last rank that needed each node; ranks count from 1 here.
    let mut wanted_by = vec![0u32; n];
    for rank in 0..ranks {
        let own = sharding.range(rank);
        let edges = graph.offsets[own.start]..graph.offsets[own.end];
        most_edges = most_edges.max(edges.end - edges.start);
        least_edges = least_edges.min(edges.end - edges.start);
        most_nodes = most_nodes.max(own.len() as u64);
        let sources = &graph.sources[edges.start as usize..edges.end as usize];
        reads.push(sources);
        for &source in sources {
            let wanted = &mut wanted_by[source as usize];
            if *wanted != rank as u32 + 1 && !own.contains(&(source as usize)) {
                *wanted = rank as u32 + 1;
                needed += 1;
            }
        }
    }
    let mean = graph.edges() as f64 / ranks as f64;
    let a_node = ranks.div_ceil(parts.nodes.unwrap_or(ranks));
    let (scheme, reason, choices) = choose(&reads, ranks, a_node, n, parts.table);
    PartitionInfo {
        ranks,
        most_edges,
        most_nodes,
        imbalance: if mean > 0.0 { most_edges as f64 / mean } else { 1.0 },
        all_gather_bytes: VALUE_BYTES * n as u64 * (ranks as u64 - 1),
        needed_bytes: VALUE_BYTES * needed,
        nodes: ranks.div_ceil(a_node),
        least_edges,
        mean_edges: mean,
        chosen: scheme.to_string(),
        reason,
        choices,
    }
}

/// What `pagerank` would choose on so many ranks a node, why, and from what.
fn choose(
    reads: &Reads,
    ranks: usize,
    a_node: usize,
    n: usize,
    table: Option<&Table>,
) -> (Scheme, String, Vec<Candidate>) {
    if ranks > MOST_COMPARED {
        return (Scheme::OneD, format!("not compared beyond {MOST_COMPARED} ranks"), Vec::new());
    }
    let (topology, network) = (Topology::blocks(ranks, a_node), Network::of(table));
    let sizes = grid::sizes::<Double>(n);
    if topology.nodes() == 1 {
        let one = reads.candidate(Scheme::OneD, &topology, sizes, &network);
        return (Scheme::OneD, ONE_NODE.to_string(), vec![one]);
    }
    let all = reads.candidates(&topology, sizes, &network);
    let scheme = cheapest(&all, Partitioning::Auto, sizes.cuttable, true).unwrap_or(Scheme::OneD);
    let reason = why(&all, scheme, &network);
    (scheme, reason, all.into_iter().map(|(_, candidate)| candidate).collect())
}
