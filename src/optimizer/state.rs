//! What a rank owns of the optimizer: main parameters and moments of its shards, and one step on a
//! block of a shard.
//!
//! A step goes block by block, so that what was just summed is still in the cache.

use std::ops::Range;

use super::distributed::Precision;
use super::layout::Layout;
use super::ranges::{Piece, pieces_of};
use super::values::{Stored, Values};
use crate::reduce::exact::ExactSum;
use crate::reduce::fused::{MOST_PARTS, sum_square_step, sum_step};
use crate::reduce::narrow;
use crate::reduce::step::{Copy16, Elements, Scalars, step};
use crate::reduce::streaming::widen;

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

    /// The own shard of a bucket, which is open (`Values::open`).
    pub(super) fn shard<'a>(&'a mut self, values: &'a mut Values, bucket: usize) -> Shard<'a> {
        let own = self.layout.sharding(bucket).range(self.rank);
        let state = self.starts[bucket]..self.starts[bucket + 1];
        let first = self.pieces.partition_point(|piece| piece.bucket < bucket);
        let last = self.pieces.partition_point(|piece| piece.bucket <= bucket);
        let [m, v] = &mut self.moments;
        let (in_m, in_v) = (part(m, &state), part(v, &state));
        let mut copy = Copy16::None;
        let parameter: &mut [f32] = match &mut values.stored {
            Stored::F32(buckets) => buckets.own_mut(bucket, own),
            Stored::Bf16(buckets) => {
                copy = Copy16::Bf16(buckets.own_mut(bucket, own));
                &mut self.main[state]
            }
            Stored::F16(buckets) => {
                copy = Copy16::F16(buckets.own_mut(bucket, own));
                &mut self.main[state]
            }
        };
        let (m, v) = (&mut m[in_m], &mut v[in_v]);
        let elements = Elements { p: parameter, g: &[], m, v, copy };
        let wide = values.wide.own_mut(bucket);
        Shard { pieces: &self.pieces[first..last], elements, wide, streamed: values.streamed }
    }
}

/// The own shard of a bucket.
#[derive(Debug)]
pub(super) struct Shard<'a> {
    pieces: &'a [Piece],
    /// All of it, without gradients.
    elements: Elements<'a>,
    /// The own shard of the node's f32 copy of 16-bit parameters, if there is one.
    wide: &'a mut [f32],
    /// Whether that is written past the caches.
    streamed: bool,
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
        for (piece, at) in pieces_in(self.pieces, &block) {
            let g = &sums[at.start - block.start..at.end - block.start];
            step(&scalars[piece.parameter], factor, self.elements.part(&at, g));
            self.widen(&at);
        }
    }

    /// The same where the sums are yet to be made from `parts`; their squares are added to
    /// `squares`. Of what lies between parameters nothing is.
    pub(super) fn sum_square_step(
        &mut self,
        block: Range<usize>,
        parts: &[&[f32]],
        rule: (&[Scalars], f32),
        squares: &mut ExactSum,
    ) {
        self.with_parts(block, parts, rule, |parts, rule, elements| {
            sum_square_step(parts, rule, elements, squares);
        });
    }

    /// The same without the squares.
    pub(super) fn sum_step(
        &mut self,
        block: Range<usize>,
        parts: &[&[f32]],
        rule: (&[Scalars], f32),
    ) {
        self.with_parts(block, parts, rule, sum_step);
    }

    /// Gives `step` the parts, the rule and the elements of each piece of a block.
    fn with_parts(
        &mut self,
        block: Range<usize>,
        parts: &[&[f32]],
        (scalars, factor): (&[Scalars], f32),
        mut step: impl FnMut(&[&[f32]], (&Scalars, f32), Elements<'_>),
    ) {
        let mut of_piece: [&[f32]; MOST_PARTS] = [&[]; MOST_PARTS];
        for (piece, at) in pieces_in(self.pieces, &block) {
            let in_block = at.start - block.start..at.end - block.start;
            for (of_piece, part) in of_piece.iter_mut().zip(parts) {
                *of_piece = &part[in_block.clone()];
            }
            let rule = (&scalars[piece.parameter], factor);
            step(&of_piece[..parts.len()], rule, self.elements.part(&at, &[]));
            self.widen(&at);
        }
    }

    /// Writes the f32 copy of elements whose 16-bit copy has just been written.
    fn widen(&mut self, at: &Range<usize>) {
        if self.wide.is_empty() {
            return;
        }
        let (wide, streamed) = (&mut self.wide[at.clone()], self.streamed);
        match &self.elements.copy {
            Copy16::None => {}
            Copy16::Bf16(copy) => widen(&copy[at.clone()], wide, streamed),
            Copy16::F16(copy) => widen(&copy[at.clone()], wide, streamed),
        }
    }

    /// Sets parameters and moments of every piece by `set`.
    pub(super) fn set(&mut self, mut set: impl FnMut(&Piece, &mut [f32], [&mut [f32]; 2])) {
        for piece in self.pieces {
            let Elements { p, m, v, copy, .. } = self.elements.part(&piece.in_shard, &[]);
            set(piece, p, [m, v]);
            match copy {
                Copy16::None => {}
                Copy16::Bf16(copy) => narrow(p, copy),
                Copy16::F16(copy) => narrow(p, copy),
            }
            self.widen(&piece.in_shard);
        }
    }
}

/// The pieces that have elements of a block of the shard, and which.
fn pieces_in<'p>(
    pieces: &'p [Piece],
    block: &Range<usize>,
) -> impl Iterator<Item = (&'p Piece, Range<usize>)> + use<'p> {
    let (start, end) = (block.start, block.end);
    let first = pieces.partition_point(|piece| piece.in_shard.end <= start);
    let inside = pieces[first..].iter().take_while(move |piece| piece.in_shard.start < end);
    inside.map(move |piece| (piece, piece.in_shard.start.max(start)..piece.in_shard.end.min(end)))
}

/// The range in a moment: nothing of one that is not kept.
fn part(moment: &[f32], at: &Range<usize>) -> Range<usize> {
    at.start.min(moment.len())..at.end.min(moment.len())
}
