//! Collective algorithms as plain data: rounds of steps over symbolic buffers.
//!
//! A [`Plan`] is what one rank does for one [`Problem`]. It is made by a pure function of
//! (problem, topology, rank), can be printed, compared, hashed and checked, and knows nothing of
//! transports, clocks, element types or addresses. `executor` runs it.
//!
//! # Meaning
//! * All steps of a **round** act on the state before the round. What a round writes is disjoint
//!   from everything else it reads or writes (but a reduction may write exactly onto one of its own
//!   operands, and a copy onto itself, in place, is nothing). So the order of steps inside a round
//!   does not matter, and messages fly while local steps run. A round ends when all its steps are
//!   done.
//! * A round with `meet` starts when all ranks of the node have arrived there. Between two meets,
//!   called an **epoch**, an element is either written by its owner or read by node peers, never
//!   both. A plan may read a peer's `Scratch` in its last epoch, but never a peer's `Input` or
//!   `Output`, since those belong to the caller again when the call returns; and nothing of a peer
//!   before the first meet, since the peer may not have come yet.
//! * Messages between a pair of ranks arrive in the order they were sent; those of one round in the
//!   order of its steps, which is all that this order means.
//! * `Scratch` has the same length on every rank of a node, and holds garbage at the start.
//!
//! # Buffers of each collective (elements; `n` is the whole vector, `c` the shard of the rank)
//! | collective | Input | Output |
//! | --- | --- | --- |
//! | reduce_scatter | n | c |
//! | all_gather | c | n |
//! | all_reduce | n | n |
//! | broadcast | 0 | n, filled on the root before |
//! | gather | c | n on the root, else 0 |
//! | scatter | n on the root, else 0 | c |
//! | all_to_all | sum of the rank's row of the count matrix | sum of its column |
//! | barrier | 0 | 0 |

pub mod algorithms;
pub mod check;
pub mod cost;
pub mod picture;
pub mod table;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::sharding::Sharding;

/// A buffer of a plan, named by its role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Buffer {
    /// What the caller contributes. Never written, unless it lies inside `Output` (in place).
    Input,
    /// Where the result goes.
    Output,
    /// Workspace that node peers can read.
    Scratch,
}

/// `len` elements of a buffer from `start`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slice {
    /// Which buffer.
    pub buffer: Buffer,
    /// The first element.
    pub start: usize,
    /// How many elements.
    pub len: usize,
}

impl Slice {
    /// The elements `range` of `buffer`.
    pub fn new(buffer: Buffer, range: Range<usize>) -> Self {
        Slice { buffer, start: range.start, len: range.end - range.start }
    }

    /// Elements of the input.
    pub fn input(range: Range<usize>) -> Self {
        Slice::new(Buffer::Input, range)
    }

    /// Elements of the output.
    pub fn output(range: Range<usize>) -> Self {
        Slice::new(Buffer::Output, range)
    }

    /// Elements of the workspace.
    pub fn scratch(range: Range<usize>) -> Self {
        Slice::new(Buffer::Scratch, range)
    }

    /// The index after the last element.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.buffer {
            Buffer::Input => "in",
            Buffer::Output => "out",
            Buffer::Scratch => "scratch",
        };
        write!(f, "{name}[{}..{}]", self.start, self.end())
    }
}

/// An operand of a reduction: elements of the own rank or of a peer on the same node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    /// The rank whose memory is read.
    pub rank: usize,
    /// What is read.
    pub slice: Slice,
}

/// One thing a rank does. Matched exhaustively everywhere: a new kind lists every place to touch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Send a message.
    Send {
        /// The receiving rank.
        to: usize,
        /// The elements sent.
        from: Slice,
    },
    /// Receive a message of exactly `into.len` elements.
    Receive {
        /// The sending rank.
        from: usize,
        /// Where the elements go.
        into: Slice,
    },
    /// Read the memory of a peer on the same node.
    Pull {
        /// The rank whose memory is read; never the own one.
        peer: usize,
        /// What is read there.
        from: Slice,
        /// Where the elements go.
        into: Slice,
    },
    /// Combine operands element by element, by the canonical tree over their number (see
    /// `table::Canonical`), rounded once.
    Reduce {
        /// At least one operand, all of the same length as `into`.
        sources: Vec<Operand>,
        /// Where the result goes; may be exactly one of the own operands.
        into: Slice,
        /// Whether the result holds the contributions of all ranks (an average divides here).
        last: bool,
    },
    /// Copy inside the own memory.
    Copy {
        /// What is read.
        from: Slice,
        /// Where it goes. Equal memory (in place) makes this step nothing.
        into: Slice,
    },
}

