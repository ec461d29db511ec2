//! Calls that have been started and not yet waited for.
//!
//! A [`Pending`] owns its buffers, so whatever the program does with it, even forgetting it, no
//! memory is freed or read while the call is under way. It moves on whenever this rank waits in
//! any call of the communicator, and in [`Pending::test`].

use std::panic::Location;

use super::Communicator;
use super::call::Call;
use super::choice::Ready;
use super::widen;
use crate::element::{Element, Op};
use crate::error::{Error, Result};
use crate::executor::Ticket;
use crate::plan::Collective;
use crate::sharding::Sharding;
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
    impl<T: crate::element::Element> Sealed for super::Storage<T> {}
    impl<T> Sealed for Vec<T> {}
    impl<T: crate::element::Element> Sealed for crate::transport::memory::SharedBuffer<T> {}
}

/// A buffer that is node-shared memory or not.
#[derive(Debug)]
pub enum Storage<T: Element> {
    /// Of this rank alone.
    Private(Vec<T>),
    /// Read in place by the ranks of the node.
    Shared(SharedBuffer<T>),
}

impl<T: Element> std::ops::Deref for Storage<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Storage::Private(buffer) => buffer,
            Storage::Shared(buffer) => buffer,
        }
    }
}

impl<T: Element> std::ops::DerefMut for Storage<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Storage::Private(buffer) => buffer,
            Storage::Shared(buffer) => buffer,
        }
    }
}

impl<T: Element> Lent<T> for Storage<T> {
    fn source(&self) -> Source<'_, T> {
        match self {
            Storage::Private(buffer) => buffer.into(),
            Storage::Shared(buffer) => buffer.into(),
        }
    }
    fn sink(&mut self) -> Sink<'_, T> {
        match self {
            Storage::Private(buffer) => buffer.into(),
            Storage::Shared(buffer) => buffer.into(),
        }
    }
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

/// Starts a call. `None` if it is done already: a sum of 16-bit floats that runs in f32.
///
/// Whoever calls this keeps the buffers valid and untouched until `wait` or `give_up` of the
/// executor has returned for the ticket.
pub(super) fn start<T: Element>(
    communicator: &Communicator,
    call: &Call,
    prepared: impl FnOnce([bool; 2]) -> Result<Ready>,
    (input, output): (Source<'_, T>, Sink<'_, T>),
    site: &'static Location<'static>,
) -> Result<Option<Ticket>> {
    call.check_lengths(communicator.rank(), input.data.len(), output.data.len())?;
    let located = [input.located, output.located];
    let shared = located.map(|l| l.key != 0);
    let ready = prepared(shared)?;
    if ready.widens {
        return widen::run(communicator, call, input, output, site).map(|()| None);
    }
    let (input, output) = (bytemuck::cast_slice(input.data), bytemuck::cast_slice_mut(output.data));
    let buffers = Buffers::separate(input, output);
    communicator.context().start(&ready.prepared, &buffers, located, site).map(Some)
}

