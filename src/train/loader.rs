//! Samples prepared by worker threads while the model trains.
//!
//! Workers persist over epochs. A worker prepares a whole batch; batches come back in the order of
//! the sampler, and they are the same for any number of workers, 0 included: random augmentation is
//! seeded by (seed, epoch, sample), not by the worker. At most `workers · prefetch` batches exist
//! beside the one in use. An error or a panic names the sample, and ends the epoch.
//!
//! Cost: two channel operations a batch. Dropping an epoch early waits until the workers have
//! finished the sample at hand.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::random::Random;
use crate::error::{Error, Result};

/// A collection of samples.
pub trait Dataset: Send + Sync + 'static {
    /// What one sample is.
    type Sample: Send + 'static;

    /// How many samples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prepares one sample. Anything random in it comes from `random`, whose seed depends on the
    /// loader's seed, the epoch and the index alone.
    fn get(&self, index: usize, random: &mut Random) -> Result<Self::Sample>;
}

/// How a loader works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoaderOptions {
    /// Worker threads; with 0 the caller prepares each batch when it asks for it.
    pub workers: usize,
    /// Batches in preparation for each worker; not used without workers.
    pub prefetch: usize,
    /// The seed of random augmentation.
    pub seed: u64,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions { workers: 1, prefetch: 2, seed: 0 }
    }
}

/// What a worker is asked for.
struct Job {
    number: usize,
    epoch: u64,
    indices: Vec<usize>,
}

/// What a worker answers; `None` where the epoch was dropped.
type Answer<S> = (usize, Option<Result<Vec<S>>>);

/// A data set and the threads that read it.
pub struct Loader<D: Dataset> {
    dataset: Arc<D>,
    options: LoaderOptions,
    cancelled: Arc<AtomicBool>,
    /// `None` only while the loader is dropped: its end tells the workers to leave.
    jobs: Option<Sender<Job>>,
    answers: Receiver<Answer<D::Sample>>,
    workers: Vec<JoinHandle<()>>,
}

impl<D: Dataset> std::fmt::Debug for Loader<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<D: Dataset> Loader<D> {
    /// Starts the workers.
    pub fn new(dataset: Arc<D>, options: LoaderOptions) -> Result<Self> {
        if options.workers > 0 && options.prefetch == 0 {
            return Err(Error::input(
                "a loader with workers needs prefetch of at least 1; use workers = 0 for none",
            ));
        }
        let (jobs, queue) = channel::<Job>();
        let (send, answers) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut loader = Loader {
            dataset,
            options,
            cancelled,
            jobs: Some(jobs),
            answers,
            workers: Vec::with_capacity(options.workers),
        };
        for worker in 0..options.workers {
            let (dataset, queue, send) = (loader.dataset.clone(), queue.clone(), send.clone());
            let (cancelled, seed) = (loader.cancelled.clone(), options.seed);
            let thread = std::thread::Builder::new()
                .name(format!("loader-{worker}"))
                .spawn(move || work(&*dataset, seed, &queue, &send, &cancelled))
                .map_err(|e| Error::internal(format!("cannot start loader worker: {e}")))?;
            loader.workers.push(thread);
        }
        Ok(loader)
    }

    /// The data set.
    pub fn dataset(&self) -> &D {
        &self.dataset
    }

    /// The batches of an epoch, each given by the indices of its samples, in this order.
    ///
    /// After an error nothing more comes.
    pub fn epoch<B>(&mut self, epoch: u64, batches: B) -> Epoch<'_, D, B::IntoIter>
    where
        B: IntoIterator<Item = Vec<usize>>,
    {
        Epoch {
            loader: self,
            epoch,
            batches: batches.into_iter(),
            sent: 0,
            returned: 0,
            outstanding: 0,
            early: BTreeMap::new(),
            failed: false,
        }
    }
}

impl<D: Dataset> Drop for Loader<D> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker catches what its data set panics with; it has nothing more to tell.
            worker.join().ok();
        }
    }
}

/// The loop of a worker: until the loader is dropped.
fn work<D: Dataset>(
    dataset: &D,
    seed: u64,
    queue: &Mutex<Receiver<Job>>,
    answers: &Sender<Answer<D::Sample>>,
    cancelled: &AtomicBool,
) {
    loop {
        // Idle workers wait for the lock; the one that has it waits for a job.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let batch = prepare(dataset, seed, job.epoch, &job.indices, cancelled);
        if answers.send((job.number, batch)).is_err() {
            return;
        }
    }
}

