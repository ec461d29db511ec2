//! The planner as a task of the training loop, on traces of a simulator or generated drives.
//!
//! Windows of vehicles that are not held out are shuffled by a sampler; all micro-batches of a step
//! together take the next ones of its order (`supply`), so that every micro-batch has the same size
//! and the loop's mean over micro-batches is the mean over samples. A batch lasts for (steps of a
//! window / chunk) steps of the optimizer: step s is chunk s mod chunks of batch s / chunks. What a
//! micro-batch holds depends on step and number alone; between the chunks of a batch it carries its
//! hidden state, which checkpoints hold.
//!
//! An evaluation takes windows of the held-out vehicles at equal distances, each once, in blocks
//! that are the same at any number of ranks; losses and errors add up exactly.
//! Cost beside the network: about 1 ms for 32 windows, once a batch; images cost more (`raster`).

use std::ops::Range;
use std::sync::Arc;

use super::batch::Batch;
use super::exhibit::{Drawn, Exhibit, error, spread};
use super::head::constant_velocity;
use super::labels::{TRAJECTORY, times};
use super::loss::{LossOptions, LossSums, first_largest};
use super::metrics::{HIT_METRES, Metrics, Report};
use super::model::Planner;
use super::objective::Objective;
use super::raster::Surroundings;
use super::supply::Supply;
use super::synthetic;
use super::traces::TraceSet;
use super::windows::{Part, Sample, Split, Windows};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use crate::train::config::{DataConfig, PlannerConfig, TrainConfig};
use crate::train::evaluation::Places;
use crate::train::loader::Dataset;
use crate::train::model::Loss;
use crate::train::task::{Measure, Task};

/// Windows of an evaluation that run side by side.
const BLOCK: usize = 32;
/// Samples that a report shows.
const SHOWN: usize = 12;

/// What a micro-batch is in the middle of.
#[derive(Clone, Debug)]
struct UnderWay {
    /// The number of its batch and the samples, once they were prepared.
    batch: Option<(u64, Batch)>,
    hidden: Vec<f32>,
}

/// What an evaluation leaves for a report.
#[derive(Debug)]
struct Evaluated {
    report: Report,
    /// The error of each window at its last step.
    errors: Vec<f64>,
}

/// A planner and its drives.
#[derive(Debug)]
pub struct PlannerTask {
    model: Planner,
    supply: Supply,
    held_out: Windows,
    chunk: usize,
    /// Steps of the optimizer that a batch lasts.
    chunks: u64,
    examples: usize,
    evaluate_examples: usize,
    /// One for each micro-batch, whoever has it.
    under_way: Vec<UnderWay>,
    evaluated: Option<Evaluated>,
}

impl PlannerTask {
    /// Reads or generates the drives of a configuration. Each rank has all of them.
    pub fn new(config: &TrainConfig, planner: &PlannerConfig, threads: usize) -> Result<Self> {
        let options = config.data.windows.unwrap_or_default();
        let traces = Arc::new(traces(&config.data)?);
        // The split does not depend on the seed of training: runs stay comparable.
        let split = Split { seed: 0, held_out: config.data.held_out };
        let mut training = Windows::new(traces.clone(), Part::Training(split), options)?;
        let mut held_out = Windows::new(traces.clone(), Part::HeldOut(split), options)?;
        if training.is_empty() {
            return Err(Error::input(
                "data: no window to train on; the drives are too short for windows.steps and \
                 horizon_seconds, slower than windows.moving, or all held out",
            ));
        }
        let PlannerConfig { hidden, modes, head, rule, alpha, chunk, ref image } = *planner;
        let loss = LossOptions { rule, alpha };
        let times = times(options.horizon_seconds);
        let objective = Objective { modes, head, loss, times };
        let mut model = Planner::new(hidden, objective, threads);
        if let Some(image) = image {
            let around = Arc::new(Surroundings::new(&traces, image.raster()));
            training = training.with_images(around.clone());
            held_out = held_out.with_images(around);
            model = model.with_images(image);
        }
        let examples = config.training.examples;
        let none = UnderWay { batch: None, hidden: vec![0.0; examples * hidden] };
        Ok(PlannerTask {
            model,
            supply: Supply::new(training, config)?,
            held_out,
            chunk,
            chunks: (options.steps / chunk) as u64,
            examples,
            evaluate_examples: config.training.evaluate_examples,
            under_way: vec![none; config.training.micro_batches],
            evaluated: None,
        })
    }

