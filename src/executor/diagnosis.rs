//! What a rank does while it waits in vain: it tells those whose messages it waits for what it has
//! called and where, and listens to what others tell.
//!
//! Ranks of one node compare signatures before each call; between nodes that would cost a message
//! each way. There a message carries a hash of the signature in its tag, so messages of different
//! calls do not match and their receiver waits. After [`TELL_AFTER`] it tells the sender, who
//! compares the call of that number with its own (it may have finished that one long ago) and holds
//! an inquest when they differ. Every deadlock after a disagreement has such a pair: among the ranks
//! that wait in the earliest call, follow whose message each waits for; it ends at a rank that
//! called something else. This costs nothing while all goes well.

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
        stand: Option<Past>,
        waits_for: impl FnOnce() -> Vec<usize>,
    ) -> Result<()> {
        if waited < HEAR_AFTER || context.transport.ranks() == 1 {
            return Ok(());
        }
        let Some(stand) = stand else { return Ok(()) };
        if waited >= TELL_AFTER && !self.told {
            self.told = true;
            let news = News::Waiting { call: stand.call, called: stand.called(context.rank()) };
            for peer in waits_for() {
                context.tell(peer, &news)?;
            }
        }
        context.hear_all(&stand, None)?;
        if let Some(verdict) = context.verdict() {
            return Err(verdict);
        }
        if context.has_answered() {
            return Ok(());
        }
        match found(context, &stand) {
            None => Ok(()),
            Some((call, calls)) => Err(context.lead(&stand, call, calls, None)?),
        }
    }
}

/// A call in which a rank that waits has called something else than this one.
fn found(context: &Context, stand: &Past) -> Option<(u64, Vec<Called>)> {
    context.inquest.waiting.borrow().values().find_map(|(call, theirs)| {
        let own = context.past(*call, stand)?;
        let differ = own.signature != theirs.signature;
        differ.then(|| (*call, vec![theirs.clone()]))
    })
}

/// What others wait in, for the message of a time-out.
pub(super) fn heard(context: &Context) -> String {
    let mut text = String::new();
    for (call, Called { rank, signature, site }) in context.inquest.waiting.borrow().values() {
        // Writing to a string cannot fail.
        let _ = write!(text, "; rank {rank} waits in {signature}, no. {call}, at {site}");
    }
    text
}
