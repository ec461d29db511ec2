//! What this rank has called lately, so that it can still say so when others ask about a call that
//! it has finished already.
//!
//! A ring of the last calls: six words a call, written in every call, read only when ranks
//! disagree. Ranks on one node never drift apart by more than a few calls, since nearly every call
//! meets; between nodes the root of broadcasts may be hundreds of calls ahead.

use std::panic::Location;

use crate::signature::{Called, Signature};

/// Calls remembered where ranks may drift apart. A power of two.
const MANY: usize = 1024;
/// Calls remembered by ranks of one node. A power of two.
const FEW: usize = 8;

/// One call of this rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// Its number.
    pub(super) call: u64,
    /// The hash of all calls up to it ([`Signature::chain`]).
    pub(super) chain: u64,
    /// What it is.
    pub(super) signature: Signature,
    /// Where it stands in the program.
    pub(super) site: &'static Location<'static>,
}

impl Default for Past {
    #[track_caller]
    fn default() -> Self {
        let signature = Signature::from_parts([0; 3]);
        Past { call: 0, chain: 0, signature, site: Location::caller() }
    }
}

impl Past {
    /// What others are told of it.
    pub(super) fn called(&self, rank: usize) -> Called {
        let site = format!("{}:{}", self.site.file(), self.site.line());
        Called { rank, signature: self.signature, site }
    }
}

/// The last calls of this rank.
#[derive(Debug)]
pub(super) struct History {
    ring: Vec<Past>,
}

impl History {
    /// For ranks on this many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        History { ring: vec![Past::default(); if nodes > 1 { MANY } else { FEW }] }
    }

    fn place(&self, call: u64) -> usize {
        // The length is a power of two, so cutting the number first changes nothing.
        call as usize & (self.ring.len() - 1)
    }

    /// Notes a call. Numbers grow.
    pub(super) fn note(&mut self, past: Past) {
        let place = self.place(past.call);
        self.ring[place] = past;
    }

    /// The call of this number, from 1, if it has been and is remembered.
    pub(super) fn find(&self, call: u64) -> Option<Past> {
        let past = self.ring[self.place(call)];
        (past.call == call && call > 0).then_some(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_remembered_and_no_others() {
        for (nodes, many) in [(1, FEW as u64), (2, MANY as u64)] {
            let mut history = History::new(nodes);
            assert!(history.find(0).is_none());
            for last in 1..3 * many {
                let signature = Signature::from_parts([last, 2, 3]);
                history.note(Past { call: last, signature, ..Past::default() });
                for call in [last, last.saturating_sub(many - 1).max(1)] {
                    let parts = history.find(call).unwrap().signature.to_words();
                    assert_eq!(parts, [call, 2, 3]);
                }
                assert!(history.find(last + 1).is_none());
                assert!(last < many || history.find(last - many).is_none());
            }
        }
    }
}
