//! The driver of one training step over all ranks.
//!
//! ```text
//! for each micro-batch of this rank:   backward writes gradients   (buckets reduce when complete)
//! step:   wait for the reductions; each rank has the summed gradients of its shards
//!         norm and finiteness of the gradient, exact, agreed by all ranks
//!         not finite: nothing changes on any rank
//!         the rule on this rank's shards: main parameters, moments, 16-bit copy
//!         gather the buckets, first layers first   (the next forward pass waits where it must)
//! ```
//!
//! The norm is an exact sum of squares, so it does not depend on how shards and buckets are cut.
//! With the canonical order of the reduction, parameters have the same bits for any number of
//! ranks, any bucket size, with and without overlap, and sharded or not. With 16-bit gradients all
//! but the number of ranks (`gradients`).
//!
//! # Bytes
//! With `d` ranks, a parameter takes on each rank: 8 + 8/d as f32 (parameter, gradient; moments),
//! 6 + 12/d with 16-bit parameters (and f32 main parameters), 4 + 12/d with 16-bit gradients too
//! (Megatron-LM: 4 + 16/d; here sums are widened block by block, so there are no f32 main
//! gradients). An f32 copy of 16-bit parameters for the computation comes on top. On one node the
//! parameters and this copy exist once, not `d` times: 4 + 12/d as f32.
//!
//! A step moves for each owned parameter 28 bytes as f32 (16 read, 12 written), 30 with a 16-bit
//! copy. Beside that, by [`Passes`], reading the gradients of `d` ranks takes 4d:
//!
//! | passes | norm | sums | in all, 16-bit copy |
//! | --- | --- | --- | --- |
//! | separate | 4 | written 4 | 38 + 4d |
//! | folded | with the sums | written 4 | 34 + 4d |
//! | fused, clipped, d ≤ 2 | with the sums | made twice | 26 + 8d |
//! | fused, not clipped | with the sums | stay in registers | 26 + 4d |
//!
//! (Megatron-LM's norm, scaling, Adam and cast are 46 after the sums are written.) The f32 copy of
//! 16-bit parameters is written past the caches by their owner on one node, 4 more, and made by
//! every rank elsewhere, 6d more.

use std::ops::Range;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::gradients::{GradientOptions, Gradients};
use super::layout::{Layout, default_bucket_elements};
use super::parameter::{Parameter, ParameterSource};
use super::ranges::Piece;
use super::state::State;
use super::timeline::{Ready, Timeline, ready_shares};
use super::values::{Buckets, Stored, Values};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::reduce::exact::ExactSum;
use crate::reduce::fused::{MOST_TWICE, sum_squares};
use crate::reduce::squares::add_squares;
use crate::reduce::step::Scalars;

/// Added to the norm before it divides, as in Megatron-LM.
const NORM_EPSILON: f64 = 1e-6;

/// How parameters are stored. Main parameters and moments are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits; the parameters are the main parameters.
    #[default]
    F32,
    /// bfloat16, with f32 main parameters.
    Bf16,
    /// IEEE half precision, with f32 main parameters. Needs loss scaling.
    F16,
}

/// How often a step goes over the gradients, where all ranks share memory. Between nodes it is
/// always [`Passes::Separate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passes {
    /// Each bucket is reduce-scattered when it is ready; the norm is a pass of its own.
    #[default]
    Separate,
    /// The norm is taken while the gradients of the ranks are summed, then comes the step.
    Folded,
    /// The step sums the gradients itself. Where they are not clipped this is one pass, and a
    /// gradient that is not finite is found when it has been applied, and is an error. With
    /// clipping, a pass before it sums them for the norm alone; where more than two parts make up
    /// the sums, it is [`Passes::Folded`].
    Fused,
}

/// How a [`DistributedOptimizer`] works. No setting but the two of precision changes a bit of the
/// parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How parameters are stored.
    pub precision: Precision,
    /// Whether gradients are stored as the parameters are; else as f32.
    pub narrow_gradients: bool,
    /// Elements at which a bucket closes; `None` for Megatron-LM's rule.
    pub bucket_elements: Option<usize>,
    /// How often a step goes over the gradients.
    pub passes: Passes,
    /// Whether communication overlaps with computation.
    pub overlap: bool,
    /// Whether the ranks of one node share one copy of the parameters. Ignored between nodes.
    pub share: bool,
    /// Whether a parameter that no layer used has the gradient zero; else it is an error.
    pub unused_is_zero: bool,
    /// Moments that the rule keeps for each parameter: 2 for Adam.
    pub moments: usize,
    /// Whether to record a timeline.
    pub record: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            precision: Precision::F32,
            narrow_gradients: false,
            bucket_elements: None,
            passes: Passes::Separate,
            overlap: true,
            share: true,
            unused_is_zero: false,
            moments: 2,
            record: false,
        }
    }
}