/// [`start`] of a call in place.
fn start_in_place<T: Element>(
    communicator: &Communicator,
    call: &Call,
    whole: Sink<'_, T>,
    site: &'static Location<'static>,
) -> Result<Option<Ticket>> {
    call.check_whole(communicator.rank(), whole.data.len())?;
    let ready = communicator.prepared(call, [whole.located.key != 0; 2], site)?;
    if ready.widens {
        return widen::run_in_place(communicator, call, whole, site).map(|()| None);
    }
    let (buffers, located) = call.in_place(communicator.rank(), whole);
    communicator.context().start(&ready.prepared, &buffers, located, site).map(Some)
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
    pub(super) fn start(
        communicator: &Communicator,
        call: &Call,
        prepared: impl FnOnce([bool; 2]) -> Result<Ready>,
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
        // The elements stay where they are, in `pending.buffers`, until `settle` has returned.
        let lent = (input.source(), output.sink());
        pending.ticket = start(communicator, call, prepared, lent, site)?;
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

impl Communicator {
    /// Starts [`Communicator::reduce_scatter_by`]; the call owns its buffers. Collective.
    #[track_caller]
    pub fn start_reduce_scatter<T: Element, I: Lent<T>, O: Lent<T>>(
        &self,
        sharding: &Sharding,
        input: I,
        output: O,
        op: Op,
    ) -> Result<Pending<T, I, O>> {
        let call = self.call::<T>(Collective::ReduceScatter, sharding, Some(op))?;
        self.start_owned(call, input, output)
    }

    /// Starts [`Communicator::all_gather_by`]; the call owns its buffers. Collective.
    #[track_caller]
    pub fn start_all_gather<T: Element, I: Lent<T>, O: Lent<T>>(
        &self,
        sharding: &Sharding,
        input: I,
        output: O,
    ) -> Result<Pending<T, I, O>> {
        let call = self.call::<T>(Collective::AllGather, sharding, None)?;
        self.start_owned(call, input, output)
    }

    /// Starts [`Communicator::reduce_scatter_in_place`]; the call owns its buffer, the second of
    /// the two that [`Pending::wait`] gives back. Collective.
    #[track_caller]
    pub fn start_reduce_scatter_in_place<T: Element, O: Lent<T>>(
        &self,
        sharding: &Sharding,
        buffer: O,
        op: Op,
    ) -> Result<Pending<T, Vec<T>, O>> {
        let call = self.call::<T>(Collective::ReduceScatter, sharding, Some(op))?;
        self.start_owned_in_place(call, buffer)
    }

    /// Starts [`Communicator::all_gather_in_place`]; the call owns its buffer, the second of the
    /// two that [`Pending::wait`] gives back. Collective.
    #[track_caller]
    pub fn start_all_gather_in_place<T: Element, O: Lent<T>>(
        &self,
        sharding: &Sharding,
        buffer: O,
    ) -> Result<Pending<T, Vec<T>, O>> {
        let call = self.call::<T>(Collective::AllGather, sharding, None)?;
        self.start_owned_in_place(call, buffer)
    }

    #[track_caller]
    fn start_owned_in_place<T: Element, O: Lent<T>>(
        &self,
        mut call: Call,
        buffer: O,
    ) -> Result<Pending<T, Vec<T>, O>> {
        (call.problem.in_place, call.may_block) = (true, false);
        let mut pending = Pending {
            communicator: self.clone(),
            ticket: None,
            buffers: Some((Vec::new(), buffer)),
            of: std::marker::PhantomData,
        };
        if let Some((_, whole)) = &mut pending.buffers {
            // The elements stay where they are, in `pending.buffers`, until `settle` has returned.
            pending.ticket = start_in_place(self, &call, whole.sink(), Location::caller())?;
        }
        Ok(pending)
    }

    /// Starts [`Communicator::all_reduce`]; the call owns its buffers. Collective.
    #[track_caller]
    pub fn start_all_reduce<T: Element, I: Lent<T>, O: Lent<T>>(
        &self,
        input: I,
        output: O,
        op: Op,
    ) -> Result<Pending<T, I, O>> {
        let sharding = Sharding::even(input.source().data.len(), self.ranks());
        let call = self.call::<T>(Collective::AllReduce, &sharding, Some(op))?;
        self.start_owned(call, input, output)
    }

    /// Starts [`Communicator::broadcast`]; the call owns its buffer, the second of the two that
    /// [`Pending::wait`] gives back. Collective.
    #[track_caller]
    pub fn start_broadcast<T: Element, O: Lent<T>>(
        &self,
        mut buffer: O,
        root: usize,
    ) -> Result<Pending<T, Vec<T>, O>> {
        let sharding = Sharding::even(buffer.sink().data.len(), self.ranks());
        let call = self.call::<T>(Collective::Broadcast { root }, &sharding, None)?;
        self.start_owned(call, Vec::new(), buffer)
    }

    /// Starts [`Communicator::all_to_all`]; the call owns its buffers. Collective.
    #[track_caller]
    pub fn start_all_to_all<T: Element, I: Lent<T>, O: Lent<T>>(
        &self,
        input: I,
        output: O,
    ) -> Result<Pending<T, I, O>> {
        let call = self.all_to_all_even::<T>(input.source().data.len())?;
        self.start_owned(call, input, output)
    }

    #[track_caller]
    fn start_owned<T: Element, I: Lent<T>, O: Lent<T>>(
        &self,
        call: Call,
        input: I,
        output: O,
    ) -> Result<Pending<T, I, O>> {
        let site = Location::caller();
        let call = Call { may_block: false, ..call };
        let prepared = |shared| self.prepared(&call, shared, site);
        Pending::start(self, &call, prepared, (input, output), site)
    }
}
