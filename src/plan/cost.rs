//! What a plan would cost on a machine: a replay of time without data.
//!
//! The model is alpha-beta: a message takes a latency and its bytes over a bandwidth; local steps
//! take their bytes over a memory bandwidth, and run while messages fly. The ranks of a node share
//! one network interface, which carries their messages one after another in each direction, in the
//! order in which both sides were ready. Work of other programs, congestion inside the network,
//! caches and eager sends are not modelled.
//!
//! Cost of the replay: O(all steps of all ranks · log p) time and memory, so O(p²) for a ring.
//! Above [`REPLAYED_RANKS`] ranks a few stand for all instead: everybody is taken to be in step,
//! all ranks of a node to use its interface alike, and the slowest of the few counts; O(steps of a
//! rank). On regular placements that is within a fifth of the replay (a test compares them). A
//! tree, where ranks wait for different numbers of others, it may take for faster than it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::check::traffic;
use super::table::Algorithm;
use super::{Operand, Plan, Problem, Round, Slice, Step};
use crate::topology::Topology;

/// The largest number of ranks whose plans are all replayed.
pub const REPLAYED_RANKS: usize = 1024;

/// A machine, as a handful of numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Machine {
    /// Time of an empty message between nodes.
    pub latency_us: f64,
    /// Bandwidth of the network interface of a node, in each direction.
    pub gbytes_per_s: f64,
    /// Time of an empty message inside a node.
    pub node_latency_us: f64,
    /// Bandwidth of a message, a pull or a copy of one rank inside a node.
    pub node_gbytes_per_s: f64,
    /// Bytes of all operands that one rank folds in a second.
    pub reduce_gbytes_per_s: f64,
    /// Memory bandwidth of a node, which its ranks share when they move data at once.
    pub memory_gbytes_per_s: f64,
    /// Time of a meet of the ranks of a node.
    pub meet_us: f64,
}

impl Default for Machine {
    /// A common cluster node: 200 Gbit/s network with 2 us latency, eight memory channels.
    fn default() -> Self {
        Machine {
            latency_us: 2.0,
            gbytes_per_s: 25.0,
            node_latency_us: 0.3,
            node_gbytes_per_s: 12.0,
            reduce_gbytes_per_s: 20.0,
            memory_gbytes_per_s: 200.0,
            meet_us: 0.2,
        }
    }
}

/// What a collective costs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cost {
    /// From the common start to the end of the last rank.
    pub time_us: f64,
    /// The most bytes that a node sends to other nodes.
    pub bytes_between_nodes_per_node: usize,
    /// The most rounds of a rank.
    pub rounds: usize,
    /// Whether all ranks were replayed, or a few stood for all.
    pub replayed: bool,
}

/// What `algorithm` costs for `problem` with elements of `element_bytes` bytes.
pub fn cost(
    problem: &Problem,
    topology: &Topology,
    algorithm: &Algorithm,
    machine: &Machine,
    element_bytes: usize,
) -> Cost {
    let ranks = topology.ranks();
    let plan = |rank| algorithm.plan(problem, topology, rank);
    let clock = Clock { machine, topology, element_bytes };
    let replayed = ranks <= REPLAYED_RANKS;
    let (time_us, sample): (f64, Vec<Plan>) = if replayed {
        let plans = algorithm.plans(problem, topology);
        (replay(&plans, &clock), plans)
    } else {
        // Ranks of the first node, which are all different, and some far away from them.
        let first = topology.ranks_of(0).iter().copied();
        let root = problem.collective.root().unwrap_or(0);
        let plans: Vec<Plan> = first.chain([root, ranks / 2, ranks - 1]).map(plan).collect();
        (plans.iter().map(|plan| clock.in_step(plan)).fold(0.0, f64::max), plans)
    };
    let mut sent = vec![0; topology.nodes()];
    let mut counted = vec![false; ranks];
    for plan in &sample {
        if !std::mem::replace(&mut counted[plan.rank], true) {
            let bytes = traffic(plan, topology).sent_between_nodes * element_bytes;
            sent[topology.node(plan.rank)] += bytes;
        }
    }
    Cost {
        time_us,
        bytes_between_nodes_per_node: sent.into_iter().max().unwrap_or(0),
        rounds: sample.iter().map(|plan| plan.rounds.len()).max().unwrap_or(0),
        replayed,
    }
}

