//! The gradient buffer: where a backward pass writes, and when its buckets are reduce-scattered.
//!
//! A step has `n` micro-batches, of which each rank holds a contiguous part. They are the leaves of
//! the canonical tree: a rank adds up the gradients of its micro-batches by the tree, as far as
//! whole subtrees are its own, and the rest of the tree is the reduction over ranks. So the sum has
//! the same bits however many ranks share the micro-batches, if gradients are f32.
//!
//! Where every rank holds one subtree of one size (as many micro-batches on each, a power of two),
//! a bucket is one in-place reduce_scatter that starts when its last gradient is ready, while the
//! backward pass goes on; its readiness is known from the layout, so this holds from the first step
//! on. Otherwise partial sums go to the owners when the backward pass is over.
//!
//! Where the step reads the buffers of all ranks of the node itself (`finish_in_blocks`), nothing
//! is started: there is no link that could work meanwhile, only the same memory.
//!
//! 16-bit gradients: layers write a parameter's gradient in f32, and it is rounded once when it is
//! ready. Partial sums of a rank are rounded too, so the bits depend on how many micro-batches a
//! rank holds, and on nothing else.
//!
//! Memory: the buffer once, and once more for each level of the tree that waits for its other half:
//! none for one micro-batch a rank, ⌈log₂ k⌉ for k. With 16 bits also f32 for the parameters that
//! are being written at a time.

use std::ops::Range;
use std::time::Instant;

use half::{bf16, f16};

use super::distributed::Precision;
use super::gradient_bucket::{Bucket, from_f32};
use super::layout::Layout;
use super::parameter::{GradientSink, Parameter};
use super::timeline::Timeline;
use crate::communicator::Communicator;
use crate::communicator::contributions::{are_halves, subtrees};
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// The buffer in its element type.
#[derive(Debug)]
enum Stored {
    F32(Vec<Bucket<f32>>),
    Bf16(Vec<Bucket<bf16>>),
    F16(Vec<Bucket<f16>>),
}

/// Runs an expression on the buckets, whatever their type.
macro_rules! on_stored {
    ($stored:expr, $buckets:ident => $work:expr) => {
        match $stored {
            Stored::F32($buckets) => $work,
            Stored::Bf16($buckets) => $work,
            Stored::F16($buckets) => $work,
        }
    };
}

/// The gradients of all parameters.
#[derive(Debug)]
pub struct Gradients {
    communicator: Communicator,
    names: Vec<String>,
    layout: Layout,
    stored: Stored,
    /// Gradients in f32 that are being written, where the buffer has 16 bits.
    wide: Vec<Option<Vec<f32>>>,
    /// Vectors for more of them.
    spare: Vec<Vec<f32>>,
    /// Parameters of each bucket that are not ready in the current micro-batch.
    missing: Vec<usize>,
    /// Parameters that are ready in the current micro-batch.
    ready: Vec<bool>,
    /// Parameters that have been asked for in the current micro-batch: what earlier steps left in
    /// the buffer is gone.
    begun: Vec<bool>,
    /// Which rank holds which micro-batches of the step.
    held: Sharding,
    /// The next micro-batch of this rank.
    next: usize,
    /// Whether each rank holds one subtree of one size.
    aligned: bool,
    overlap: bool,
    in_blocks: bool,
    unused_is_zero: bool,
    times: Option<Times>,
}

/// When things happened in the current micro-batch, if that is recorded.
#[derive(Debug, Default)]
struct Times {
    /// When the first gradient was asked for.
    begun: Option<Instant>,
    /// Buckets, and when they were complete.
    ready: Vec<(usize, Instant)>,
}

/// How gradients are gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientOptions {
    /// How they are stored.
    pub precision: Precision,
    /// Whether buffers lie in node-shared memory.
    pub shared: bool,
    /// Whether a bucket's reduction starts while the backward pass goes on.
    pub overlap: bool,
    /// Whether the step reads the buffers of all ranks itself, if they are shared.
    pub in_blocks: bool,
    /// Whether a parameter that no layer used has the gradient zero.
    pub unused_is_zero: bool,
    /// Whether it is recorded when buckets are complete.
    pub record: bool,
}

