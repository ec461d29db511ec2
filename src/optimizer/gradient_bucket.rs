//! One bucket of the gradient buffer, in f32 or 16 bits: how it adds up the micro-batches of a
//! rank, and how it is reduced over the ranks.
//!
//! Sums of 16-bit gradients are taken in f32 and rounded when they are stored: once for each level
//! of the tree on a rank, and once for the whole reduction over ranks.

use std::ops::Range;
use std::time::Instant;

use super::state::BLOCK;
use super::timeline::Timeline;
use crate::communicator::contributions::are_halves;
use crate::communicator::{Communicator, Pending, Storage};
use crate::element::{DType, Element, Op};
use crate::error::{Error, Result};
use crate::reduce::fused::MOST_PARTS;
use crate::reduce::{narrow, widen};
use crate::sharding::Sharding;

/// A reduction under way.
type Reducing<T> = Pending<T, Vec<T>, Storage<T>>;

/// One bucket of the buffer.
#[derive(Debug)]
pub(super) struct Bucket<T: Element> {
    number: usize,
    /// Who owns which part of it.
    sharding: Sharding,
    /// What lies between parameters, which nobody writes.
    gaps: Vec<Range<usize>>,
    /// Buffers that are not in use. Between parameters they are zero.
    free: Vec<Storage<T>>,
    /// Where the current micro-batch writes.
    current: Option<Storage<T>>,
    /// Sums of subtrees that wait for their other half.
    stack: Vec<(Range<usize>, Storage<T>)>,
    reducing: Option<(Reducing<T>, Instant)>,
    /// The sum over all micro-batches, in the part that this rank owns.
    reduced: Option<Storage<T>>,
}

impl<T: Element> Bucket<T> {
    /// A bucket with `depth` buffers. Collective.
    pub(super) fn new(
        c: &Communicator,
        number: usize,
        (sharding, gaps): (Sharding, Vec<Range<usize>>),
        depth: usize,
        shared: bool,
    ) -> Result<Self> {
        let n = sharding.n();
        let mut free = Vec::new();
        for _ in 0..depth {
            free.push(match shared {
                true => Storage::Shared(c.shared(n)?),
                false => Storage::Private(vec![T::default(); n]),
            });
        }
        let (stack, current, reducing, reduced) = (Vec::new(), None, None, None);
        Ok(Bucket { number, sharding, gaps, free, current, stack, reducing, reduced })
    }

    /// Where the current micro-batch writes: elements `range` of the bucket.
    pub(super) fn current(&mut self, range: Range<usize>) -> &mut [T] {
        if self.current.is_none() {
            self.current = self.free.pop();
        }
        // There is a free buffer for each micro-batch (`depth`); without one, nothing to write to.
        self.current.as_mut().map_or(&mut [], |buffer| &mut buffer[range])
    }

    /// Micro-batch `leaf` of `n` is in: adds it to the tree.
    pub(super) fn complete(&mut self, n: usize, leaf: usize) -> Result<()> {
        // A bucket of parameters without elements was never written.
        let Some(current) = self.current.take().or_else(|| self.free.pop()) else {
            return Err(Error::internal(format!("bucket {} has no free buffer", self.number)));
        };
        self.stack.push((leaf..leaf + 1, current));
        while let [.., (left, _), (right, _)] = &self.stack[..]
            && are_halves(n, left, right)
        {
            let Some((right, addend)) = self.stack.pop() else { break };
            if let Some((left, sum)) = self.stack.last_mut() {
                add(sum, &addend);
                left.end = right.end;
            }
            self.free.push(addend);
        }
        Ok(())
    }

    /// Starts the reduction once all micro-batches are in. Collective.
    pub(super) fn start(&mut self, c: &Communicator) -> Result<()> {
        let Some((_, buffer)) = self.stack.pop() else {
            return Err(Error::internal(format!("bucket {} has no gradients", self.number)));
        };
        let pending = c.start_reduce_scatter_in_place(&self.sharding, buffer, Op::Sum)?;
        self.reducing = Some((pending, Instant::now()));
        Ok(())
    }

