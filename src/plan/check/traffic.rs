//! How much a plan moves.

use crate::plan::{Plan, Step};
use crate::topology::Topology;

/// What one rank does, counted in messages and elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Rounds.
    pub rounds: usize,
    /// Meets of the node.
    pub meets: usize,
    /// Messages sent.
    pub messages: usize,
    /// Elements sent.
    pub sent: usize,
    /// Elements sent to ranks on other nodes.
    pub sent_between_nodes: usize,
    /// Elements read from the memory of node peers, by pulls and reductions.
    pub pulled: usize,
    /// Elements combined: those of all operands of a reduction but one.
    pub reduced: usize,
    /// Elements copied inside the own memory.
    pub copied: usize,
}

/// Counts what `plan` does.
pub fn traffic(plan: &Plan, topology: &Topology) -> Traffic {
    let mut sum = Traffic { rounds: plan.rounds.len(), ..Traffic::default() };
    for round in &plan.rounds {
        sum.meets += usize::from(round.meet);
        for step in &round.steps {
            match step {
                Step::Send { to, from } => {
                    sum.messages += 1;
                    sum.sent += from.len;
                    if !topology.same_node(plan.rank, *to) {
                        sum.sent_between_nodes += from.len;
                    }
                }
                Step::Receive { .. } => {}
                Step::Pull { into, .. } => sum.pulled += into.len,
                Step::Copy { into, .. } => sum.copied += into.len,
                Step::Reduce { sources, into, .. } => {
                    let peers = sources.iter().filter(|o| o.rank != plan.rank).count();
                    sum.pulled += peers * into.len;
                    sum.reduced += (sources.len() - 1) * into.len;
                }
            }
        }
    }
    sum
}