/// How long things take.
struct Clock<'a> {
    machine: &'a Machine,
    topology: &'a Topology,
    element_bytes: usize,
}

impl Clock<'_> {
    /// Microseconds for `elements` at a bandwidth; 10³ bytes a microsecond are one GB/s.
    fn at(&self, elements: usize, gbytes_per_s: f64) -> f64 {
        (elements * self.element_bytes) as f64 / (gbytes_per_s * 1e3)
    }

    /// The local steps of a round, one after another.
    fn local(&self, rank: usize, round: &Round) -> f64 {
        let machine = self.machine;
        let share = machine.memory_gbytes_per_s / self.topology.peers(rank).len() as f64;
        let (mut moved, mut folded) = (0, 0);
        for step in &round.steps {
            match step {
                Step::Send { .. } | Step::Receive { .. } => {}
                Step::Pull { into: Slice { len, .. }, .. }
                | Step::Copy { into: Slice { len, .. }, .. } => moved += len,
                Step::Reduce { sources, .. } => {
                    folded += sources.iter().map(|Operand { slice, .. }| slice.len).sum::<usize>();
                }
            }
        }
        self.at(moved, machine.node_gbytes_per_s.min(share))
            + self.at(folded, machine.reduce_gbytes_per_s.min(share))
    }

    /// The time of a message on the wire, and its latency.
    fn message(&self, from: usize, to: usize, elements: usize) -> (f64, f64) {
        let machine = self.machine;
        match self.topology.same_node(from, to) {
            true => (self.at(elements, machine.node_gbytes_per_s), machine.node_latency_us),
            false => (self.at(elements, machine.gbytes_per_s), machine.latency_us),
        }
    }

    /// The time of a plan if all ranks are in step, and all ranks of a node send alike.
    fn in_step(&self, plan: &Plan) -> f64 {
        let rank = plan.rank;
        let mut time = 0.0;
        for round in &plan.rounds {
            let (mut out, mut into, mut latency) = (0.0, 0.0, 0.0f64);
            let mut message = |from: usize, to: usize, slice: &Slice, direction: &mut f64| {
                let (wire, delay) = self.message(from, to, slice.len);
                let remote = !self.topology.same_node(from, to);
                let sharers = if remote { self.sharers(rank) } else { 1.0 };
                *direction += wire * sharers;
                latency = latency.max(delay);
            };
            for step in &round.steps {
                match step {
                    Step::Send { to, from } => message(rank, *to, from, &mut out),
                    Step::Receive { from, into: slice } => message(*from, rank, slice, &mut into),
                    Step::Pull { .. } | Step::Reduce { .. } | Step::Copy { .. } => {}
                }
            }
            let meet = if round.meet { self.machine.meet_us } else { 0.0 };
            time += meet + self.local(rank, round).max(f64::max(out, into) + latency);
        }
        time
    }

    /// How many ranks of a node use its interface at once: all that can have a partner elsewhere.
    fn sharers(&self, rank: usize) -> f64 {
        self.topology.peers(rank).len() as f64
    }
}

/// A moment, in an order that a heap can keep. Times are never negative or undefined, and the bits
/// of such numbers are ordered as the numbers are.
fn moment(time: f64) -> u64 {
    time.to_bits()
}

struct Replay<'a> {
    plans: &'a [Plan],
    clock: &'a Clock<'a>,
    round: Vec<usize>,
    /// Messages of the current round without partner.
    open: Vec<usize>,
    /// When the current round ends, as far as is known.
    end: Vec<f64>,
    /// Posted messages without partner, by (from, to): the side that posted them, and their length.
    mail: BTreeMap<(usize, usize), VecDeque<(usize, usize)>>,
    /// When the interface of each node is free to send, and to receive.
    free: Vec<[f64; 2]>,
    arrived: Vec<usize>,
    /// Ranks that reach their next round, by time.
    events: BinaryHeap<Reverse<(u64, usize)>>,
}

