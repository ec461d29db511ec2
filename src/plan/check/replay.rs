//! The symbolic replay of all ranks.
//!
//! A rank enters a round, posts its messages and does its local steps; it leaves when all its
//! messages are matched. The n-th send from a to b matches the n-th receive of b from a. Cost:
//! O(elements touched), with a short queue of ranks that can go on.

use std::collections::{BTreeMap, VecDeque};

use super::fault::{Element, Fault, PlanError, Wait};
use super::forms::{Forms, Value, small};
use super::local::{buffer_len, check, resolve};
use super::traffic::{Traffic, traffic};
use crate::plan::{Buffer, Collective, Operand, Plan, Problem, Slice, Step};
use crate::topology::Topology;

/// What a successful check found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What each rank does.
    pub ranks: Vec<Traffic>,
    /// The first element of a result that is not one fold of all contributions in rank order.
    pub rounded_again: Option<(usize, Element)>,
    /// The first element of a result that is not the canonical tree over all contributions.
    pub other_tree: Option<(usize, Element)>,
}

impl Report {
    /// The largest of a count over the ranks.
    pub fn max(&self, count: impl Fn(&Traffic) -> usize) -> usize {
        self.ranks.iter().map(count).max().unwrap_or(0)
    }

    /// Elements that the ranks of each node send to other nodes.
    pub fn sent_by_nodes(&self, topology: &Topology) -> Vec<usize> {
        let of_node = |node| topology.ranks_of(node).iter();
        (0..topology.nodes())
            .map(|node| of_node(node).map(|rank| self.ranks[*rank].sent_between_nodes).sum())
            .collect()
    }
}

/// Checks the plans of all ranks (in rank order) together.
pub fn check_all(
    plans: &[Plan],
    problem: &Problem,
    topology: &Topology,
    shared_input: bool,
    shared_output: bool,
) -> Result<Report, PlanError> {
    for plan in plans {
        check(plan, problem, topology)?;
        let first = &plans[topology.peers(plan.rank)[0]];
        if first.scratch != plan.scratch {
            let fault = Fault::Scratch { other: first.rank, len: first.scratch };
            return Err(PlanError { rank: plan.rank, place: None, fault });
        }
    }
    let mut replay = Replay::new(plans, problem, topology);
    replay.shared = [shared_input, shared_output];
    replay.run()?;
    let [rounded_again, other_tree] = replay.results()?;
    let ranks = plans.iter().map(|plan| traffic(plan, topology)).collect();
    Ok(Report { ranks, rounded_again, other_tree })
}

/// No epoch, no round, no step.
pub(super) const NEVER: u32 = u32::MAX;

/// One element of memory.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) value: Option<Value>,
    /// The epoch of the last write by the owner.
    written: u32,
    /// The epoch of the last read by a peer.
    read: u32,
    /// Round and step of the last write.
    pub(super) writer: (u32, u32),
}

const EMPTY: Cell = Cell { value: None, written: NEVER, read: NEVER, writer: (NEVER, NEVER) };

/// A message that one side has posted.
struct Posted {
    rank: usize,
    place: (usize, usize),
    len: usize,
    /// What a sender sends; a receiver's destination.
    payload: Payload,
}

enum Payload {
    Sent(Vec<Option<Value>>),
    Wanted(Slice),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Meeting,
    Messages,
    Done,
}

pub(super) struct Replay<'a> {
    pub(super) plans: &'a [Plan],
    pub(super) problem: &'a Problem,
    topology: &'a Topology,
    shared: [bool; 2],
    pub(super) forms: Forms,
    /// `memory[rank][buffer]`
    memory: Vec<[Vec<Cell>; 3]>,
    state: Vec<State>,
    round: Vec<usize>,
    /// Messages of the current round that are not matched yet.
    open: Vec<usize>,
    epoch: Vec<u32>,
    arrived: Vec<usize>,
    /// Posted and unmatched messages, by (from, to).
    mail: BTreeMap<(usize, usize), VecDeque<Posted>>,
    ready: VecDeque<usize>,
    /// A barrier: of whom each rank has heard. Empty for other collectives.
    pub(super) heard: Vec<Vec<bool>>,
    operands: Vec<u32>,
}

