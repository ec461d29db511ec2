//! What one rank can check about its own plan before it runs it: O(steps log steps).
//!
//! A plan that passes stays inside all buffers, its own and those of its peers, never writes what
//! belongs to the caller, reads peers only while they are in the call, and has no two steps in a
//! round that disturb each other. The executor relies on it.

use std::ops::Deref;

use super::fault::{Fault, PlanError};
use crate::plan::{Buffer, Collective, Operand, Plan, Problem, Slice, Step};
use crate::topology::Topology;

/// A plan that has passed [`check_local`]; nothing else is ever run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked(Plan);

impl Deref for Checked {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// Checks what can be known without the plans of the others.
pub fn check_local(
    plan: Plan,
    problem: &Problem,
    topology: &Topology,
) -> Result<Checked, PlanError> {
    check(&plan, problem, topology)?;
    Ok(Checked(plan))
}

/// The same on a borrowed plan.
pub(super) fn check(plan: &Plan, problem: &Problem, topology: &Topology) -> Result<(), PlanError> {
    let meets = plan.rounds.iter().filter(|round| round.meet).count();
    let own = [Buffer::Input, Buffer::Output, Buffer::Scratch]
        .map(|buffer| buffer_len(problem, plan.scratch, plan.rank, buffer));
    let local = Local { plan, problem, topology, own, meets };
    let mut epoch = 0;
    let mut spans = Vec::new();
    for (number, round) in plan.rounds.iter().enumerate() {
        epoch += usize::from(round.meet);
        spans.clear();
        for (index, step) in round.steps.iter().enumerate() {
            let place = Some((number, index));
            let wrong = |fault| PlanError { rank: plan.rank, place, fault };
            local.step(step, epoch).map_err(wrong)?;
            local.spans(step, index, &mut spans);
        }
        disjoint(&mut spans).map_err(|(step, fault)| PlanError {
            rank: plan.rank,
            place: Some((number, step)),
            fault,
        })?;
    }
    Ok(())
}

/// The length of a buffer.
pub(super) fn buffer_len(problem: &Problem, scratch: usize, rank: usize, buffer: Buffer) -> usize {
    match buffer {
        Buffer::Input => problem.input_len(rank),
        Buffer::Output => problem.output_len(rank),
        Buffer::Scratch => scratch,
    }
}

/// Where memory with two names really is: in place, the shorter of `Input` and `Output` is a part
/// of the longer.
pub(super) fn resolve(problem: &Problem, rank: usize, slice: Slice) -> Slice {
    let (shorter, longer) = match problem.collective {
        Collective::AllGather => (Buffer::Input, Buffer::Output),
        _ => (Buffer::Output, Buffer::Input),
    };
    match problem.overlap(rank) {
        Some(start) if slice.buffer == shorter => {
            Slice { buffer: longer, start: start + slice.start, ..slice }
        }
        _ => slice,
    }
}

struct Local<'a> {
    plan: &'a Plan,
    problem: &'a Problem,
    topology: &'a Topology,
    /// The lengths of the own buffers, which take O(p) to find in an all_to_all.
    own: [usize; 3],
    meets: usize,
}

/// Memory that a step touches.
struct Span {
    memory: Slice,
    named: Slice,
    step: usize,
    writes: bool,
}

