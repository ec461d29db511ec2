//! One call on its way.
//!
//! ```text
//! Settling  wait for the ranks that were not waited for in the call before, and compare with them
//! Opening   wait until the workspace is free (only when its last use has not been met since)
//! Round     arrive at the meet of the round, or start it
//! Meeting   wait for the ranks of the node; at the first meet also compare signatures
//! Greeting  before the first messages: exchange signatures with those they go to and come from
//! Moving    wait for the messages of the round; its local steps are done already
//! Done
//! ```

use std::rc::Rc;

use super::history::Past;
use super::{Context, Prepared};
use crate::error::{Error, Result};
use crate::plan::{Buffer, Round};
use crate::signature::{self, Signature};
use crate::transport::Posted;
use crate::transport::frame::{Buffers, Frame};
use crate::transport::memory::{Located, Registered};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    Settling,
    Opening,
    Round,
    Meeting,
    Moving,
    #[default]
    Done,
}

/// One call on its way. Boxed and used again, so that starting a call moves a pointer only.
#[derive(Debug)]
pub(super) struct Work {
    prepared: Option<Rc<Prepared>>,
    frame: Frame,
    posted: Posted,
    located: [Located; 2],
    /// Its number, what it is and where it stands in the program.
    past: Past,
    lane: usize,
    round: usize,
    phase: Phase,
    /// Whether its workspace may still be read by peers when it begins.
    opens: bool,
    agreed: bool,
    /// The number of the start, for tickets.
    pub(super) start: u64,
}

impl Default for Work {
    fn default() -> Self {
        Work {
            prepared: None,
            frame: Frame::default(),
            posted: Posted::default(),
            located: Default::default(),
            past: Past::default(),
            lane: 0,
            round: 0,
            phase: Phase::Done,
            opens: false,
            agreed: false,
            start: u64::MAX,
        }
    }
}

impl Work {
    /// Takes a new call on. Its buffers stay valid until it is done or cancelled.
    pub(super) fn begin(
        &mut self,
        context: &Context,
        lane: usize,
        prepared: &Rc<Prepared>,
        buffers: &Buffers<'_>,
        located: [Located; 2],
        past: Past,
    ) {
        let place = &context.lanes[lane];
        self.opens = prepared.shows_scratch && place.next_half_is_busy();
        self.frame.lend(&prepared.plan, buffers, place, prepared.element_bytes, prepared.rides);
        self.prepared = Some(prepared.clone());
        self.located = located;
        self.past = past;
        self.lane = lane;
        self.round = 0;
        self.phase = Phase::Settling;
        self.agreed = false;
        self.start = u64::MAX;
    }

    /// Where it stands, to see whether it has moved.
    pub(super) fn place(&self) -> (usize, bool) {
        (self.round, self.phase == Phase::Moving)
    }

    /// Where this rank stands in it.
    pub(super) fn stand(&self) -> Past {
        self.past
    }

    /// The ranks whose messages it waits for.
    pub(super) fn waits_for(&self) -> Vec<usize> {
        if self.phase == Phase::Moving { self.posted.missing() } else { Vec::new() }
    }

    /// What it waits for, in words.
    pub(super) fn describe(&self, context: &Context) -> String {
        let name = self.prepared.as_ref().map_or("", |p| p.name.as_str());
        let rounds = self.prepared.as_ref().map_or(0, |p| p.plan.rounds.len());
        let who = match self.phase {
            Phase::Moving => format!("messages of ranks {:?}", self.posted.missing()),
            _ => context.absent(self.lane),
        };
        let (call, round, site) = (self.past.call, (self.round + 1).min(rounds), self.past.site);
        format!("{name} at {site}, collective no. {call}, round {round} of {rounds}, for {who}")
    }

    /// Goes as far as possible without waiting. True once the call is done.
    pub(super) fn advance(&mut self, context: &Context) -> Result<bool> {
        let Some(prepared) = self.prepared.clone() else { return Ok(true) };
        loop {
            let moved = match self.phase {
                Phase::Settling => self.settle(context, &prepared)?,
                Phase::Opening => self.leave_opening(context, &prepared)?,
                Phase::Round => match prepared.plan.rounds.get(self.round) {
                    Some(round) => self.enter_round(context, &prepared, round)?,
                    None => self.finish(context, &prepared),
                },
                Phase::Meeting => self.leave_meeting(context, &prepared)?,
                Phase::Moving => self.leave_round(context)?,
                Phase::Done => return Ok(true),
            };
            if !moved {
                return Ok(false);
            }
        }
    }

    /// Nothing of this rank's that peers may still look at is written before this.
    fn settle(&mut self, context: &Context, prepared: &Prepared) -> Result<bool> {
        if !context.settle_debt(self.lane)? {
            return Ok(false);
        }
        self.phase = Phase::Round;
        if self.opens {
            prepared.arrive(&context.lanes[self.lane], self.located, self.past.site);
            self.phase = Phase::Opening;
        }
        Ok(true)
    }