/// The samples of a batch; `None` once the epoch is cancelled.
fn prepare<D: Dataset>(
    dataset: &D,
    seed: u64,
    epoch: u64,
    indices: &[usize],
    cancelled: &AtomicBool,
) -> Option<Result<Vec<D::Sample>>> {
    let mut samples = Vec::with_capacity(indices.len());
    for &index in indices {
        if cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let mut random = Random::of(&[seed, epoch, index as u64]);
        match catch_unwind(AssertUnwindSafe(|| dataset.get(index, &mut random))) {
            Ok(Ok(sample)) => samples.push(sample),
            Ok(Err(mut error)) => {
                error.message = format!("sample {index} of epoch {epoch}: {}", error.message);
                return Some(Err(error));
            }
            Err(panic) => {
                let what = panic_text(&*panic);
                let text = format!("sample {index} of epoch {epoch}: panicked: {what}");
                return Some(Err(Error::internal(text)));
            }
        }
    }
    Some(Ok(samples))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The batches of one epoch, in order.
#[derive(Debug)]
pub struct Epoch<'a, D: Dataset, B: Iterator<Item = Vec<usize>>> {
    loader: &'a mut Loader<D>,
    epoch: u64,
    batches: B,
    /// Batches given to workers, and to the caller.
    sent: usize,
    returned: usize,
    /// Batches that workers still have.
    outstanding: usize,
    /// Batches that arrived before their turn.
    early: BTreeMap<usize, Ready<D::Sample>>,
    failed: bool,
}

/// A finished batch, which needs no `Debug` of its samples.
struct Ready<S>(Result<Vec<S>>);

impl<S> std::fmt::Debug for Ready<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_ok() { "batch" } else { "error" })
    }
}

impl<D: Dataset, B: Iterator<Item = Vec<usize>>> Epoch<'_, D, B> {
    /// Keeps every worker supplied, within the bound on batches that exist.
    fn supply(&mut self) {
        let bound = self.loader.options.workers * self.loader.options.prefetch;
        while self.sent - self.returned < bound {
            let Some(jobs) = &self.loader.jobs else { return };
            let Some(indices) = self.batches.next() else { return };
            let job = Job { number: self.sent, epoch: self.epoch, indices };
            if jobs.send(job).is_err() {
                return;
            }
            self.sent += 1;
            self.outstanding += 1;
        }
    }

    /// The next batch of the workers; `None` at the end.
    fn receive(&mut self) -> Option<Result<Vec<D::Sample>>> {
        self.supply();
        if self.returned == self.sent {
            return None;
        }
        while !self.early.contains_key(&self.returned) {
            let Ok((number, answer)) = self.loader.answers.recv() else {
                return Some(Err(Error::internal("the loader's workers are gone")));
            };
            self.outstanding -= 1;
            let gone = || Err(Error::internal("a loader batch was cancelled while in use"));
            self.early.insert(number, Ready(answer.unwrap_or_else(gone)));
        }
        let batch = self.early.remove(&self.returned)?;
        self.returned += 1;
        self.supply();
        Some(batch.0)
    }
}

impl<D: Dataset, B: Iterator<Item = Vec<usize>>> Iterator for Epoch<'_, D, B> {
    type Item = Result<Vec<D::Sample>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = if self.loader.options.workers == 0 {
            let indices = self.batches.next()?;
            let Loader { dataset, options, cancelled, .. } = &*self.loader;
            prepare(&**dataset, options.seed, self.epoch, &indices, cancelled)
        } else {
            self.receive()
        };
        self.failed = matches!(batch, Some(Err(_)));
        batch
    }
}

impl<D: Dataset, B: Iterator<Item = Vec<usize>>> Drop for Epoch<'_, D, B> {
    /// Takes back what the workers still have, so that the next epoch finds them idle.
    fn drop(&mut self) {
        self.loader.cancelled.store(true, Ordering::Relaxed);
        while self.outstanding > 0 && self.loader.answers.recv().is_ok() {
            self.outstanding -= 1;
        }
        self.loader.cancelled.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
