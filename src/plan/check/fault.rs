//! What can be wrong with a plan, and where.

use std::fmt;

use crate::error::Error;
use crate::plan::{Buffer, Slice};

/// A defect of a plan, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanError {
    /// The rank whose plan is wrong.
    pub rank: usize,
    /// The round and the step in it, both counted from 0, where they are known.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub fault: Fault,
}

/// One element of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Element {
    /// The buffer.
    pub buffer: Buffer,
    /// The index.
    pub index: usize,
}

/// The kinds of defect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A slice reaches beyond its buffer.
    Beyond {
        /// The slice.
        slice: Slice,
        /// The rank whose buffer it is.
        owner: usize,
        /// The length of the buffer.
        len: usize,
    },
    /// A step combines slices of different lengths.
    Lengths(Slice, Slice),
    /// A reduction without operands.
    NoOperands,
    /// A step writes `Input`.
    WritesInput(Slice),
    /// A step writes what another step of the round reads or writes.
    Clash {
        /// The written slice.
        written: Slice,
        /// The other step.
        step: usize,
        /// What the other step touches.
        other: Slice,
    },
    /// A message or a pull names the own rank, or one that does not exist.
    BadPeer(usize),
    /// A pull reads a rank on another node.
    OtherNode(usize),
    /// A peer's memory is read before the first meet, or its `Input` or `Output` after the last.
    Unguarded {
        /// The rank whose memory is read.
        peer: usize,
        /// What is read.
        slice: Slice,
        /// Whether it is too early (or else too late).
        early: bool,
    },
    /// A peer's `Input` or `Output` is read, but does not lie in shared memory.
    Private {
        /// The rank whose memory is read.
        peer: usize,
        /// What is read.
        slice: Slice,
    },
    /// The workspaces of two ranks of a node differ in length.
    Scratch {
        /// The other rank.
        other: usize,
        /// The length there.
        len: usize,
    },
    /// An element is written and read by a peer between the same two meets.
    Race {
        /// The element.
        element: Element,
        /// The rank whose memory it is in.
        owner: usize,
    },
    /// An element is read that was never written.
    Garbage {
        /// The element.
        element: Element,
        /// The rank whose memory it is in.
        owner: usize,
    },
    /// The contribution of a rank is counted twice.
    Twice {
        /// The element that gets it.
        element: Element,
        /// The contributor.
        rank: usize,
    },
    /// The contribution of a rank is missing from a final result.
    Missing {
        /// The element that lacks it.
        element: Element,
        /// The contributor.
        rank: usize,
    },
    /// A reduction combines different elements of the vector.
    Mixed {
        /// The element that is written.
        element: Element,
        /// The two elements of the vector.
        indices: (usize, usize),
    },
    /// A reduction completes an element and is not marked `last`.
    NotLast(Element),
    /// A reduction touches an element that is complete already.
    AfterLast(Element),
    /// An element of the result was never written.
    Unwritten(Element),
    /// An element of the result holds something else.
    Wrong {
        /// The element.
        element: Element,
        /// The index and the rank of what it should hold.
        expected: (usize, usize),
        /// The index and, if it comes from one rank alone, the rank of what it holds.
        found: (usize, Option<usize>),
    },
    /// An element of an all_reduce is folded in another order than on rank 0.
    OtherOrder(Element),
    /// The row says that results are rounded once, and this element is not.
    RoundedAgain(Element),
    /// The row says that results are the canonical tree over all contributions; this one is not.
    OtherTree(Element),
    /// A message has another length on the other side.
    Message {
        /// The sender.
        from: usize,
        /// Elements sent.
        sent: usize,
        /// Elements expected.
        expected: usize,
    },
    /// Nobody can go on.
    Deadlock(Vec<Wait>),
    /// A barrier lets a rank go before another has come.
    LeavesEarly(usize),
}

