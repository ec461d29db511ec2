//! Calls that have been started and not yet waited for.
//!
//! A [`Pending`] owns its buffers, so whatever the program does with it, even forgetting it, no
//! memory is freed or read while the call is under way. It moves on whenever this rank waits in
//! any call of the communicator, and in [`Pending::test`].

use std::panic::Location;
use std::rc::Rc;

use super::Communicator;
use super::call::Call;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::executor::{Prepared, Ticket};
use crate::transport::frame::Buffers;
use crate::transport::memory::{SharedBuffer, Sink, Source};

/// A buffer that can be handed over to a started call: its elements do not move with it.
pub trait Lent<T: Element>: sealed::Sealed {
    /// The elements, to be read.
    fn source(&self) -> Source<'_, T>;
    /// The elements, to be written.
    fn sink(&mut self) -> Sink<'_, T>;
}

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for Vec<T> {}
    impl<T: crate::element::Element> Sealed for crate::transport::memory::SharedBuffer<T> {}
}

impl<T: Element> Lent<T> for Vec<T> {
    fn source(&self) -> Source<'_, T> {
        self.into()
    }
    fn sink(&mut self) -> Sink<'_, T> {
        self.into()
    }
}

impl<T: Element> Lent<T> for SharedBuffer<T> {
    fn source(&self) -> Source<'_, T> {
        self.into()
    }
    fn sink(&mut self) -> Sink<'_, T> {
        self.into()
    }
}

/// A started call and its buffers.
///
/// Dropping it waits for the call; if that fails, the call is given up and the communicator
/// refuses further calls.
#[derive(Debug)]
pub struct Pending<T: Element, I: Lent<T>, O: Lent<T>> {
    communicator: Communicator,
    /// `None` once the call is done, or for one that was done when it was started.
    ticket: Option<Ticket>,
    /// `None` once they have been given back.
    buffers: Option<(I, O)>,
    of: std::marker::PhantomData<T>,
}

impl<T: Element, I: Lent<T>, O: Lent<T>> Pending<T, I, O> {
    pub(super) fn start<'p>(
        communicator: &Communicator,
        call: &Call,
        prepared: impl FnOnce([bool; 2]) -> Result<&'p Rc<Prepared>>,
        buffers: (I, O),
        site: &'static Location<'static>,
    ) -> Result<Self> {
        let mut pending = Pending {
            communicator: communicator.clone(),
            ticket: None,
            buffers: Some(buffers),
            of: std::marker::PhantomData,
        };
        let Some((input, output)) = &mut pending.buffers else { return Ok(pending) };
        let (input, output) = (input.source(), output.sink());
        call.check_lengths(communicator.rank(), input.data.len(), output.data.len())?;
        let located = [input.located, output.located];
        if communicator.widens(call, located.map(|l| l.key != 0))? {
            communicator.run(call, input, output, site)?;
            return Ok(pending);
        }
        let prepared = prepared(located.map(|l| l.key != 0))?;
        let buffers = Buffers::separate(
            bytemuck::cast_slice(input.data),
            bytemuck::cast_slice_mut(output.data),
        );
        // The elements stay where they are, in `pending.buffers`, until `settle` has returned.
        let ticket = communicator.context().start(prepared, &buffers, located, site)?;
        pending.ticket = Some(ticket);
        Ok(pending)
    }

    /// Goes on with all started calls of the communicator. True once this one is done.
    pub fn test(&mut self) -> Result<bool> {
        match self.ticket {
            Some(ticket) => self.communicator.context().test(ticket),
            None => Ok(true),
        }
    }

    /// Waits for the result and gives the buffers back.
    pub fn wait(mut self) -> Result<(I, O)> {
        self.settle()?;
        self.buffers.take().ok_or_else(|| Error::internal("the buffers were given back before"))
    }

    fn settle(&mut self) -> Result<()> {
        let Some(ticket) = self.ticket.take() else { return Ok(()) };
        let context = self.communicator.context();
        let result = context.wait(ticket);
        if result.is_err() {
            context.give_up(ticket);
        }
        result
    }
}

impl<T: Element, I: Lent<T>, O: Lent<T>> Drop for Pending<T, I, O> {
    fn drop(&mut self) {
        // A failure has broken the communicator, which says so at its next call.
        let _ = self.settle();
    }
}
