//! The gradient buffer: where a backward pass writes, and how its buckets are reduce-scattered.
//!
//! A step has `n` micro-batches, of which each rank holds a contiguous part. They are the leaves of
//! the canonical tree: a rank adds up the gradients of its micro-batches by the tree, as far as
//! whole subtrees are its own, and the rest of the tree is the reduction over ranks. So the sum has
//! the same bits however many ranks share the micro-batches.
//!
//! Where every rank holds one subtree of one size (as many micro-batches on each, a power of two),
//! a bucket is one in-place reduce_scatter that starts when its last gradient is ready, while the
//! backward pass goes on; its readiness is known from the layout, so this holds from the first step
//! on. Otherwise partial sums go to the owners when the backward pass is over.
//!
//! Where the step reads the buffers of all ranks of the node itself (`finish_in_blocks`), nothing is
//! started: there is no link that could work meanwhile, only the same memory.
//!
//! Memory: the buffer once, and once more for each level of the tree that waits for its other half:
//! none for one micro-batch a rank, ⌈log₂ k⌉ for k.

use std::ops::Range;
use std::time::Instant;

use super::layout::Layout;
use super::parameter::{GradientSink, Parameter};
use super::timeline::Timeline;
use crate::communicator::contributions::{are_halves, subtrees};
use crate::communicator::{Communicator, Pending, Storage};
use crate::element::Op;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// A reduction under way.
type Reducing = Pending<f32, Vec<f32>, Storage<f32>>;

/// One bucket of the buffer.
#[derive(Debug)]
struct Bucket {
    /// Who owns which part of it.
    sharding: Sharding,
    /// Parameters of the current micro-batch that are not ready yet.
    missing: usize,
    /// Zeroed buffers that are not in use.
    free: Vec<Storage<f32>>,
    /// Where the current micro-batch writes.
    current: Option<Storage<f32>>,
    /// Sums of subtrees that wait for their other half.
    stack: Vec<(Range<usize>, Storage<f32>)>,
    reducing: Option<(Reducing, Instant)>,
    /// The sum over all micro-batches, in the part that this rank owns.
    reduced: Option<Storage<f32>>,
}

/// The gradients of all parameters.
#[derive(Debug)]
pub struct Gradients {
    communicator: Communicator,
    names: Vec<String>,
    layout: Layout,
    buckets: Vec<Bucket>,
    /// Parameters that are ready in the current micro-batch.
    ready: Vec<bool>,
    /// Which rank holds which micro-batches of the step.
    held: Sharding,
    /// The next micro-batch of this rank.
    next: usize,
    /// Whether each rank holds one subtree of one size.
    aligned: bool,
    overlap: bool,
    /// Whether buckets are left to the fused step.
    fused: bool,
    unused_is_zero: bool,
}

/// How gradients are gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientOptions {
    /// Whether buffers lie in node-shared memory.
    pub shared: bool,
    /// Whether a bucket's reduction starts while the backward pass goes on.
    pub overlap: bool,
    /// Whether the step reads the buffers of all ranks itself.
    pub fused: bool,
    /// Whether a parameter that no layer used has the gradient zero.
    pub unused_is_zero: bool,
}

