//! Runs a checked plan, step by step, without blocking.
//!
//! An [`Execution`] is a small state machine: arrive at a meet, look whether all have come, start
//! the messages of a round, do its local steps while they fly, look whether they are done, next
//! round. [`Execution::advance`] goes as far as it can and returns; [`Execution::finish`] waits,
//! with a limit, and says who is missing when the limit is over.
//!
//! The first meet of a call also compares signatures and learns where peers' buffers lie, so no
//! element moves between ranks before they agree. After its first run an execution allocates
//! nothing: plans, vectors and workspace are reused.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::Buffer;
use crate::plan::check::Checked;
use crate::signature::{self, Signature};
use crate::topology::Topology;
use crate::transport::frame::{Buffers, Combine, Frame, FramePool};
use crate::transport::lane::Lane;
use crate::transport::memory::{Located, Registered, Registry};
use crate::transport::wait::{Wait, WaitPolicy};
use crate::transport::{Posted, Transport};

/// Everything the executions of one communicator share.
#[derive(Debug)]
pub struct Context {
    /// Messages between all ranks.
    pub transport: Box<dyn Transport>,
    /// The ranks of the own node; `None` for a rank alone on its node.
    pub node: Option<Box<dyn Transport>>,
    /// Where the ranks of the node meet.
    pub lane: Lane,
    /// Where all ranks live.
    pub topology: Topology,
    /// The world rank of each rank.
    pub world: Vec<usize>,
    /// Shared segments of this process.
    pub registry: Rc<Registry>,
    /// How to wait.
    pub wait: WaitPolicy,
    calls: Cell<u64>,
    busy: Cell<bool>,
    spare: RefCell<(FramePool, Posted)>,
}

impl Context {
    /// A context that has run nothing yet.
    pub fn new(
        transport: Box<dyn Transport>,
        node: Option<Box<dyn Transport>>,
        lane: Lane,
        topology: Topology,
        world: Vec<usize>,
        registry: Rc<Registry>,
        wait: WaitPolicy,
    ) -> Self {
        Context {
            transport,
            node,
            lane,
            topology,
            world,
            registry,
            wait,
            calls: Cell::new(0),
            busy: Cell::new(false),
            spare: RefCell::default(),
        }
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// How many collectives have been started.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    fn peers(&self) -> &[usize] {
        self.topology.peers(self.rank())
    }
}

/// What an execution needs to know of a call, beside its buffers. Made once for many calls.
#[derive(Debug)]
pub struct Prepared {
    /// The plan of this rank.
    pub plan: Rc<Checked>,
    /// What peers must agree on.
    pub signature: Signature,
    /// The name for messages: `all_reduce/ring`.
    pub name: String,
    /// Bytes of one element.
    pub element_bytes: usize,
    /// How elements are combined.
    pub combine: Combine,
    /// Whether peers' inputs and outputs are read in place.
    pub reads_peers: [bool; 2],
    /// Bytes of the input and output of each rank of the node.
    pub peer_bytes: Vec<[usize; 2]>,
}

impl Prepared {
    /// Bytes of workspace that the plan needs.
    pub fn scratch_bytes(&self) -> usize {
        self.plan.scratch * self.element_bytes
    }

    /// Whether peers read this rank's workspace.
    fn shows_scratch(&self) -> bool {
        self.plan.scratch > 0 && self.plan.rounds.iter().any(|round| round.meet)
    }

    /// Arrives at the first meet of a call, with what peers must know.
    fn arrive(&self, context: &Context, located: [Located; 2], site: &'static Location<'static>) {
        signature::note_site(&context.lane, site);
        context.lane.arrive_with(&self.signature.words(located[0], located[1]));
    }

    /// Makes the workspace large enough. Collective over the node: the ranks compare signatures
    /// first, so a disagreement is found here and not in a hang.
    pub fn reserve(&self, context: &Context, site: &'static Location<'static>) -> Result<()> {
        if context.lane.has_scratch(self.scratch_bytes()) {
            return Ok(());
        }
        self.arrive(context, [Located::default(); 2], site);
        wait_for_meet(context, &self.name)?;
        signature::compare(&self.signature, &context.lane, context.peers(), context.calls())?;
        context.lane.grow_scratch(context.node.as_deref(), self.scratch_bytes())
    }
}