impl Options {
    /// Elements at which a bucket closes: without overlap, Megatron-LM has one bucket.
    pub fn bucket_limit(&self, ranks: usize) -> Option<usize> {
        let default = || self.overlap.then(|| default_bucket_elements(ranks));
        self.bucket_elements.map(|most| most.max(1)).or_else(default)
    }
}

/// What a step does with the gradients.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// The rule of this step for each parameter, by its number.
    pub scalars: &'a [Scalars],
    /// What the sum of the gradients is multiplied with: 1 / (loss scale · samples).
    pub factor: f64,
    /// The largest norm of the gradient.
    pub clip: Option<f64>,
}

/// What a step did, the same on all ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The norm of the gradient before clipping; infinite or NaN if an element is.
    pub norm: f64,
    /// False if the gradient was not finite: then nothing has changed.
    pub stepped: bool,
}

/// Parameters, gradients and optimizer state over the ranks of a communicator.
#[derive(Debug)]
pub struct DistributedOptimizer {
    communicator: Communicator,
    parameters: Vec<Parameter>,
    layout: Layout,
    gradients: Gradients,
    values: Values,
    state: State,
    /// Whether the step sums the gradients of the ranks itself.
    fused: bool,
}

/// Bytes that a rank holds, padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Parameters as they are stored; of a copy that the node shares, this rank's part.
    pub parameters: usize,
    /// Their f32 copy for the computation, if they are stored in 16 bits; of one that the node
    /// shares, this rank's part.
    pub computation: usize,
    /// Gradients.
    pub gradients: usize,
    /// Gradients in f32 beside those in 16 bits: of parameters that are being written.
    pub written: usize,
    /// Main parameters of the own shards.
    pub main: usize,
    /// Moments of the own shards.
    pub moments: usize,
}

impl DistributedOptimizer {
    /// Zero parameters and state for steps of `micro_batches`. Collective.
    pub fn new(
        communicator: &Communicator,
        parameters: Vec<Parameter>,
        micro_batches: usize,
        options: Options,
    ) -> Result<Self> {
        let ranks = communicator.ranks();
        communicator.agree(check(&parameters, micro_batches))?;
        let layout = Layout::new(&parameters, ranks, options.bucket_limit(ranks));
        let one_node = communicator.topology().nodes() == 1;
        let in_blocks = options.passes != Passes::Separate;
        let gradient_options = GradientOptions {
            precision: match options.narrow_gradients {
                true => options.precision,
                false => Precision::F32,
            },
            shared: one_node && (ranks > 1 || in_blocks),
            overlap: options.overlap,
            in_blocks,
            unused_is_zero: options.unused_is_zero,
            record: options.record,
        };
        let gradients =
            Gradients::new(communicator, &parameters, &layout, micro_batches, gradient_options)?;
        let (c, share) = (communicator, options.share && one_node && ranks > 1);
        let stored = match options.precision {
            Precision::F32 => Stored::F32(Buckets::new(c, &layout, share)?),
            Precision::Bf16 => Stored::Bf16(Buckets::new(c, &layout, share)?),
            Precision::F16 => Stored::F16(Buckets::new(c, &layout, share)?),
        };
        Ok(DistributedOptimizer {
            state: State::new(&layout, c.rank(), options.precision, options.moments),
            values: Values::new(c, &layout, stored, share, Timeline::new(options.record))?,
            communicator: c.clone(),
            parameters,
            layout,
            fused: options.passes == Passes::Fused && gradients.in_blocks(),
            gradients,
        })
    }

    /// The parameters, by their numbers.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Where they lie in the buffers.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The pieces of parameters that this rank owns.
    pub fn pieces(&self) -> &[Piece] {
        &self.state.pieces
    }

    /// The micro-batches of this rank, as numbers among those of the step.
    pub fn own_micro_batches(&self) -> Range<usize> {
        self.gradients.own_micro_batches()
    }

    /// Where a forward pass reads and a backward pass writes.
    pub fn split(&mut self) -> (&mut Values, &mut Gradients) {
        (&mut self.values, &mut self.gradients)
    }

