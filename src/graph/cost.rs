//! What each partition would move and how long a step would take: the choice of `--partition auto`.
//!
//! # Model
//! ```text
//! time = latency·messages + max over nodes of max(bytes in, bytes out) / bandwidth
//!      + 2 ns · values packed on that node + 0.5 ns · edges of the busiest rank · idle
//! ```
//! Messages are those that wait for each other. `idle` is 1, but for a grid (K + C − 1)/K: its K
//! chunks of sums pass through C columns (see `grid`). Latency and bandwidth are fitted to the
//! all_gather rows of a table of `rankwise tune` that was measured on several nodes; without one
//! they are those of `plan::cost::Machine`. Edges of a tile are taken to be those of its row of
//! ranks ÷ C: columns are cut so that they are on average.
//!
//! # What is counted
//! A bit for each rank and source says whether the rank reads it: exact for what one dimension
//! moves, and for grids up to the long parts of rows that go whole to one side of a cut. Beyond
//! `MOST_BYTES` of bits every k-th word of 64 sources stands for k. The bits and a histogram of
//! edges by source are gathered once: ranks · n / 8 bytes a rank, and one pass over the edges.

use serde::Serialize;

use super::grid;
use super::partition::{GRAIN, Partition};
use super::scheme::{GridShape, Partitioning, Scheme};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::plan::cost::Machine;
use crate::select::Table;
use crate::sharding::Sharding;
use crate::topology::Topology;

/// Bits of all ranks together that are looked at, in bytes.
const MOST_BYTES: usize = 16 << 20;
/// The most bins of sources that columns are cut between.
const MOST_BINS: usize = 1 << 16;
/// Why there is nothing to compare.
pub(super) const ONE_NODE: &str = "one node: its ranks read all values in place";
const NS_AN_EDGE: f64 = 0.5;
const NS_A_PACKED_VALUE: f64 = 2.0;

/// What one partition would take in an iteration. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Candidate {
    /// `1d`, `1d-needed` or `2d:RxC`.
    pub partition: String,
    /// Bytes that all nodes together receive.
    pub bytes_between_nodes: u64,
    /// Bytes that the node with most receives or sends.
    pub busiest_node_bytes: u64,
    /// Messages one after another.
    pub messages: u64,
    /// By the cost model.
    pub time_us: f64,
}

/// Which partition a run had, and why. The field names are the JSON keys.
#[derive(Clone, Default, PartialEq, Debug, Serialize)]
pub struct PartitionReport {
    /// `1d`, `1d-needed` or `2d:RxC`.
    pub chosen: String,
    /// In words.
    pub reason: String,
    /// Edges of each rank: the fewest, the mean and the most.
    pub edges_min: u64,
    /// See `edges_min`.
    pub edges_mean: f64,
    /// See `edges_min`.
    pub edges_max: u64,
    /// What was compared; nothing on one node.
    pub choices: Vec<Candidate>,
}

/// Bytes of numbers, and how rows are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Of a value.
    pub wire: usize,
    /// Of a sum.
    pub sum: usize,
    /// Rows between which chunks of a grid may end.
    pub grain: usize,
    /// Whether rows of any length can be cut, so that grids pay.
    pub cuttable: bool,
}

/// The network between nodes.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Network {
    latency_us: f64,
    gbytes_per_s: f64,
    source: String,
}

impl Network {
    /// As a table measured it, or the default.
    pub(super) fn of(table: Option<&Table>) -> Network {
        let fitted = table.filter(|table| table.header().nodes > 1).and_then(|table| {
            let nodes = table.header().nodes as f64;
            let rows = || table.rows().filter(|row| row.op == "all_gather" && row.bytes > 0);
            let small = rows().min_by_key(|row| row.bytes)?;
            let large = rows().max_by_key(|row| row.bytes)?;
            let bytes = large.bytes as f64 * (nodes - 1.0) / nodes;
            let time_us = large.time_us - small.time_us;
            (time_us > 0.0 && small.time_us > 0.0).then(|| Network {
                // A small gather takes about log₂ nodes messages one after another.
                latency_us: small.time_us / nodes.log2().ceil().max(1.0),
                gbytes_per_s: bytes / time_us / 1e3,
                source: format!("table {}", table.name()),
            })
        });
        let Machine { latency_us, gbytes_per_s, .. } = Machine::default();
        let source = "no table of several nodes: defaults".to_string();
        fitted.unwrap_or(Network { latency_us, gbytes_per_s, source })
    }
}

