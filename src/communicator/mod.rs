//! The handle through which a program communicates.
//!
//! A [`Communicator`] is one rank's view of a group of ranks. Every method that says *collective*
//! must be called by all ranks of the group, in the same order and with matching arguments; where
//! they do not match, ranks of a node get an error that names both calls, before any data moves.
//!
//! * `collectives`: the operations, one-shot, over plain slices or shared buffers.
//! * `call`: a call prepared once and run many times; `pending`: started and waited for later;
//!   `overlap`: started with borrowed buffers, inside a scope.
//! * `choice`: which algorithm a call takes, and calls that the MPI library itself serves.
//! * `groups`: splitting, grids, agreeing on an error.
//! * `shared_vector`: a vector once a node, `in_place_vector` in one copy; `needed`: only what
//!   other nodes read of it is sent.

mod background;
mod call;
mod choice;
mod collectives;
pub(crate) mod contributions;
mod fused;
mod groups;
mod in_place_vector;
mod needed;
mod node_blocks;
mod overlap;
mod pending;
mod shared_vector;
mod widen;

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

pub use background::{Background, Task};
pub use call::{AllGather, AllReduce, AnyCall, ReduceScatter};
pub use groups::Grid;
pub use in_place_vector::InPlaceVector;
pub use needed::Resend;
pub use overlap::{Overlap, Started};
pub use pending::{Lent, Pending, Storage};
pub use shared_vector::SharedVector;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::executor::{Context, LANES, Prepared};
use crate::plan::check::{self, Checked};
use crate::plan::{Collective, Problem};
use crate::reduce::{self, streaming};
use crate::select::{self, Chosen, Order, Table};
use crate::sharding::Sharding;
use crate::signature::Signature;
use crate::topology::Topology;
use crate::transport::frame::Combine;
use crate::transport::lane::Lane;
use crate::transport::memory::{Allocation, Located, Registry, SharedBuffer};
use crate::transport::wait::WaitPolicy;
use crate::transport::{Native, Parts, Transport};
use call::Call;
use choice::Ready;

/// What a program may set for all of its collectives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// After this long a wait is an error.
    pub timeout: Duration,
    /// How contributions are combined.
    pub order: Order,
    /// Pretend that nodes have at most this many ranks, to try plans for many nodes on one.
    pub ranks_per_node: Option<usize>,
    /// Bytes of a vector that go through the workspace at a time. Measured with two ranks on 1 MiB
    /// of second-level cache each: 1 MiB is best from 1 to 16 MiB; 256 KiB took 1.8 times as long
    /// at 1 MiB, since the copies of the C library are slower in small pieces.
    pub piece_bytes: usize,
    /// Measurements by which algorithms are chosen, the same on all ranks.
    pub table: Option<&'static Table>,
    /// Whether ranks compare what they call before data moves. Off only to measure what it costs:
    /// without it, ranks that disagree hang or corrupt memory.
    #[doc(hidden)]
    pub compares: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            timeout: Duration::from_secs(600),
            order: Order::Canonical,
            ranks_per_node: None,
            piece_bytes: 1 << 20,
            table: None,
            compares: true,
        }
    }
}

/// One rank's handle on a group of ranks. Cheap to clone; stays on its thread.
#[derive(Clone, Debug)]
pub struct Communicator {
    inner: Rc<Inner>,
}

/// Prepared calls by call and by whether input and output are shared.
type PreparedCalls = HashMap<(Call, [bool; 2]), Ready>;

#[derive(Debug)]
struct Inner {
    context: Rc<Context>,
    settings: Settings,
    /// Calls made before, so that a repeated one-shot call plans nothing.
    prepared: RefCell<PreparedCalls>,
}

/// Prepared one-shot calls kept; beyond that the program should keep its own handles.
const MOST_PREPARED: usize = 256;

impl Communicator {
    /// A communicator over all ranks of a transport, and its placement. Collective.
    pub fn new(transport: Box<dyn Transport>, settings: Settings) -> Result<Self> {
        let rank = transport.rank();
        Communicator::build(transport, settings, Rc::default(), rank)
    }

