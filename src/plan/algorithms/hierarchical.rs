//! Hierarchical: everything that can happen inside a node happens there; each element crosses the
//! network once a node instead of once a rank.
//!
//! Let L be the smallest number of ranks on a node. The first L ranks of every node hold the
//! lanes 0..L; the lane of an owner is its local rank mod L.
//!
//! ```text
//! reduce_scatter: in each node: reduce_scatter, lane l getting the shards of all its owners
//!                 in each lane: reduce_scatter over the nodes
//!                 in each node: owners pull their shards from the holder of their lane
//! all_gather:     the same in reverse
//! all_reduce:     in each node: reduce_scatter over L even parts of the vector
//!                 in each lane: all_reduce over the nodes
//!                 in each node: all_gather by pulling
//! broadcast:      binomial tree over one rank a node, then staged inside each node
//! barrier:        meet, dissemination over one rank a node, meet
//! ```
//!
//! With N nodes of k ranks each, a node sends (N-1)/N n elements in a reduce_scatter or an
//! all_gather, where an algorithm that ignores placement sends up to k (p-k)/p n; in an all_reduce
//! 2 (N-1)/N n. Rounds between nodes: ceil(log2 N) each way; the inner algorithm is recursive
//! halving and doubling if N is a power of two, circulant and Bruck otherwise. Workspace: two to
//! three stations of n/L elements, and two pieces. The `_ordered` rows exchange pairwise between
//! nodes instead and combine all nodes in one step. Any placement: uneven nodes (ranks beyond L
//! work in their node only), round-robin, one node. The `_direct` rows read inputs of peers in
//! place.

use super::embed::{Names, Place, embed};
use super::{
    Builder, binomial, bruck, circulant, copy, direct, dissemination, doubling, halving, pairwise,
    pull, staged,
};
use crate::plan::{Collective, Plan, Problem, Slice, Step};
use crate::sharding::Sharding;
use crate::topology::Topology;

/// The lanes, as one rank sees them.
struct Lanes<'a> {
    topology: &'a Topology,
    shards: &'a Sharding,
    rank: usize,
    /// The number of lanes.
    lanes: usize,
}

impl<'a> Lanes<'a> {
    fn new(problem: &'a Problem, topology: &'a Topology, rank: usize) -> Self {
        Lanes { topology, shards: &problem.sharding, rank, lanes: topology.min_locals() }
    }

    /// The ranks of the own node.
    fn peers(&self) -> &'a [usize] {
        self.topology.peers(self.rank)
    }

    /// The lane that the own rank holds, if any.
    fn held(&self) -> Option<usize> {
        Some(self.topology.local(self.rank)).filter(|local| *local < self.lanes)
    }

    /// The holders of a lane, by node.
    fn holders(&self, lane: usize) -> Vec<usize> {
        (0..self.topology.nodes()).map(|node| self.topology.ranks_of(node)[lane]).collect()
    }

    /// The owners on a node whose shards belong to a lane.
    fn owners(&self, node: usize, lane: usize) -> impl Iterator<Item = usize> {
        self.topology.ranks_of(node).iter().skip(lane).step_by(self.lanes).copied()
    }

    /// All owners of the lane, node by node: the order of their shards in the lane's vector.
    fn lane(&self, lane: usize) -> impl Iterator<Item = usize> {
        (0..self.topology.nodes()).flat_map(move |node| self.owners(node, lane))
    }

    /// All owners, lane by lane.
    fn all(&self) -> impl Iterator<Item = usize> {
        (0..self.lanes).flat_map(|lane| self.lane(lane))
    }

    fn elements(&self, owners: impl Iterator<Item = usize>) -> usize {
        owners.map(|owner| self.shards.count(owner)).sum()
    }

    /// Who holds how much of the vector inside the own node: the lane vectors.
    fn in_node(&self) -> Sharding {
        let lane = |local| if local < self.lanes { self.elements(self.lane(local)) } else { 0 };
        Sharding::from_counts(&(0..self.peers().len()).map(lane).collect::<Vec<_>>())
    }

    /// Which node gets how much of the vector of a lane.
    fn across(&self, lane: usize) -> Sharding {
        let part = |node| self.elements(self.owners(node, lane));
        Sharding::from_counts(&(0..self.topology.nodes()).map(part).collect::<Vec<_>>())
    }

    /// The largest part of a lane that belongs to one node: a length that all ranks agree on.
    fn max_across(&self) -> usize {
        (0..self.lanes).map(|lane| self.across(lane).max_count()).max().unwrap_or(0)
    }

    /// The largest vector of a lane.
    fn max_lane(&self) -> usize {
        (0..self.lanes).map(|lane| self.elements(self.lane(lane))).max().unwrap_or(0)
    }

    /// Whether some rank of the own node holds no lane, so that shards change hands there.
    fn is_uneven(&self) -> bool {
        self.peers().len() > self.lanes
    }

    /// The shards of the own rank's lane on the own node, with their places in the node's part.
    fn owners_with_starts(&self, lane: usize) -> impl Iterator<Item = (usize, usize)> {
        self.owners(self.topology.node(self.rank), lane).scan(0, |start, owner| {
            let at = *start;
            *start += self.shards.count(owner);
            Some((owner, at))
        })
    }
}

