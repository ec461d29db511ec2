//! How all ranks come to return the same error when some of them disagree.
//!
//! Ranks of one node compare signatures and so all see the same. Between nodes, some rank finds out
//! (`diagnosis`, or a comparison on its node) and holds an inquest:
//!
//! ```text
//! leader     Question(call) to all; collects Answers until all have come or GRACE is over;
//!            puts the first call that differs into one error; Verdict(error) to all; returns it
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

/// Calls before the one in question that are looked at too: a rank may have done its part of a call
/// that differed (two roots of one broadcast both only send), and be stopped by a later one.
const CALLS_BACK: u64 = 15;

/// What a rank knows of disagreements in its communicator.
#[derive(Debug, Default)]
pub(super) struct Inquest {
    /// The last call that each rank has said it waits in.
    pub(super) waiting: RefCell<BTreeMap<usize, Waiting>>,
    /// Whether this rank has answered a question.
    answered: Cell<bool>,
    /// The error that all ranks return.
    verdict: RefCell<Option<Error>>,
}

/// A rank that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The number of the call.
    pub(super) call: u64,
    /// The hash of its calls up to there.
    pub(super) chain: u64,
    /// What it is.
    pub(super) called: Called,
}

/// An inquest that this rank leads.
#[derive(Debug)]
pub(super) struct Leading {
    /// Ranks disagree in this call or shortly before.
    call: u64,
    /// What is known so far: by call and rank.
    calls: BTreeMap<(u64, usize), Called>,
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

    /// What this rank called there and shortly before, in the words that others read.
    fn called(&self, call: u64, stand: &Past) -> Vec<(u64, Called)> {
        let calls = call.saturating_sub(CALLS_BACK)..=call;
        let past = calls.filter_map(|call| self.past(call, stand));
        past.map(|past| (past.call, past.called(self.rank()))).collect()
    }

    /// The error of all ranks, from one that this rank has found alone or with its node.
    pub(super) fn settle(&self, error: Error, stand: &Past) -> Error {
        if error.kind != ErrorKind::Disagreement {
            return error;
        }
        let on_node = error.rank.is_none(); // the ranks of the node see it alike
        if on_node && self.topology.nodes() == 1 {
            return error;
        }
        let first = self.peers().iter().min().copied();
        let ended = if on_node && first != Some(self.rank()) {
            self.follow(stand, error)
        } else {
            self.lead(stand, stand.call, Some(error))
        };
        ended.unwrap_or_else(|failed| failed)
    }

    /// Leads an inquest about a call in which ranks disagree. `local` is the error if nobody else
    /// has anything to say.
    pub(super) fn lead(&self, stand: &Past, call: u64, local: Option<Error>) -> Result<Error> {
        let ranks = self.transport.ranks();
        let mut leading = Leading { call, calls: BTreeMap::new(), heard: vec![false; ranks] };
        leading.heard[self.rank()] = true;
        leading.add(self.called(call, stand));
        for waiting in self.inquest.waiting.borrow().values().filter(|w| w.call == call) {
            leading.add(vec![(call, waiting.called.clone())]);
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
                Some(News::Waiting { call, chain, called }) => {
                    let waiting = Waiting { call, chain, called };
                    self.inquest.waiting.borrow_mut().insert(rank, waiting);
                }
                Some(News::Question { call }) if leading.is_none() || rank < self.rank() => {
                    self.inquest.answered.set(true);
                    self.tell(rank, &News::Answer { call, calls: self.called(call, stand) })?;
                }
                Some(News::Answer { call, calls }) => {
                    if let Some(leading) = leading.as_mut().filter(|l| l.call == call) {
                        leading.heard[rank] = true;
                        leading.add(calls);
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
    fn add(&mut self, calls: Vec<(u64, Called)>) {
        self.calls.extend(calls.into_iter().map(|(call, called)| ((call, called.rank), called)));
    }

    /// What is known, as one error: the first call that differs, else what this rank found.
    fn error(&self, local: Option<Error>) -> Error {
        let first = self.call.saturating_sub(CALLS_BACK);
        for number in first..=self.call {
            let of = self.calls.range((number, 0)..=(number, usize::MAX));
            let calls: Vec<Called> = of.map(|(_, called)| called.clone()).collect();
            if calls.windows(2).any(|pair| pair[0].signature != pair[1].signature) {
                return disagreement(&calls, number);
            }
        }
        local.unwrap_or_else(|| {
            let what = format!(
                "ranks disagree before collective no. {first}: what they called then is forgotten"
            );
            Error::new(ErrorKind::Disagreement, what)
        })
    }
}