    /// Placement is found with one fixed plan over a flat placement, since choosing a plan needs
    /// the placement.
    fn build(
        transport: Box<dyn Transport>,
        settings: Settings,
        registry: Rc<Registry>,
        world_rank: usize,
    ) -> Result<Self> {
        let mut node = transport.split_by_node()?;
        if let Some(most) = settings.ranks_per_node {
            node = node.split(node.rank() / most.max(1), node.rank())?;
        }
        let (rank, ranks, sharing) = (transport.rank(), transport.ranks(), transport.sharing());
        let flat = Context::new(
            transport,
            None,
            vec![Lane::alone()],
            Topology::flat(ranks),
            (0..ranks).collect(),
            registry.clone(),
            WaitPolicy::new(sharing, settings.timeout),
        );
        let start = Communicator::from_context(flat, settings);
        let local = node.rank();
        // The ranks of a node number themselves; the first one's rank is the label of the node.
        let leader = Communicator::leader(node, rank, &registry, settings)?;
        let gathered = start.all_gather_vec(&[leader.label as u64, world_rank as u64])?.0;
        let labels: Vec<usize> = gathered.iter().step_by(2).map(|&l| l as usize).collect();
        let world: Vec<usize> = gathered.iter().skip(1).step_by(2).map(|&w| w as usize).collect();
        let topology = Topology::from_labels(&labels);
        if topology.local(rank) != local {
            return Err(Error::internal(format!("rank {rank} has two places on its node")));
        }
        let Some(flat) = start.into_context() else {
            return Err(Error::internal("the communicator is in use before it is made"));
        };
        let (transport, wait) = (flat.transport, flat.wait);
        let lanes = match &leader.node {
            Some(node) => Lane::many(&**node, LANES)?,
            None => (0..LANES).map(|_| Lane::alone()).collect(),
        };
        let context = Context::new(transport, leader.node, lanes, topology, world, registry, wait);
        Ok(Communicator::from_context(context.second(), settings))
    }

    /// The first rank of the node, by a gather over the node's own transport.
    fn leader(
        node: Box<dyn Transport>,
        rank: usize,
        registry: &Rc<Registry>,
        settings: Settings,
    ) -> Result<Leader> {
        let locals = node.ranks();
        if locals == 1 {
            return Ok(Leader { label: rank, node: None });
        }
        let sharing = node.sharing();
        let context = Context::new(
            node,
            None,
            vec![Lane::alone()],
            Topology::flat(locals),
            (0..locals).collect(),
            registry.clone(),
            WaitPolicy::new(sharing, settings.timeout),
        );
        let start = Communicator::from_context(context, settings);
        let ranks = start.all_gather_vec(&[rank as u64])?.0;
        let label = ranks.first().map_or(rank, |&first| first as usize);
        let node = start.into_context().map(|context| context.transport);
        Ok(Leader { label, node })
    }

    fn from_context(context: Context, settings: Settings) -> Self {
        let (context, prepared) = (context.known(), RefCell::default());
        Communicator { inner: Rc::new(Inner { context, settings, prepared }) }
    }

    /// What is left when the last handle is taken apart.
    fn into_context(self) -> Option<Context> {
        Rc::into_inner(self.inner).and_then(|inner| Rc::into_inner(inner.context))
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.context().rank()
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.context().topology.ranks()
    }

