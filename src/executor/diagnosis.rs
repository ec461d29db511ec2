//! What a rank does while it waits in vain: it tells others what it has called and where, and
//! listens to what they tell.
//!
//! Ranks of one node compare signatures before each call; between nodes that would cost a message
//! each way. There a message carries a hash of all calls of its sender in its tag, so messages of
//! ranks that have called different things do not match, and their receiver waits. After
//! [`TELL_AFTER`] it tells those it waits for, and the ranks 1, 2, 4, … before and after it, so
//! that news get around when one of them is in other code. Whoever hears of a call compares it with
//! its own of that number, which it may have finished long ago, and holds an inquest when they
//! differ. It listens in its other communicators too (`attend`). That costs nothing while all goes
//! well.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::Context;
use super::history::Past;
use super::news::News;
use crate::error::Result;
use crate::signature::Called;

/// A wait this long is worth a look at what others tell.
const HEAR_AFTER: Duration = Duration::from_millis(50);

/// A wait this long is worth a message.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// What one wait has told.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    told: bool,
}

impl Diagnosis {
    /// One look of a long wait. An error when ranks disagree in this call or in an earlier one.
    pub(super) fn look(
        &mut self,
        context: &Context,
        waited: Duration,
        stand: &Past,
        waits_for: impl FnOnce() -> Vec<usize>,
    ) -> Result<()> {
        if waited < HEAR_AFTER || context.transport.ranks() == 1 {
            return Ok(());
        }
        if waited >= TELL_AFTER && !self.told {
            self.told = true;
            let &Past { call, chain, .. } = stand;
            let news = News::Waiting { call, chain, called: stand.called(context.rank()) };
            for peer in to_tell(context, waits_for()) {
                context.tell(peer, &news)?;
            }
        }
        context.hear_all(stand, None)?;
        if let Some(verdict) = context.verdict() {
            return Err(verdict);
        }
        match differs(context, stand) {
            Some(call) if !context.has_answered() => Err(context.lead(stand, call, None)?),
            _ => context.attend_others(),
        }
    }
}

/// Those it waits for and, where ranks do not compare on a node, some others.
fn to_tell(context: &Context, waits_for: Vec<usize>) -> BTreeSet<usize> {
    let (rank, ranks) = (context.rank(), context.transport.ranks());
    let mut all: BTreeSet<usize> = waits_for.into_iter().collect();
    if context.topology.nodes() > 1 {
        let distances = std::iter::successors(Some(1), |d| Some(2 * d)).take_while(|&d| d < ranks);
        all.extend(distances.flat_map(|d| [(rank + d) % ranks, (rank + ranks - d) % ranks]));
    }
    all.remove(&rank);
    all
}

/// A call up to which a rank that waits has called something else than this one.
pub(super) fn differs(context: &Context, stand: &Past) -> Option<u64> {
    context.inquest.waiting.borrow().values().find_map(|waiting| {
        let own = context.past(waiting.call, stand)?;
        (own.chain != waiting.chain).then_some(waiting.call)
    })
}

/// What others wait in, for the message of a time-out.
pub(super) fn heard(context: &Context) -> String {
    let mut text = String::new();
    for waiting in context.inquest.waiting.borrow().values() {
        let Called { rank, signature, site } = &waiting.called;
        let call = waiting.call;
        // Writing to a string cannot fail.
        let _ = write!(text, "; rank {rank} waits in {signature}, no. {call}, at {site}");
    }
    text
}
