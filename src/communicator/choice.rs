//! Which algorithm a call takes, and calls that the MPI library itself serves.
//!
//! A native call is memory-unsafe when ranks disagree: MPI writes what its peers send, and inside
//! it no time limit holds. So the ranks of a node first meet and compare signatures, as they do for
//! every plan, and ranks of several nodes go through a dissemination barrier whose messages carry
//! the signature; only then they call MPI. That is one meet, and log p messages between nodes, more
//! than the bare call; a measured table has it in its times.
//!
//! MPI may block, so only calls that may block themselves are served this way, not started ones.

use std::panic::Location;
use std::path::Path;
use std::rc::Rc;

use super::call::Call;
use super::{Communicator, Settings};
use crate::element::{Element, Op};
use crate::error::{Error, Result};
use crate::executor::Prepared;
use crate::plan::check::check_local;
use crate::plan::{Collective, Plan, Problem, table};
use crate::reduce;
use crate::select::{self, Choice, Chosen, Native, Query, Reason, Table};
use crate::sharding::Sharding;
use crate::signature::{Occasion, Signature};
use crate::transport::Mode;
use crate::transport::frame::{Buffers, Combine};
use crate::transport::memory::{Located, Sink, Source};

/// A call that can run: its plan, or the meet before a call of the MPI library.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) prepared: Rc<Prepared>,
    pub(super) native: Option<Native>,
    /// Whether 16-bit elements would be rounded more than once, so that the call runs in f32
    /// instead; then only the name of the plan counts.
    pub(super) widens: bool,
}