    /// Whether its reduction has been started.
    pub(super) fn has_started(&self) -> bool {
        self.reducing.is_some() || self.reduced.is_some()
    }

    /// Goes on with all reductions, if this one is under way. `None` if it is not.
    pub(super) fn test(&mut self) -> Result<Option<bool>> {
        self.reducing.as_mut().map(|(pending, _)| pending.test()).transpose()
    }

    /// Waits for the reduction under way.
    pub(super) fn finish(&mut self, timeline: &mut Timeline) -> Result<()> {
        if let Some((pending, started)) = self.reducing.take() {
            self.reduced = Some(pending.wait()?.1);
            timeline.add("reduce_scatter", self.number, started);
        }
        Ok(())
    }

    /// Sends the partial sums of `held` to the owners, in f32. Collective.
    pub(super) fn reduce_partials(&mut self, c: &Communicator, held: &Sharding) -> Result<()> {
        let wide = |buffer: &Storage<T>| {
            let mut wide = Vec::with_capacity(buffer.len());
            let mut block = vec![0.0; BLOCK];
            for elements in buffer.chunks(BLOCK) {
                wide.extend_from_slice(as_f32(elements, &mut block));
            }
            wide
        };
        let partials: Vec<Vec<f32>> = self.stack.iter().map(|(_, b)| wide(b)).collect();
        let sums = c.reduce_scatter_partials(&self.sharding, held, &partials, Op::Sum)?;
        // A rank without micro-batches has a free buffer instead.
        let buffer = self.stack.pop().map(|(_, buffer)| buffer).or_else(|| self.free.pop());
        let Some(mut buffer) = buffer else {
            return Err(Error::internal(format!("bucket {} has no buffer", self.number)));
        };
        from_f32(&sums, &mut buffer[self.sharding.range(c.rank())]);
        self.reduced = Some(buffer);
        Ok(())
    }

    /// Reduces from the buffers of the ranks of the node; `visit` gets the own shard block by
    /// block, as its sums or as up to [`MOST_PARTS`] parts of them. If `keep`, the sums are kept as
    /// [`Bucket::start`] and [`Bucket::finish`] keep them. Collective.
    pub(super) fn reduce_in_blocks(
        &mut self,
        c: &Communicator,
        held: &Sharding,
        keep: bool,
        mut visit: impl FnMut(Range<usize>, &[&[f32]]),
    ) -> Result<()> {
        // A rank without micro-batches has a free buffer for its sums.
        if self.stack.is_empty() {
            self.reduced = self.free.pop();
        }
        let mut buffers = Vec::new();
        for buffer in self.stack.iter_mut().map(|(_, buffer)| buffer).chain(&mut self.reduced) {
            match buffer {
                Storage::Shared(buffer) => buffers.push(buffer),
                Storage::Private(_) => {
                    return Err(Error::internal(
                        "gradients that are read in blocks are not shared",
                    ));
                }
            }
        }
        let mut wide = vec![0.0; BLOCK];
        let most = if T::DTYPE == DType::F32 { MOST_PARTS } else { 1 };
        c.reduce_scatter_blocks(
            &self.sharding,
            held,
            &mut buffers,
            (keep, most),
            |block, parts| match parts {
                [sums] => visit(block, &[as_f32(sums, &mut wide)]),
                _ => {
                    let mut floats: [&[f32]; MOST_PARTS] = [&[]; MOST_PARTS];
                    for (floats, part) in floats.iter_mut().zip(parts) {
                        *floats = bytemuck::cast_slice(part);
                    }
                    visit(block, &floats[..parts.len()]);
                }
            },
        )?;
        if let Some((_, buffer)) = self.stack.pop_if(|_| keep) {
            self.reduced = Some(buffer);
        }
        Ok(())
    }