    /// What has been recorded.
    pub fn timeline(&mut self) -> &mut Timeline {
        &mut self.values.timeline
    }

    /// When each bucket was complete, over all ranks; nothing if that is not recorded. Collective.
    pub fn ready(&self) -> Result<Vec<Ready>> {
        let (timeline, buckets) = (&self.values.timeline, &self.layout.buckets);
        if !timeline.records() {
            return Ok(Vec::new());
        }
        let own = ready_shares(timeline.events(), buckets.len());
        let own: Vec<f64> = own.into_iter().flat_map(|(sum, count)| [sum, count as f64]).collect();
        let (all, _) = self.communicator.all_gather_vec(&own)?;
        let of = |place: usize| -> f64 { all[place..].iter().step_by(own.len()).sum() };
        let ready = buckets.iter().enumerate().map(|(bucket, found)| Ready {
            bucket,
            elements: found.unpadded,
            parameters: found.parameters.iter().map(|&p| self.parameters[p].name.clone()).collect(),
            share: of(2 * bucket) / of(2 * bucket + 1).max(1.0),
        });
        Ok(ready.collect())
    }

    /// Ends the backward pass of a micro-batch. Its gradients are all ready.
    pub fn end_micro_batch(&mut self) -> Result<()> {
        self.gradients.end_micro_batch(&mut self.values.timeline)
    }

    /// Waits until all parameters of the last step have arrived on this rank.
    pub fn synchronise(&mut self) -> Result<()> {
        self.values.synchronise()
    }

    /// Sets all parameters: `values(i)` are those of parameter `i`, called on the ranks that own a
    /// part of it. Moments become zero. Collective.
    pub fn initialise(&mut self, mut values: impl FnMut(usize) -> Vec<f32>) -> Result<()> {
        let mut last: Option<(usize, Vec<f32>)> = None;
        self.restore(|piece, parameter, moments| {
            if last.as_ref().is_none_or(|(index, _)| *index != piece.parameter) {
                last = Some((piece.parameter, values(piece.parameter)));
            }
            if let Some((_, values)) = &last {
                parameter.copy_from_slice(&values[piece.in_parameter.clone()]);
            }
            moments.into_iter().for_each(|moment| moment.fill(0.0));
            Ok(())
        })
    }

    /// Sets main parameters and moments of the own pieces, and gathers the parameters. Collective.
    pub fn restore(
        &mut self,
        mut set: impl FnMut(&Piece, &mut [f32], [&mut [f32]; 2]) -> Result<()>,
    ) -> Result<()> {
        self.synchronise()?;
        self.values.open()?;
        let mut result = Ok(());
        for bucket in 0..self.layout.buckets.len() {
            self.state.shard(&mut self.values, bucket).set(|piece, parameter, moments| {
                if result.is_ok() {
                    result = set(piece, parameter, moments);
                }
            });
        }
        let agreed = self.communicator.agree(result);
        self.values.gather()?;
        self.synchronise()?;
        agreed
    }

    /// Main parameters and moments of the own pieces. The parameters have arrived (`synchronise`).
    pub fn state(&self) -> impl Iterator<Item = (&Piece, &[f32], [&[f32]; 2])> {
        self.state.pieces.iter().map(|piece| {
            let (main, moments) = self.state.of(piece);
            let stored = || &self.values.values(piece.parameter)[piece.in_parameter.clone()];
            (piece, main.unwrap_or_else(stored), moments)
        })
    }

    /// What this rank holds. The parameters have arrived (`synchronise`).
    pub fn bytes(&self) -> Bytes {
        let ([parameters, computation], [main, moments]) =
            (self.values.bytes(), self.state.bytes());
        let [gradients, written] = self.gradients.bytes();
        Bytes { parameters, computation, gradients, written, main, moments }
    }

    /// One step from the gradients of all micro-batches. Collective.
    pub fn step(&mut self, input: &StepInput<'_>) -> Result<StepReport> {
        self.communicator.agree(self.check_rules(input.scalars))?;
        self.synchronise()?;
        self.gradients.check_complete()?;
        if self.fused && input.clip.is_none() {
            return self.step_in_one_pass(input);
        }
        // Making sums twice reads them twice; keeping them writes and reads them.
        let twice = self.fused && self.gradients.parts() <= MOST_TWICE;
        let sum = self.sum_gradients(twice)?;
        let started = Instant::now();
        let norm = self.agreed(&sum)?.sqrt() * input.factor;
        let stepped = norm.is_finite();
        if stepped {
            let clip = input.clip.map_or(1.0, |most| most / (norm + NORM_EPSILON)).min(1.0);
            self.step_by(input.scalars, (input.factor * clip) as f32, twice)?;
        }
        self.gradients.clear();
        self.values.timeline.add("step", 0, started);
        if stepped {
            self.values.gather()?;
        }
        Ok(StepReport { norm, stepped })
    }