impl Local<'_> {
    fn within(&self, owner: usize, slice: Slice) -> Result<(), Fault> {
        let len = match owner == self.plan.rank {
            true => self.own[slice.buffer as usize],
            false => buffer_len(self.problem, self.plan.scratch, owner, slice.buffer),
        };
        let inside = slice.start.checked_add(slice.len).is_some_and(|end| end <= len);
        if inside { Ok(()) } else { Err(Fault::Beyond { slice, owner, len }) }
    }

    fn written(&self, slice: Slice) -> Result<(), Fault> {
        if slice.buffer == Buffer::Input {
            return Err(Fault::WritesInput(slice));
        }
        self.within(self.plan.rank, slice)
    }

    fn other(&self, peer: usize) -> Result<(), Fault> {
        let known = peer < self.topology.ranks() && peer != self.plan.rank;
        if known { Ok(()) } else { Err(Fault::BadPeer(peer)) }
    }

    fn pulled(&self, peer: usize, slice: Slice, epoch: usize) -> Result<(), Fault> {
        self.other(peer)?;
        if !self.topology.same_node(peer, self.plan.rank) {
            return Err(Fault::OtherNode(peer));
        }
        let early = epoch == 0;
        if early || (epoch == self.meets && slice.buffer != Buffer::Scratch) {
            return Err(Fault::Unguarded { peer, slice, early });
        }
        self.within(peer, slice)
    }

    fn operand(&self, operand: &Operand, epoch: usize) -> Result<(), Fault> {
        match operand.rank == self.plan.rank {
            true => self.within(operand.rank, operand.slice),
            false => self.pulled(operand.rank, operand.slice, epoch),
        }
    }

    fn step(&self, step: &Step, epoch: usize) -> Result<(), Fault> {
        let same = |a: Slice, b: Slice| match a.len == b.len {
            true => Ok(()),
            false => Err(Fault::Lengths(a, b)),
        };
        match step {
            Step::Send { to, from } => {
                self.other(*to)?;
                self.within(self.plan.rank, *from)
            }
            Step::Receive { from, into } => {
                self.other(*from)?;
                self.written(*into)
            }
            Step::Pull { peer, from, into } => {
                same(*from, *into)?;
                self.pulled(*peer, *from, epoch)?;
                self.written(*into)
            }
            Step::Copy { from, into } => {
                same(*from, *into)?;
                self.within(self.plan.rank, *from)?;
                self.written(*into)
            }
            Step::Reduce { sources, into, .. } => {
                if sources.is_empty() {
                    return Err(Fault::NoOperands);
                }
                for operand in sources {
                    same(operand.slice, *into)?;
                    self.operand(operand, epoch)?;
                }
                self.written(*into)
            }
        }
    }

    /// The own memory that a step touches.
    fn spans(&self, step: &Step, index: usize, spans: &mut Vec<Span>) {
        let rank = self.plan.rank;
        let mut touch = |named: Slice, writes: bool| {
            if named.len > 0 {
                let memory = resolve(self.problem, rank, named);
                spans.push(Span { memory, named, step: index, writes });
            }
        };
        let equal = |a, b| resolve(self.problem, rank, a) == resolve(self.problem, rank, b);
        match step {
            Step::Send { from, .. } => touch(*from, false),
            Step::Receive { into, .. } | Step::Pull { into, .. } => touch(*into, true),
            Step::Copy { from, into } => {
                touch(*from, false);
                // A copy onto itself writes nothing.
                if !equal(*from, *into) {
                    touch(*into, true);
                }
            }
            Step::Reduce { sources, into, .. } => {
                touch(*into, true);
                // Exactly the written slice may be an operand as well.
                let own = sources.iter().filter(|operand| operand.rank == rank);
                own.filter(|o| !equal(o.slice, *into)).for_each(|o| touch(o.slice, false));
            }
        }
    }
}

/// What is written is touched by nothing else. Sweeps over the spans by their starts and keeps, of
/// what came before, the written and the read span that reach farthest.
fn disjoint(spans: &mut [Span]) -> Result<(), (usize, Fault)> {
    spans.sort_by_key(|span| (span.memory.buffer, span.memory.start, span.step));
    let spans = &*spans;
    let (mut written, mut read): (Option<&Span>, Option<&Span>) = (None, None);
    for span in spans {
        let meets = |other: &&Span| {
            other.memory.buffer == span.memory.buffer && other.memory.end() > span.memory.start
        };
        let clash = written.filter(meets).or(read.filter(|other| span.writes && meets(other)));
        if let Some(other) = clash {
            let (writer, other) = if span.writes { (span, other) } else { (other, span) };
            let fault =
                Fault::Clash { written: writer.named, step: other.step, other: other.named };
            return Err((writer.step, fault));
        }
        let farthest = if span.writes { &mut written } else { &mut read };
        if !farthest.is_some_and(|other| meets(&other) && other.memory.end() > span.memory.end()) {
            *farthest = Some(span);
        }
    }
    Ok(())
}
