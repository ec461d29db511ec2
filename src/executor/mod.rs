//! Runs checked plans, step by step, without blocking.
//!
//! A `work` is one call on its way: a small state machine that goes as far as it can and
//! returns. Blocking calls run one work to its end; started calls stay in the [`Context`], which
//! moves them on from every wait of every call of this communicator. Each waits with a limit, and
//! says who is missing when the limit is over.
//!
//! * **Lanes.** Blocking calls use lane 0, one after another. Started calls take lanes
//!   1 … [`STARTED`] in turn, the same on every rank, because all ranks start calls in the same
//!   order. A lane has its own flag lines, workspace and message tag, so calls cannot mix.
//! * **Agreement.** The first meet of a call compares signatures and learns where peers' buffers
//!   lie, so no element moves between ranks of a node before they agree.
//! * **Between nodes** messages carry a hash of all calls so far in their tag, so what does not
//!   belong to a call never reaches its buffers; ranks that then wait in vain tell each other what
//!   they called (`diagnosis`, with the words of `news`), and whoever sees a difference collects
//!   the calls of all ranks, so that all of them return the same error (`inquest`, `history`).
//! * **Allocation.** None after the first run: plans, vectors and workspace are reused.

mod attend;
mod debt;
mod diagnosis;
mod history;
mod inquest;
mod news;
mod work;

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::check::Checked;
use crate::signature::{self, Signature};
use crate::topology::Topology;
use crate::transport::Transport;
use crate::transport::frame::{Buffers, Combine};
use crate::transport::lane::{Lane, PAYLOAD_BYTES};
use crate::transport::memory::{Located, Registry};
use crate::transport::wait::{Wait, WaitPolicy};

use debt::Debts;
use diagnosis::Diagnosis;
use history::{History, Past};
use inquest::Inquest;
use work::Work;

/// The most started calls under way at once on a communicator; starting one more first waits for
/// the oldest.
pub const STARTED: usize = 8;
/// Lanes of a communicator.
pub const LANES: usize = 1 + STARTED;
/// Calls between two looks at what other nodes tell, however short the waits are.
const CALLS_BETWEEN_HEARINGS: u64 = 64;
/// Looks of a wait between two moves of the other calls.
const LOOKS_BETWEEN_MOVES: u32 = 16;

/// Everything the calls of one communicator share.
#[derive(Debug)]
pub struct Context {
    /// Messages between all ranks.
    pub transport: Box<dyn Transport>,
    /// The ranks of the own node; `None` for a rank alone on its node.
    pub node: Option<Box<dyn Transport>>,
    /// Where the ranks of the node meet: lane 0 for blocking calls, the others for started ones.
    pub lanes: Vec<Lane>,
    /// Where all ranks live.
    pub topology: Topology,
    /// The world rank of each rank.
    pub world: Vec<usize>,
    /// Shared segments of this process.
    pub registry: Rc<Registry>,
    /// How to wait.
    pub wait: WaitPolicy,
    calls: Cell<u64>,
    /// The hash of all calls so far.
    chain: Cell<u64>,
    starts: Cell<u64>,
    /// Set when a call was given up: peers may still wait in it.
    broken: Cell<bool>,
    /// The number of this communicator among those that used its transport one after another.
    generation: u64,
    history: RefCell<History>,
    debts: Debts,
    inquest: Inquest,
    /// The work of each lane, while it is under way.
    under_way: [RefCell<Option<Box<Work>>>; LANES],
    /// Works that are done, to be used again. Boxed, because they go back and forth between here
    /// and the lanes.
    #[allow(clippy::vec_box)]
    spare: RefCell<Vec<Box<Work>>>,
}

/// A started call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    lane: usize,
    start: u64,
}

