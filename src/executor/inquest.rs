//! How all ranks come to return the same error when some of them disagree.
//!
//! Ranks of one node compare signatures and so all see the same. Between nodes, some rank finds out
//! (`diagnosis`, or a comparison on its node) and holds an inquest:
//!
//! ```text
//! leader     Question(call) to all; collects Answers until all have come or GRACE is over;
//!            puts the calls into one error; Verdict(error) to all; returns it
//! others     answer from their history, go on waiting, return the Verdict when it comes
//! ```
//!
//! Two ranks may find out at once: the lower one leads, since a leader answers lower ranks only,
//! and gives up its own inquest when one asks. A rank that has answered never leads, so the higher
//! leader cannot end its inquest before it hears the lower one's question. A rank that has finished
//! its part of the call long ago answers from its history, in whatever call it waits by then; one
//! that computes hears the verdict at its next wait, unless the job has ended by then.
//!
//! Cost: nothing while all goes well; 3(p − 1) short messages when ranks disagree.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use super::history::Past;
use super::news::News;
use crate::error::{Error, ErrorKind, Result};
use crate::signature::{Called, disagreement};
use crate::transport::wait::{Wait, WaitPolicy};

/// How long the leader waits for answers: ranks that come to their next wait within this time
/// are part of the verdict.
const GRACE: Duration = Duration::from_secs(2);

/// What a rank knows of disagreements in its communicator.
#[derive(Debug, Default)]
pub(super) struct Inquest {
    /// The last call that each rank has said it waits in.
    pub(super) waiting: RefCell<BTreeMap<usize, (u64, Called)>>,
    /// Whether this rank has answered a question.
    answered: Cell<bool>,
    /// The error that all ranks return.
    verdict: RefCell<Option<Error>>,
}

/// An inquest that this rank leads.
#[derive(Debug)]
pub(super) struct Leading {
    call: u64,
    /// What is known so far.
    calls: BTreeMap<usize, Called>,
    /// The ranks that have answered, this one among them.
    heard: Vec<bool>,
}

impl Context {
    /// The error that all ranks return, once it is known.
    pub(super) fn verdict(&self) -> Option<Error> {
        self.inquest.verdict.borrow().clone()
    }

    /// Keeps the error that ended this communicator for later calls. The first one stays.
    pub(super) fn conclude(&self, error: &Error) {
        self.inquest.verdict.borrow_mut().get_or_insert_with(|| error.clone());
    }

    /// What this rank called there, if it has and remembers.
    pub(super) fn past(&self, call: u64, stand: &Past) -> Option<Past> {
        if call == stand.call { Some(*stand) } else { self.history.borrow().find(call) }
    }

    /// The same in the words that others read.
    fn called(&self, call: u64, stand: &Past) -> Option<Called> {
        self.past(call, stand).map(|past| past.called(self.rank()))
    }

    /// The error of all ranks, from one that this rank has found alone or with its node.
    pub(super) fn settle(&self, error: Error, stand: Option<Past>) -> Error {
        if error.kind != ErrorKind::Disagreement {
            return error;
        }
        let on_node = error.rank.is_none(); // the ranks of the node see it alike
        if on_node && self.topology.nodes() == 1 {
            return error;
        }
        let Some(stand) = stand else { return error };
        let first = self.peers().iter().min().copied();
        let ended = if on_node && first != Some(self.rank()) {
            self.follow(&stand, error)
        } else {
            self.lead(&stand, stand.call, Vec::new(), Some(error))
        };
        ended.unwrap_or_else(|failed| failed)
    }