impl Gradients {
    /// Buffers for `micro_batches` a step. Collective.
    pub(super) fn new(
        communicator: &Communicator,
        parameters: &[Parameter],
        layout: &Layout,
        micro_batches: usize,
        options: GradientOptions,
    ) -> Result<Self> {
        let held = Sharding::even(micro_batches, communicator.ranks());
        // The same number on all ranks, since shared memory is allocated by all.
        let depth = (0..communicator.ranks()).map(|rank| depth(micro_batches, held.range(rank)));
        let (depth, shared) = (depth.max().unwrap_or(1).max(1), options.shared);
        let numbers = 0..layout.buckets.len();
        macro_rules! buckets {
            () => {{
                let cut = |number| (layout.sharding(number), gaps(layout, number));
                let make = |n| Bucket::new(communicator, n, cut(n), depth, shared);
                numbers.map(make).collect::<Result<Vec<_>>>()?
            }};
        }
        let stored = match options.precision {
            Precision::F32 => Stored::F32(buckets!()),
            Precision::Bf16 => Stored::Bf16(buckets!()),
            Precision::F16 => Stored::F16(buckets!()),
        };
        let sizes = (0..communicator.ranks()).map(|rank| subtrees(micro_batches, held.range(rank)));
        let size = held.count(0);
        let aligned = sizes.into_iter().all(|trees| matches!(&trees[..], [t] if t.len() == size));
        let aligned = aligned && size.is_power_of_two();
        // Blocks of 16-bit partial sums would be rounded more often than `reduce_partials` does.
        let exact = aligned || options.precision == Precision::F32;
        Ok(Gradients {
            communicator: communicator.clone(),
            names: parameters.iter().map(|p| p.name.clone()).collect(),
            stored,
            wide: vec![None; parameters.len()],
            spare: Vec::new(),
            missing: layout.buckets.iter().map(|b| b.parameters.len()).collect(),
            layout: layout.clone(),
            ready: vec![false; parameters.len()],
            begun: vec![false; parameters.len()],
            next: held.range(communicator.rank()).start,
            held,
            aligned,
            overlap: options.overlap,
            in_blocks: options.in_blocks && shared && exact,
            unused_is_zero: options.unused_is_zero,
            times: options.record.then(Times::default),
        })
    }

    /// The micro-batches of this rank, as numbers among those of the step.
    pub fn own_micro_batches(&self) -> Range<usize> {
        self.held.range(self.communicator.rank())
    }

    /// Whether reductions overlap with the backward pass: see the module.
    pub fn overlaps(&self) -> bool {
        self.overlap && self.aligned && !self.in_blocks
    }

    /// Whether buckets are left to `finish_in_blocks`.
    pub(super) fn in_blocks(&self) -> bool {
        self.in_blocks
    }

    /// How many parts the ranks together have of each sum.
    pub(super) fn parts(&self) -> usize {
        let of = |rank| subtrees(self.held.n(), self.held.range(rank)).len();
        (0..self.communicator.ranks()).map(of).sum()
    }

    /// Ends a micro-batch: every parameter must be ready.
    pub(super) fn end_micro_batch(&mut self, timeline: &mut Timeline) -> Result<()> {
        if let Some(unused) = self.ready.iter().position(|ready| !ready) {
            if !self.unused_is_zero {
                let what = format!(
                    "the backward pass gave no gradient for '{}': no layer used it; take it out of \
                     the model, or let unused parameters have the gradient zero",
                    self.names[unused]
                );
                return Err(Error::input(what).on_rank(self.communicator.rank()));
            }
            for parameter in 0..self.ready.len() {
                if !self.ready[parameter] {
                    self.ready(parameter)?;
                }
            }
        }
        if let Some(Times { begun: Some(begun), ready }) = self.times.as_mut().map(std::mem::take) {
            for (bucket, at) in ready {
                timeline.add_until("ready", bucket, at, at);
            }
            timeline.add("backward", self.next, begun);
        }
        self.ready.fill(false);
        self.begun.fill(false);
        for (missing, bucket) in self.missing.iter_mut().zip(&self.layout.buckets) {
            *missing = bucket.parameters.len();
        }
        self.next += 1;
        self.progress(timeline)
    }