impl<'a> Replay<'a> {
    fn new(plans: &'a [Plan], problem: &'a Problem, topology: &'a Topology) -> Self {
        let p = problem.ranks();
        let lens = |rank: usize| {
            [Buffer::Input, Buffer::Output, Buffer::Scratch]
                .map(|buffer| buffer_len(problem, plans[rank].scratch, rank, buffer))
        };
        let barrier = problem.collective == Collective::Barrier;
        let heard = |rank| (0..p).map(|other| other == rank).collect();
        let mut replay = Replay {
            plans,
            problem,
            topology,
            shared: [false; 2],
            forms: Forms::new(p),
            memory: (0..p).map(|rank| lens(rank).map(|len| vec![EMPTY; len])).collect(),
            state: vec![State::Free; p],
            round: vec![0; p],
            open: vec![0; p],
            epoch: vec![0; topology.nodes()],
            arrived: vec![0; topology.nodes()],
            mail: BTreeMap::new(),
            ready: (0..p).collect(),
            heard: if barrier { (0..p).map(heard).collect() } else { Vec::new() },
            operands: Vec::new(),
        };
        (0..p).for_each(|rank| replay.fill(rank));
        replay
    }

    /// What the caller has put into the buffers of `rank`.
    fn fill(&mut self, rank: usize) {
        let start = match self.problem.collective {
            Collective::AllGather | Collective::Gather { .. } => {
                self.problem.sharding.range(rank).start
            }
            _ => 0,
        };
        let (buffer, len) = match self.problem.collective {
            Collective::Broadcast { root } if root == rank => {
                (Buffer::Output, self.problem.output_len(rank))
            }
            _ => (Buffer::Input, self.problem.input_len(rank)),
        };
        for i in 0..len {
            let value = Value { index: small(start + i), form: small(rank) };
            let cell = self.cell(rank, Element { buffer, index: i });
            *cell = Cell { value: Some(value), written: 0, ..EMPTY };
        }
    }

    pub(super) fn cell(&mut self, owner: usize, element: Element) -> &mut Cell {
        let slice = Slice::new(element.buffer, element.index..element.index + 1);
        let memory = resolve(self.problem, owner, slice);
        &mut self.memory[owner][memory.buffer as usize][memory.start]
    }

    fn run(&mut self) -> Result<(), PlanError> {
        while let Some(rank) = self.ready.pop_front() {
            while self.state[rank] == State::Free {
                self.enter(rank)?;
            }
        }
        let waits: Vec<Wait> = (0..self.plans.len()).filter_map(|rank| self.wait(rank)).collect();
        let Some(first) = waits.first() else { return Ok(()) };
        let (rank, place) = (first.rank, Some((first.round, 0)));
        Err(PlanError { rank, place, fault: Fault::Deadlock(waits) })
    }

    /// Goes on to the meet, into the round, or to the end.
    fn enter(&mut self, rank: usize) -> Result<(), PlanError> {
        let plans = self.plans;
        let Some(round) = plans[rank].rounds.get(self.round[rank]) else {
            self.state[rank] = State::Done;
            return Ok(());
        };
        if !round.meet {
            return self.start(rank);
        }
        let node = self.topology.node(rank);
        let peers = self.topology.peers(rank);
        self.state[rank] = State::Meeting;
        self.arrived[node] += 1;
        if self.arrived[node] < peers.len() {
            return Ok(());
        }
        self.arrived[node] = 0;
        self.epoch[node] += 1;
        self.hear_all(peers);
        for &peer in peers {
            self.start(peer)?;
            self.ready.push_back(peer);
        }
        Ok(())
    }

    /// In a meet everybody hears of everybody whom anybody has heard of.
    fn hear_all(&mut self, peers: &[usize]) {
        if self.heard.is_empty() {
            return;
        }
        let all: Vec<bool> = (0..self.plans.len())
            .map(|other| peers.iter().any(|peer| self.heard[*peer][other]))
            .collect();
        peers.iter().for_each(|peer| self.heard[*peer].clone_from(&all));
    }