/// What ranks read, the same on all of them.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    sharding: Sharding,
    /// Every so many words of 64 sources one is looked at.
    stride: usize,
    /// Words of each rank.
    words: usize,
    /// Rank after rank: which sources it reads.
    bits: Vec<u64>,
    /// Sources of a bin.
    bin: usize,
    /// Edges out of each bin.
    bins: Vec<u64>,
    /// Edges of each rank.
    edges: Vec<u64>,
}

impl Reads {
    /// Of nothing yet.
    pub(super) fn new(sharding: &Sharding) -> Reads {
        let (n, ranks) = (sharding.n(), sharding.ranks());
        let all = n.div_ceil(64);
        let stride = (all * ranks * 8).div_ceil(MOST_BYTES).clamp(1, all.max(1));
        let bin = n.div_ceil(MOST_BINS).next_multiple_of(64).max(64);
        Reads {
            sharding: sharding.clone(),
            stride,
            words: all.div_ceil(stride),
            bits: Vec::new(),
            bin,
            bins: vec![0; n.div_ceil(bin)],
            edges: Vec::new(),
        }
    }

    /// Adds the next rank, which has edges from these sources.
    pub(super) fn push(&mut self, sources: &[u32]) {
        let first = self.bits.len();
        self.bits.resize(first + self.words, 0);
        let own = &mut self.bits[first..];
        for &source in sources {
            let (word, bit) = (source as usize / 64, source % 64);
            self.bins[source as usize / self.bin] += 1;
            if self.stride == 1 {
                own[word] |= 1 << bit;
            } else if word.is_multiple_of(self.stride) {
                own[word / self.stride] |= 1 << bit;
            }
        }
        self.edges.push(sources.len() as u64);
    }

    /// Of all ranks. Collective.
    pub(super) fn gather(comm: &Communicator, graph: &Partition) -> Result<Reads> {
        let mut reads = Reads::new(&graph.sharding);
        reads.push(&graph.rows.sources);
        reads.bits = comm.all_gather_vec(&reads.bits)?.0;
        reads.bins = comm.all_reduce_vec(&reads.bins, Op::Sum)?;
        reads.edges = comm.all_gather_vec(&reads.edges)?.0;
        Ok(reads)
    }

    /// Sources cut into `columns` with about equal numbers of edges.
    pub(super) fn columns(&self, columns: usize) -> Sharding {
        let mut prefix = vec![0];
        let mut sum = 0;
        for &edges in &self.bins {
            // A little for each bin, so that columns without edges are spread too.
            sum += edges + 1;
            prefix.push(sum);
        }
        let cuts = Sharding::balanced(&prefix, columns, 1);
        let n = self.sharding.n();
        let end = |column: usize| (cuts.range(column).end * self.bin).min(n);
        let mut start = 0;
        let counts: Vec<usize> = (0..columns)
            .map(|column| end(column) - std::mem::replace(&mut start, end(column)))
            .collect();
        Sharding::from_counts(&counts)
    }

    fn ranks(&self) -> usize {
        self.sharding.ranks()
    }

    /// What each node receives and sends of values, when rank `r` reads `wanted(r, word)`.
    fn values(&self, topology: &Topology, wanted: impl Fn(usize, usize) -> u64) -> [Vec<f64>; 2] {
        let nodes = topology.nodes();
        let scale = self.sharding.n().div_ceil(64) as f64 / self.words.max(1) as f64;
        let [mut into, mut out] = [vec![0.0; nodes], vec![0.0; nodes]];
        // Cuts between ranks are multiples of the grain, so a quarter of a word has one owner.
        let mut rank = 0;
        for word in 0..self.words {
            let quarters: [usize; 64 / GRAIN] = std::array::from_fn(|quarter| {
                let at = word * self.stride * 64 + quarter * GRAIN;
                while rank + 1 < self.ranks() && self.sharding.range(rank).end <= at {
                    rank += 1;
                }
                topology.node(rank)
            });
            for (node, into) in into.iter_mut().enumerate() {
                let ranks = topology.ranks_of(node).iter();
                let union = ranks.fold(0, |union, &rank| union | wanted(rank, word));
                for (quarter, &owner) in quarters.iter().enumerate() {
                    let part = union >> (quarter * GRAIN) & ((1 << GRAIN) - 1);
                    if owner != node && part != 0 {
                        let values = f64::from(part.count_ones()) * scale;
                        *into += values;
                        out[owner] += values;
                    }
                }
            }
        }
        [into, out]
    }