impl Gradients {
    /// Buffers for at most `micro_batches` a step. Collective.
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
        let depth = depth.max().unwrap_or(1).max(1);
        let mut buckets = Vec::new();
        for (number, bucket) in layout.buckets.iter().enumerate() {
            let n = bucket.range.len();
            let mut free = Vec::new();
            for _ in 0..depth {
                free.push(match options.shared {
                    true => Storage::Shared(communicator.shared(n)?),
                    false => Storage::Private(vec![0.0; n]),
                });
            }
            let (sharding, missing) = (layout.sharding(number), bucket.parameters.len());
            let (stack, current, reducing, reduced) = (Vec::new(), None, None, None);
            buckets.push(Bucket { sharding, missing, free, current, stack, reducing, reduced });
        }
        let sizes = (0..communicator.ranks()).map(|rank| subtrees(micro_batches, held.range(rank)));
        let size = held.count(0);
        let aligned = sizes.into_iter().all(|trees| matches!(&trees[..], [t] if t.len() == size));
        Ok(Gradients {
            communicator: communicator.clone(),
            names: parameters.iter().map(|p| p.name.clone()).collect(),
            layout: layout.clone(),
            buckets,
            ready: vec![false; parameters.len()],
            next: held.range(communicator.rank()).start,
            held,
            aligned: aligned && size.is_power_of_two(),
            overlap: options.overlap,
            fused: options.fused,
            unused_is_zero: options.unused_is_zero,
        })
    }

    /// The micro-batches of this rank, as numbers among those of the step.
    pub fn own_micro_batches(&self) -> Range<usize> {
        self.held.range(self.communicator.rank())
    }

    /// Whether reductions overlap with the backward pass: see the module.
    pub fn overlaps(&self) -> bool {
        self.overlap && self.aligned && !self.fused
    }

    /// Ends a micro-batch: every parameter must be ready.
    pub fn end_micro_batch(&mut self, timeline: &mut Timeline) -> Result<()> {
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
        self.ready.fill(false);
        for (bucket, layout) in self.buckets.iter_mut().zip(&self.layout.buckets) {
            bucket.missing = layout.parameters.len();
        }
        self.next += 1;
        self.progress(timeline)
    }

    /// Goes on with the reductions under way.
    pub(super) fn progress(&mut self, timeline: &mut Timeline) -> Result<()> {
        for (number, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some((pending, _)) = &mut bucket.reducing
                && pending.test()?
            {
                bucket.finish(number, timeline)?;
            }
        }
        Ok(())
    }

    /// All micro-batches of this rank are in.
    fn check_complete(&mut self) -> Result<()> {
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
        self.check_complete()?;
        for number in 0..self.buckets.len() {
            let start = Instant::now();
            let bucket = &self.buckets[number];
            if self.aligned && bucket.reducing.is_none() && bucket.reduced.is_none() {
                self.start(number)?;
            }
            if self.aligned {
                self.buckets[number].finish(number, timeline)?;
            } else {
                self.reduce_partials(number)?;
                timeline.add("reduce_scatter", number, start);
            }
        }
        Ok(())
    }

    /// Reduces all buckets from the buffers of the node's ranks, and hands the own shards to `visit`
    /// block by block: the bucket, the range in the shard, the sums. If `keep`, they are found in
    /// [`Gradients::own_sums`] afterwards. Collective; only where buckets are left to it.
    pub(super) fn finish_in_blocks(
        &mut self,
        timeline: &mut Timeline,
        keep: bool,
        mut visit: impl FnMut(usize, Range<usize>, &[f32]),
    ) -> Result<()> {
        self.check_complete()?;
        for (number, bucket) in self.buckets.iter_mut().enumerate() {
            let start = Instant::now();
            // A rank without micro-batches has a free buffer for its sums.
            if bucket.stack.is_empty() {
                bucket.reduced = bucket.free.pop();
            }
            let sums = bucket.stack.iter_mut().map(|(_, buffer)| buffer);
            let mut buffers = Vec::new();
            for buffer in sums.chain(&mut bucket.reduced) {
                match buffer {
                    Storage::Shared(buffer) => buffers.push(buffer),
                    Storage::Private(_) => {
                        return Err(Error::internal("gradients of a fused step are not shared"));
                    }
                }
            }
            let (c, sharding) = (&self.communicator, &bucket.sharding);
            c.reduce_scatter_blocks(sharding, &self.held, &mut buffers, keep, |range, sums| {
                visit(number, range, sums);
            })?;
            if let Some((_, buffer)) = bucket.stack.pop_if(|_| keep) {
                bucket.reduced = Some(buffer);
            }
            timeline.add("reduce_scatter", number, start);
        }
        Ok(())
    }

    /// Bytes of the buffers.
    pub(super) fn bytes(&self) -> usize {
        let of = |bucket: &Bucket| {
            let waiting = bucket.stack.iter().map(|(_, buffer)| buffer);
            let others = bucket.current.iter().chain(&bucket.reduced).chain(&bucket.free);
            waiting.chain(others).map(|buffer| buffer.len()).sum::<usize>()
        };
        self.buckets.iter().map(of).sum::<usize>() * size_of::<f32>()
    }

    /// The sums that this rank owns, of one bucket.
    pub(super) fn own_sums(&self, bucket: usize) -> &[f32] {
        let bucket = &self.buckets[bucket];
        let own = bucket.sharding.range(self.communicator.rank());
        bucket.reduced.as_ref().map_or(&[], |buffer| &buffer[own])
    }

    /// Empties all buffers for the next step.
    pub(super) fn clear(&mut self) {
        for bucket in &mut self.buckets {
            let sums = bucket.stack.drain(..).map(|(_, buffer)| buffer);
            let used = sums.chain(bucket.reduced.take());
            for mut buffer in used.collect::<Vec<_>>() {
                buffer.fill(0.0);
                bucket.free.push(buffer);
            }
        }
    }

    /// Starts the reduction of a bucket whose micro-batches are all in.
    fn start(&mut self, number: usize) -> Result<()> {
        let bucket = &mut self.buckets[number];
        let Some((_, buffer)) = bucket.stack.pop() else {
            return Err(Error::internal(format!("bucket {number} has no gradients")));
        };
        let c = &self.communicator;
        let pending = c.start_reduce_scatter_in_place(&bucket.sharding, buffer, Op::Sum)?;
        bucket.reducing = Some((pending, Instant::now()));
        Ok(())
    }

    /// Sends the partial sums of a bucket to the owners.
    fn reduce_partials(&mut self, number: usize) -> Result<()> {
        let bucket = &mut self.buckets[number];
        let partials: Vec<Vec<f32>> = bucket.stack.iter().map(|(_, b)| b.to_vec()).collect();
        let sums = self.communicator.reduce_scatter_partials(
            &bucket.sharding,
            &self.held,
            &partials,
            Op::Sum,
        )?;
        let own = bucket.sharding.range(self.communicator.rank());
        // A rank without micro-batches has a free buffer instead.
        let buffer = bucket.stack.pop().map(|(_, buffer)| buffer).or_else(|| bucket.free.pop());
        let Some(mut buffer) = buffer else {
            return Err(Error::internal(format!("bucket {number} has no buffer")));
        };
        buffer[own].copy_from_slice(&sums);
        bucket.reduced = Some(buffer);
        Ok(())
    }

    /// The last gradient of a bucket is in: adds the micro-batch to the tree.
    fn complete(&mut self, number: usize) -> Result<()> {
        let (n, leaf) = (self.held.n(), self.next);
        let bucket = &mut self.buckets[number];
        // A bucket of parameters without elements was never written.
        let current = bucket.current.take().or_else(|| bucket.free.pop());
        let Some(current) = current else {
            return Err(Error::internal(format!("bucket {number} has no free buffer")));
        };
        bucket.stack.push((leaf..leaf + 1, current));
        while let [.., (left, _), (right, _)] = &bucket.stack[..]
            && are_halves(n, left, right)
        {
            let Some((right, mut addend)) = bucket.stack.pop() else { break };
            if let Some((left, sum)) = bucket.stack.last_mut() {
                sum.iter_mut().zip(addend.iter()).for_each(|(sum, x)| *sum += x);
                left.end = right.end;
            }
            addend.fill(0.0);
            bucket.free.push(addend);
        }
        let last = leaf + 1 == self.own_micro_batches().end;
        if last && self.overlaps() { self.start(number) } else { Ok(()) }
    }
}