/// Steps that may run in any order or at once.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Round {
    /// The ranks of the node meet before this round.
    pub meet: bool,
    /// What is done.
    pub steps: Vec<Step>,
}

/// Everything one rank does for one problem.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Plan {
    /// The rank whose plan this is.
    pub rank: usize,
    /// Elements of workspace; the same on every rank of a node.
    pub scratch: usize,
    /// The rounds, in order.
    pub rounds: Vec<Round>,
}

impl Plan {
    /// An empty plan for `rank`.
    pub fn new(rank: usize) -> Self {
        Plan { rank, scratch: 0, rounds: Vec::new() }
    }

    /// Adds a round without a meet; empty ones and steps of zero elements are left out.
    pub fn round(&mut self, steps: Vec<Step>) {
        let steps: Vec<Step> = steps.into_iter().filter(|s| !s.is_empty()).collect();
        if !steps.is_empty() {
            self.rounds.push(Round { meet: false, steps });
        }
    }

    /// Adds a round that starts with a meet; it is kept even when it has no steps.
    pub fn meet(&mut self, steps: Vec<Step>) {
        let steps = steps.into_iter().filter(|s| !s.is_empty()).collect();
        self.rounds.push(Round { meet: true, steps });
    }
}

impl Step {
    /// True for a step that touches no element. Such steps are dropped on both sides of a message
    /// alike, because both sides know the length; a message that is a signal needs a length of 1.
    pub fn is_empty(&self) -> bool {
        match self {
            Step::Send { from, .. } | Step::Pull { from, .. } | Step::Copy { from, .. } => {
                from.len == 0
            }
            Step::Receive { into, .. } | Step::Reduce { into, .. } => into.len == 0,
        }
    }
}

/// A collective, with its root where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Collective {
    /// Every rank contributes a vector; the owner of each shard gets the reduced shard.
    ReduceScatter,
    /// Every rank contributes its shard; all get the whole vector.
    AllGather,
    /// Every rank contributes a vector; all get the reduced vector.
    AllReduce,
    /// All get the vector of the root.
    Broadcast {
        /// The rank that has it.
        root: usize,
    },
    /// The root gets all shards.
    Gather {
        /// The rank that gets them.
        root: usize,
    },
    /// Every rank gets its shard of the root's vector.
    Scatter {
        /// The rank that has the vector.
        root: usize,
    },
    /// Every rank has a message for every rank.
    AllToAll,
    /// Nobody leaves before all have come.
    Barrier,
}

impl Collective {
    /// All collectives, those with a root at root 0.
    pub const ALL: [Collective; 8] = [
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::AllReduce,
        Collective::Broadcast { root: 0 },
        Collective::Gather { root: 0 },
        Collective::Scatter { root: 0 },
        Collective::AllToAll,
        Collective::Barrier,
    ];

    /// The name in the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Collective::ReduceScatter => "reduce_scatter",
            Collective::AllGather => "all_gather",
            Collective::AllReduce => "all_reduce",
            Collective::Broadcast { .. } => "broadcast",
            Collective::Gather { .. } => "gather",
            Collective::Scatter { .. } => "scatter",
            Collective::AllToAll => "all_to_all",
            Collective::Barrier => "barrier",
        }
    }

    /// The root, where there is one.
    pub fn root(self) -> Option<usize> {
        match self {
            Collective::Broadcast { root }
            | Collective::Gather { root }
            | Collective::Scatter { root } => Some(root),
            _ => None,
        }
    }

    /// Whether two are the same operation, whatever their roots.
    pub fn same_kind(self, other: Collective) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// Whether elements are combined by a reduction operator.
    pub fn reduces(self) -> bool {
        matches!(self, Collective::ReduceScatter | Collective::AllReduce)
    }
}