/// Waits until all ranks of the node have arrived.
pub fn wait_for_meet(context: &Context, name: &str) -> Result<()> {
    let mut wait = Wait::new(context.wait);
    while !context.lane.all_arrived() {
        pause(&mut wait, context, name, "", || context.lane.missing().len())?;
    }
    Ok(())
}

/// One look of a wait: fails when a peer has failed or the limit is over.
fn pause(
    wait: &mut Wait,
    context: &Context,
    name: &str,
    place: &str,
    missing_messages: impl Fn() -> usize,
) -> Result<()> {
    if !wait.pause() {
        let absent: Vec<usize> =
            context.lane.missing().into_iter().map(|l| context.peers()[l]).collect();
        let who = if absent.is_empty() {
            format!("{} messages", missing_messages())
        } else {
            format!("ranks {absent:?}")
        };
        let what = format!(
            "{name}, collective no. {}{place}: waited {:.1} s for {who}; a rank may be stuck or \
             gone, or raise --timeout",
            context.calls(),
            wait.waited().as_secs_f64(),
        );
        return Err(Error::new(ErrorKind::Timeout, what).on_rank(context.rank()));
    }
    match wait.is_long().then(|| context.transport.peer_failure()).flatten() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Before the meet that frees the workspace, if one is needed.
    Opening,
    /// At the start of a round.
    Round,
    /// Waiting for the ranks of the node.
    Meeting,
    /// Waiting for messages.
    Moving,
    /// All rounds are done.
    Done,
}

/// One call of a collective on its way.
#[derive(Debug)]
pub struct Execution<'a> {
    context: &'a Context,
    prepared: &'a Prepared,
    frame: Option<Frame<'a>>,
    posted: Posted,
    located: [Located; 2],
    site: &'static Location<'static>,
    round: usize,
    phase: Phase,
    agreed: bool,
}

impl<'a> Execution<'a> {
    /// Starts a call. Its buffers belong to it until it is finished or dropped.
    pub fn start(
        context: &'a Context,
        prepared: &'a Prepared,
        buffers: Buffers<'a>,
        located: [Located; 2],
        site: &'static Location<'static>,
    ) -> Result<Self> {
        if context.busy.replace(true) {
            let what = format!(
                "{} at {site}: another collective of this communicator is still under way or was \
                 given up; finish it first, or use another communicator",
                prepared.name
            );
            return Err(Error::internal(what).on_rank(context.rank()));
        }
        context.calls.set(context.calls.get() + 1);
        let opening = prepared.shows_scratch() && context.lane.next_half_is_busy();
        if opening {
            prepared.arrive(context, located, site);
        }
        let (pool, posted) = context.spare.take();
        let frame = Frame::new(
            prepared.plan.clone(),
            buffers,
            &context.lane,
            prepared.element_bytes,
            prepared.combine,
            pool,
        );
        let phase = if opening { Phase::Opening } else { Phase::Round };
        Ok(Execution {
            context,
            prepared,
            frame: Some(frame),
            posted,
            located,
            site,
            round: 0,
            phase,
            agreed: false,
        })
    }