    /// What a partition takes on these nodes.
    pub(super) fn candidate(
        &self,
        scheme: Scheme,
        topology: &Topology,
        sizes: Sizes,
        network: &Network,
    ) -> Candidate {
        let (nodes, n) = (topology.nodes(), self.sharding.n());
        let own = |node: usize| -> usize {
            topology.ranks_of(node).iter().map(|&rank| self.sharding.count(rank)).sum()
        };
        let [mut into, mut out] = match scheme {
            // Each node passes on nearly all.
            Scheme::OneD => {
                let others: Vec<f64> = (0..nodes).map(|node| (n - own(node)) as f64).collect();
                [others.clone(), others]
            }
            Scheme::Needed => {
                self.values(topology, |rank, word| self.bits[rank * self.words + word])
            }
            Scheme::Grid(shape) => self.grid_values(topology, shape),
        };
        let packed = match scheme {
            Scheme::OneD => 0.0,
            _ => into.iter().zip(&out).map(|(a, b)| a + b).fold(0.0, f64::max),
        };
        into.iter_mut().chain(&mut out).for_each(|values| *values *= sizes.wire as f64);
        let mut messages = nodes as u64 - 1;
        let mut edges = self.edges.iter().copied().max().unwrap_or(0) as f64;
        if let Scheme::Grid(shape) = scheme {
            let columns = shape.columns;
            let groups = self.edges.chunks(columns).map(|group| group.iter().sum::<u64>());
            let rows = (0..shape.rows).map(|row| self.group_rows(row, columns)).max().unwrap_or(0);
            let chunks = grid::chunks(rows, columns, sizes.grain) as f64;
            let stages = chunks + columns as f64 - 1.0;
            edges = groups.max().unwrap_or(0) as f64 / columns as f64 * stages / chunks;
            messages += if columns > 1 { stages as u64 } else { 0 };
            self.add_sums(topology, shape, sizes.sum, [&mut into, &mut out]);
        }
        let busiest = into.iter().chain(&out).copied().fold(0.0, f64::max);
        let time_us = network.latency_us * messages as f64
            + busiest / network.gbytes_per_s / 1e3
            + (NS_A_PACKED_VALUE * packed + NS_AN_EDGE * edges) / 1e3;
        Candidate {
            partition: scheme.to_string(),
            bytes_between_nodes: into.iter().sum::<f64>().round() as u64,
            busiest_node_bytes: busiest.round() as u64,
            messages,
            time_us,
        }
    }

    /// Nodes that the ranks of a row of a grid own.
    fn group_rows(&self, row: usize, columns: usize) -> usize {
        (row * columns..(row + 1) * columns).map(|rank| self.sharding.count(rank)).sum()
    }

    fn grid_values(&self, topology: &Topology, shape: GridShape) -> [Vec<f64>; 2] {
        let (columns, words) = (shape.columns, self.words);
        let cuts = self.columns(columns);
        let mut rows = vec![0u64; shape.rows * words];
        for rank in 0..self.ranks() {
            let row = &mut rows[rank / columns * words..][..words];
            let own = &self.bits[rank * words..][..words];
            row.iter_mut().zip(own).for_each(|(row, own)| *row |= own);
        }
        // Columns are cut between bins, which are whole words.
        self.values(topology, |rank, word| {
            let inside = cuts.range(rank % columns).contains(&(word * self.stride * 64));
            if inside { rows[rank / columns * words + word] } else { 0 }
        })
    }

    /// Adds the sums that pass from column to column and at last to the owners.
    fn add_sums(
        &self,
        topology: &Topology,
        shape: GridShape,
        bytes: usize,
        [into, out]: [&mut [f64]; 2],
    ) {
        let columns = shape.columns;
        let mut pass = |from: usize, to: usize, sums: usize| {
            let (from, to) = (topology.node(from), topology.node(to));
            if from != to {
                into[to] += (sums * bytes) as f64;
                out[from] += (sums * bytes) as f64;
            }
        };
        for row in 0..shape.rows {
            let (first, last) = (row * columns, row * columns + columns - 1);
            let sums = self.group_rows(row, columns);
            (first..last).for_each(|rank| pass(rank, rank + 1, sums));
            (first..last).for_each(|rank| pass(last, rank, self.sharding.count(rank)));
        }
    }

    /// All partitions that may be compared; those of one dimension first.
    pub(super) fn candidates(
        &self,
        topology: &Topology,
        sizes: Sizes,
        network: &Network,
    ) -> Vec<(Scheme, Candidate)> {
        let grids = GridShape::all(self.ranks()).filter(|shape| shape.columns > 1);
        let schemes = [Scheme::OneD, Scheme::Needed].into_iter().chain(grids.map(Scheme::Grid));
        schemes.map(|scheme| (scheme, self.candidate(scheme, topology, sizes, network))).collect()
    }
}

