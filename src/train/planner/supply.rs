//! The samples of micro-batches, prepared ahead by the loader's workers if there are any.
//!
//! All micro-batches of a batch together take the next windows of the sampler's order, and go on in
//! the next epoch where one ends. A rank asks for its own micro-batches, batch after batch, so what
//! comes next is known: [`Picks`] lists it without an end, and the workers run ahead on that list.
//! What a micro-batch holds depends on the numbers of batch and micro-batch alone.
//!
//! Without images a batch of 32 windows takes about 1 ms and lasts for several steps of the
//! optimizer, so workers can gain next to nothing, and compete with ranks that fill the cores: 0 is
//! the default.

use std::ops::Range;
use std::sync::Arc;

use super::windows::{Sample, Windows};
use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::loader::{Dataset, Loader, LoaderOptions, Pick, Stream};
use crate::train::sampler::ElasticSampler;

/// The windows of the micro-batches of one rank, from a batch on.
#[derive(Debug)]
struct Picks {
    sampler: ElasticSampler,
    examples: usize,
    micro_batches: usize,
    own: Range<usize>,
    /// Micro-batches of the batch at hand that are still to come.
    left: Range<usize>,
    /// All samples of the batch at hand.
    batch: Vec<Pick>,
}

impl Iterator for Picks {
    type Item = Vec<Pick>;

    fn next(&mut self) -> Option<Vec<Pick>> {
        if self.batch.is_empty() || self.left.is_empty() {
            let size = self.examples * self.micro_batches;
            self.batch.clear();
            while self.batch.len() < size {
                // It fails for data too long to shuffle only, which was refused when it began.
                let part = self.sampler.next_batch(size - self.batch.len()).ok()?;
                self.batch.extend(part.indices.iter().map(|&index| (part.epoch, index)));
            }
            if self.left.is_empty() {
                self.left = self.own.clone();
            }
        }
        let number = self.left.next()?;
        Some(self.batch[number * self.examples..(number + 1) * self.examples].to_vec())
    }
}

/// Samples of micro-batches, in the order in which the rank asks for them.
#[derive(Debug)]
pub(super) struct Supply {
    loader: Loader<Windows>,
    stream: Option<Stream<Sample, Picks>>,
    /// The batch and micro-batch that the stream gives next.
    next: (u64, usize),
    seed: u64,
    examples: usize,
    micro_batches: usize,
    own: Range<usize>,
}

impl Supply {
    /// For all micro-batches of a run, until [`Supply::hold`] says which.
    pub(super) fn new(windows: Windows, config: &TrainConfig) -> Result<Self> {
        let (training, data) = (config.training, &config.data);
        let seed = training.seed;
        let options = LoaderOptions { workers: data.workers, prefetch: data.prefetch, seed };
        // Whether these windows can be shuffled is known now.
        ElasticSampler::new(windows.len(), true, seed, 0)?;
        Ok(Supply {
            loader: Loader::new(Arc::new(windows), options)?,
            stream: None,
            next: (0, 0),
            seed,
            examples: training.examples,
            micro_batches: training.micro_batches,
            own: 0..training.micro_batches,
        })
    }

    /// Windows of an epoch.
    pub(super) fn windows(&self) -> usize {
        self.loader.dataset().len()
    }

    /// Which micro-batches of each batch will be asked for, in this order.
    pub(super) fn hold(&mut self, own: Range<usize>) {
        self.own = own;
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.cancel(&mut self.loader);
        }
    }

    /// The samples of a micro-batch of a batch. Cheap to go on with, dear to jump to.
    pub(super) fn samples(&mut self, batch: u64, micro_batch: usize) -> Result<Vec<Sample>> {
        if self.next != (batch, micro_batch) {
            self.stop();
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(Stream::new(self.picks(batch, micro_batch)?)),
        };
        let none = || Err(Error::internal("no samples for a micro-batch of this rank"));
        let samples = stream.next(&mut self.loader).unwrap_or_else(none)?;
        self.next = match micro_batch + 1 < self.own.end {
            true => (batch, micro_batch + 1),
            false => (batch + 1, self.own.start),
        };
        Ok(samples)
    }

    fn picks(&self, batch: u64, micro_batch: usize) -> Result<Picks> {
        let cursor = batch * (self.examples * self.micro_batches) as u64;
        Ok(Picks {
            sampler: ElasticSampler::new(self.windows(), true, self.seed, cursor)?,
            examples: self.examples,
            micro_batches: self.micro_batches,
            own: self.own.clone(),
            left: micro_batch..self.own.end,
            batch: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::synthetic;
    use super::super::windows::{Part, WindowOptions};
    use super::*;

    fn supply(workers: usize, prefetch: usize) -> Supply {
        let text = format!(
            "[model]\nkind = \"planner\"\n[data]\nworkers = {workers}\nprefetch = {prefetch}\n\
             [data.synthetic]\nvehicles = 1\nseconds = 1.0\n\
             [training]\nmicro_batches = 3\nexamples = 2\nseed = 5\n[schedule]\nlr = 1.0\n"
        );
        let config = TrainConfig::parse(&text, Path::new("c.toml")).unwrap();
        let traces = Arc::new(synthetic::traces(5, 20.0, 3));
        let options = WindowOptions { mirror: true, ..WindowOptions::default() };
        Supply::new(Windows::new(traces, Part::All, options).unwrap(), &config).unwrap()
    }

    #[test]
    fn samples_depend_on_the_numbers_alone() {
        let mut all = supply(0, 0);
        let n = all.windows() as u64;
        assert!(n > 6 && !n.is_multiple_of(6), "batches go over the end of an epoch: {n}");
        let batches = 0..2 * n;
        let mut of = |batch, number| all.samples(batch, number).unwrap();
        let wanted: Vec<[Vec<Sample>; 3]> =
            batches.map(|batch| std::array::from_fn(|number| of(batch, number))).collect();
        assert!(wanted.iter().flatten().all(|samples| samples.len() == 2));
        assert_ne!(wanted[0], wanted[1]);
        for (workers, prefetch) in [(0, 0), (1, 1), (2, 2), (3, 1)] {
            for own in [0..3, 0..1, 1..3, 2..3] {
                let mut some = supply(workers, prefetch);
                some.hold(own.clone());
                // From the start; then from elsewhere, as after a checkpoint, also back.
                for batch in [0, 1, 2, 3, 7, 8, 2 * n - 1, 4, 5, 4] {
                    for number in own.clone() {
                        let found = some.samples(batch, number).unwrap();
                        let expected = &wanted[batch as usize][number];
                        assert!(found == *expected, "{workers} {own:?}: {batch} {number}");
                    }
                }
            }
        }
    }
}