impl Context {
    /// A context that has run nothing yet.
    pub fn new(
        transport: Box<dyn Transport>,
        node: Option<Box<dyn Transport>>,
        lanes: Vec<Lane>,
        topology: Topology,
        world: Vec<usize>,
        registry: Rc<Registry>,
        wait: WaitPolicy,
    ) -> Self {
        Context {
            transport,
            node,
            lanes,
            history: RefCell::new(History::new(topology.nodes())),
            topology,
            world,
            registry,
            wait,
            generation: 0,
            debts: Debts::default(),
            inquest: Inquest::default(),
            calls: Cell::new(0),
            chain: Cell::new(0),
            starts: Cell::new(0),
            broken: Cell::new(false),
            under_way: Default::default(),
            spare: RefCell::default(),
        }
    }

    /// The same where another context has used the transport before: what ranks still tell about
    /// its calls is not taken for news of this one.
    pub fn second(self) -> Self {
        Context { generation: 1, ..self }
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// The lane of blocking calls.
    pub fn lane(&self) -> &Lane {
        &self.lanes[0]
    }

    /// How many collectives have been started.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// The ranks of this node.
    pub fn peers(&self) -> &[usize] {
        self.topology.peers(self.rank())
    }

    /// Runs a call to its end.
    pub fn run(
        &self,
        prepared: &Rc<Prepared>,
        buffers: Buffers<'_>,
        located: [Located; 2],
        site: &'static Location<'static>,
    ) -> Result<()> {
        let mut work = self.begin(0, prepared, &buffers, located, site)?;
        let result = self.complete(&mut work);
        self.end(work, &result);
        result
    }

    /// Starts a call and goes as far as possible without waiting.
    ///
    /// The caller keeps the buffers valid and untouched until [`Context::wait`] or
    /// [`Context::give_up`] has returned for the ticket.
    pub fn start(
        &self,
        prepared: &Rc<Prepared>,
        buffers: &Buffers<'_>,
        located: [Located; 2],
        site: &'static Location<'static>,
    ) -> Result<Ticket> {
        let start = self.starts.get();
        let lane = 1 + (start % STARTED as u64) as usize;
        self.finish_lane(lane)?;
        prepared.reserve(self, lane, site)?;
        let mut work = self.begin(lane, prepared, buffers, located, site)?;
        self.starts.set(start + 1);
        work.start = start;
        let ticket = Ticket { lane, start };
        match self.advance(&mut work) {
            Ok(_) => *self.under_way[lane].borrow_mut() = Some(work),
            Err(error) => {
                let result = Err(error);
                self.end(work, &result);
                return result.map(|()| ticket);
            }
        }
        Ok(ticket)
    }

    /// Goes on with all started calls. True once the call of the ticket is done.
    pub fn test(&self, ticket: Ticket) -> Result<bool> {
        self.move_others()?;
        Ok(self.is_done(ticket))
    }

    /// Waits for the call of the ticket.
    pub fn wait(&self, ticket: Ticket) -> Result<()> {
        if self.is_done(ticket) { Ok(()) } else { self.finish_lane(ticket.lane) }
    }

    /// Gives a started call up, so that its buffers are the caller's again. The communicator
    /// refuses further calls, since peers may wait in this one for ever.
    pub fn give_up(&self, ticket: Ticket) {
        if !self.is_done(ticket)
            && let Some(work) = self.under_way[ticket.lane].take()
        {
            self.end(work, &Err(Error::internal("given up")));
        }
    }

    fn is_done(&self, ticket: Ticket) -> bool {
        self.under_way[ticket.lane].borrow().as_ref().is_none_or(|work| work.start != ticket.start)
    }

    /// Waits for whatever is under way on a lane.
    fn finish_lane(&self, lane: usize) -> Result<()> {
        let Some(mut work) = self.under_way[lane].take() else { return Ok(()) };
        let result = self.complete(&mut work);
        self.end(work, &result);
        result
    }

    fn begin(
        &self,
        lane: usize,
        prepared: &Rc<Prepared>,
        buffers: &Buffers<'_>,
        located: [Located; 2],
        site: &'static Location<'static>,
    ) -> Result<Box<Work>> {
        self.refuse_if_broken(&prepared.name, site)?;
        let past = self.next(prepared.signature, site);
        self.calls.set(past.call);
        self.chain.set(past.chain);
        self.history.borrow_mut().note(past);
        if self.topology.nodes() > 1 && past.call.is_multiple_of(CALLS_BETWEEN_HEARINGS) {
            self.hear_all(&past, None)?;
            self.verdict().map_or(Ok(()), |verdict| {
                self.give_in(&verdict);
                Err(verdict)
            })?;
        }
        let mut work = self.spare.borrow_mut().pop().unwrap_or_default();
        work.begin(self, lane, prepared, buffers, located, past);
        Ok(work)
    }

    /// The next call, if it is this one.
    fn next(&self, signature: Signature, site: &'static Location<'static>) -> Past {
        let (call, chain) = (self.calls.get() + 1, signature.chain(self.chain.get()));
        Past { call, chain, signature, site }
    }

    /// An error if an earlier call has failed: the same one where ranks disagreed.
    fn refuse_if_broken(&self, name: &str, site: &'static Location<'static>) -> Result<()> {
        if !self.broken.get() {
            return Ok(());
        }
        Err(self.verdict().unwrap_or_else(|| {
            let what = format!(
                "{name} at {site}: an earlier collective of this communicator failed or was given \
                 up; use another communicator"
            );
            Error::internal(what).on_rank(self.rank())
        }))
    }

    /// Moves a work on. Where ranks disagree, the error is that of all ranks.
    fn advance(&self, work: &mut Work) -> Result<bool> {
        work.advance(self).map_err(|error| self.settle(error, &work.stand()))
    }

    /// Waits until a work is done, and moves the others on meanwhile.
    fn complete(&self, work: &mut Work) -> Result<()> {
        let mut wait = Wait::new(self.wait);
        let mut diagnosis = Diagnosis::default();
        let mut before = work.place();
        let mut looks = 0;
        while !self.advance(work)? {
            if before != work.place() {
                before = work.place();
                wait = Wait::new(self.wait);
            }
            looks += 1;
            if looks % LOOKS_BETWEEN_MOVES == 0 {
                self.move_others()?;
            }
            self.pause(&mut wait, || work.describe(self))?;
            if wait.is_long() {
                diagnosis.look(self, wait.waited(), &work.stand(), || work.waits_for())?;
            }
        }
        Ok(())
    }

    /// Goes on with all started calls.
    fn move_others(&self) -> Result<()> {
        if self.starts.get() == 0 {
            return Ok(());
        }
        for lane in &self.under_way[1..] {
            // Taken out while it moves: moving never starts or finishes another call.
            let Some(mut work) = lane.take() else { continue };
            match self.advance(&mut work) {
                Ok(false) => *lane.borrow_mut() = Some(work),
                Ok(true) => self.end(work, &Ok(())),
                Err(error) => {
                    let result = Err(error);
                    self.end(work, &result);
                    return result;
                }
            }
        }
        Ok(())
    }

    /// Puts a work away; one that failed gives up what is under way and breaks the communicator.
    fn end(&self, mut work: Box<Work>, result: &Result<()>) {
        if let Err(error) = result {
            work.cancel(self);
            self.give_in(error);
        }
        self.spare.borrow_mut().push(work);
    }

    /// Refuses further calls, because of this error.
    fn give_in(&self, error: &Error) {
        self.broken.set(true);
        if error.kind == ErrorKind::Disagreement {
            self.conclude(error);
        }
    }

    /// One look of a wait: fails when a peer has failed or the limit is over.
    fn pause(&self, wait: &mut Wait, describe: impl FnOnce() -> String) -> Result<()> {
        if !wait.pause() {
            let what = format!(
                "{}{}: waited {:.1} s; a rank may be stuck or gone, or raise --timeout",
                describe(),
                diagnosis::heard(self),
                wait.waited().as_secs_f64(),
            );
            return Err(Error::new(ErrorKind::Timeout, what).on_rank(self.rank()));
        }
        match wait.is_long().then(|| self.transport.peer_failure()).flatten() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Meets the ranks of the node outside a call, with these words on the lines, which begin with
    /// the signature; compares that.
    pub fn meet(
        &self,
        lane: usize,
        name: &str,
        words: &[u64],
        signature: &Signature,
        site: &'static Location<'static>,
    ) -> Result<()> {
        self.refuse_if_broken(name, site)?;
        let place = &self.lanes[lane];
        // What is made here is for the next call.
        let stand = self.next(*signature, site);
        let call = stand.call;
        let describe =
            || format!("{name} at {site}, before collective no. {call}, for {}", self.absent(lane));
        let settle = |error| self.settle(error, &stand);
        let met = self.wait_until(|| self.settle_debt(lane).map_err(settle), &stand, describe);
        let met = met.and_then(|()| {
            signature::note_site(place, site);
            place.arrive_with(words);
            self.wait_until(|| Ok(place.all_arrived()), &stand, describe)?;
            signature::compare(signature, place, self.peers(), call).map_err(settle)
        });
        met.inspect_err(|error| self.give_in(error))
    }

    fn wait_until(
        &self,
        done: impl Fn() -> Result<bool>,
        stand: &Past,
        describe: impl Fn() -> String,
    ) -> Result<()> {
        let mut wait = Wait::new(self.wait);
        let mut diagnosis = Diagnosis::default();
        while !done()? {
            self.move_others()?;
            self.pause(&mut wait, &describe)?;
            if wait.is_long() {
                diagnosis.look(self, wait.waited(), stand, Vec::new)?;
            }
        }
        Ok(())
    }

    /// The ranks that have not arrived on a lane, in words.
    fn absent(&self, lane: usize) -> String {
        let ranks: Vec<usize> =
            self.lanes[lane].missing().into_iter().map(|local| self.peers()[local]).collect();
        format!("ranks {ranks:?}")
    }
}

/// What a call needs beside its buffers. Made once for many calls.
#[derive(Debug)]
pub struct Prepared {
    /// The plan of this rank.
    pub plan: Checked,
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
    /// Whether peers read this rank's workspace in the lane's halves.
    pub shows_scratch: bool,
    /// Whether the workspace is so small that it rides on the flag lines.
    pub rides: bool,
    /// Whether signatures are compared at the first meet.
    pub compares: bool,
    /// Whether this rank does not wait at the last meet (see `debt`).
    pub leaves_early: bool,
}

impl Prepared {
    /// Whether the workspace of a plan that reads no peer's buffers can ride on the flag lines: one
    /// meet, and few elements. The same on all ranks of a node.
    pub fn can_ride(plan: &Checked, element_bytes: usize) -> bool {
        let bytes = plan.scratch * element_bytes;
        let meets = plan.rounds.iter().filter(|round| round.meet).count();
        (1..=PAYLOAD_BYTES).contains(&bytes) && meets == 1
    }

    /// Bytes of workspace that the plan needs.
    fn scratch_bytes(&self) -> usize {
        self.plan.scratch * self.element_bytes
    }

    /// Arrives at the first meet of a call, with what peers must know.
    fn arrive(&self, lane: &Lane, located: [Located; 2], site: &'static Location<'static>) {
        if !self.compares && self.reads_peers == [false; 2] {
            return lane.arrive();
        }
        if self.compares {
            signature::note_site(lane, site);
        }
        if self.rides {
            // The other words of the line hold elements already.
            lane.arrive_with(&self.signature.to_words());
        } else {
            lane.arrive_with(&self.signature.words(located[0], located[1]));
        }
    }

    /// Makes the workspace of a lane large enough. Collective over the node: the ranks compare
    /// signatures first, so a disagreement is found here and not in a hang.
    pub fn reserve(
        &self,
        context: &Context,
        lane: usize,
        site: &'static Location<'static>,
    ) -> Result<()> {
        let place = &context.lanes[lane];
        if self.rides || place.has_scratch(self.scratch_bytes()) {
            return Ok(());
        }
        let words = self.signature.to_words();
        context.meet(lane, &self.name, &words, &self.signature, site)?;
        place.grow_scratch(context.node.as_deref(), self.scratch_bytes())
    }
}