    /// Ends the reductions, and sums the squares of what this rank owns; if `twice`, the sums
    /// themselves are not kept. Collective.
    fn sum_gradients(&mut self, twice: bool) -> Result<ExactSum> {
        let mut sum = ExactSum::new();
        let timeline = &mut self.values.timeline;
        if self.gradients.in_blocks() {
            let add = |_, _, parts: &[&[f32]]| {
                match *parts {
                    [sums] => add_squares(sums, &mut sum),
                    _ => sum_squares(parts, &mut sum),
                };
            };
            self.gradients.finish_in_blocks(timeline, !twice, add)?;
            return Ok(sum);
        }
        self.gradients.finish(timeline)?;
        for bucket in 0..self.layout.buckets.len() {
            self.gradients.own_sums(bucket, |_, sums| {
                add_squares(sums, &mut sum);
            });
        }
        Ok(sum)
    }

    /// Steps all own shards, with gradients that are `factor` times their sums: those that were
    /// kept, or, if `twice`, made again.
    fn step_by(&mut self, scalars: &[Scalars], factor: f32, twice: bool) -> Result<()> {
        self.values.open()?;
        let (state, values) = (&mut self.state, &mut self.values);
        if twice {
            let mut timeline = Timeline::new(false);
            return self.gradients.finish_in_blocks(
                &mut timeline,
                false,
                |bucket, block, parts| {
                    state.shard(values, bucket).sum_step(block, parts, (scalars, factor));
                },
            );
        }
        for bucket in 0..self.layout.buckets.len() {
            let mut shard = state.shard(values, bucket);
            self.gradients.own_sums(bucket, |block, sums| {
                shard.step(block, sums, scalars, factor);
            });
        }
        Ok(())
    }

    /// A step that sums and steps each block while it is in the cache.
    fn step_in_one_pass(&mut self, input: &StepInput<'_>) -> Result<StepReport> {
        let (mut sum, factor) = (ExactSum::new(), input.factor as f32);
        // Only the times of the buckets are known apart; the pass has both in it.
        let mut timeline = std::mem::replace(&mut self.values.timeline, Timeline::new(false));
        self.values.open()?;
        let (state, values, rules) = (&mut self.state, &mut self.values, (input.scalars, factor));
        let done = self.gradients.finish_in_blocks(&mut timeline, false, |bucket, block, parts| {
            state.shard(values, bucket).sum_square_step(block, parts, rules, &mut sum);
        });
        self.values.timeline = timeline;
        done?;
        let norm = self.agreed(&sum)?.sqrt() * input.factor;
        self.gradients.clear();
        self.values.gather()?;
        if !norm.is_finite() {
            return Err(Error::input(format!(
                "the gradient is not finite (norm {norm}) and a step in one pass has applied it; \
                 go back to a checkpoint, and take `folded` passes, which skip such steps"
            )));
        }
        Ok(StepReport { norm, stepped: true })
    }

    /// The sum over all ranks; not finite if an element is not. Collective.
    fn agreed(&self, sum: &ExactSum) -> Result<f64> {
        let limbs = self.communicator.all_reduce_vec(&sum.limbs(), Op::Sum)?;
        Ok(ExactSum::from_limbs(&limbs).value())
    }

    fn check_rules(&self, scalars: &[Scalars]) -> Result<()> {
        let (kept, has_state) = self.state.kept();
        let most = scalars.iter().map(Scalars::moments).max().unwrap_or(0);
        if scalars.len() != self.parameters.len() || (most > kept && has_state) {
            return Err(Error::input(format!(
                "step: {} rules with up to {most} moments for {} parameters and {kept} moments",
                scalars.len(),
                self.parameters.len()
            )));
        }
        Ok(())
    }
}

/// Names are unique and there is something to do.
fn check(parameters: &[Parameter], micro_batches: usize) -> Result<()> {
    let mut names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::input(format!("two parameters are named '{}'", twice[0])));
    }
    if micro_batches == 0 {
        return Err(Error::input("a step needs at least one micro-batch"));
    }
    Ok(())
}