    /// Gives the sums that `rank`, this one, owns to `visit`, block by block.
    pub(super) fn own_sums(&self, rank: usize, mut visit: impl FnMut(Range<usize>, &[f32])) {
        let Some(reduced) = &self.reduced else { return };
        let mut wide = vec![0.0; BLOCK];
        for (number, sums) in reduced[self.sharding.range(rank)].chunks(BLOCK).enumerate() {
            let start = number * BLOCK;
            visit(start..start + sums.len(), as_f32(sums, &mut wide));
        }
    }

    /// Frees all buffers for the next step. Parameters keep what they have; a reduction may have
    /// left anything between them, which would count in the norm.
    pub(super) fn clear(&mut self) {
        let sums = self.stack.drain(..).map(|(_, buffer)| buffer);
        let gaps = &self.gaps;
        self.free.extend(sums.chain(self.reduced.take()).map(|mut buffer| {
            gaps.iter().for_each(|gap| buffer[gap.clone()].fill(T::default()));
            buffer
        }));
    }

    /// Bytes of the buffers, but for one that is being reduced.
    pub(super) fn bytes(&self) -> usize {
        let waiting = self.stack.iter().map(|(_, buffer)| buffer);
        let others = self.current.iter().chain(&self.reduced).chain(&self.free);
        waiting.chain(others).map(|buffer| buffer.len()).sum::<usize>() * size_of::<T>()
    }
}

/// The elements as f32: themselves, or in `wide`, which is as long at least.
fn as_f32<'a, T: Element>(elements: &'a [T], wide: &'a mut [f32]) -> &'a [f32] {
    if T::DTYPE == DType::F32 {
        return bytemuck::cast_slice(elements);
    }
    let wide = &mut wide[..elements.len()];
    widen(elements, wide);
    wide
}

/// Rounds f32 to the elements.
pub(super) fn from_f32<T: Element>(wide: &[f32], into: &mut [T]) {
    if T::DTYPE == DType::F32 {
        into.copy_from_slice(bytemuck::cast_slice(wide));
    } else {
        narrow(wide, into);
    }
}

/// sum ← sum + addend, in f32.
fn add<T: Element>(sum: &mut [T], addend: &[T]) {
    if T::DTYPE == DType::F32 {
        let sum: &mut [f32] = bytemuck::cast_slice_mut(sum);
        let addend: &[f32] = bytemuck::cast_slice(addend);
        return sum.iter_mut().zip(addend).for_each(|(sum, x)| *sum += x);
    }
    let mut wide = [[0f32; BLOCK]; 2];
    for (sum, addend) in sum.chunks_mut(BLOCK).zip(addend.chunks(BLOCK)) {
        let [left, right] = wide.each_mut().map(|block| &mut block[..sum.len()]);
        widen(sum, left);
        widen(addend, right);
        left.iter_mut().zip(right).for_each(|(sum, x)| *sum += *x);
        narrow(left, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn sums_of_16_bits_are_rounded_sums_of_f32() {
        for n in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3] {
            let value = |k: usize, i: usize| ((i * 37 + k * 11) % 101) as f32 * 0.37 - 9.0;
            let vector = |k| (0..n).map(|i| bf16::from_f32(value(k, i))).collect::<Vec<bf16>>();
            let (mut sum, addend) = (vector(0), vector(1));
            let expected = sum.iter().zip(&addend).map(|(a, b)| a.to_f32() + b.to_f32());
            let expected: Vec<bf16> = expected.map(bf16::from_f32).collect();
            add(&mut sum, &addend);
            assert_eq!(sum, expected);
            let mut floats: Vec<f32> = (0..n).map(|i| value(0, i)).collect();
            let twice: Vec<f32> = floats.iter().map(|x| x + x).collect();
            let same = floats.clone();
            add(&mut floats, &same);
            assert_eq!(floats, twice);
        }
    }
}