/// Appends the exchange over the nodes to the plan of every rank of a lane, and its workspace to
/// the plan of all ranks, which needs the plans of all lanes because their lengths differ.
fn exchange(
    plan: &mut Plan,
    lanes: &Lanes<'_>,
    problem: impl Fn(usize) -> Problem,
    builder: Builder,
    (input, output): (Place, Place),
) {
    let flat = Topology::flat(lanes.topology.nodes());
    let node = lanes.topology.node(lanes.rank);
    let scratch = plan.scratch;
    for lane in 0..lanes.lanes {
        let inner = builder(&problem(lane), &flat, node);
        if lanes.held() == Some(lane) {
            let (ranks, input, output) = (&*lanes.holders(lane), input.clone(), output.clone());
            embed(plan, &inner, &Names { ranks, input, output, scratch, complete: true });
        }
        plan.scratch = plan.scratch.max(scratch + inner.scratch);
    }
}

/// Appends a plan of the own node.
fn inside(
    plan: &mut Plan,
    lanes: &Lanes<'_>,
    problem: &Problem,
    builder: Builder,
    (input, output): (Place, Place),
) {
    let peers = lanes.peers();
    let node = Topology::one_node(peers.len());
    let inner = builder(problem, &node, lanes.topology.local(lanes.rank));
    let (scratch, complete) = (plan.scratch, lanes.topology.nodes() == 1);
    embed(plan, &inner, &Names { ranks: peers, input, output, scratch, complete });
}

/// The best reduce_scatter over the nodes.
fn reduce_scatter_across(nodes: usize) -> Builder {
    if nodes.is_power_of_two() { halving::reduce_scatter } else { circulant::reduce_scatter }
}

/// The best all_gather over the nodes.
fn all_gather_across(nodes: usize) -> Builder {
    if nodes.is_power_of_two() { doubling::all_gather } else { bruck::all_gather }
}

/// The best all_reduce over the nodes.
fn all_reduce_across(nodes: usize) -> Builder {
    if nodes.is_power_of_two() { halving::all_reduce } else { circulant::all_reduce }
}

/// A part of the workspace of `len` elements, after what is there already.
fn station(plan: &mut Plan, len: usize) -> Slice {
    plan.scratch += len;
    Slice::workspace(plan.scratch - len, len)
}

fn copy_or_pull(rank: usize, peer: usize, from: Slice, into: Slice) -> Step {
    if peer == rank { copy(from, into) } else { pull(peer, from, into) }
}

/// Node, lane, node; inside the nodes through the workspace.
pub fn reduce_scatter(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let across = reduce_scatter_across(topology.nodes());
    reduce_scatter_by(staged::reduce_scatter, across, problem, topology, rank)
}

/// Node, lane, node; one step over all nodes, so that aligned nodes make the canonical tree.
pub fn reduce_scatter_ordered(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let across = pairwise::reduce_scatter;
    reduce_scatter_by(staged::reduce_scatter, across, problem, topology, rank)
}