/// Why a rank cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// The waiting rank.
    pub rank: usize,
    /// Where in its plan.
    pub round: usize,
    /// For whom it waits.
    pub peers: Vec<usize>,
    /// Whether it waits at a meet (or else for messages).
    pub meet: bool,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.buffer {
            Buffer::Input => "in",
            Buffer::Output => "out",
            Buffer::Scratch => "scratch",
        };
        write!(f, "{name}[{}]", self.index)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<String> = self.peers.iter().map(usize::to_string).collect();
        let (rank, round, peers) = (self.rank, self.round, peers.join(", "));
        let what = if self.meet { "meet with" } else { "message of" };
        write!(f, "rank {rank} waits in round {round} for the {what} rank {peers}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Beyond { slice, owner, len } => {
                write!(f, "{slice} of rank {owner} reaches beyond its {len} elements")
            }
            Fault::Lengths(a, b) => write!(f, "{a} and {b} differ in length"),
            Fault::NoOperands => write!(f, "a reduction without operands"),
            Fault::WritesInput(slice) => write!(f, "writes {slice}, which is only to be read"),
            Fault::Clash { written, step, other } => {
                write!(f, "writes {written}, but step {step} of the round touches {other}")
            }
            Fault::BadPeer(peer) => write!(f, "rank {peer} is not another rank"),
            Fault::OtherNode(peer) => write!(f, "reads memory of rank {peer} on another node"),
            Fault::Unguarded { peer, slice, early } => {
                let when = if *early { "before the first" } else { "after the last" };
                write!(f, "reads {slice} of rank {peer} {when} meet")
            }
            Fault::Private { peer, slice } => {
                write!(f, "reads {slice} of rank {peer}, which is private memory")
            }
            Fault::Scratch { other, len } => {
                write!(f, "another length of scratch than the {len} of rank {other} on its node")
            }
            Fault::Race { element, owner } => write!(
                f,
                "{element} of rank {owner} is written and read by a peer with no meet in between"
            ),
            Fault::Garbage { element, owner } => {
                write!(f, "reads {element} of rank {owner}, which was never written")
            }
            Fault::Twice { element, rank } => {
                write!(f, "{element} gets the contribution of rank {rank} twice")
            }
            Fault::Missing { element, rank } => {
                write!(f, "{element} lacks the contribution of rank {rank}")
            }
            Fault::Mixed { element, indices: (a, b) } => {
                write!(f, "{element} mixes the elements {a} and {b} of the vector")
            }
            Fault::NotLast(element) => {
                write!(f, "{element} is complete, but the reduction is not marked last")
            }
            Fault::AfterLast(element) => write!(f, "{element} is reduced again when complete"),
            Fault::Unwritten(element) => write!(f, "{element} is never written"),
            Fault::Wrong { element, expected: (index, rank), found } => {
                write!(f, "{element} should hold element {index} of rank {rank} and holds ")?;
                match found {
                    (index, Some(rank)) => write!(f, "element {index} of rank {rank}"),
                    (index, None) => write!(f, "element {index} of several ranks"),
                }
            }
            Fault::OtherOrder(element) => {
                write!(f, "{element} is folded in another order than on rank 0")
            }
            Fault::RoundedAgain(element) => {
                write!(f, "{element} is not the fold of all contributions in one step, in order")
            }
            Fault::OtherTree(element) => {
                write!(f, "{element} is not the canonical tree over all contributions")
            }
            Fault::Message { from, sent, expected } => {
                write!(f, "expects {expected} elements of rank {from}, which sends {sent}")
            }
            Fault::Deadlock(waits) => {
                let waits: Vec<String> = waits.iter().take(4).map(Wait::to_string).collect();
                write!(f, "nobody can go on: {}", waits.join("; "))
            }
            Fault::LeavesEarly(other) => write!(f, "leaves before rank {other} has come"),
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        if let Some((round, step)) = self.place {
            write!(f, ", round {round}, step {step}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for PlanError {}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        Error::internal(format!("a wrong plan: {error}"))
    }
}
