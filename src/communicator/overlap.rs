//! Started calls that borrow their buffers, inside a scope that ends them.
//!
//! ```
//! # use rankwise::element::Op;
//! # rankwise::launch::threads(2, |comm| {
//! let (gradient, mut sum) = (vec![1.0f32; 8], vec![0.0f32; 8]);
//! comm.overlap(|scope| {
//!     let pending = scope.start_all_reduce(&gradient, &mut sum, Op::Sum)?;
//!     let meanwhile = gradient.iter().sum::<f32>(); // inputs may be read
//!     let sum = pending.wait()?;
//!     assert_eq!((meanwhile, sum[0]), (8.0, 2.0));
//!     Ok(())
//! })?;
//! assert_eq!(sum, [2.0; 8]); // the scope is over: the borrow is too
//! # Ok(()) })?;
//! # Ok::<(), rankwise::error::Error>(())
//! ```
//!
//! As with `std::thread::scope`, nothing the closure does, forgetting a handle included, lets a
//! call outlive the scope: it waits for all of them before it returns, and gives them up if the
//! closure panics.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::Location;

use super::Communicator;
use super::call::Call;
use super::pending::start;
use crate::element::{Element, Op};
use crate::error::Result;
use crate::executor::Ticket;
use crate::plan::Collective;
use crate::sharding::Sharding;
use crate::transport::lent::LentSlice;
use crate::transport::memory::{Sink, Source};

/// The scope of started calls with borrowed buffers; see [`Communicator::overlap`].
#[derive(Debug)]
pub struct Overlap<'scope, 'env: 'scope> {
    communicator: &'env Communicator,
    tickets: RefCell<Vec<Ticket>>,
    /// Invariant in both lifetimes, as the scope of threads is.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// A started call of a scope. Dropping it leaves the call to the scope.
#[derive(Debug)]
#[must_use = "the scope waits for it; `wait` gives the result back earlier"]
pub struct Started<'scope, T: Element> {
    communicator: &'scope Communicator,
    ticket: Option<Ticket>,
    output: LentSlice<'scope, T>,
}

impl<'scope, T: Element> Started<'scope, T> {
    /// Goes on with all started calls of the communicator. True once this one is done.
    pub fn test(&mut self) -> Result<bool> {
        self.ticket.map_or(Ok(true), |ticket| self.communicator.context().test(ticket))
    }

    /// Waits for the result and gives the output back.
    pub fn wait(self) -> Result<&'scope mut [T]> {
        if let Some(ticket) = self.ticket {
            // After a failure the work is cancelled, and the scope ends with the same error.
            self.communicator.context().wait(ticket)?;
        }
        Ok(self.output.take_back())
    }
}

/// Ends the calls of a scope, whatever happened in it.
struct End<'a>(&'a Communicator, &'a RefCell<Vec<Ticket>>);

impl End<'_> {
    /// Waits for all; the first failure gives the others up.
    fn wait(&self) -> Result<()> {
        let context = self.0.context();
        let tickets = self.1.take();
        let result = tickets.iter().try_for_each(|&ticket| context.wait(ticket));
        tickets.into_iter().for_each(|ticket| context.give_up(ticket));
        result
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Empty unless the closure panicked.
        self.1.take().into_iter().for_each(|ticket| self.0.context().give_up(ticket));
    }
}

impl Communicator {
    /// Runs `work`, which may start calls that borrow their buffers, and waits for all of them.
    /// All ranks start the same calls in the same order.
    pub fn overlap<'env, R>(
        &'env self,
        work: impl for<'scope> FnOnce(&'scope Overlap<'scope, 'env>) -> Result<R>,
    ) -> Result<R> {
        let overlap = Overlap {
            communicator: self,
            tickets: RefCell::default(),
            scope: PhantomData,
            env: PhantomData,
        };
        let end = End(self, &overlap.tickets);
        let result = work(&overlap);
        let ended = end.wait();
        result.and_then(|value| ended.map(|()| value))
    }
}

impl<'scope, 'env> Overlap<'scope, 'env> {
    /// Starts [`Communicator::reduce_scatter_by`]. Collective.
    #[track_caller]
    pub fn start_reduce_scatter<T: Element>(
        &'scope self,
        sharding: &Sharding,
        input: impl Into<Source<'scope, T>>,
        output: impl Into<Sink<'scope, T>>,
        op: Op,
    ) -> Result<Started<'scope, T>> {
        let call = self.communicator.call::<T>(Collective::ReduceScatter, sharding, Some(op))?;
        self.start(call, input.into(), output.into())
    }

    /// Starts [`Communicator::all_gather_by`]. Collective.
    #[track_caller]
    pub fn start_all_gather<T: Element>(
        &'scope self,
        sharding: &Sharding,
        input: impl Into<Source<'scope, T>>,
        output: impl Into<Sink<'scope, T>>,
    ) -> Result<Started<'scope, T>> {
        let call = self.communicator.call::<T>(Collective::AllGather, sharding, None)?;
        self.start(call, input.into(), output.into())
    }

    /// Starts [`Communicator::all_reduce`]. Collective.
    #[track_caller]
    pub fn start_all_reduce<T: Element>(
        &'scope self,
        input: impl Into<Source<'scope, T>>,
        output: impl Into<Sink<'scope, T>>,
        op: Op,
    ) -> Result<Started<'scope, T>> {
        let input = input.into();
        let sharding = Sharding::even(input.data.len(), self.communicator.ranks());
        let call = self.communicator.call::<T>(Collective::AllReduce, &sharding, Some(op))?;
        self.start(call, input, output.into())
    }

    /// Starts [`Communicator::broadcast`]. Collective.
    #[track_caller]
    pub fn start_broadcast<T: Element>(
        &'scope self,
        buffer: impl Into<Sink<'scope, T>>,
        root: usize,
    ) -> Result<Started<'scope, T>> {
        let buffer = buffer.into();
        let sharding = Sharding::even(buffer.data.len(), self.communicator.ranks());
        let call = self.communicator.call::<T>(Collective::Broadcast { root }, &sharding, None)?;
        self.start(call, Source::from(&[]), buffer)
    }

    /// Starts [`Communicator::all_to_all`]. Collective.
    #[track_caller]
    pub fn start_all_to_all<T: Element>(
        &'scope self,
        input: impl Into<Source<'scope, T>>,
        output: impl Into<Sink<'scope, T>>,
    ) -> Result<Started<'scope, T>> {
        let input = input.into();
        let call = self.communicator.all_to_all_even::<T>(input.data.len())?;
        self.start(call, input, output.into())
    }

    #[track_caller]
    fn start<T: Element>(
        &'scope self,
        call: Call,
        input: Source<'scope, T>,
        output: Sink<'scope, T>,
    ) -> Result<Started<'scope, T>> {
        let (communicator, site) = (self.communicator, Location::caller());
        let call = Call { may_block: false, ..call };
        let located = output.located;
        let mut output = LentSlice::new(output.data);
        let sink = Sink { data: output.lend(), located };
        let prepared = |shared| communicator.prepared(&call, shared, site);
        // `End` waits for the ticket or gives it up before 'scope is over.
        let ticket = start(communicator, &call, prepared, (input, sink), site)?;
        self.tickets.borrow_mut().extend(ticket);
        Ok(Started { communicator, ticket, output })
    }
}