    fn leave_opening(&mut self, context: &Context, prepared: &Prepared) -> Result<bool> {
        let all = context.lanes[self.lane].all_arrived();
        if all {
            self.agree(context, prepared)?;
            self.phase = Phase::Round;
        }
        Ok(all)
    }

    fn enter_round(
        &mut self,
        context: &Context,
        prepared: &Prepared,
        round: &Round,
    ) -> Result<bool> {
        if !round.meet {
            return self.move_elements(context, prepared);
        }
        let place = &context.lanes[self.lane];
        if self.agreed {
            place.arrive();
        } else {
            prepared.arrive(place, self.located, self.past.site);
        }
        if prepared.leaves_early && self.round + 1 == prepared.plan.rounds.len() {
            context.owe(self.lane, self.past, prepared.compares && !self.agreed);
            self.round += 1;
            return Ok(true);
        }
        self.phase = Phase::Meeting;
        Ok(true)
    }

    fn leave_meeting(&mut self, context: &Context, prepared: &Prepared) -> Result<bool> {
        let place = &context.lanes[self.lane];
        // A few looks at once: the peers mostly come within the time of one trip around.
        if !(0..context.wait.looks_at_once()).any(|_| place.all_arrived()) {
            return Ok(false);
        }
        if !self.agreed {
            self.agree(context, prepared)?;
        }
        self.move_elements(context, prepared)
    }

    /// Compares signatures, and learns where peers' buffers are, at the first meet.
    fn agree(&mut self, context: &Context, prepared: &Prepared) -> Result<()> {
        let place = &context.lanes[self.lane];
        if prepared.compares {
            signature::compare(&prepared.signature, place, context.peers(), self.past.call)?;
        }
        self.agreed = true;
        if prepared.reads_peers != [false, false] {
            let mut found: [Option<Rc<Registered>>; 2] = [None, None];
            for local in (0..place.locals()).filter(|&l| l != place.local()) {
                self.find_peer(context, prepared, local, &mut found)?;
            }
        }
        Ok(())
    }

    /// Finds the buffers of one peer. `found` remembers the last segments, which are mostly the
    /// same for all peers.
    fn find_peer(
        &mut self,
        context: &Context,
        prepared: &Prepared,
        local: usize,
        found: &mut [Option<Rc<Registered>>; 2],
    ) -> Result<()> {
        let rank = context.peers()[local];
        let located = Signature::located(&context.lanes[self.lane].words_of(local));
        for (i, buffer) in [Buffer::Input, Buffer::Output].into_iter().enumerate() {
            let bytes = prepared.peer_bytes[local][i];
            if !prepared.reads_peers[i] || bytes == 0 {
                continue;
            }
            let Located { key, offset } = located[i];
            if found[i].as_ref().is_none_or(|segment| segment.key != key) {
                found[i] = context.registry.find(key);
            }
            let world = context.world[rank];
            let fits = found[i].as_ref().is_some_and(|segment| {
                self.frame.set_peer(local, buffer, segment, world, offset, bytes)
            });
            if !fits {
                let what = format!(
                    "{}: rank {rank} passed a buffer of {bytes} bytes that this rank cannot reach; \
                     allocate it with `shared` on a communicator of both ranks",
                    prepared.name
                );
                return Err(Error::internal(what).on_rank(context.rank()));
            }
        }
        Ok(())
    }

    /// Starts the messages of the round and does its local steps.
    fn move_elements(&mut self, context: &Context, prepared: &Prepared) -> Result<bool> {
        let (transport, tag) = (&*context.transport, signature::tag(self.past.chain, self.lane));
        let (plan, round) = (&prepared.plan, self.round);
        let some = self.frame.post(plan, round, transport, tag, &mut self.posted)?;
        self.frame.run_local_steps(plan, round, prepared.combine, &context.topology);
        if some {
            self.phase = Phase::Moving;
        } else {
            self.round += 1;
            self.phase = Phase::Round;
        }
        Ok(true)
    }

    fn leave_round(&mut self, context: &Context) -> Result<bool> {
        let done = context.transport.poll(&mut self.posted)?;
        if done {
            self.round += 1;
            self.phase = Phase::Round;
        }
        Ok(done)
    }

    fn finish(&mut self, context: &Context, prepared: &Prepared) -> bool {
        self.phase = Phase::Done;
        self.frame.give_back();
        self.prepared = None;
        if prepared.shows_scratch {
            context.lanes[self.lane].release_half();
        }
        true
    }

    /// Gives the call up. Its buffers are not touched afterwards.
    pub(super) fn cancel(&mut self, context: &Context) {
        context.transport.cancel(&mut self.posted);
        self.frame.give_back();
        self.phase = Phase::Done;
        self.prepared = None;
    }
}
