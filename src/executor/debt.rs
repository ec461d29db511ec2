//! A rank that has nothing to learn at the last meet of a call does not wait there: the root of a
//! broadcast whose elements lie in its workspace, or ride on its flag line.
//!
//! It arrives, owes the wait, and returns. Its next use of the lane, before it writes anything that
//! peers may still read, waits until all have arrived at that meet, which by then is mostly so, and
//! compares signatures. So lanes keep their rule that nobody arrives at a meet before all have
//! arrived at the one before, and with it what says when lines and workspace may be written again;
//! ranks still compare every call with every rank of the node. Only the root hears of a
//! disagreement one call later; the others see it at once, before they read. On several nodes the
//! root waits, so that whoever reports a disagreement to the other nodes is there.

use std::cell::Cell;

use super::history::Past;
use super::{Context, LANES};
use crate::error::Result;
use crate::signature;

/// By lane: the call in which this rank has not waited for the others.
#[derive(Debug, Default)]
pub(super) struct Debts {
    lanes: [Cell<Option<Past>>; LANES],
}

impl Context {
    /// Leaves the wait at the last meet of a call to the next use of its lane.
    /// `compares` says whether the lines of that meet carry signatures to be compared.
    pub(super) fn owe(&self, lane: usize, past: Past, compares: bool) {
        let past = Past { call: if compares { past.call } else { 0 }, ..past };
        self.debts.lanes[lane].set(Some(past));
    }

    /// True once the ranks of the node have come to the last meet of a lane.
    pub(super) fn settle_debt(&self, lane: usize) -> Result<bool> {
        let Some(past) = self.debts.lanes[lane].get() else { return Ok(true) };
        let place = &self.lanes[lane];
        if !(0..self.wait.looks_at_once()).any(|_| place.all_arrived()) {
            return Ok(false);
        }
        self.debts.lanes[lane].set(None);
        if past.call > 0 {
            signature::compare(&past.signature, place, self.peers(), past.call)?;
        }
        Ok(true)
    }
}