    /// Leads an inquest about a call in which ranks disagree. `local` is the error if nobody else
    /// has anything to say.
    pub(super) fn lead(
        &self,
        stand: &Past,
        call: u64,
        known: Vec<Called>,
        local: Option<Error>,
    ) -> Result<Error> {
        let ranks = self.transport.ranks();
        let mut leading = Leading { call, calls: BTreeMap::new(), heard: vec![false; ranks] };
        leading.heard[self.rank()] = true;
        let waiting = self.inquest.waiting.borrow().values().cloned().collect::<Vec<_>>();
        let waiting = waiting.into_iter().filter(|(of, _)| *of == call).map(|(_, called)| called);
        for called in self.called(call, stand).into_iter().chain(waiting).chain(known) {
            leading.calls.insert(called.rank, called);
        }
        self.hear_all(stand, None)?;
        if let Some(verdict) = self.verdict() {
            return Ok(verdict);
        }
        if self.inquest.answered.get() {
            let error = leading.error(local);
            return self.follow(stand, error);
        }
        self.tell_all(&News::Question { call })?;
        let mut wait = Wait::new(WaitPolicy { spins: 0, limit: GRACE });
        while leading.heard.contains(&false) && wait.pause() {
            self.hear_all(stand, Some(&mut leading))?;
            if let Some(verdict) = self.verdict() {
                return Ok(verdict);
            }
            if self.inquest.answered.get() {
                let error = leading.error(local);
                return self.follow(stand, error);
            }
        }
        let agreed = !leading.heard.contains(&false);
        let error = Error { agreed, ..leading.error(local) };
        self.conclude(&error);
        self.tell_all(&News::Verdict(error.clone()))?;
        Ok(error)
    }

    /// Waits for the verdict of another rank; without one, the error is this rank's own.
    fn follow(&self, stand: &Past, own: Error) -> Result<Error> {
        let mut wait = Wait::new(WaitPolicy { spins: 0, limit: 2 * GRACE });
        while wait.pause() {
            self.hear_all(stand, None)?;
            if let Some(verdict) = self.verdict() {
                return Ok(verdict);
            }
        }
        Ok(own)
    }

    /// Hears and answers everything that has been told.
    pub(super) fn hear_all(&self, stand: &Past, leading: Option<&mut Leading>) -> Result<()> {
        let mut leading = leading;
        while let Some((rank, words)) = self.transport.hear()? {
            match News::decode(rank, self.generation, &words) {
                Some(News::Waiting { call, called }) => {
                    self.inquest.waiting.borrow_mut().insert(rank, (call, called));
                }
                Some(News::Question { call }) if leading.is_none() || rank < self.rank() => {
                    self.inquest.answered.set(true);
                    self.tell(rank, &News::Answer { call, called: self.called(call, stand) })?;
                }
                Some(News::Answer { call, called }) => {
                    if let Some(leading) = leading.as_mut().filter(|l| l.call == call) {
                        leading.heard[rank] = true;
                        leading.calls.extend(called.map(|called| (rank, called)));
                    }
                }
                Some(News::Verdict(error)) => self.conclude(&error),
                Some(News::Question { .. }) | None => {}
            }
        }
        Ok(())
    }

    /// Whether another rank holds an inquest already.
    pub(super) fn has_answered(&self) -> bool {
        self.inquest.answered.get()
    }

    /// Tells a rank something.
    pub(super) fn tell(&self, rank: usize, news: &News) -> Result<()> {
        self.transport.tell(rank, &news.encode(self.generation)?)
    }

    fn tell_all(&self, news: &News) -> Result<()> {
        let words = news.encode(self.generation)?;
        let others = (0..self.transport.ranks()).filter(|&rank| rank != self.rank());
        others.into_iter().try_for_each(|rank| self.transport.tell(rank, &words))
    }
}

impl Leading {
    /// What is known, as one error: the calls if they differ, else what this rank found.
    fn error(&self, local: Option<Error>) -> Error {
        let calls: Vec<Called> = self.calls.values().cloned().collect();
        let differ = calls.windows(2).any(|pair| pair[0].signature != pair[1].signature);
        match local {
            Some(local) if !differ => local,
            _ => disagreement(&calls, self.call),
        }
    }
}