impl Communicator {
    /// A communicator over the same ranks that chooses by the table in a file, which only rank 0
    /// reads. The table is kept for the life of the process. Collective.
    #[track_caller]
    pub fn with_table(&self, path: &Path) -> Result<Communicator> {
        let name = path.display().to_string();
        let read = || {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::file(path, "read the table", &e))?;
            Table::parse(&text, &name)?;
            Ok(text)
        };
        let text = self.agree(if self.rank() == 0 { read() } else { Ok(String::new()) });
        // It is the user's file, and no rank's own trouble.
        let mut text = text.map_err(|error| Error { rank: None, ..error })?.into_bytes();
        // Elements have at least 16 bits; what is added to fill them up means nothing in TOML.
        text.resize(text.len().next_multiple_of(size_of::<u64>()), b'\n');
        let mut words: Vec<u64> = text.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
        let mut len = [words.len() as u64];
        self.broadcast(&mut len, 0)?;
        words.resize(len[0] as usize, 0);
        self.broadcast(&mut words, 0)?;
        let table = Table::parse(&String::from_utf8_lossy(bytemuck::cast_slice(&words)), &name)?;
        let table: &'static Table = Box::leak(Box::new(table));
        self.with_settings(Settings { table: Some(table), ..*self.settings() })
    }

    /// A communicator over the same ranks with other settings. Collective.
    #[track_caller]
    pub fn with_settings(&self, settings: Settings) -> Result<Communicator> {
        self.come_together(Occasion::Split, Location::caller())?;
        let context = self.context();
        let transport = context.transport.split(0, self.rank())?;
        let world_rank = context.world[self.rank()];
        Communicator::build(transport, settings, context.registry.clone(), world_rank)
    }

    fn query<'a>(&'a self, call: &'a Call, shared: [bool; 2]) -> Query<'a> {
        Query {
            problem: &call.problem,
            dtype: call.dtype,
            op: call.op,
            topology: self.topology(),
            shared,
            order: self.settings().order,
            native: call.may_block && self.native().is_some(),
        }
    }

    /// The algorithm for a call: the one it names, if that fits, else the chosen one.
    pub(super) fn choice(&self, call: &Call, shared: [bool; 2]) -> Result<Choice> {
        let query = self.query(call, shared);
        let Some(name) = call.algorithm else {
            return select::choose(&query, self.settings().table);
        };
        let chosen = match Native::find(name) {
            Some(native) => {
                // A caller that names it has decided about the order.
                let query = Query { order: select::Order::Fastest, ..query };
                select::native_fits(native, &query)?;
                Chosen::Native(native)
            }
            None => {
                let row = table::find(call.problem.collective, name)?;
                row.fits(&call.problem, self.topology(), shared[0], shared[1])?;
                Chosen::Planned(row)
            }
        };
        Ok(Choice { chosen, reason: Reason::Default(Some("named by the caller".into())) })
    }

    /// The algorithm that a call would use, and why, without running it.
    pub fn choice_for<T: Element>(
        &self,
        collective: Collective,
        sharding: &Sharding,
        op: Option<Op>,
        shared: [bool; 2],
    ) -> Result<Choice> {
        let call = Call::new::<T>(self.problem::<T>(collective, sharding), op);
        self.choice(&call, shared)
    }

    /// The name of [`Communicator::choice_for`], of a sum where elements are reduced.
    pub fn algorithm_for<T: Element>(
        &self,
        collective: Collective,
        sharding: &Sharding,
        shared: [bool; 2],
    ) -> Result<&'static str> {
        let op = collective.reduces().then_some(Op::Sum);
        Ok(self.choice_for::<T>(collective, sharding, op, shared)?.chosen.name())
    }

    /// What comes before a native call, as a plan of its own.
    pub(super) fn prepare_native(&self, call: &Call, native: Native) -> Result<Prepared> {
        let (topology, rank) = (self.topology(), self.rank());
        let mut plan = Plan::new(rank);
        plan.meet(Vec::new());
        let nothing = Problem::new(Collective::Barrier, Sharding::even(0, self.ranks()));
        if topology.nodes() > 1 {
            let row = table::find(Collective::Barrier, "dissemination")?;
            let barrier = (row.build)(&nothing, topology, rank);
            plan.scratch = barrier.scratch;
            plan.rounds.extend(barrier.rounds);
        }
        let locals = topology.peers(rank).len();
        Ok(Prepared {
            // A half of the workspace that peers may still read is not written.
            shows_scratch: plan.scratch > 0,
            plan: check_local(plan, &nothing, topology)?,
            rides: false,
            compares: self.settings().compares,
            leaves_early: false,
            signature: Signature::new(&call.problem, call.dtype, call.op, native.name()),
            name: format!("{}/{}", call.problem.collective.name(), native.name()),
            element_bytes: call.dtype.bytes(),
            combine: Combine {
                kernel: reduce::kernel(call.dtype, Op::Sum),
                divisor: 1.0,
                streams: false,
            },
            reads_peers: [false; 2],
            peer_bytes: vec![[0; 2]; locals],
        })
    }

    /// Compares signatures, then calls MPI.
    pub(super) fn run_native<T: Element>(
        &self,
        call: &Call,
        native: Native,
        prepared: &Rc<Prepared>,
        buffers: (Source<'_, T>, Sink<'_, T>),
        site: &'static Location<'static>,
    ) -> Result<()> {
        let nothing = Buffers::separate(&[], &mut []);
        self.context().run(prepared, nothing, [Located::default(); 2], site)?;
        let Some(library) = self.native() else {
            return Err(Error::internal(format!("{}: there is no MPI here", prepared.name)));
        };
        let (source, sink) = buffers;
        let i: &[u8] = bytemuck::cast_slice(source.data);
        let o: &mut [u8] = bytemuck::cast_slice_mut(sink.data);
        let (dtype, op) = (call.dtype, call.op.unwrap_or(Op::Sum));
        let problem = &call.problem;
        let mode = match native {
            Native::Plain | Native::Counts => Mode::Blocking,
            Native::Immediate => Mode::Immediate,
        };
        let done = match problem.collective {
            Collective::ReduceScatter if native == Native::Plain => {
                library.reduce_scatter_block(i, o, dtype, op)
            }
            Collective::ReduceScatter => {
                let counts: Vec<usize> =
                    (0..self.ranks()).map(|rank| problem.sharding.count(rank)).collect();
                library.reduce_scatter(i, o, &counts, dtype, op, mode)
            }
            Collective::AllGather => library.all_gather(i, o, dtype, mode),
            Collective::AllReduce => library.all_reduce(i, o, dtype, op, mode),
            Collective::Broadcast { root } => library.broadcast(o, root, dtype, mode),
            Collective::AllToAll => library.all_to_all(i, o, dtype, mode),
            Collective::Barrier => library.barrier(),
            Collective::Gather { .. } | Collective::Scatter { .. } => {
                Err(Error::internal(format!("{} is not implemented", prepared.name)))
            }
        };
        done.map_err(|error| error.on_rank(self.rank()))
    }
}