impl Bucket {
    /// Waits for the reduction under way.
    fn finish(&mut self, number: usize, timeline: &mut Timeline) -> Result<()> {
        if let Some((pending, started)) = self.reducing.take() {
            self.reduced = Some(pending.wait()?.1);
            timeline.add("reduce_scatter", number, started);
        }
        Ok(())
    }
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
        let place = &self.layout.places[parameter];
        let bucket = &mut self.buckets[place.bucket];
        if bucket.current.is_none() {
            bucket.current = bucket.free.pop();
        }
        let start = self.layout.buckets[place.bucket].range.start;
        let range = place.range.start - start..place.range.end - start;
        // There is a free buffer for each micro-batch (`depth`); without one, nothing to write to.
        bucket.current.as_mut().map_or(&mut [], |buffer| &mut buffer[range])
    }

    fn ready(&mut self, parameter: usize) -> Result<()> {
        let name = &self.names[parameter];
        if std::mem::replace(&mut self.ready[parameter], true) {
            let what = format!("the gradient of '{name}' was ready twice in one micro-batch");
            return Err(Error::internal(what).on_rank(self.communicator.rank()));
        }
        let number = self.layout.places[parameter].bucket;
        self.buckets[number].missing -= 1;
        if self.buckets[number].missing == 0 {
            self.complete(number)?;
        }
        // Messages between nodes move only when somebody looks.
        let under_way = self.buckets.iter_mut().filter_map(|bucket| bucket.reducing.as_mut());
        under_way.into_iter().next().map_or(Ok(()), |(pending, _)| pending.test().map(|_| ()))
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
