//! Moves bytes between ranks. Knows no algorithms, and no element types.
//!
//! Two ways exist, behind one object-safe trait: `threads` (ranks are threads of one process) and
//! `mpi` (ranks are MPI processes). Both offer messages in rounds and memory shared by the ranks
//! of a node; on that memory, and so for both alike, `lane` lets ranks meet and `frame` reads
//! peers' buffers. `wait` decides how to wait.
//!
//! The contract of a round of messages: a posted range stays untouched until its round is done;
//! messages of one (sender, receiver, tag) arrive in order; a message whose length differs from
//! what the receiver expects is an error, never a partial write beyond the range.

#![allow(unsafe_code)] // raw memory that peers read: the reason for this layer

pub mod frame;
pub mod huge_pages;
pub mod lane;
pub(crate) mod lent;
pub mod mapped;
pub mod memory;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod node_in_place;
pub(crate) mod node_reduce;
pub mod node_vector;
pub mod threads;
pub mod wait;

use crate::element::{DType, Op};
use crate::error::{Error, Result};
use memory::Segment;

/// One message of a round, seen from this rank.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The other rank.
    pub peer: usize,
    /// Whether this rank sends it or receives it.
    pub direction: Direction,
    /// Where the bytes are, or go.
    pub at: *mut u8,
    /// How many.
    pub bytes: usize,
}

/// The direction of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// This rank sends.
    Send,
    /// This rank receives.
    Receive,
}

/// The messages of one round that are under way. Reused from round to round.
#[derive(Debug, Default)]
pub struct Posted {
    pub(in crate::transport) receives: Vec<Message>,
    pub(in crate::transport) tag: Tag,
    #[cfg(feature = "mpi")]
    pub(in crate::transport) requests: mpi::Requests,
}

impl Posted {
    /// The peers whose messages have not arrived, as far as the transport can tell.
    pub fn missing(&self) -> Vec<usize> {
        #[cfg(feature = "mpi")]
        if !self.requests.is_empty() {
            return self.requests.missing();
        }
        self.receives.iter().map(|m| m.peer).collect()
    }
}

/// What messages are matched by, besides their sender: at most [`TAG_BITS`] bits, which is what
/// MPI libraries offer at least.
pub type Tag = u32;
/// Bits of a tag.
pub const TAG_BITS: u32 = 19;
/// The tag of [`Transport::tell`].
const TELL: Tag = (1 << TAG_BITS) - 1;

/// How many parts shared memory has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parts {
    /// One for each rank.
    Each,
    /// One for all of them: every rank's base is the same.
    Common,
}

/// The endpoint of one rank in one group of ranks.
pub trait Transport: std::fmt::Debug {
    /// The rank of this endpoint in its group.
    fn rank(&self) -> usize;

    /// The number of ranks in the group.
    fn ranks(&self) -> usize;

    /// The ranks of the whole job that share the cores of this machine.
    fn sharing(&self) -> usize;

    /// Starts a round of messages.
    ///
    /// # Safety
    /// Every range of `messages` stays valid, and is not touched by anyone else, until `poll`
    /// says that the round is done or `cancel` has returned.
    unsafe fn post(&self, tag: Tag, messages: &[Message], posted: &mut Posted) -> Result<()>;

    /// Moves the round on. True once all of its messages are done.
    fn poll(&self, posted: &mut Posted) -> Result<bool>;

    /// Gives a round up, after an error. No range of it is touched afterwards.
    fn cancel(&self, posted: &mut Posted);

    /// Sends a few words to a rank, without waiting for it. For rare news such as "I wait for you".
    fn tell(&self, to: usize, words: &[u64]) -> Result<()>;

    /// The next words that some rank has told this one, with that rank.
    fn hear(&self) -> Result<Option<(usize, Vec<u64>)>>;

    /// Splits the group by `color`, ordered by (`key`, rank). Collective.
    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Transport>>;

    /// Splits the group by shared memory. Collective.
    fn split_by_node(&self) -> Result<Box<dyn Transport>>;

    /// An endpoint of the same group for another thread of each rank, which then shares the cores
    /// with this one. Collective. An error where the library underneath allows one thread only.
    fn for_another_thread(&self) -> Result<Box<dyn Transport + Send>>;

    /// Memory of `bytes`, for each rank or once, that all ranks of the group can reach. Zeroed.
    /// Collective; the group must lie on one node, and all ranks must ask for the same.
    fn allocate(&self, bytes: usize, parts: Parts) -> Result<Segment>;

    /// The failure of another rank, if one is known: whoever waits should stop waiting.
    fn peer_failure(&self) -> Option<Error>;

    /// Tells the group's job that this rank failed, so that nobody waits for it.
    fn report_failure(&self, error: &Error);

    /// The collectives of the library underneath, where there is one.
    fn native(&self) -> Option<&dyn Native>;
}

/// Which of two calls of the MPI library does a collective.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The blocking one.
    Blocking,
    /// The nonblocking one and a wait: another implementation in many libraries.
    Immediate,
}

/// The collectives of the MPI library itself, as a candidate and a yardstick.
///
/// Lengths are in bytes of whole elements; every call checks that its buffers fit its counts.
/// A type or operator that MPI lacks (16-bit floats, average) is an input error.
pub trait Native {
    /// `MPI_Reduce_scatter_block`: `input` holds `ranks` times `output`.
    fn reduce_scatter_block(&self, i: &[u8], o: &mut [u8], dtype: DType, op: Op) -> Result<()>;

    /// `MPI_Reduce_scatter` or `MPI_Ireduce_scatter` with one count of elements a rank.
    fn reduce_scatter(
        &self,
        input: &[u8],
        output: &mut [u8],
        counts: &[usize],
        dtype: DType,
        op: Op,
        mode: Mode,
    ) -> Result<()>;

    /// `MPI_Allgather` or `MPI_Iallgather`: `output` holds `ranks` times `input`.
    fn all_gather(&self, input: &[u8], output: &mut [u8], dtype: DType, mode: Mode) -> Result<()>;

    /// `MPI_Allreduce` or `MPI_Iallreduce`.
    fn all_reduce(
        &self,
        input: &[u8],
        output: &mut [u8],
        dtype: DType,
        op: Op,
        mode: Mode,
    ) -> Result<()>;

    /// `MPI_Bcast` or `MPI_Ibcast`.
    fn broadcast(&self, buffer: &mut [u8], root: usize, dtype: DType, mode: Mode) -> Result<()>;

    /// `MPI_Alltoall` or `MPI_Ialltoall`: both buffers hold `ranks` equal blocks.
    fn all_to_all(&self, input: &[u8], output: &mut [u8], dtype: DType, mode: Mode) -> Result<()>;

    /// `MPI_Barrier`.
    fn barrier(&self) -> Result<()>;

    /// The name and version of the library.
    fn version(&self) -> String;
}