    /// Does the local steps of the current round and posts its messages.
    fn start(&mut self, rank: usize) -> Result<(), PlanError> {
        let plans = self.plans;
        let number = self.round[rank];
        self.state[rank] = State::Messages;
        // One more than there are, so that the round does not end while it is being posted.
        self.open[rank] = 1;
        for (index, step) in plans[rank].rounds[number].steps.iter().enumerate() {
            let place = (number, index);
            match step {
                Step::Send { to, from } => {
                    let payload = Payload::Sent(self.read(rank, rank, *from, place)?);
                    self.post((rank, *to), Posted { rank, place, len: from.len, payload })?;
                }
                Step::Receive { from, into } => {
                    let payload = Payload::Wanted(*into);
                    self.post((*from, rank), Posted { rank, place, len: into.len, payload })?;
                }
                Step::Pull { peer, from, into } => {
                    let values = self.read(rank, *peer, *from, place)?;
                    self.write(rank, *into, &values, place)?;
                }
                Step::Copy { from, into } => {
                    let values = self.read(rank, rank, *from, place)?;
                    let (problem, equal) = (self.problem, *into);
                    if resolve(problem, rank, *from) != resolve(problem, rank, equal) {
                        self.write(rank, *into, &values, place)?;
                    }
                }
                Step::Reduce { sources, into, last } => {
                    self.reduce(rank, sources, *into, *last, place)?;
                }
            }
        }
        self.close(rank);
        Ok(())
    }

    /// One message less to wait for; the last one ends the round.
    fn close(&mut self, rank: usize) {
        self.open[rank] -= 1;
        if self.open[rank] == 0 {
            self.round[rank] += 1;
            self.state[rank] = State::Free;
            self.ready.push_back(rank);
        }
    }

    fn post(&mut self, pair: (usize, usize), posted: Posted) -> Result<(), PlanError> {
        self.open[posted.rank] += 1;
        let queue = self.mail.entry(pair).or_default();
        let sends = |posted: &Posted| matches!(posted.payload, Payload::Sent(_));
        match queue.front() {
            Some(first) if sends(first) != sends(&posted) => {}
            _ => {
                queue.push_back(posted);
                return Ok(());
            }
        }
        let Some(first) = queue.pop_front() else { return Ok(()) };
        let (sent, wanted) = if sends(&first) { (first, posted) } else { (posted, first) };
        if sent.len != wanted.len {
            let (rank, place) = (wanted.rank, Some(wanted.place));
            let (from, expected) = (sent.rank, wanted.len);
            let fault = Fault::Message { from, sent: sent.len, expected };
            return Err(PlanError { rank, place, fault });
        }
        if let (Payload::Sent(values), Payload::Wanted(into)) = (&sent.payload, &wanted.payload) {
            self.write(wanted.rank, *into, values, wanted.place)?;
        }
        if !self.heard.is_empty() {
            let news = self.heard[sent.rank].clone();
            self.heard[wanted.rank].iter_mut().zip(news).for_each(|(old, new)| *old |= new);
        }
        self.close(sent.rank);
        self.close(wanted.rank);
        Ok(())
    }

    /// The values that `reader` finds in the memory of `owner`.
    fn read(
        &mut self,
        reader: usize,
        owner: usize,
        slice: Slice,
        place: (usize, usize),
    ) -> Result<Vec<Option<Value>>, PlanError> {
        self.readable(reader, owner, slice, place)?;
        (0..slice.len).map(|i| self.read_one(reader, owner, slice, i, place)).collect()
    }

    fn readable(
        &self,
        reader: usize,
        owner: usize,
        slice: Slice,
        place: (usize, usize),
    ) -> Result<(), PlanError> {
        let shared = match slice.buffer {
            Buffer::Input => self.shared[0],
            Buffer::Output => self.shared[1],
            Buffer::Scratch => true,
        };
        if reader == owner || shared {
            return Ok(());
        }
        let fault = Fault::Private { peer: owner, slice };
        Err(PlanError { rank: reader, place: Some(place), fault })
    }