/// Node, lane, node; inside the nodes straight from the inputs.
pub fn reduce_scatter_direct(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let (node, across) = (direct::reduce_scatter_open, reduce_scatter_across(topology.nodes()));
    let mut plan = reduce_scatter_by(node, across, problem, topology, rank);
    // Inputs must stay until the peers have read them. Where shards change hands at the end, there
    // is a meet already; without node peers nobody reads.
    if topology.peers(rank).len() == topology.min_locals() && topology.nodes() < topology.ranks() {
        plan.meet(vec![]);
    }
    plan
}

fn reduce_scatter_by(
    node: Builder,
    over_nodes: Builder,
    problem: &Problem,
    topology: &Topology,
    rank: usize,
) -> Plan {
    let (lanes, nodes) = (Lanes::new(problem, topology, rank), topology.nodes());
    if nodes == topology.ranks() {
        return over_nodes(problem, topology, rank);
    }
    let mut plan = Plan::new(rank);
    let partial = station(&mut plan, lanes.max_lane());
    let result = station(&mut plan, if lanes.is_uneven() { lanes.max_across() } else { 0 });
    let output = Slice::output(0..problem.output_len(rank));

    let in_node = Problem { sharding: lanes.in_node(), in_place: false, ..problem.clone() };
    let input = lanes.all().map(|owner| Slice::input(problem.sharding.range(owner)));
    let places = (Place::concat(input), Place::at(partial));
    inside(&mut plan, &lanes, &in_node, node, places);

    let across =
        |lane| Problem { sharding: lanes.across(lane), in_place: false, ..problem.clone() };
    let own = Place::at(if lanes.is_uneven() { result } else { output });
    exchange(&mut plan, &lanes, across, over_nodes, (Place::at(partial), own));

    if lanes.is_uneven() {
        let lane = topology.local(rank) % lanes.lanes;
        let start = lanes.owners_with_starts(lane).find(|(owner, _)| *owner == rank);
        let start = start.map_or(0, |(_, start)| start);
        let from = Slice::workspace(result.start + start, output.len);
        plan.meet(vec![copy_or_pull(rank, lanes.peers()[lane], from, output)]);
    }
    plan
}

/// Node, lane, node. The last station is the workspace of the holders of the lanes.
pub fn all_gather(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let (lanes, nodes) = (Lanes::new(problem, topology, rank), topology.nodes());
    if nodes == topology.ranks() {
        return all_gather_across(nodes)(problem, topology, rank);
    }
    let mut plan = Plan::new(rank);
    let gathered = station(&mut plan, lanes.max_lane());
    let own = Slice::input(0..problem.input_len(rank));
    let mut collected = Place::at(own);
    if lanes.is_uneven() {
        let staged = station(&mut plan, problem.sharding.max_count());
        let part = station(&mut plan, lanes.max_across());
        collected = Place::at(part);
        let holder = lanes.held().is_some();
        plan.round(if holder { vec![] } else { vec![copy(own, staged.part(0..own.len))] });
        let steps = lanes.held().into_iter().flat_map(|lane| lanes.owners_with_starts(lane));
        plan.meet(
            steps
                .map(|(owner, start)| {
                    let len = problem.sharding.count(owner);
                    let from = if owner == rank { own } else { staged.part(0..len) };
                    copy_or_pull(rank, owner, from, part.part(start..start + len))
                })
                .collect(),
        );
    }

    let across =
        |lane| Problem { sharding: lanes.across(lane), in_place: false, ..problem.clone() };
    let places = (collected, Place::at(gathered));
    exchange(&mut plan, &lanes, across, all_gather_across(nodes), places);

    let in_node = Problem { sharding: lanes.in_node(), in_place: false, ..problem.clone() };
    let output = lanes.all().map(|owner| Slice::output(problem.sharding.range(owner)));
    let places = (Place::at(gathered), Place::concat(output));
    inside(&mut plan, &lanes, &in_node, direct::all_gather_open, places);
    plan
}

/// Node, lane, node; inside the nodes through the workspace.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let across = all_reduce_across(topology.nodes());
    all_reduce_by(staged::reduce_scatter, across, problem, topology, rank)
}

/// Node, lane, node; one step over all nodes, so that aligned nodes make the canonical tree.
pub fn all_reduce_ordered(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    all_reduce_by(staged::reduce_scatter, pairwise::all_reduce, problem, topology, rank)
}