    /// Goes on with the reductions under way.
    fn progress(&mut self, timeline: &mut Timeline) -> Result<()> {
        on_stored!(&mut self.stored, buckets => {
            for bucket in buckets {
                if bucket.test()? == Some(true) {
                    bucket.finish(timeline)?;
                }
            }
        });
        Ok(())
    }

    /// All micro-batches of this rank are in, and it is their turn to be summed.
    pub(super) fn check_complete(&mut self) -> Result<()> {
        let own = self.own_micro_batches();
        if self.next != own.end {
            let what = format!(
                "the step has {} micro-batches on this rank, and {} came",
                own.len(),
                self.next - own.start
            );
            return Err(Error::input(what).on_rank(self.communicator.rank()));
        }
        self.next = own.start;
        Ok(())
    }

    /// Ends the reductions: every bucket has its sum where this rank owns it. Collective.
    pub(super) fn finish(&mut self, timeline: &mut Timeline) -> Result<()> {
        let (c, held) = (&self.communicator, &self.held);
        on_stored!(&mut self.stored, buckets => {
            for (number, bucket) in buckets.iter_mut().enumerate() {
                let start = Instant::now();
                if !self.aligned {
                    bucket.reduce_partials(c, held)?;
                    timeline.add("reduce_scatter", number, start);
                    continue;
                }
                if !bucket.has_started() {
                    bucket.start(c)?;
                }
                bucket.finish(timeline)?;
            }
        });
        Ok(())
    }

    /// Reduces all buckets from the buffers of the node's ranks, and hands the own shards to
    /// `visit` block by block: the bucket, the range in the shard, the sums or up to
    /// [`MOST_PARTS`] parts of them. If `keep`, they are the sums, and found in
    /// [`Gradients::own_sums`] afterwards; if not, this may be done again. Collective; only where
    /// buckets are left to it.
    ///
    /// [`MOST_PARTS`]: crate::reduce::fused::MOST_PARTS
    pub(super) fn finish_in_blocks(
        &mut self,
        timeline: &mut Timeline,
        keep: bool,
        mut visit: impl FnMut(usize, Range<usize>, &[&[f32]]),
    ) -> Result<()> {
        let (c, held) = (&self.communicator, &self.held);
        on_stored!(&mut self.stored, buckets => {
            for (number, bucket) in buckets.iter_mut().enumerate() {
                let start = Instant::now();
                bucket.reduce_in_blocks(c, held, keep, |block, sums| visit(number, block, sums))?;
                timeline.add("reduce_scatter", number, start);
            }
        });
        Ok(())
    }

    /// Bytes of the buffers, and of f32 gradients beside 16-bit ones.
    pub(super) fn bytes(&self) -> [usize; 2] {
        let buffers = on_stored!(&self.stored, buckets => buckets.iter().map(Bucket::bytes).sum());
        let wide = self.wide.iter().flatten().chain(&self.spare);
        [buffers, wide.map(|wide| wide.capacity() * size_of::<f32>()).sum()]
    }

    /// Gives the sums that this rank owns of one bucket to `visit`, block by block.
    pub(super) fn own_sums(&self, bucket: usize, visit: impl FnMut(Range<usize>, &[f32])) {
        let rank = self.communicator.rank();
        on_stored!(&self.stored, buckets => buckets[bucket].own_sums(rank, visit));
    }

    /// Frees all buffers for the next step. They are emptied parameter by parameter when a layer
    /// begins to write, which is when they have to be in the cache anyway.
    pub(super) fn clear(&mut self) {
        on_stored!(&mut self.stored, buckets => buckets.iter_mut().for_each(Bucket::clear));
    }

    /// Empties the gradient of a parameter in the buffer, unless that was done in this micro-batch.
    fn begin(&mut self, parameter: usize) {
        if std::mem::replace(&mut self.begun[parameter], true) {
            return;
        }
        let (number, range) = self.place(parameter);
        on_stored!(&mut self.stored, buckets => {
            buckets[number].current(range).fill(Default::default());
        });
    }

    /// The bucket of a parameter, and its elements there.
    fn place(&self, parameter: usize) -> (usize, Range<usize>) {
        let place = &self.layout.places[parameter];
        let start = self.layout.buckets[place.bucket].range.start;
        (place.bucket, place.range.start - start..place.range.end - start)
    }