    fn read_one(
        &mut self,
        reader: usize,
        owner: usize,
        slice: Slice,
        i: usize,
        place: (usize, usize),
    ) -> Result<Option<Value>, PlanError> {
        let element = Element { buffer: slice.buffer, index: slice.start + i };
        let wrong = |fault| PlanError { rank: reader, place: Some(place), fault };
        let epoch = self.epoch[self.topology.node(owner)];
        let signals = !self.heard.is_empty();
        let cell = self.cell(owner, element);
        if reader != owner {
            if cell.written == epoch {
                return Err(wrong(Fault::Race { element, owner }));
            }
            cell.read = epoch;
        }
        if cell.value.is_none() && !signals {
            return Err(wrong(Fault::Garbage { element, owner }));
        }
        Ok(cell.value)
    }

    fn write(
        &mut self,
        rank: usize,
        into: Slice,
        values: &[Option<Value>],
        place: (usize, usize),
    ) -> Result<(), PlanError> {
        for (i, value) in values.iter().enumerate() {
            self.write_one(rank, into, i, *value, place)?;
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        rank: usize,
        into: Slice,
        i: usize,
        value: Option<Value>,
        place: (usize, usize),
    ) -> Result<(), PlanError> {
        let element = Element { buffer: into.buffer, index: into.start + i };
        let epoch = self.epoch[self.topology.node(rank)];
        let cell = self.cell(rank, element);
        if cell.read == epoch {
            let fault = Fault::Race { element, owner: rank };
            return Err(PlanError { rank, place: Some(place), fault });
        }
        let writer = (small(place.0), small(place.1));
        *cell = Cell { value, written: epoch, read: cell.read, writer };
        Ok(())
    }

    fn reduce(
        &mut self,
        rank: usize,
        sources: &[Operand],
        into: Slice,
        last: bool,
        place: (usize, usize),
    ) -> Result<(), PlanError> {
        let wrong = |fault| PlanError { rank, place: Some(place), fault };
        for operand in sources {
            self.readable(rank, operand.rank, operand.slice, place)?;
        }
        let mut operands = std::mem::take(&mut self.operands);
        for i in 0..into.len {
            let element = Element { buffer: into.buffer, index: into.start + i };
            operands.clear();
            let mut index = None;
            for operand in sources {
                let value = self.read_one(rank, operand.rank, operand.slice, i, place)?;
                let Some(value) = value else { continue };
                let first = *index.get_or_insert(value.index);
                if first != value.index {
                    let indices = (first as usize, value.index as usize);
                    return Err(wrong(Fault::Mixed { element, indices }));
                }
                operands.push(value.form);
            }
            let twice = |other| wrong(Fault::Twice { element, rank: other });
            let form = self.forms.fold(&operands).map_err(twice)?;
            match self.forms.missing(form) {
                Some(other) if last => {
                    return Err(wrong(Fault::Missing { element, rank: other }));
                }
                None if !last => return Err(wrong(Fault::NotLast(element))),
                None if operands == [form] && self.forms.leaf(form).is_none() => {
                    return Err(wrong(Fault::AfterLast(element)));
                }
                _ => {}
            }
            let value = index.map(|index| Value { index, form });
            self.write_one(rank, into, i, value, place)?;
        }
        self.operands = operands;
        Ok(())
    }

    /// For whom a rank still waits when nobody can go on.
    fn wait(&self, rank: usize) -> Option<Wait> {
        let (round, meet) = (self.round[rank], self.state[rank] == State::Meeting);
        let mut peers: Vec<usize> = match self.state[rank] {
            State::Done | State::Free => return None,
            State::Meeting => {
                let missing = |peer: &&usize| self.state[**peer] != State::Meeting;
                self.topology.peers(rank).iter().filter(missing).copied().collect()
            }
            State::Messages => {
                let posted = |(pair, queue): (&(usize, usize), &VecDeque<Posted>)| {
                    let own = queue.iter().any(|posted| posted.rank == rank);
                    own.then_some(if pair.0 == rank { pair.1 } else { pair.0 })
                };
                self.mail.iter().filter_map(posted).collect()
            }
        };
        peers.sort_unstable();
        peers.dedup();
        Some(Wait { rank, round, peers, meet })
    }
}
