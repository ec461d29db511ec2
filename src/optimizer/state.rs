//! What a rank owns of the optimizer: main parameters and moments of its shards, and one step on a
//! block of a shard.
//!
//! A step goes block by block, so that what was just summed is still in the second-level cache.
//! Blocks of 8 KiB, which stay in the first level, took a quarter longer: each stage then reads a
//! few pages of each array, too few for the processor to read ahead.

use std::ops::Range;

use super::distributed::Precision;
use super::layout::Layout;
use super::ranges::{Piece, pieces_of};
use super::values::{Stored, Values};
use crate::reduce::step::{Copy16, Elements, Scalars, step, step_from};

/// Elements of a block: 64 KiB.
pub(super) const BLOCK: usize = 16384;

/// Main parameters and moments of the own shards, bucket after bucket.
#[derive(Debug)]
pub(super) struct State {
    rank: usize,
    layout: Layout,
    /// Pieces of the own shards, bucket after bucket.
    pub(super) pieces: Vec<Piece>,
    /// Where the own shard of each bucket starts, and the end of the last.
    starts: Vec<usize>,
    /// Main parameters; empty if the parameters are f32.
    main: Vec<f32>,
    moments: [Vec<f32>; 2],
}

impl State {
    /// Zeros for the shards of `rank`.
    pub(super) fn new(layout: &Layout, rank: usize, precision: Precision, moments: usize) -> Self {
        let mut starts = vec![0];
        for bucket in 0..layout.buckets.len() {
            starts.push(starts[bucket] + layout.shard_elements(bucket));
        }
        let own = starts.last().copied().unwrap_or(0);
        let state = |wanted: bool| vec![0.0; if wanted { own } else { 0 }];
        State {
            rank,
            pieces: pieces_of(layout, rank),
            layout: layout.clone(),
            starts,
            main: state(precision != Precision::F32),
            moments: [state(moments > 0), state(moments > 1)],
        }
    }

    /// Moments kept for each element, and whether there are elements.
    pub(super) fn kept(&self) -> (usize, bool) {
        let kept = self.moments.iter().filter(|moment| !moment.is_empty()).count();
        (kept, self.starts.last().is_some_and(|&own| own > 0))
    }

    /// Bytes of main parameters, and of moments.
    pub(super) fn bytes(&self) -> [usize; 2] {
        let bytes = |state: &Vec<f32>| state.capacity() * size_of::<f32>();
        [bytes(&self.main), self.moments.iter().map(bytes).sum()]
    }

    /// Main parameters, if they are kept apart, and moments of a piece.
    pub(super) fn of<'a>(&'a self, piece: &Piece) -> (Option<&'a [f32]>, [&'a [f32]; 2]) {
        let start = self.starts[piece.bucket];
        let at = start + piece.in_shard.start..start + piece.in_shard.end;
        let [m, v] = &self.moments;
        (self.main.get(at.clone()), [&m[part(m, &at)], &v[part(v, &at)]])
    }

    /// The own shard of a bucket, to be written whole.
    pub(super) fn shard<'a>(&'a mut self, values: &'a mut Values, bucket: usize) -> Shard<'a> {
        let own = self.layout.sharding(bucket).range(self.rank);
        let state = self.starts[bucket]..self.starts[bucket + 1];
        let first = self.pieces.partition_point(|piece| piece.bucket < bucket);
        let last = self.pieces.partition_point(|piece| piece.bucket <= bucket);
        let [m, v] = &mut self.moments;
        let (in_m, in_v) = (part(m, &state), part(v, &state));
        let (mut copy, mut old) = (Copy16::None, None);
        let parameter: &mut [f32] = match &mut values.stored {
            Stored::F32(buckets) => {
                let (before, now) = buckets.own_mut(bucket, own);
                old = before;
                now
            }
            Stored::Bf16(buckets) => {
                copy = Copy16::Bf16(buckets.own_mut(bucket, own).1);
                &mut self.main[state]
            }
            Stored::F16(buckets) => {
                copy = Copy16::F16(buckets.own_mut(bucket, own).1);
                &mut self.main[state]
            }
        };
        let moments = [&mut m[in_m], &mut v[in_v]];
        Shard { pieces: &self.pieces[first..last], parameter, old, copy, moments }
    }
}

/// The own shard of a bucket.
#[derive(Debug)]
pub(super) struct Shard<'a> {
    pieces: &'a [Piece],
    parameter: &'a mut [f32],
    /// Where the parameters are now, if `parameter` holds older ones.
    old: Option<&'a [f32]>,
    copy: Copy16<'a>,
    moments: [&'a mut [f32]; 2],
}

impl Shard<'_> {
    /// Steps the elements `block` of the shard, whose gradients are `factor · sums`.
    pub(super) fn step(
        &mut self,
        block: Range<usize>,
        sums: &[f32],
        scalars: &[Scalars],
        factor: f32,
    ) {
        let first = self.pieces.partition_point(|piece| piece.in_shard.end <= block.start);
        let pieces = self.pieces[first..].iter();
        for piece in pieces.take_while(|piece| piece.in_shard.start < block.end) {
            let at = piece.in_shard.start.max(block.start)..piece.in_shard.end.min(block.end);
            let [m, v] = &mut self.moments;
            let (in_m, in_v) = (part(m, &at), part(v, &at));
            let elements = Elements {
                p: &mut self.parameter[at.clone()],
                g: &sums[at.start - block.start..at.end - block.start],
                m: &mut m[in_m],
                v: &mut v[in_v],
                copy: part_of(&mut self.copy, &at),
            };
            match self.old {
                Some(old) => step_from(&scalars[piece.parameter], factor, &old[at], elements),
                None => step(&scalars[piece.parameter], factor, elements),
            }
        }
    }

    /// Sets parameters and moments of every piece by `set`.
    pub(super) fn set(&mut self, mut set: impl FnMut(&Piece, &mut [f32], [&mut [f32]; 2])) {
        if let Some(old) = self.old {
            self.parameter.copy_from_slice(old);
        }
        for piece in self.pieces {
            let at = piece.in_shard.clone();
            let [m, v] = &mut self.moments;
            let (in_m, in_v) = (part(m, &at), part(v, &at));
            set(piece, &mut self.parameter[at.clone()], [&mut m[in_m], &mut v[in_v]]);
            let parameter = &self.parameter[at.clone()];
            match part_of(&mut self.copy, &at) {
                Copy16::None => {}
                Copy16::Bf16(copy) => crate::reduce::narrow(parameter, copy),
                Copy16::F16(copy) => crate::reduce::narrow(parameter, copy),
            }
        }
    }
}

/// The range in a moment: nothing of one that is not kept.
fn part(moment: &[f32], at: &Range<usize>) -> Range<usize> {
    at.start.min(moment.len())..at.end.min(moment.len())
}

/// A range of the 16-bit copy.
fn part_of<'a>(copy: &'a mut Copy16<'_>, at: &Range<usize>) -> Copy16<'a> {
    match copy {
        Copy16::None => Copy16::None,
        Copy16::Bf16(copy) => Copy16::Bf16(&mut copy[at.clone()]),
        Copy16::F16(copy) => Copy16::F16(&mut copy[at.clone()]),
    }
}
