//! The loop: micro-batches, steps, evaluations, checkpoints.
//!
//! Everything that comes out is the same on all ranks, and has the same bits at any number of them:
//! losses of micro-batches are added up in their order, gradients and norms by the optimizer.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::config::{CheckpointConfig, TrainConfig};
use super::planner::exhibit::Exhibit;
use super::task::{Measure, Task};
use crate::communicator::Communicator;
use crate::error::{Error, ErrorKind, Result};
use crate::optimizer::checkpoint::{self, Checkpoint, Piece, PieceMut, TensorInfo, Which};
use crate::optimizer::distributed::{DistributedOptimizer, StepInput};
use crate::optimizer::groups::Multipliers;
use crate::optimizer::parameter::{Parameter, ParameterSource};
use crate::optimizer::scaler::Scaler;
use crate::optimizer::timeline::{Event, Ready};
use crate::sharding::Sharding;

/// What is known after a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepLine {
    /// The number of the step, from 1.
    pub step: u64,
    /// The mean loss of its micro-batches, before the step.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// What the loss was scaled with.
    pub loss_scale: f64,
    /// False if the gradient was not finite and nothing was changed.
    pub stepped: bool,
    /// Tokens or samples a second since the last line.
    pub units_per_second: f64,
    /// Results on held-out data, when it was time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<Measure>,
}

/// What a run reports; the field names are the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainSummary {
    /// Steps of the whole run.
    pub steps: u64,
    /// The step that this run went on from; 0 at the beginning.
    pub resumed_from: u64,
    /// The mean loss of the last step.
    pub loss: Option<f64>,
    /// Tokens or samples a second, evaluations and checkpoints apart.
    pub tokens_per_second: f64,
    /// Elements of all parameters.
    pub parameters: u64,
    /// A hash of the bits of all parameters, in registration order.
    pub parameters_hash: String,
    /// The share of the communication that went on while the rank computed, on the rank where it
    /// was least, if a timeline was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication_hidden: Option<f64>,
    /// Results on held-out data at the end.
    pub evaluation: Vec<Measure>,
    /// What a sample of the model says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// What a report shows beside, on rank 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhibit: Option<Exhibit>,
    /// When each bucket was ready, where a timeline was recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ready: Vec<Ready>,
    /// Time by phase.
    pub seconds: Seconds,
}

/// Wall time by phase, of rank 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Steps.
    pub train: f64,
    /// Evaluations.
    pub evaluate: f64,
    /// Checkpoints.
    pub checkpoint: f64,
}

/// How a run starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Goes on from the last checkpoint, if there is one.
    pub resume: bool,
    /// Records a timeline.
    pub record: bool,
}

/// Beside tensors, what a checkpoint holds.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Steps that changed the parameters.
    applied: u64,
    scaler: Scaler,
}

/// A run under way.
struct Run<'a> {
    comm: &'a Communicator,
    config: &'a TrainConfig,
    optimizer: DistributedOptimizer,
    multipliers: Multipliers,
    scaler: Scaler,
    applied: u64,
    tensors: Vec<TensorInfo>,
    /// Numbers that a micro-batch carries; all of them are the last of the tensors.
    carries: usize,
    held: Sharding,
    seconds: Seconds,
}

