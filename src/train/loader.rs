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
    picks: Vec<Pick>,
}

/// A sample that is asked for: its epoch and its index.
pub type Pick = (u64, usize);

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
    pub fn epoch<B: IntoIterator<Item = Vec<usize>>>(
        &mut self,
        epoch: u64,
        batches: B,
    ) -> Epoch<'_, D, impl Iterator<Item = Vec<Pick>> + use<D, B>> {
        let of_epoch = move |index| (epoch, index);
        let picks = move |indices: Vec<usize>| indices.into_iter().map(of_epoch).collect();
        Epoch { loader: self, stream: Stream::new(batches.into_iter().map(picks)) }
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
        let batch = prepare(dataset, seed, &job.picks, cancelled);
        if answers.send((job.number, batch)).is_err() {
            return;
        }
    }
}

/// The samples of a batch; `None` once the epoch is cancelled.
fn prepare<D: Dataset>(
    dataset: &D,
    seed: u64,
    picks: &[Pick],
    cancelled: &AtomicBool,
) -> Option<Result<Vec<D::Sample>>> {
    let mut samples = Vec::with_capacity(picks.len());
    for &(epoch, index) in picks {
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

/// A finished batch, which needs no `Debug` of its samples.
struct Ready<S>(Result<Vec<S>>);

impl<S> std::fmt::Debug for Ready<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_ok() { "batch" } else { "error" })
    }
}

/// A list of batches that one loader prepares, of any epochs; the list may be endless.
///
/// A loader serves one stream at a time: [`Stream::cancel`] it before the next one begins.
#[derive(Debug)]
pub struct Stream<S, B> {
    batches: B,
    /// Batches given to workers, and to the caller.
    sent: usize,
    returned: usize,
    /// Batches that workers still have.
    outstanding: usize,
    /// Batches that arrived before their turn.
    early: BTreeMap<usize, Ready<S>>,
    failed: bool,
}

impl<S: Send + 'static, B: Iterator<Item = Vec<Pick>>> Stream<S, B> {
    /// The batches of these picks, in this order.
    pub fn new(batches: B) -> Self {
        let (sent, returned, outstanding) = (0, 0, 0);
        Stream { batches, sent, returned, outstanding, early: BTreeMap::new(), failed: false }
    }

    /// The next batch; `None` at the end, and after an error.
    pub fn next<D: Dataset<Sample = S>>(
        &mut self,
        loader: &mut Loader<D>,
    ) -> Option<Result<Vec<S>>> {
        if self.failed {
            return None;
        }
        let batch = if loader.options.workers == 0 {
            let picks = self.batches.next()?;
            prepare(&*loader.dataset, loader.options.seed, &picks, &loader.cancelled)
        } else {
            self.receive(loader)
        };
        self.failed = matches!(batch, Some(Err(_)));
        batch
    }

    /// Takes back what the workers still have, so that the next stream finds them idle. Nothing
    /// more comes.
    pub fn cancel<D: Dataset<Sample = S>>(&mut self, loader: &mut Loader<D>) {
        loader.cancelled.store(true, Ordering::Relaxed);
        while self.outstanding > 0 && loader.answers.recv().is_ok() {
            self.outstanding -= 1;
        }
        loader.cancelled.store(false, Ordering::Relaxed);
        self.failed = true;
    }

    /// Keeps every worker supplied, within the bound on batches that exist.
    fn supply<D: Dataset<Sample = S>>(&mut self, loader: &Loader<D>) {
        let bound = loader.options.workers * loader.options.prefetch;
        while self.sent - self.returned < bound {
            let Some(jobs) = &loader.jobs else { return };
            let Some(picks) = self.batches.next() else { return };
            if jobs.send(Job { number: self.sent, picks }).is_err() {
                return;
            }
            self.sent += 1;
            self.outstanding += 1;
        }
    }

    /// The next batch of the workers; `None` at the end.
    fn receive<D: Dataset<Sample = S>>(&mut self, loader: &Loader<D>) -> Option<Result<Vec<S>>> {
        self.supply(loader);
        if self.returned == self.sent {
            return None;
        }
        while !self.early.contains_key(&self.returned) {
            let Ok((number, answer)) = loader.answers.recv() else {
                return Some(Err(Error::internal("the loader's workers are gone")));
            };
            self.outstanding -= 1;
            let gone = || Err(Error::internal("a loader batch was cancelled while in use"));
            self.early.insert(number, Ready(answer.unwrap_or_else(gone)));
        }
        let batch = self.early.remove(&self.returned)?;
        self.returned += 1;
        self.supply(loader);
        Some(batch.0)
    }
}

/// The batches of one epoch, in order.
#[derive(Debug)]
pub struct Epoch<'a, D: Dataset, B: Iterator<Item = Vec<Pick>>> {
    loader: &'a mut Loader<D>,
    stream: Stream<D::Sample, B>,
}

impl<D: Dataset, B: Iterator<Item = Vec<Pick>>> Iterator for Epoch<'_, D, B> {
    type Item = Result<Vec<D::Sample>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.stream.next(self.loader)
    }
}

impl<D: Dataset, B: Iterator<Item = Vec<Pick>>> Drop for Epoch<'_, D, B> {
    fn drop(&mut self) {
        self.stream.cancel(self.loader);
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
