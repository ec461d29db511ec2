//! A rank that waits in one communicator listens to its others too: it may have done its part of a
//! call there whose other ranks now ask what it was, or wait for it in the next.
//!
//! Contexts are known by thread, since a communicator stays on its thread. A dead one is dropped
//! from the list when the next one is made. Cost: nothing but in waits that are long already.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::Context;
use super::diagnosis::differs;
use crate::error::Result;

thread_local! {
    static CONTEXTS: RefCell<Vec<Weak<Context>>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    /// Makes it known to the other contexts of this thread.
    pub fn known(self) -> Rc<Self> {
        let context = Rc::new(self);
        CONTEXTS.with_borrow_mut(|all| {
            all.retain(|other| other.strong_count() > 0);
            all.push(Rc::downgrade(&context));
        });
        context
    }

    /// Listens in all other communicators of this thread. An error when ranks disagree in one.
    pub(super) fn attend_others(&self) -> Result<()> {
        // One by one, so that nothing is allocated.
        for i in 0.. {
            let Some(other) = CONTEXTS.with_borrow(|all| all.get(i).map(Weak::upgrade)) else {
                break;
            };
            if let Some(other) = other.filter(|other| !std::ptr::eq(&**other, self)) {
                other.attend()?;
            }
        }
        Ok(())
    }

    /// Listens between calls.
    fn attend(&self) -> Result<()> {
        // Where the verdict is known, the program has had it.
        let last = self.history.borrow().find(self.calls());
        let Some(last) = last.filter(|_| self.verdict().is_none()) else { return Ok(()) };
        self.hear_all(&last, None)?;
        let verdict = match self.verdict() {
            None if self.has_answered() => None,
            None => differs(self, &last).map(|call| self.lead(&last, call, None)).transpose()?,
            some => some,
        };
        verdict.map_or(Ok(()), |verdict| {
            self.give_in(&verdict);
            Err(verdict)
        })
    }
}