/// Node, lane, node; inside the nodes straight from the inputs.
pub fn all_reduce_direct(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let across = all_reduce_across(topology.nodes());
    all_reduce_by(direct::reduce_scatter_open, across, problem, topology, rank)
}

fn all_reduce_by(
    node: Builder,
    over_nodes: Builder,
    problem: &Problem,
    topology: &Topology,
    rank: usize,
) -> Plan {
    let (lanes, nodes) = (Lanes::new(problem, topology, rank), topology.nodes());
    if nodes == topology.ranks() {
        return over_nodes(problem, topology, rank);
    }
    let n = problem.sharding.n();
    let parts = Sharding::even(n, lanes.lanes);
    let mut counts: Vec<usize> = (0..lanes.lanes).map(|lane| parts.count(lane)).collect();
    counts.resize(lanes.peers().len(), 0);
    let in_node = |collective| Problem {
        collective,
        sharding: Sharding::from_counts(&counts),
        in_place: false,
        ..problem.clone()
    };
    let mut plan = Plan::new(rank);
    let partial = station(&mut plan, parts.max_count());

    let places = (Place::at(Slice::input(0..n)), Place::at(partial));
    inside(&mut plan, &lanes, &in_node(Collective::ReduceScatter), node, places);

    let across = |lane| {
        let sharding = Sharding::even(parts.count(lane), nodes);
        Problem { sharding, in_place: true, ..problem.clone() }
    };
    let places = (Place::at(partial), Place::at(partial));
    exchange(&mut plan, &lanes, across, over_nodes, places);

    let places = (Place::at(partial), Place::at(Slice::output(0..n)));
    let in_node = in_node(Collective::AllGather);
    inside(&mut plan, &lanes, &in_node, direct::all_gather_open, places);
    plan
}

/// One rank a node that speaks for it: the root on its own node, the first rank elsewhere.
fn speakers(topology: &Topology, root: usize) -> Vec<usize> {
    let speaker = |node| match topology.node(root) == node {
        true => root,
        false => topology.ranks_of(node)[0],
    };
    (0..topology.nodes()).map(speaker).collect()
}

/// From the root to one rank a node, and on through the workspace of each node.
pub fn broadcast(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let (lanes, nodes) = (Lanes::new(problem, topology, rank), topology.nodes());
    let root = problem.collective.root().unwrap_or(0);
    let (speakers, node) = (speakers(topology, root), topology.node(rank));
    let whole = Place::at(Slice::output(0..problem.sharding.n()));
    let mut plan = Plan::new(rank);
    if speakers[node] == rank {
        let inner = Problem {
            collective: Collective::Broadcast { root: topology.node(root) },
            sharding: Sharding::even(problem.sharding.n(), nodes),
            ..problem.clone()
        };
        let inner = binomial::broadcast(&inner, &Topology::flat(nodes), node);
        let (input, output) = (Place::default(), whole.clone());
        let names = Names { ranks: &speakers, input, output, scratch: 0, complete: true };
        embed(&mut plan, &inner, &names);
    }
    let inner = Problem {
        collective: Collective::Broadcast { root: topology.local(speakers[node]) },
        sharding: Sharding::even(problem.sharding.n(), lanes.peers().len()),
        ..problem.clone()
    };
    inside(&mut plan, &lanes, &inner, staged::broadcast, (Place::default(), whole));
    plan
}

/// All of a node have come; all nodes have; all may leave.
pub fn barrier(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let (speakers, node) = (speakers(topology, 0), topology.node(rank));
    let nodes = topology.nodes();
    let mut plan = Plan::new(rank);
    plan.meet(vec![]);
    let inner = Problem { sharding: Sharding::even(0, nodes), ..problem.clone() };
    let inner = dissemination::barrier(&inner, &Topology::flat(nodes), node);
    plan.scratch = inner.scratch;
    if speakers[node] == rank {
        let (input, output) = (Place::default(), Place::default());
        let names = Names { ranks: &speakers, input, output, scratch: 0, complete: true };
        embed(&mut plan, &inner, &names);
    }
    plan.meet(vec![]);
    plan
}