impl PartitionReport {
    /// Notes how many edges each rank has.
    pub(super) fn balance(&mut self, edges: &[u64]) {
        self.edges_min = edges.iter().copied().min().unwrap_or(0);
        self.edges_max = edges.iter().copied().max().unwrap_or(0);
        self.edges_mean = edges.iter().sum::<u64>() as f64 / edges.len().max(1) as f64;
    }
}

/// A partition, and the sources of each column if it is a grid.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub scheme: Scheme,
    pub columns: Option<Sharding>,
    pub report: PartitionReport,
}

/// The cheapest of those that `asked` allows. `resends`: all values must not move again and again,
/// so 1d is none of them.
pub(super) fn cheapest(
    all: &[(Scheme, Candidate)],
    asked: Partitioning,
    cuttable: bool,
    resends: bool,
) -> Option<Scheme> {
    let fits = |scheme: Scheme| match (asked, scheme) {
        (Partitioning::Auto, Scheme::OneD) => resends,
        (Partitioning::Auto, Scheme::Needed) => true,
        (Partitioning::Auto, Scheme::Grid(_)) => cuttable,
        (Partitioning::AnyGrid, scheme) => matches!(scheme, Scheme::Grid(_)),
        _ => false,
    };
    let fitting = all.iter().filter(|(scheme, _)| fits(*scheme));
    fitting.min_by(|a, b| a.1.time_us.total_cmp(&b.1.time_us)).map(|(scheme, _)| *scheme)
}

/// Decides how a graph is iterated over. Collective.
pub(super) fn decide(
    comm: &Communicator,
    graph: &Partition,
    asked: Partitioning,
    sizes: Sizes,
    resends: bool,
) -> Result<Decision> {
    let (ranks, topology) = (comm.ranks(), comm.topology());
    if let Partitioning::Grid(GridShape { rows, columns }) = asked
        && rows.checked_mul(columns) != Some(ranks)
    {
        let error = Error::input(format!(
            "partition 2d:{rows}x{columns} needs {} ranks; there are {ranks}",
            rows.saturating_mul(columns)
        ));
        return Err(Error { agreed: true, ..error });
    }
    let grid = matches!(asked, Partitioning::Grid(_) | Partitioning::AnyGrid);
    if topology.nodes() == 1 && (!grid || ranks == 1) {
        let edges = comm.all_gather_vec(&[graph.rows.edges() as u64])?.0;
        let reads = Reads { edges, ..Reads::new(&graph.sharding) };
        let report = report(&reads, Scheme::OneD, ONE_NODE.to_string(), Vec::new());
        return Ok(Decision { scheme: Scheme::OneD, columns: None, report });
    }
    let reads = Reads::gather(comm, graph)?;
    let network = Network::of(comm.settings().table);
    let all = reads.candidates(topology, sizes, &network);
    let (scheme, reason) = match asked {
        Partitioning::OneD => (Scheme::OneD, "asked for".to_string()),
        Partitioning::Needed => (Scheme::Needed, "asked for".to_string()),
        Partitioning::Grid(shape) => (Scheme::Grid(shape), "asked for".to_string()),
        Partitioning::Auto | Partitioning::AnyGrid => {
            let scheme = cheapest(&all, asked, sizes.cuttable, resends).unwrap_or(Scheme::Needed);
            (scheme, why(&all, scheme, &network))
        }
    };
    let columns = match scheme {
        Scheme::Grid(shape) => Some(reads.columns(shape.columns)),
        _ => None,
    };
    let choices = all.into_iter().map(|(_, candidate)| candidate).collect();
    Ok(Decision { scheme, columns, report: report(&reads, scheme, reason, choices) })
}

pub(super) fn why(all: &[(Scheme, Candidate)], scheme: Scheme, network: &Network) -> String {
    let time = all.iter().find(|one| one.0 == scheme).map_or(0.0, |one| one.1.time_us);
    format!(
        "estimated {time:.0} us an iteration at {:.1} us a message and {:.3} GB/s ({})",
        network.latency_us, network.gbytes_per_s, network.source
    )
}

fn report(
    reads: &Reads,
    scheme: Scheme,
    reason: String,
    choices: Vec<Candidate>,
) -> PartitionReport {
    let mut report =
        PartitionReport { chosen: scheme.to_string(), reason, choices, ..Default::default() };
    report.balance(&reads.edges);
    report
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
