//! A progress thread: collectives that go on while the rank computes.
//!
//! A started call moves on when its rank calls something; one that computes for long moves nothing.
//! A [`Background`] is a thread with a communicator of its own over the same ranks. What it is
//! given runs there, one after another in the order given, which is the same on all ranks. It owns
//! what it works on: the borrow checker keeps everyone else away until it hands it back.
//!
//! It pays where each rank has a core to spare. Where it has none, the thread takes turns with the
//! rank, and a started call that is tested now and then does better. Shared buffers belong to the
//! communicator they were made on, and so to its thread: work in the background makes its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use super::Communicator;
use crate::error::{Error, Result};

type Work = Box<dyn FnOnce(&Communicator) + Send>;

/// A thread of this rank with a communicator of its own. Dropped, it first does all it was given.
#[derive(Debug)]
pub struct Background {
    /// `None` once no more work comes.
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    rank: usize,
}

/// Work under way in the background, and its result.
#[derive(Debug)]
pub struct Task<R> {
    result: Receiver<Result<R>>,
    arrived: Option<Result<R>>,
    rank: usize,
}

impl Communicator {
    /// A progress thread over the ranks of this communicator. Collective.
    ///
    /// # Errors
    /// Under MPI, unless the job was started for it (`launch::Options::background`).
    pub fn background(&self) -> Result<Background> {
        let (rank, settings) = (self.rank(), *self.settings());
        let transport = self.agree(self.context().transport.for_another_thread())?;
        let (work, orders) = channel::<Work>();
        let (ready, started) = channel();
        let thread = std::thread::Builder::new().name(format!("background {rank}"));
        let thread = thread.spawn(move || match Communicator::new(transport, settings) {
            Ok(communicator) => {
                // The other side waits for it.
                let _ = ready.send(Ok(()));
                while let Ok(work) = orders.recv() {
                    work(&communicator);
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        });
        let thread = thread.map_err(|error| {
            Error::internal(format!("no thread for the background: {error}")).on_rank(rank)
        })?;
        started.recv().unwrap_or_else(|_| Err(gone(rank)))?;
        Ok(Background { work: Some(work), thread: Some(thread), rank })
    }
}

fn gone(rank: usize) -> Error {
    Error::internal("the background thread has ended").on_rank(rank)
}

impl Background {
    /// Runs `work` on the thread, after all that was given before. Every rank gives the same
    /// collectives in the same order.
    ///
    /// ```
    /// # use rankwise::{element::Op, launch};
    /// # launch::threads(2, |comm| {
    /// let background = comm.background()?;
    /// let gradient = vec![1.0f32; 1000];
    /// let reduced = background.run(move |comm| comm.reduce_scatter_vec(&gradient, Op::Sum));
    /// // … the rank computes …
    /// assert_eq!(reduced.wait()?, [2.0; 500]);
    /// # Ok(())
    /// # })?;
    /// # Ok::<(), rankwise::error::Error>(())
    /// ```
    pub fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Communicator) -> Result<R> + Send + 'static,
    ) -> Task<R> {
        let (done, result) = channel();
        let rank = self.rank;
        let work: Work = Box::new(move |communicator| {
            // Whatever the work has touched is its own, and lost with it.
            let result = catch_unwind(AssertUnwindSafe(|| work(communicator)));
            let result = result.unwrap_or_else(|panic| {
                let what = format!("panicked in the background: {}", text_of(&*panic));
                Err(Error::internal(what).on_rank(rank))
            });
            // Nobody may wait for it any more.
            let _ = done.send(result);
        });
        // If the thread is gone, the task finds no sender.
        if let Some(sender) = &self.work {
            let _ = sender.send(work);
        }
        Task { result, arrived: None, rank }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_string())
}

impl Drop for Background {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // Work that panics is caught, so the thread ends in order.
            let _ = thread.join();
        }
    }
}

impl<R> Task<R> {
    /// Whether the result is there.
    pub fn test(&mut self) -> bool {
        if self.arrived.is_none() {
            self.arrived = match self.result.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(gone(self.rank))),
            };
        }
        self.arrived.is_some()
    }

    /// Waits for the result. Dropped instead, the work is done all the same.
    pub fn wait(self) -> Result<R> {
        let Task { result, arrived, rank } = self;
        arrived.unwrap_or_else(|| result.recv().unwrap_or_else(|_| Err(gone(rank))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Op;
    use crate::error::ErrorKind;
    use crate::launch;

    #[test]
    fn work_goes_on_in_order_while_the_rank_has_collectives_of_its_own() {
        for ranks in [1, 2, 3, 4] {
            launch::threads(ranks, |comm| {
                let background = comm.background()?;
                let mut tasks = Vec::new();
                for n in [0usize, 1, ranks + 1, 5000] {
                    let own: Vec<f64> = (0..n).map(|i| (comm.rank() * 100 + i) as f64).collect();
                    tasks.push((
                        own.clone(),
                        background.run(move |c| {
                            let mut sum = own;
                            c.all_reduce_in_place(&mut sum, Op::Sum)?;
                            Ok(sum)
                        }),
                    ));
                    comm.barrier()?;
                }
                for (own, mut task) in tasks {
                    let sum = comm.all_reduce_vec(&own, Op::Sum)?;
                    let _ = task.test();
                    assert_eq!(task.wait()?, sum);
                }
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn errors_and_panics_of_the_work_are_its_result() {
        launch::threads(2, |comm| {
            let background = comm.background()?;
            let fails = background.run(|c| c.agree(Err::<(), _>(Error::input("no such file"))));
            assert_eq!(fails.wait().unwrap_err().kind, ErrorKind::Input);
            let panics = background.run(|c| -> Result<()> { panic!("rank {}", c.rank()) });
            let error = panics.wait().unwrap_err();
            assert!(error.message.contains(&format!("rank {}", comm.rank())), "{error}");
            // Neither of them broke the thread.
            assert_eq!(background.run(|c| c.all_reduce_vec(&[1u32], Op::Sum)).wait()?, [2]);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn calls_that_differ_are_found_in_the_background_too() {
        let error = launch::threads(2, |comm| {
            let background = comm.background()?;
            let n = 10 + comm.rank();
            background.run(move |c| c.all_reduce_vec(&vec![1.0f32; n], Op::Sum)).wait()
        })
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Disagreement, "{error}");
    }
}
