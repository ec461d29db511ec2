//! The planner as a task of the training loop, on traces of a simulator or generated drives.
//!
//! Windows of vehicles that are not held out are shuffled by an [`ElasticSampler`]; all
//! micro-batches of a step together take the next ones of its order, and go on in the next epoch
//! where one ends, so that every micro-batch has the same size and the loop's mean over
//! micro-batches is the mean over samples. A batch lasts for (steps of a window / chunk) steps of
//! the optimizer: step s is chunk s mod chunks of batch s / chunks. What a micro-batch holds
//! depends on step and number alone; between the chunks of a batch it carries its hidden state,
//! which checkpoints hold.
//!
//! An evaluation takes windows of the held-out vehicles at equal distances, each once, in blocks
//! that are the same at any number of ranks; losses and errors add up exactly.
//! Cost beside the network: about 1 ms for 32 windows, once a batch.

use std::sync::Arc;

use super::batch::Batch;
use super::labels::times;
use super::loss::{LossOptions, LossSums};
use super::metrics::{HIT_METRES, Metrics, Report};
use super::model::Planner;
use super::objective::Objective;
use super::synthetic;
use super::traces::TraceSet;
use super::windows::{Part, Sample, Split, Windows};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use crate::sharding::Sharding;
use crate::train::config::{DataConfig, PlannerConfig, TrainConfig};
use crate::train::loader::Dataset;
use crate::train::model::Loss;
use crate::train::random::Random;
use crate::train::sampler::ElasticSampler;
use crate::train::task::{Measure, Task};

/// Windows of an evaluation that run side by side.
const BLOCK: usize = 32;

/// What a micro-batch is in the middle of.
#[derive(Clone, Debug)]
struct UnderWay {
    /// The number of its batch and the samples, once they were prepared.
    batch: Option<(u64, Batch)>,
    hidden: Vec<f32>,
}

/// A planner and its drives.
#[derive(Debug)]
pub struct PlannerTask {
    model: Planner,
    training: Windows,
    held_out: Windows,
    chunk: usize,
    /// Steps of the optimizer that a batch lasts.
    chunks: u64,
    examples: usize,
    evaluate_examples: usize,
    seed: u64,
    sampler: ElasticSampler,
    /// The number of a batch, and (epoch, window) of all of its samples.
    picked: Option<(u64, Vec<(u64, usize)>)>,
    /// One for each micro-batch, whoever has it.
    under_way: Vec<UnderWay>,
}

impl PlannerTask {
    /// Reads or generates the drives of a configuration. Each rank has all of them.
    pub fn new(config: &TrainConfig, planner: &PlannerConfig, threads: usize) -> Result<Self> {
        let options = config.data.windows.unwrap_or_default();
        let traces = Arc::new(traces(&config.data)?);
        // The split does not depend on the seed of training: runs stay comparable.
        let split = Split { seed: 0, held_out: config.data.held_out };
        let training = Windows::new(traces.clone(), Part::Training(split), options)?;
        let held_out = Windows::new(traces, Part::HeldOut(split), options)?;
        if training.is_empty() {
            return Err(Error::input(
                "data: no window to train on; the drives are too short for windows.steps and \
                 horizon_seconds, slower than windows.moving, or all held out",
            ));
        }
        let PlannerConfig { hidden, modes, head, rule, alpha, chunk } = *planner;
        let loss = LossOptions { rule, alpha };
        let times = times(options.horizon_seconds);
        let objective = Objective { modes, head, loss, times };
        let training_config = config.training;
        let examples = training_config.examples;
        let none = UnderWay { batch: None, hidden: vec![0.0; examples * hidden] };
        Ok(PlannerTask {
            model: Planner::new(hidden, objective, threads),
            sampler: ElasticSampler::new(training.len(), true, training_config.seed, 0)?,
            training,
            held_out,
            chunk,
            chunks: (options.steps / chunk) as u64,
            examples,
            evaluate_examples: training_config.evaluate_examples,
            seed: training_config.seed,
            picked: None,
            under_way: vec![none; training_config.micro_batches],
        })
    }

    /// Windows that are trained on, and held out.
    pub fn windows(&self) -> (usize, usize) {
        (self.training.len(), self.held_out.len())
    }

    /// The samples of one micro-batch of a batch.
    fn samples(&mut self, batch: u64, micro_batch: usize) -> Result<Vec<Sample>> {
        let size = self.examples * self.under_way.len();
        if self.picked.as_ref().is_none_or(|(number, _)| *number != batch) {
            let cursor = batch * size as u64;
            if self.sampler.cursor() != cursor {
                self.sampler = ElasticSampler::new(self.training.len(), true, self.seed, cursor)?;
            }
            let mut picked = Vec::with_capacity(size);
            while picked.len() < size {
                let part = self.sampler.next_batch(size - picked.len())?;
                picked.extend(part.indices.iter().map(|&index| (part.epoch, index)));
            }
            self.picked = Some((batch, picked));
        }
        let all = self.picked.as_ref().map_or(&[][..], |(_, all)| all);
        let own = &all[micro_batch * self.examples..(micro_batch + 1) * self.examples];
        let get = |&(epoch, index): &(u64, usize)| {
            // Named as by the loader.
            let mut random = Random::of(&[self.seed, epoch, index as u64]);
            self.training.get(index, &mut random)
        };
        own.iter().map(get).collect()
    }