    /// Rounds the gradient of a parameter into the buffer, if that has 16 bits.
    fn store(&mut self, parameter: usize) {
        let Some(wide) = self.wide[parameter].take() else { return };
        let (number, range) = self.place(parameter);
        on_stored!(&mut self.stored, buckets => from_f32(&wide, buckets[number].current(range)));
        self.spare.push(wide);
    }

    /// The last gradient of a bucket is in: adds the micro-batch to the tree.
    fn complete(&mut self, number: usize) -> Result<()> {
        let (n, leaf) = (self.held.n(), self.next);
        let starts = self.overlaps() && leaf + 1 == self.own_micro_batches().end;
        let c = &self.communicator;
        on_stored!(&mut self.stored, buckets => {
            let bucket = &mut buckets[number];
            bucket.complete(n, leaf)?;
            if starts { bucket.start(c) } else { Ok(()) }
        })
    }
}

/// What lies between the parameters of a bucket, counted from its start.
fn gaps(layout: &Layout, number: usize) -> Vec<Range<usize>> {
    let bucket = &layout.buckets[number];
    let start = bucket.range.start;
    let mut parameters: Vec<Range<usize>> =
        bucket.parameters.iter().map(|&p| layout.places[p].range.clone()).collect();
    parameters.sort_by_key(|range| range.start);
    let ends = std::iter::once(start).chain(parameters.iter().map(|range| range.end));
    let starts = parameters.iter().map(|range| range.start).chain([bucket.range.end]);
    ends.zip(starts).map(|(end, next)| end - start..next - start).collect()
}

/// Buffers that a rank needs for its micro-batches: the most sums that wait, and the current one.
fn depth(n: usize, own: Range<usize>) -> usize {
    let (mut stack, mut most): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
    for leaf in own {
        stack.push(leaf..leaf + 1);
        most = most.max(stack.len());
        while let [.., left, right] = &stack[..]
            && are_halves(n, left, right)
        {
            let whole = left.start..right.end;
            stack.truncate(stack.len() - 2);
            stack.push(whole);
        }
    }
    most
}

impl GradientSink for Gradients {
    fn gradient(&mut self, parameter: usize) -> &mut [f32] {
        if let Some(times) = &mut self.times {
            times.begun.get_or_insert_with(Instant::now);
        }
        let (number, range) = self.place(parameter);
        if let Stored::F32(buckets) = &mut self.stored {
            let gradient = buckets[number].current(range);
            if !std::mem::replace(&mut self.begun[parameter], true) {
                gradient.fill(0.0);
            }
            return gradient;
        }
        // What is written beside the buffer goes there whole.
        self.begun[parameter] = true;
        let spare = &mut self.spare;
        self.wide[parameter].get_or_insert_with(|| {
            let mut wide = spare.pop().unwrap_or_default();
            wide.clear();
            wide.resize(range.len(), 0.0);
            wide
        })
    }

    fn ready(&mut self, parameter: usize) -> Result<()> {
        let name = &self.names[parameter];
        if std::mem::replace(&mut self.ready[parameter], true) {
            let what = format!("the gradient of '{name}' was ready twice in one micro-batch");
            return Err(Error::internal(what).on_rank(self.communicator.rank()));
        }
        self.begin(parameter);
        self.store(parameter);
        let number = self.layout.places[parameter].bucket;
        self.missing[number] -= 1;
        if self.missing[number] == 0 {
            if let Some(times) = &mut self.times {
                times.ready.push((number, Instant::now()));
            }
            self.complete(number)?;
        }
        // Messages between nodes move only when somebody looks; one look moves all reductions.
        on_stored!(&mut self.stored, buckets => {
            for bucket in buckets {
                if bucket.test()?.is_some() {
                    return Ok(());
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_micro_batch_needs_one_buffer_and_more_need_a_level_each() {
        assert_eq!(depth(1, 0..1), 1);
        assert_eq!(depth(4, 2..3), 1);
        assert_eq!(depth(8, 0..8), 4);
        assert_eq!(depth(8, 4..8), 3);
        assert_eq!(depth(6, 0..3), 2);
        assert_eq!(depth(3, 3..3), 0);
    }
}
