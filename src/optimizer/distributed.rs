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
//! ranks, any bucket size, with and without overlap, and sharded or not.
//!
//! # Bytes
//! With `d` ranks, a parameter takes on each rank: 8 + 8/d as f32 (parameter, gradient; moments),
//! 6 + 12/d with 16-bit parameters (and f32 main parameters). An f32 copy of 16-bit parameters for
//! the computation comes on top. On one node the parameters exist once, not `d` times.
//!
//! A step moves, beside the gradient's reduction: 28 bytes for each owned f32 parameter (16 read,
//! 12 written), 30 with a 16-bit copy.

use std::ops::Range;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::gradients::{GradientOptions, Gradients};
use super::layout::{Layout, default_bucket_elements};
use super::parameter::Parameter;
use super::ranges::{Piece, pieces_of};
use super::timeline::Timeline;
use super::values::{Buckets, Stored, Values};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::reduce::exact::ExactSum;
use crate::reduce::squares::add_squares;
use crate::reduce::step::{Copy16, Elements, Scalars, step};

/// Added to the norm before it divides, as in Megatron-LM.
const NORM_EPSILON: f64 = 1e-6;

/// How parameters are stored. Gradients, main parameters and moments are f32.
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

/// How a [`DistributedOptimizer`] works. No setting changes a bit of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How parameters are stored.
    pub precision: Precision,
    /// Elements at which a bucket closes; `None` for Megatron-LM's rule.
    pub bucket_elements: Option<usize>,
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
            bucket_elements: None,
            overlap: true,
            share: true,
            unused_is_zero: false,
            moments: 2,
            record: false,
        }
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
    /// Pieces of the own shards, bucket after bucket.
    pieces: Vec<Piece>,
    /// Where the own shard of each bucket starts in the state.
    starts: Vec<usize>,
    gradients: Gradients,
    values: Values,
    /// Main parameters of the own shards; empty if the parameters are f32.
    main: Vec<f32>,
    /// Moments of the own shards.
    moments: [Vec<f32>; 2],
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
        let most = options.bucket_elements.unwrap_or_else(|| default_bucket_elements(ranks));
        let layout = Layout::new(&parameters, ranks, Some(most.max(1)));
        let one_node = communicator.topology().nodes() == 1 && ranks > 1;
        let gradient_options = GradientOptions {
            shared: one_node,
            overlap: options.overlap,
            fused: false,
            unused_is_zero: options.unused_is_zero,
        };
        let gradients =
            Gradients::new(communicator, &parameters, &layout, micro_batches, gradient_options)?;
        let (c, share) = (communicator, options.share && one_node);
        let stored = match options.precision {
            Precision::F32 => Stored::F32(Buckets::new(c, &layout, share)?),
            Precision::Bf16 => Stored::Bf16(Buckets::new(c, &layout, share)?),
            Precision::F16 => Stored::F16(Buckets::new(c, &layout, share)?),
        };
        let mut starts = vec![0];
        for bucket in 0..layout.buckets.len() {
            starts.push(starts[bucket] + layout.shard_elements(bucket));
        }
        let own = starts.last().copied().unwrap_or(0);
        let state = |wanted: bool| vec![0.0; if wanted { own } else { 0 }];
        Ok(DistributedOptimizer {
            pieces: pieces_of(&layout, communicator.rank()),
            values: Values::new(communicator, &layout, stored, Timeline::new(options.record)),
            main: state(options.precision != Precision::F32),
            moments: [state(options.moments > 0), state(options.moments > 1)],
            communicator: communicator.clone(),
            parameters,
            layout,
            starts,
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
        &self.pieces
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
        let mut result = Ok(());
        for bucket in 0..self.layout.buckets.len() {
            let work = self.shard(bucket, true);
            let Shard { pieces, parameter, mut copy, moments: [m, v], .. } = work;
            for piece in pieces {
                let at = piece.in_shard.clone();
                let part =
                    |moment: &mut [f32]| at.start.min(moment.len())..at.end.min(moment.len());
                let (in_m, in_v) = (part(m), part(v));
                let moments = [&mut m[in_m], &mut v[in_v]];
                result = result.and_then(|()| set(piece, &mut parameter[at.clone()], moments));
                round(&parameter[at.clone()], &mut part_of(&mut copy, &at));
            }
        }
        self.communicator.agree(result)?;
        self.values.gather()?;
        self.synchronise()
    }

    /// Main parameters and moments of the own pieces. The parameters have arrived (`synchronise`).
    pub fn state(&self) -> impl Iterator<Item = (&Piece, &[f32], [&[f32]; 2])> {
        self.pieces.iter().map(|piece| {
            let start = self.starts[piece.bucket];
            let at = start + piece.in_shard.start..start + piece.in_shard.end;
            let main = match self.main.is_empty() {
                true => {
                    let values = super::parameter::ParameterSource::values;
                    &values(&self.values, piece.parameter)[piece.in_parameter.clone()]
                }
                false => &self.main[at.clone()],
            };
            let part = |moment: &'_ Vec<f32>| at.start.min(moment.len())..at.end.min(moment.len());
            let [m, v] = &self.moments;
            (piece, main, [&m[part(m)], &v[part(v)]])
        })
    }

    /// One step from the gradients of all micro-batches. Collective.
    pub fn step(&mut self, input: &StepInput<'_>) -> Result<StepReport> {
        self.communicator.agree(self.check_rules(input.scalars))?;
        self.synchronise()?;
        self.gradients.finish(&mut self.values.timeline)?;
        let started = Instant::now();
        let norm = self.squares()?.sqrt() * input.factor;
        let stepped = norm.is_finite();
        if stepped {
            let clip = input.clip.map_or(1.0, |most| most / (norm + NORM_EPSILON)).min(1.0);
            let factor = (input.factor * clip) as f32;
            for bucket in 0..self.layout.buckets.len() {
                self.step_shard(bucket, input.scalars, factor);
            }
        }
        self.gradients.clear();
        self.values.timeline.add("step", 0, started);
        if stepped {
            self.values.gather()?;
        }
        Ok(StepReport { norm, stepped })
    }

    /// The sum of squares of the summed gradient; not finite if an element is not. Collective.
    fn squares(&self) -> Result<f64> {
        let mut sum = ExactSum::new();
        for bucket in 0..self.layout.buckets.len() {
            add_squares(self.gradients.own_sums(bucket), &mut sum);
        }
        let limbs = self.communicator.all_reduce_vec(&sum.limbs(), Op::Sum)?;
        Ok(ExactSum::from_limbs(&limbs).value())
    }

    fn check_rules(&self, scalars: &[Scalars]) -> Result<()> {
        let kept = self.moments.iter().filter(|moment| !moment.is_empty()).count();
        let most = scalars.iter().map(Scalars::moments).max().unwrap_or(0);
        let has_state = self.starts.last().is_some_and(|&own| own > 0);
        if scalars.len() != self.parameters.len() || (most > kept && has_state) {
            return Err(Error::input(format!(
                "step: {} rules with up to {most} moments for {} parameters and {kept} moments",
                scalars.len(),
                self.parameters.len()
            )));
        }
        Ok(())
    }

    fn step_shard(&mut self, bucket: usize, scalars: &[Scalars], factor: f32) {
        let Shard { pieces, parameter, mut copy, moments: [m, v], gradient } =
            self.shard(bucket, true);
        for piece in pieces {
            let at = piece.in_shard.clone();
            let part = |moment: &mut [f32]| at.start.min(moment.len())..at.end.min(moment.len());
            let (in_m, in_v) = (part(m), part(v));
            let elements = Elements {
                p: &mut parameter[at.clone()],
                g: &gradient[at.clone()],
                m: &mut m[in_m],
                v: &mut v[in_v],
                copy: part_of(&mut copy, &at),
            };
            step(&scalars[piece.parameter], factor, elements);
        }
    }

    /// The own shard of a bucket, ready to be written; parameters keep their values if `keep`.
    fn shard(&mut self, bucket: usize, keep: bool) -> Shard<'_> {
        let own = self.layout.sharding(bucket).range(self.communicator.rank());
        let state = self.starts[bucket]..self.starts[bucket + 1];
        let first = self.pieces.partition_point(|piece| piece.bucket < bucket);
        let last = self.pieces.partition_point(|piece| piece.bucket <= bucket);
        let [m, v] = &mut self.moments;
        let part =
            |moment: &'_ Vec<f32>| state.start.min(moment.len())..state.end.min(moment.len());
        let (in_m, in_v) = (part(m), part(v));
        let mut copy = Copy16::None;
        let parameter: &mut [f32] = match &mut self.values.stored {
            Stored::F32(buckets) => buckets.own_mut(bucket, own, |old, new| {
                if keep {
                    new.copy_from_slice(old);
                }
            }),
            Stored::Bf16(buckets) => {
                copy = Copy16::Bf16(buckets.own_mut(bucket, own, |_, _| {}));
                &mut self.main[state]
            }
            Stored::F16(buckets) => {
                copy = Copy16::F16(buckets.own_mut(bucket, own, |_, _| {}));
                &mut self.main[state]
            }
        };
        Shard {
            pieces: &self.pieces[first..last],
            parameter,
            copy,
            moments: [&mut m[in_m], &mut v[in_v]],
            gradient: self.gradients.own_sums(bucket),
        }
    }
}

/// The own shard of a bucket.
struct Shard<'a> {
    pieces: &'a [Piece],
    parameter: &'a mut [f32],
    copy: Copy16<'a>,
    moments: [&'a mut [f32]; 2],
    gradient: &'a [f32],
}

/// A range of the 16-bit copy.
fn part_of<'a>(copy: &'a mut Copy16<'_>, at: &Range<usize>) -> Copy16<'a> {
    match copy {
        Copy16::None => Copy16::None,
        Copy16::Bf16(copy) => Copy16::Bf16(&mut copy[at.clone()]),
        Copy16::F16(copy) => Copy16::F16(&mut copy[at.clone()]),
    }
}

/// Writes the 16-bit copy.
fn round(parameter: &[f32], copy: &mut Copy16<'_>) {
    match copy {
        Copy16::None => {}
        Copy16::Bf16(copy) => crate::reduce::narrow(parameter, copy),
        Copy16::F16(copy) => crate::reduce::narrow(parameter, copy),
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