/// What is to be done, the same on every rank.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Problem {
    /// The operation.
    pub collective: Collective,
    /// Who owns which elements of the whole vector. For all_reduce and broadcast, where nobody
    /// owns a part, it is the even split of the work. For all_to_all its length is unused.
    pub sharding: Sharding,
    /// all_to_all: `counts[from * ranks + to]` elements go from `from` to `to`.
    pub counts: Option<Arc<[usize]>>,
    /// reduce_scatter: `Output` is the own shard of `Input`. all_gather: `Input` is the own shard
    /// of `Output`. all_reduce: both are the same memory. Others ignore it.
    pub in_place: bool,
    /// Elements of the whole vector that go through the workspace at a time, where an algorithm
    /// stages them; at least 1.
    pub piece: usize,
}

impl Problem {
    /// A problem over `sharding`, out of place.
    pub fn new(collective: Collective, sharding: Sharding) -> Self {
        Problem { collective, sharding, counts: None, in_place: false, piece: 1 << 16 }
    }

    /// An all_to_all with the given matrix (`ranks * ranks`, row = sender).
    ///
    /// # Panics
    /// If the matrix is not square in `ranks`.
    pub fn all_to_all(ranks: usize, counts: Arc<[usize]>) -> Self {
        assert_eq!(counts.len(), ranks * ranks, "all_to_all needs one count a pair of ranks");
        let problem = Problem::new(Collective::AllToAll, Sharding::even(0, ranks));
        Problem { counts: Some(counts), ..problem }
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.sharding.ranks()
    }

    /// Elements from `from` to `to` in an all_to_all.
    pub fn count(&self, from: usize, to: usize) -> usize {
        self.counts.as_ref().map_or(0, |counts| counts[from * self.ranks() + to])
    }

    /// Where in the input of `from` the elements for `to` lie, in an all_to_all.
    pub fn sent(&self, from: usize, to: usize) -> Range<usize> {
        let start = (0..to).map(|other| self.count(from, other)).sum();
        start..start + self.count(from, to)
    }

    /// Where in the output of `to` the elements from `from` lie, in an all_to_all.
    pub fn received(&self, from: usize, to: usize) -> Range<usize> {
        let start = (0..from).map(|other| self.count(other, to)).sum();
        start..start + self.count(from, to)
    }

    /// Whether all pairs exchange the same number of elements (all_to_all), or all shards are of
    /// one size (the others).
    pub fn is_uniform(&self) -> bool {
        match &self.counts {
            Some(counts) => counts.windows(2).all(|w| w[0] == w[1]),
            None => self.sharding.is_uniform(),
        }
    }

    /// Length of the input of `rank` in elements.
    pub fn input_len(&self, rank: usize) -> usize {
        match self.collective {
            Collective::ReduceScatter | Collective::AllReduce => self.sharding.n(),
            Collective::AllGather | Collective::Gather { .. } => self.sharding.count(rank),
            Collective::Scatter { root } if root == rank => self.sharding.n(),
            Collective::AllToAll => (0..self.ranks()).map(|to| self.count(rank, to)).sum(),
            Collective::Scatter { .. } | Collective::Broadcast { .. } | Collective::Barrier => 0,
        }
    }

    /// Length of the output of `rank` in elements.
    pub fn output_len(&self, rank: usize) -> usize {
        match self.collective {
            Collective::AllGather | Collective::AllReduce | Collective::Broadcast { .. } => {
                self.sharding.n()
            }
            Collective::ReduceScatter | Collective::Scatter { .. } => self.sharding.count(rank),
            Collective::Gather { root } if root == rank => self.sharding.n(),
            Collective::AllToAll => (0..self.ranks()).map(|from| self.count(from, rank)).sum(),
            Collective::Gather { .. } | Collective::Barrier => 0,
        }
    }

    /// In place: the memory that `Input[0]` and `Output[0]` share, as the index in the longer of
    /// the two at which the shorter starts.
    pub fn overlap(&self, rank: usize) -> Option<usize> {
        match self.collective {
            _ if !self.in_place => None,
            Collective::ReduceScatter | Collective::AllGather => {
                Some(self.sharding.range(rank).start)
            }
            Collective::AllReduce => Some(0),
            _ => None,
        }
    }
}