/// Trains. `observe` is called on all ranks after every step whose line is due, and gets warnings.
/// Collective.
pub fn run(
    comm: &Communicator,
    config: &TrainConfig,
    task: &mut dyn Task,
    options: RunOptions,
    observe: &mut dyn FnMut(Seen<'_>) -> Result<()>,
) -> Result<(TrainSummary, Vec<Event>)> {
    let parameters = task.parameters();
    same_everywhere(comm, config, &parameters)?;
    let mut run = Run::new(comm, config, (&parameters, task.carries()), options)?;
    let start = run.begin(task, options, observe)?;
    run.agreed_hash("at the start")?;
    task.begin(run.optimizer.own_micro_batches());
    let (mut last, mut since) = (None, (Instant::now(), 0u64));
    let steps = config.training.steps;
    for step in start..steps {
        let begun = Instant::now();
        let mut line = run.step(task, step)?;
        run.seconds.train += begun.elapsed().as_secs_f64();
        last = Some(line.loss);
        since.1 += 1;
        let units = since.1 * (task.units() * config.training.micro_batches) as u64;
        line.units_per_second = units as f64 / since.0.elapsed().as_secs_f64();
        let due = |every: u64| every > 0 && (step + 1).is_multiple_of(every);
        let evaluates = due(config.training.evaluate_every) && step + 1 < steps;
        if due(config.training.log_every) || evaluates || step + 1 == steps {
            if evaluates {
                line.evaluation = run.evaluate(task)?;
            }
            comm.agree(observe(Seen::Step(&line)))?;
            since = (Instant::now(), 0);
        } else {
            // What comes of it is not agreed on, which would cost a synchronisation a step.
            observe(Seen::Passed(&line))?;
        }
        if let Some(to) = &config.checkpoint
            && (due(to.every) || step + 1 == steps)
        {
            run.save(task, to, step + 1)?;
        }
    }
    let evaluation = run.evaluate(task)?;
    let events = run.optimizer.timeline().events().to_vec();
    let summary = run.summary(task, start, last, evaluation)?;
    Ok((summary, events))
}

/// What `run` shows while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A step was done whose line is due.
    Step(&'a StepLine),
    /// Another step was done.
    Passed(&'a StepLine),
    /// The run goes on from this step.
    Resumed(u64),
    /// Something that is no error.
    Warning(&'a str),
}

/// Configurations and parameters must be the same, or ranks would train different models.
fn same_everywhere(
    comm: &Communicator,
    config: &TrainConfig,
    parameters: &[Parameter],
) -> Result<()> {
    let text = serde_json::to_string(config).unwrap_or_default();
    let mut hash = fnv(HASH_START, text.bytes());
    for parameter in parameters {
        hash = fnv(hash, parameter.name.bytes());
        hash = fnv(hash, parameter.shape.iter().flat_map(|d| d.to_le_bytes()));
    }
    let all = comm.all_gather_vec(&[hash])?.0;
    let odd: Vec<usize> = (0..all.len()).filter(|&rank| all[rank] != all[0]).collect();
    if odd.is_empty() {
        return Ok(());
    }
    let what = format!(
        "ranks {odd:?} have another configuration or model than rank 0; all ranks must read the \
         same file"
    );
    Err(Error { agreed: true, ..Error::new(ErrorKind::Disagreement, what) })
}

const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<'a> Run<'a> {
    fn new(
        comm: &'a Communicator,
        config: &'a TrainConfig,
        (parameters, carries): (&[Parameter], usize),
        options: RunOptions,
    ) -> Result<Self> {
        let many = config.training.micro_batches;
        let options = config.buffers.options(config.optimizer.moments(), options.record);
        let multipliers = comm.agree(Multipliers::new(parameters, &config.groups))?;
        let scaler = comm.agree(Scaler::new(config.loss_scale))?;
        let kinds = ["parameter", "exp_avg", "exp_avg_sq"];
        let tensors = kinds[..=config.optimizer.moments()].iter().flat_map(|kind| {
            parameters.iter().map(move |p| TensorInfo::new(format!("{kind}/{}", p.name), &p.shape))
        });
        let carried = TensorInfo::new("carried", &[many, carries]);
        let tensors = tensors.chain((carries > 0).then_some(carried)).collect();
        Ok(Run {
            comm,
            config,
            optimizer: DistributedOptimizer::new(comm, parameters.to_vec(), many, options)?,
            multipliers,
            scaler,
            applied: 0,
            tensors,
            carries,
            held: Sharding::even(many, comm.ranks()),
            seconds: Seconds::default(),
        })
    }

    /// Initial values, or those of the last checkpoint. Returns the first step to do.
    fn begin(
        &mut self,
        task: &mut dyn Task,
        options: RunOptions,
        observe: &mut dyn FnMut(Seen<'_>) -> Result<()>,
    ) -> Result<u64> {
        let folder = self.config.checkpoint.as_ref().map(|to| to.folder.clone());
        if let Some(folder) = folder.filter(|_| options.resume)
            && !checkpoint::steps(self.comm, &folder)?.is_empty()
        {
            let found = self.load(task, &folder)?;
            for refused in &found.refused {
                self.comm.agree(observe(Seen::Warning(refused)))?;
            }
            self.comm.agree(observe(Seen::Resumed(found.step)))?;
            return Ok(found.step);
        }
        let seed = self.config.training.seed;
        self.optimizer.initialise(|parameter| task.initialise(seed, parameter))?;
        Ok(0)
    }

    /// The hash of the values of all parameters, which must be the same on all ranks. Collective.
    fn agreed_hash(&mut self, when: &str) -> Result<u64> {
        self.optimizer.synchronise()?;
        let many = self.optimizer.parameters().len();
        let (parameters, _) = self.optimizer.split();
        let values = (0..many).flat_map(|index| parameters.values(index));
        let hash = fnv(HASH_START, values.flat_map(|x| x.to_le_bytes()));
        let all = self.comm.all_gather_vec(&[hash])?.0;
        let odd: Vec<usize> = (0..all.len()).filter(|&rank| all[rank] != all[0]).collect();
        if odd.is_empty() {
            return Ok(hash);
        }
        let what = format!(
            "ranks {odd:?} have other values of parameters than rank 0 {when} of the run; the \
             model or its initial values depend on the rank, or memory is damaged"
        );
        Err(Error { agreed: true, ..Error::new(ErrorKind::Disagreement, what) })
    }

    fn step(&mut self, task: &mut dyn Task, step: u64) -> Result<StepLine> {
        let scale = self.scaler.scale();
        let mut losses = Vec::new();
        for micro_batch in self.optimizer.own_micro_batches() {
            let started = Instant::now();
            let (parameters, gradients) = self.optimizer.split();
            let loss = task.learn(step, micro_batch, scale as f32, parameters, gradients)?;
            losses.push(loss.mean());
            self.optimizer.timeline().add("compute", micro_batch, started);
            self.optimizer.end_micro_batch()?;
        }
        let mut all = vec![0.0; self.held.n()];
        self.comm.all_gather_by(&self.held, &losses, &mut all)?;
        let loss = all.iter().sum::<f64>() / all.len() as f64;
        let lr = self.config.schedule.at(self.applied, self.config.training.steps);
        let scalars = self.multipliers.scalars(&self.config.optimizer, self.applied + 1, lr);
        let clip = Some(self.config.training.clip).filter(|&clip| clip > 0.0);
        let factor = 1.0 / (scale * self.held.n() as f64);
        let report = self.optimizer.step(&StepInput { scalars: &scalars, factor, clip })?;
        self.scaler.update(report.stepped);
        self.applied += u64::from(report.stepped);
        Ok(StepLine {
            step: step + 1,
            loss,
            lr,
            gradient_norm: report.norm,
            loss_scale: scale,
            stepped: report.stepped,
            units_per_second: 0.0,
            evaluation: Vec::new(),
        })
    }

    fn evaluate(&mut self, task: &mut dyn Task) -> Result<Vec<Measure>> {
        let begun = Instant::now();
        // No parameter of the step before: all have arrived.
        self.optimizer.synchronise()?;
        let (parameters, _) = self.optimizer.split();
        let found = task.evaluate(self.comm, parameters)?;
        self.seconds.evaluate += begun.elapsed().as_secs_f64();
        Ok(found)
    }

    fn save(&mut self, task: &dyn Task, to: &CheckpointConfig, step: u64) -> Result<()> {
        let begun = Instant::now();
        self.optimizer.synchronise()?;
        let many = self.optimizer.parameters().len();
        let mut pieces = Vec::new();
        for (piece, main, [m, v]) in self.optimizer.state() {
            for (kind, values) in [main, m, v].into_iter().enumerate() {
                if kind <= self.config.optimizer.moments() {
                    let tensor = kind * many + piece.parameter;
                    pieces.push(Piece { tensor, start: piece.in_parameter.start, values });
                }
            }
        }
        if self.carries > 0 {
            let tensor = self.tensors.len() - 1;
            pieces.extend(self.optimizer.own_micro_batches().map(|own| {
                let (start, values) = (own * self.carries, task.carried(own));
                Piece { tensor, start, values }
            }));
        }
        let saved = Saved { applied: self.applied, scaler: self.scaler };
        let state = serde_json::to_value(&saved)
            .map_err(|e| Error::internal(format!("the state of the run has no JSON form: {e}")))?;
        checkpoint::save(self.comm, &to.folder, step, &self.tensors, &pieces, &state, to.keep)?;
        self.seconds.checkpoint += begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn load(&mut self, task: &mut dyn Task, folder: &Path) -> Result<Checkpoint> {
        let begun = Instant::now();
        let many = self.optimizer.parameters().len();
        let kinds = 1 + self.config.optimizer.moments();
        let own: Vec<(usize, usize, usize)> = self
            .optimizer
            .pieces()
            .iter()
            .map(|p| (p.parameter, p.in_parameter.start, p.in_parameter.len()))
            .collect();
        let mut values: Vec<Vec<f32>> =
            own.iter().flat_map(|&(_, _, n)| (0..kinds).map(move |_| vec![0.0; n])).collect();
        let mut requests: Vec<PieceMut<'_>> = own
            .iter()
            .flat_map(|&(parameter, start, _)| {
                (0..kinds).map(move |kind| (kind * many + parameter, start))
            })
            .zip(&mut values)
            .map(|((tensor, start), values)| PieceMut { tensor, start, values })
            .collect();
        let held = self.optimizer.own_micro_batches();
        let mut carried = vec![vec![0.0; self.carries]; held.len()];
        if self.carries > 0 {
            let tensor = self.tensors.len() - 1;
            requests.extend(held.clone().zip(&mut carried).map(|(own, values)| {
                let start = own * self.carries;
                PieceMut { tensor, start, values }
            }));
        }
        let found =
            checkpoint::load(self.comm, folder, Which::Latest, &self.tensors, &mut requests)?;
        let saved: Saved = serde_json::from_value(found.state.clone()).map_err(|e| {
            Error::input(format!("{}: the state of the run: {e}", found.path.display()))
        })?;
        let mut read = values.chunks_exact(kinds);
        self.optimizer.restore(|_, main, [m, v]| {
            if let Some(kinds) = read.next() {
                for (into, from) in [main, m, v].into_iter().zip(kinds) {
                    into.copy_from_slice(from);
                }
            }
            Ok(())
        })?;
        if self.carries > 0 {
            held.zip(&carried).for_each(|(own, values)| task.carry(own, values));
        }
        (self.applied, self.scaler) = (saved.applied, saved.scaler);
        self.seconds.checkpoint += begun.elapsed().as_secs_f64();
        Ok(found)
    }

    fn summary(
        mut self,
        task: &mut dyn Task,
        start: u64,
        loss: Option<f64>,
        evaluation: Vec<Measure>,
    ) -> Result<TrainSummary> {
        let hash = self.agreed_hash("at the end")?;
        let (parameters, _) = self.optimizer.split();
        let many = task.parameters();
        // Rank 0 alone says something; the others wait for it in the next collective.
        let said = if self.comm.rank() == 0 { task.sample(parameters) } else { Ok(None) };
        let sample = self.comm.agree(said)?;
        let shown = if self.comm.rank() == 0 { task.exhibit(parameters) } else { Ok(None) };
        let exhibit = self.comm.agree(shown)?;
        let ready = self.optimizer.ready()?;
        let steps = self.config.training.steps;
        let units = (task.units() * self.held.n()) as f64 * steps.saturating_sub(start) as f64;
        let train = Duration::from_secs_f64(self.seconds.train).as_secs_f64();
        Ok(TrainSummary {
            steps,
            resumed_from: start,
            loss,
            tokens_per_second: if train > 0.0 { units / train } else { 0.0 },
            parameters: many.iter().map(|p| p.elements() as u64).sum(),
            parameters_hash: format!("{hash:016x}"),
            communication_hidden: None,
            evaluation,
            sample,
            exhibit,
            ready,
            seconds: self.seconds,
        })
    }
}