    /// Windows that are trained on, and held out.
    pub fn windows(&self) -> (usize, usize) {
        (self.supply.windows(), self.held_out.len())
    }

    /// Which windows an evaluation takes.
    fn places(&self) -> Places {
        Places { all: self.held_out.len(), most: self.evaluate_examples, block: BLOCK }
    }

    /// Adds what the predictions for some held-out windows are worth, and returns the windows;
    /// the model has the predictions of their last chunk.
    fn judge(
        &mut self,
        parameters: &mut dyn ParameterSource,
        windows: &[usize],
        sums: &mut LossSums,
        metrics: &mut Metrics,
    ) -> Result<Batch> {
        let samples = windows.iter().map(|&window| self.held_out.window(window));
        let batch = Batch::of(&samples.collect::<Vec<Sample>>())?;
        let mut hidden = vec![0.0; batch.samples() * self.model.hidden()];
        for chunk in batch.chunks(self.chunk) {
            let rows = batch.rows(chunk);
            self.model.judge(parameters, rows, &mut hidden, sums, metrics)?;
        }
        Ok(batch)
    }

    /// Logits and trajectories, the truth and the speed of each sample at its last step, just after
    /// [`PlannerTask::judge`].
    fn last_steps<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = LastStep<'a>> {
        let (predictions, size) = (self.model.predictions(), self.model.objective().outputs());
        let rows = batch.rows(batch.steps() - 1..batch.steps());
        let last = &predictions[predictions.len() - batch.samples() * size..];
        let truths = rows.targets.chunks_exact(TRAJECTORY).zip(rows.speeds);
        let modes = self.model.objective().modes;
        last.chunks_exact(size).zip(truths).map(move |(row, (truth, &speed))| {
            let (logits, trajectories) = row.split_at(modes);
            LastStep { logits, trajectories, truth, speed }
        })
    }
}

/// A prediction at the last step of a window.
struct LastStep<'a> {
    logits: &'a [f32],
    trajectories: &'a [f32],
    truth: &'a [f32],
    speed: f32,
}

impl LastStep<'_> {
    /// The error of the most probable hypothesis.
    fn error(&self) -> f64 {
        let first = first_largest(self.logits) * TRAJECTORY;
        error(&self.trajectories[first..first + TRAJECTORY], self.truth)
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
                // Vehicles of two files never meet: each file is a time of its own.
                let end = all.traces.iter().map(|t| t.first_tick + t.states.len() as u64).max();
                all.traces.extend(more.traces.into_iter().map(|mut trace| {
                    trace.first_tick += end.unwrap_or(0);
                    trace
                }));
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

    fn begin(&mut self, own: Range<usize>) {
        self.supply.hold(own);
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
            None => Batch::of(&self.supply.samples(number, micro_batch)?)?,
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
        let places = self.places();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let objective = *self.model.objective();
        let mut sums = LossSums::new(objective.modes, objective.loss);
        let mut metrics = Metrics::new(objective.modes);
        let errors = places.each_block(communicator, |windows| {
            let batch = self.judge(parameters, windows, &mut sums, &mut metrics)?;
            Ok(self.last_steps(&batch).map(|last| last.error()).collect())
        })?;
        let sums = sums.combine(communicator)?;
        let report = metrics.combine(communicator)?.report();
        let found = measures(sums.mean(), &report);
        self.evaluated = Some(Evaluated { report, errors });
        Ok(found)
    }

    fn exhibit(&mut self, parameters: &mut dyn ParameterSource) -> Result<Option<Exhibit>> {
        let Some(Evaluated { report, errors }) = self.evaluated.take() else { return Ok(None) };
        let places = self.places();
        let windows = spread(&errors, SHOWN).into_iter().map(|index| places.place(index));
        let windows: Vec<usize> = windows.collect();
        let objective = *self.model.objective();
        let mut unused = LossSums::new(objective.modes, objective.loss);
        let mut metrics = Metrics::new(objective.modes);
        let batch = self.judge(parameters, &windows, &mut unused, &mut metrics)?;
        let samples = self.last_steps(&batch).zip(&windows).map(|(last, &window)| {
            let straight = constant_velocity(last.speed, &objective.times);
            let vehicle = self.held_out.vehicle(window);
            let prediction = (last.logits, last.trajectories);
            Drawn::new(vehicle, last.speed, prediction, last.truth, &straight)
        });
        let samples = samples.collect();
        let horizon_seconds = self.held_out.options().horizon_seconds;
        Ok(Some(Exhibit { report, horizon_seconds, samples }))
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