/// The time at which the last rank is done. Plans that deadlock end early; the checker finds them.
fn replay(plans: &[Plan], clock: &Clock<'_>) -> f64 {
    let (ranks, nodes) = (plans.len(), clock.topology.nodes());
    let mut replay = Replay {
        plans,
        clock,
        round: vec![0; ranks],
        open: vec![0; ranks],
        end: vec![0.0; ranks],
        mail: BTreeMap::new(),
        free: vec![[0.0; 2]; nodes],
        arrived: vec![0; nodes],
        events: (0..ranks).map(|rank| Reverse((moment(0.0), rank))).collect(),
    };
    let mut last = 0.0f64;
    // Events are taken in the order of time, so that interfaces serve who is ready first.
    while let Some(Reverse((time, rank))) = replay.events.pop() {
        let time = f64::from_bits(time);
        last = last.max(time);
        replay.reach(rank, time);
    }
    last
}

impl Replay<'_> {
    fn reach(&mut self, rank: usize, time: f64) {
        let plans = self.plans;
        let Some(round) = plans[rank].rounds.get(self.round[rank]) else { return };
        if !round.meet {
            return self.start(rank, round, time);
        }
        let (node, peers) = (self.clock.topology.node(rank), self.clock.topology.peers(rank));
        self.arrived[node] += 1;
        if self.arrived[node] == peers.len() {
            self.arrived[node] = 0;
            for &peer in peers {
                let round = &plans[peer].rounds[self.round[peer]];
                self.start(peer, round, time + self.clock.machine.meet_us);
            }
        }
    }

    fn start(&mut self, rank: usize, round: &Round, time: f64) {
        self.end[rank] = time + self.clock.local(rank, round);
        self.open[rank] = 1;
        for step in &round.steps {
            match step {
                Step::Send { to, from } => self.post(rank, (rank, *to), from.len, time),
                Step::Receive { from, into } => self.post(rank, (*from, rank), into.len, time),
                Step::Pull { .. } | Step::Reduce { .. } | Step::Copy { .. } => {}
            }
        }
        self.close(rank, time);
    }

    fn post(&mut self, rank: usize, (from, to): (usize, usize), len: usize, time: f64) {
        self.open[rank] += 1;
        let queue = self.mail.entry((from, to)).or_default();
        if queue.front().is_none_or(|(first, _)| *first == rank) {
            queue.push_back((rank, len));
            return;
        }
        queue.pop_front();
        let (wire, latency) = self.clock.message(from, to, len);
        let mut start = time;
        let topology = self.clock.topology;
        if !topology.same_node(from, to) {
            let (source, target) = (topology.node(from), topology.node(to));
            start = start.max(self.free[source][0]).max(self.free[target][1]);
            self.free[source][0] = start + wire;
            self.free[target][1] = start + wire;
        }
        self.close(from, start + wire + latency);
        self.close(to, start + wire + latency);
    }

    /// Something of the round of a rank is done at `time`.
    fn close(&mut self, rank: usize, time: f64) {
        self.end[rank] = self.end[rank].max(time);
        self.open[rank] -= 1;
        if self.open[rank] == 0 {
            self.round[rank] += 1;
            self.events.push(Reverse((moment(self.end[rank]), rank)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Collective, table};
    use crate::sharding::Sharding;

    const NETWORK_ONLY: Machine = Machine {
        latency_us: 3.0,
        gbytes_per_s: 10.0,
        node_latency_us: 0.0,
        node_gbytes_per_s: f64::INFINITY,
        reduce_gbytes_per_s: f64::INFINITY,
        memory_gbytes_per_s: f64::INFINITY,
        meet_us: 0.0,
    };

    fn network(collective: Collective, name: &str, n: usize, topology: &Topology) -> Cost {
        let problem = Problem::new(collective, Sharding::even(n, topology.ranks()));
        let row = table::find(collective, name).unwrap();
        cost(&problem, topology, row, &NETWORK_ONLY, 4)
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn textbook_formulas_hold_on_a_flat_network() {
        for p in [2usize, 4, 8, 16] {
            let (n, flat) = (1000 * p, Topology::flat(p));
            let (rounds, log) = ((p - 1) as f64, p.ilog2() as f64);
            let bytes = 4.0 * (p - 1) as f64 * 1000.0;
            let wire = bytes / 10e3;
            let time = |collective, name| network(collective, name, n, &flat).time_us;
            assert_near(time(Collective::ReduceScatter, "ring"), rounds * 3.0 + wire);
            assert_near(time(Collective::AllGather, "ring"), rounds * 3.0 + wire);
            assert_near(time(Collective::AllReduce, "ring"), 2.0 * (rounds * 3.0 + wire));
            assert_near(time(Collective::ReduceScatter, "halving"), log * 3.0 + wire);
            assert_near(time(Collective::ReduceScatter, "circulant"), log * 3.0 + wire);
            assert_near(time(Collective::AllGather, "bruck"), log * 3.0 + wire);
            assert_near(time(Collective::AllReduce, "rabenseifner"), 2.0 * (log * 3.0 + wire));
            let whole = 4.0 * n as f64 / 10e3;
            assert_near(time(Collective::AllReduce, "doubling"), log * (3.0 + whole));
            let broadcast = Collective::Broadcast { root: 0 };
            assert_near(time(broadcast, "binomial"), log * (3.0 + whole));
            assert_near(time(Collective::Barrier, "dissemination"), log * (3.0 + 4.0 / 10e3));
        }
    }

    #[test]
    fn ranks_of_a_node_share_its_interface() {
        // Every rank of one node sends to every rank of the other: 9 messages through one port.
        let topology = Topology::blocks(6, 3);
        let problem = Problem::all_to_all(6, vec![1000; 36].into());
        let row = table::find(Collective::AllToAll, "pairwise").unwrap();
        let found = cost(&problem, &topology, row, &NETWORK_ONLY, 4);
        assert_eq!(found.bytes_between_nodes_per_node, 9 * 4000);
        assert!(found.time_us >= 9.0 * 0.4 + 3.0, "{found:?}");
    }

    #[test]
    fn hierarchical_sends_less_and_takes_less_than_flat() {
        let topology = Topology::from_labels(&(0..32).map(|rank| rank % 4).collect::<Vec<_>>());
        for collective in [Collective::ReduceScatter, Collective::AllGather] {
            let flat = network(collective, "ring", 32_000, &topology);
            let hierarchical = network(collective, "hierarchical", 32_000, &topology);
            assert_eq!(hierarchical.bytes_between_nodes_per_node, 3 * 32_000);
            assert_eq!(flat.bytes_between_nodes_per_node, 8 * 31 * 1000 * 4);
            assert!(hierarchical.time_us * 4.0 < flat.time_us, "{hierarchical:?} {flat:?}");
        }
    }

    #[test]
    fn a_few_ranks_stand_for_all_where_plans_are_symmetric() {
        let topology = Topology::blocks(24, 4);
        let machine = Machine { node_latency_us: 0.0, ..Machine::default() };
        for (collective, name) in [
            (Collective::ReduceScatter, "hierarchical"),
            (Collective::AllGather, "hierarchical"),
            (Collective::AllReduce, "hierarchical"),
        ] {
            let problem = Problem::new(collective, Sharding::even(240_000, 24));
            let row = table::find(collective, name).unwrap();
            let all = cost(&problem, &topology, row, &machine, 4).time_us;
            let clock = Clock { machine: &machine, topology: &topology, element_bytes: 4 };
            let few = clock.in_step(&row.plan(&problem, &topology, 0));
            assert!((all - few).abs() < 0.2 * all, "{name}: {all} against {few}");
        }
        let large = Topology::blocks(2048, 8);
        let found = network(Collective::ReduceScatter, "hierarchical", 1 << 20, &large);
        assert!(!found.replayed && found.time_us > 0.0);
        assert_eq!(found.bytes_between_nodes_per_node, (1 << 22) / 256 * 255);
    }
}