    /// Where all ranks live.
    pub fn topology(&self) -> &Topology {
        &self.context().topology
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Whether the ranks of this node share cores, so that timings mean little.
    pub fn is_oversubscribed(&self) -> bool {
        self.context().wait.is_oversubscribed()
    }

    /// The MPI library's own collectives, where ranks are MPI processes.
    pub fn native(&self) -> Option<&dyn Native> {
        self.context().transport.native()
    }

    /// True for the first rank of the node that asks: it reports a failure for all of them.
    pub fn claim_report(&self) -> bool {
        self.context().lane().claim()
    }

    /// Tells the other ranks that this one failed, so that they stop waiting for it.
    pub fn report_failure(&self, error: &Error) {
        self.context().transport.report_failure(error);
    }

    fn context(&self) -> &Context {
        &self.inner.context
    }

    /// `n` zeroed elements that the ranks of this node can read in place. Collective; `n` is the
    /// same on all ranks.
    #[track_caller]
    pub fn shared<T: Element>(&self, n: usize) -> Result<SharedBuffer<T>> {
        const SMALLEST: usize = 4096;
        let context = self.context();
        let bytes = n.checked_mul(size_of::<T>()).ok_or_else(|| {
            Error::input(format!("a shared buffer of {n} {} is too large", T::DTYPE))
        })?;
        let bytes = bytes.max(SMALLEST).checked_next_power_of_two().unwrap_or(bytes);
        let world_rank = context.world[self.rank()];
        let peers = context.topology.peers(self.rank());
        let members: Vec<usize> = peers.iter().map(|&r| context.world[r]).collect();
        let unused = context.registry.unused(&members, bytes);
        let oldest = unused.first().map_or(0, |segment| segment.key);
        let fresh = context.registry.fresh_key(world_rank);
        let mine = Signature::shared_buffer(bytes);
        let key = |key| Located { key, offset: 0 };
        let words = mine.words(key(oldest), key(fresh));
        context.meet(0, "shared", &words, &mine, Location::caller())?;
        let offered: Vec<[Located; 2]> = (0..context.lane().locals())
            .filter(|&l| l != context.lane().local())
            .map(|l| Signature::located(&context.lane().words_of(l)))
            .collect();
        if let Some(segment) = unused.first().filter(|_| offered.iter().all(|o| o[0].key == oldest))
        {
            context.registry.reuse(segment);
            let mut buffer = SharedBuffer::new(segment.clone(), world_rank, n);
            buffer.as_mut_slice().fill(T::default());
            return Ok(buffer);
        }
        let key = if context.lane().local() == 0 { fresh } else { offered[0][1].key };
        let segment = match &context.node {
            Some(node) => node.allocate(bytes, Parts::Each)?,
            None => Allocation::private(bytes)?,
        };
        let registered = context.registry.insert(key, segment, members);
        Ok(SharedBuffer::new(registered, world_rank, n))
    }

    /// Everything a call needs beside its buffers; made on its first use.
    fn prepared(
        &self,
        call: &Call,
        shared: [bool; 2],
        site: &'static Location<'static>,
    ) -> Result<Ready> {
        let key = (call.clone(), shared);
        if let Some(ready) = self.inner.prepared.borrow().get(&key) {
            return Ok(ready.clone());
        }
        let ready = self.prepare(call, shared)?;
        if !ready.widens {
            ready.prepared.reserve(self.context(), 0, site)?;
        }
        let mut kept = self.inner.prepared.borrow_mut();
        if kept.len() >= MOST_PREPARED {
            kept.clear();
        }
        kept.insert(key, ready.clone());
        Ok(ready)
    }

    fn prepare(&self, call: &Call, shared: [bool; 2]) -> Result<Ready> {
        let (context, problem) = (self.context(), &call.problem);
        let (topology, rank) = (&context.topology, self.rank());
        let row = match self.choice(call, shared)?.chosen {
            Chosen::Planned(row) => row,
            Chosen::Native(native) => {
                let prepared = Rc::new(self.prepare_native(call, native)?);
                return Ok(Ready { prepared, native: Some(native), widens: false });
            }
        };
        let plan = check::check_local((row.build)(problem, topology, rank), problem, topology)?;
        let bytes = call.dtype.bytes();
        let peer_bytes = topology.peers(rank).iter();
        let peer_bytes =
            peer_bytes.map(|&r| [problem.input_len(r) * bytes, problem.output_len(r) * bytes]);
        let op = call.op.unwrap_or(crate::element::Op::Sum);
        let divisor = if op == crate::element::Op::Average { self.ranks() as f64 } else { 1.0 };
        let reads_peers = [row.needs.shared_input, row.needs.shared_output];
        let private = reads_peers == [false; 2] && context.lane().locals() > 1;
        let rides = private && Prepared::can_ride(&plan, bytes);
        let meets = plan.rounds.iter().any(|round| round.meet);
        let shows_scratch = plan.scratch > 0 && meets && !rides;
        let streams =
            streaming::pays(select::bytes_of(problem, call.dtype), context.lane().locals());
        let leaves_early = private && topology.nodes() == 1 && leaves_early(problem, &plan);
        let prepared = Prepared {
            plan,
            shows_scratch,
            rides,
            compares: self.settings().compares,
            leaves_early,
            signature: Signature::new(problem, call.dtype, call.op, row.name),
            name: format!("{}/{}", problem.collective.name(), row.name),
            element_bytes: bytes,
            combine: Combine { kernel: reduce::kernel(call.dtype, op), divisor, streams },
            reads_peers,
            peer_bytes: peer_bytes.collect(),
        };
        let half = call.dtype.is_half() && problem.collective.reduces();
        let widens = half && !row.single_rounding;
        Ok(Ready { prepared: Rc::new(prepared), native: None, widens })
    }

    fn problem<T: Element>(&self, collective: Collective, sharding: &Sharding) -> Problem {
        let piece = (self.settings().piece_bytes / size_of::<T>()).max(1);
        Problem { piece, ..Problem::new(collective, sharding.clone()) }
    }
}

/// Whether a rank has nothing to learn from the others at the last meet of a plan whose buffers
/// peers do not read: the root of a broadcast.
fn leaves_early(problem: &Problem, plan: &Checked) -> bool {
    let last = plan.rounds.last();
    problem.collective.root() == Some(plan.rank)
        && matches!(problem.collective, Collective::Broadcast { .. })
        && last.is_some_and(|round| round.meet && round.steps.is_empty())
}

struct Leader {
    label: usize,
    node: Option<Box<dyn Transport>>,
}