    /// Losses and errors of this rank's blocks of the windows that are evaluated.
    fn judge(
        &mut self,
        many: usize,
        communicator: &Communicator,
        parameters: &mut dyn ParameterSource,
    ) -> Result<(LossSums, Metrics)> {
        let objective = self.model.objective();
        let mut sums = LossSums::new(objective.modes, objective.loss);
        let mut metrics = Metrics::new(objective.modes);
        let blocks = Sharding::even(many.div_ceil(BLOCK), communicator.ranks());
        for block in blocks.range(communicator.rank()) {
            let own = block * BLOCK..((block + 1) * BLOCK).min(many);
            let spread = |i: usize| self.held_out.window(i * self.held_out.len() / many);
            let batch = Batch::of(&own.map(spread).collect::<Vec<Sample>>())?;
            let mut hidden = vec![0.0; batch.samples() * self.model.hidden()];
            for chunk in batch.chunks(self.chunk) {
                let rows = batch.rows(chunk);
                self.model.judge(parameters, rows, &mut hidden, &mut sums, &mut metrics)?;
            }
        }
        Ok((sums, metrics))
    }
}

/// The drives that a configuration names.
fn traces(data: &DataConfig) -> Result<TraceSet> {
    if let Some(drives) = data.synthetic {
        return Ok(synthetic::traces(drives.vehicles, drives.seconds, drives.seed));
    }
    let mut all: Option<TraceSet> = None;
    for path in &data.traces {
        let more = TraceSet::read(path)?;
        match &mut all {
            None => all = Some(more),
            Some(all) if (all.step_seconds - more.step_seconds).abs() < 1e-6 => {
                all.traces.extend(more.traces);
            }
            Some(all) => {
                return Err(Error::input(format!(
                    "{}: a time step of {} s, but {} s in the files before; give files of one \
                     time step",
                    path.display(),
                    more.step_seconds,
                    all.step_seconds
                )));
            }
        }
    }
    all.ok_or_else(|| Error::input("data: traces names no file"))
}

/// What a report says, under names that are JSON keys; what nothing was counted for is left out.
fn measures(loss: Option<f64>, report: &Report) -> Vec<Measure> {
    let mut all = vec![
        ("held_out_loss".to_string(), loss),
        ("ade".into(), report.model.ade),
        ("fde".into(), report.model.fde),
        ("ade_constant_velocity".into(), report.constant_velocity.ade),
        ("fde_constant_velocity".into(), report.constant_velocity.fde),
        ("ade_best_of_modes".into(), report.best_of_modes.ade),
        ("fde_best_of_modes".into(), report.best_of_modes.fde),
        ("mode_accuracy".into(), report.accuracy),
        ("mode_entropy_bits".into(), Some(report.mode_entropy_bits)),
    ];
    for range in &report.ranges {
        for (metres, share) in HIT_METRES.iter().zip(range.ap) {
            let name = format!("ap_{metres}m_{}_{}", range.from_metres, range.to_metres);
            all.push((name, share));
        }
    }
    all.into_iter().filter_map(|(name, value)| Some(Measure { name, value: value? })).collect()
}

impl Task for PlannerTask {
    fn parameters(&self) -> Vec<Parameter> {
        self.model.parameters().to_vec()
    }

    fn initialise(&self, seed: u64, parameter: usize) -> Vec<f32> {
        self.model.initialise(seed, parameter)
    }

    fn learn(
        &mut self,
        step: u64,
        micro_batch: usize,
        scale: f32,
        parameters: &mut dyn ParameterSource,
        gradients: &mut dyn GradientSink,
    ) -> Result<Loss> {
        let (number, chunk) = (step / self.chunks, (step % self.chunks) as usize);
        let had = self.under_way[micro_batch].batch.take().filter(|(had, _)| *had == number);
        let batch = match had {
            Some((_, batch)) => batch,
            None => Batch::of(&self.samples(number, micro_batch)?)?,
        };
        let hidden = &mut self.under_way[micro_batch].hidden;
        if chunk == 0 {
            hidden.fill(0.0);
        }
        let rows = batch.rows(chunk * self.chunk..(chunk + 1) * self.chunk);
        let sums = self.model.learn(parameters, rows, hidden, scale, gradients)?;
        self.under_way[micro_batch].batch = Some((number, batch));
        let count = sums.steps();
        Ok(Loss { sum: sums.mean().unwrap_or(0.0) * count as f64, count })
    }

    fn evaluate(
        &mut self,
        communicator: &Communicator,
        parameters: &mut dyn ParameterSource,
    ) -> Result<Vec<Measure>> {
        let many = self.held_out.len().min(self.evaluate_examples);
        if many == 0 {
            return Ok(Vec::new());
        }
        let judged = self.judge(many, communicator, parameters);
        let (sums, metrics) = communicator.agree(judged)?;
        let sums = sums.combine(communicator)?;
        Ok(measures(sums.mean(), &metrics.combine(communicator)?.report()))
    }

    /// Steps of samples.
    fn units(&self) -> usize {
        self.examples * self.chunk
    }

    fn sample(&mut self, _: &mut dyn ParameterSource) -> Result<Option<String>> {
        Ok(None)
    }

    fn carries(&self) -> usize {
        self.examples * self.model.hidden()
    }

    fn carried(&self, micro_batch: usize) -> &[f32] {
        &self.under_way[micro_batch].hidden
    }

    fn carry(&mut self, micro_batch: usize, values: &[f32]) {
        self.under_way[micro_batch].hidden.copy_from_slice(values);
    }
}