    /// Goes as far as possible without waiting. True once the call is done.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            let moved = match self.phase {
                Phase::Opening => self.leave_opening()?,
                Phase::Round => self.enter_round()?,
                Phase::Meeting => self.leave_meeting()?,
                Phase::Moving => self.leave_round()?,
                Phase::Done => return Ok(true),
            };
            if !moved {
                return Ok(false);
            }
        }
    }

    /// Waits until the call is done.
    pub fn finish(mut self) -> Result<()> {
        let mut wait = Wait::new(self.context.wait);
        let mut before = (self.round, self.phase);
        while !self.advance()? {
            if before != (self.round, self.phase) {
                before = (self.round, self.phase);
                wait = Wait::new(self.context.wait);
            }
            let place =
                || format!(", round {} of {}", self.round + 1, self.prepared.plan.rounds.len());
            let place = if wait.is_long() { place() } else { String::new() };
            let missing = || self.posted.missing().len();
            pause(&mut wait, self.context, &self.prepared.name, &place, missing)?;
        }
        Ok(())
    }

    fn leave_opening(&mut self) -> Result<bool> {
        let all = self.context.lane.all_arrived();
        if all {
            self.agree()?;
            self.phase = Phase::Round;
        }
        Ok(all)
    }

    fn enter_round(&mut self) -> Result<bool> {
        let Some(round) = self.prepared.plan.rounds.get(self.round) else {
            self.end();
            return Ok(true);
        };
        if !round.meet {
            return self.move_elements();
        }
        if self.agreed {
            self.context.lane.arrive();
        } else {
            self.prepared.arrive(self.context, self.located, self.site);
        }
        self.phase = Phase::Meeting;
        Ok(true)
    }

    fn leave_meeting(&mut self) -> Result<bool> {
        if !self.context.lane.all_arrived() {
            return Ok(false);
        }
        if !self.agreed {
            self.agree()?;
        }
        self.move_elements()
    }

    /// Compares signatures, and learns where peers' buffers are, at the first meet.
    fn agree(&mut self) -> Result<()> {
        let (context, prepared) = (self.context, self.prepared);
        signature::compare(&prepared.signature, &context.lane, context.peers(), context.calls())?;
        self.agreed = true;
        if prepared.reads_peers != [false, false] {
            let mut found: [Option<Rc<Registered>>; 2] = [None, None];
            for local in (0..context.lane.locals()).filter(|&l| l != context.lane.local()) {
                self.find_peer(local, &mut found)?;
            }
        }
        Ok(())
    }

    /// Finds the buffers of one peer. `found` remembers the last segments, which are mostly the
    /// same for all peers.
    fn find_peer(&mut self, local: usize, found: &mut [Option<Rc<Registered>>; 2]) -> Result<()> {
        let context = self.context;
        let rank = context.peers()[local];
        let located = Signature::located(&context.lane.words_of(local));
        for (i, buffer) in [Buffer::Input, Buffer::Output].into_iter().enumerate() {
            let bytes = self.prepared.peer_bytes[local][i];
            if !self.prepared.reads_peers[i] || bytes == 0 {
                continue;
            }
            let Located { key, offset } = located[i];
            if found[i].as_ref().is_none_or(|segment| segment.key != key) {
                found[i] = context.registry.find(key);
            }
            let fits = match (&found[i], self.frame.as_mut()) {
                (Some(segment), Some(frame)) => {
                    frame.set_peer(local, buffer, segment, context.world[rank], offset, bytes)
                }
                _ => false,
            };
            if !fits {
                let what = format!(
                    "{}: rank {rank} passed a buffer of {bytes} bytes that this rank cannot reach; \
                     allocate it with `shared` on a communicator of both ranks",
                    self.prepared.name
                );
                return Err(Error::internal(what).on_rank(context.rank()));
            }
        }
        Ok(())
    }

    /// Starts the messages of the round and does its local steps.
    fn move_elements(&mut self) -> Result<bool> {
        let Some(frame) = self.frame.as_mut() else { return Ok(true) };
        let transport = &*self.context.transport;
        let some = frame.post(self.round, transport, 0, &mut self.posted)?;
        frame.run_local_steps(self.round, &self.context.topology);
        if some {
            self.phase = Phase::Moving;
        } else {
            self.round += 1;
            self.phase = Phase::Round;
        }
        Ok(true)
    }

    fn leave_round(&mut self) -> Result<bool> {
        let done = self.context.transport.poll(&mut self.posted)?;
        if done {
            self.round += 1;
            self.phase = Phase::Round;
        }
        Ok(done)
    }

    fn end(&mut self) {
        self.phase = Phase::Done;
        if self.prepared.shows_scratch() {
            self.context.lane.release_half();
        }
        if let Some(frame) = self.frame.take() {
            self.context.spare.replace((frame.into_pool(), std::mem::take(&mut self.posted)));
        }
        self.context.busy.set(false);
    }
}

impl Drop for Execution<'_> {
    /// A call that was given up leaves its communicator unusable: peers may wait in it for ever.
    fn drop(&mut self) {
        if self.phase != Phase::Done {
            self.context.transport.cancel(&mut self.posted);
        }
    }
}
