//! Row sums of a sparse matrix: `sum[row] = Σ weight · table[source]`, by vector gathers.
//!
//! # Layout
//! Rows are stored in blocks of [`LANES`] = 16, each in one of two ways. Which one follows from
//! the lengths of its rows alone:
//! * **across**: the k-th entries of all 16 rows lie side by side, short rows filled up with
//!   `PAD`. A gather serves 16 rows, nothing is left over at the end of a row, and no sum across
//!   lanes is needed. Used where rows are about equally long (padding at most 1/8 and 16 entries),
//!   which ordering nodes by degree makes the rule.
//! * **along**: rows one after another, each summed in 16 lanes.
//!
//! # The same bits everywhere
//! Across, a row is added up in its order; along, entry k goes to lane `k % 16`, and lanes are
//! added as a fixed tree (l + 8, l + 4, l + 2, l + 1). AVX-512, AVX2 and plain code all do exactly
//! these additions, without fused multiply-add; lanes without an entry add +0, which changes
//! nothing, since a sum that starts from +0 is never −0.
//!
//! # Memory traffic
//! 4 bytes an entry, streamed (and the weight), and one gather from the table; 1 byte a row. The
//! gather decides. Two cores of a Zen 5 with 32 MiB of last-level cache, Kronecker graph of scale
//! 22 ordered by degree: see the figures in `graph::pagerank`.
//!
//! # Why the unchecked gathers are sound
//! [`GatherRows::build`] compares every index with the length of the table, the fields are
//! private and never change, and [`GatherRows::sums`] compares the length of the table it is
//! given. `PAD` only stands where a masked gather skips it.

#![allow(unsafe_code)] // gathers without a bounds check for each index; see above

mod columns;

use std::ops::{Add, Mul, Sub};

use rayon::prelude::*;

use super::vector16::{Plain, Vector};
use crate::element::Element;

/// Rows of a block, and lanes of a sum.
pub const LANES: usize = 16;
/// The index of an entry that is none.
pub(super) const PAD: u32 = u32::MAX;

/// A floating-point type that sums are made in.
pub trait Real: Element + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// The types of the table and of the sums.
pub trait Precision: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// An element of the table.
    type Wire: Real;
    /// A sum.
    type Sum: Real;
    /// Exact.
    fn widen(value: Self::Wire) -> Self::Sum;
    /// Rounded once.
    fn narrow(value: Self::Sum) -> Self::Wire;
    /// The fastest loop of this processor.
    #[doc(hidden)]
    fn choose(weighted: bool) -> BlockSums<Self>;
}

/// f64 table and sums.
#[derive(Clone, Copy, Debug)]
pub struct Double;
/// f32 table and sums.
#[derive(Clone, Copy, Debug)]
pub struct Single;
/// f32 table, f64 sums.
#[derive(Clone, Copy, Debug)]
pub struct Mixed;

macro_rules! precision {
    ($name:ident, $wire:ty, $sum:ty, $avx2:ident, $avx512:ident) => {
        impl Precision for $name {
            type Wire = $wire;
            type Sum = $sum;
            #[inline(always)]
            fn widen(value: $wire) -> $sum {
                value as $sum
            }
            #[inline(always)]
            fn narrow(value: $sum) -> $wire {
                value as $wire
            }
            fn choose(weighted: bool) -> BlockSums<Self> {
                #[cfg(target_arch = "x86_64")]
                {
                    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                        return wide::$avx512(weighted);
                    }
                    if is_x86_feature_detected!("avx2") {
                        return wide::$avx2(weighted);
                    }
                }
                plain(weighted)
            }
        }
    };
}

precision!(Double, f64, f64, avx2_double, avx512_double);
precision!(Single, f32, f32, avx2_single, avx512_single);
precision!(Mixed, f32, f64, avx2_mixed, avx512_mixed);

/// The sums of a block.
///
/// # Safety
/// All indices of the block are below the length of the table, and the processor has what the loop
/// was compiled for.
pub type BlockSums<P> =
    unsafe fn(&Block<'_, P>, &[<P as Precision>::Wire], &mut [<P as Precision>::Sum; LANES]);

/// A block as the loops see it; both lists go on for at least [`LANES`] entries after its own.
#[derive(Debug)]
pub struct Block<'r, P: Precision> {
    entries: &'r [u32],
    weights: &'r [P::Sum],
    place: Place,
    /// The lengths of the rows of a block that is stored along.
    lengths: &'r [u32],
}

/// A block of rows that lie along, for loops outside this file.
pub(super) fn along<'r, P: Precision>(
    entries: &'r [u32],
    weights: &'r [P::Sum],
    lengths: &'r [u32; LANES],
) -> Block<'r, P> {
    Block { entries, weights, place: Place { at: 0, steps: 0, full: 0, along: 0 }, lengths }
}

/// Where a block is stored, and how.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    /// Entries of the longest row.
    steps: u32,
    /// Entries of the shortest row: so many steps need no mask.
    full: u32,
    /// The position of its lengths, in blocks; [`ACROSS`] if it is stored across.
    along: u32,
}

const ACROSS: u32 = u32::MAX;

/// Rows whose sums are taken again and again.
#[derive(Debug)]
pub struct GatherRows<P: Precision> {
    table_len: usize,
    rows: usize,
    places: Vec<Place>,
    lengths: Vec<u32>,
    entries: Vec<u32>,
    weights: Vec<P::Sum>,
    kernel: BlockSums<P>,
}

/// What `build` refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadIndex;

impl<P: Precision> GatherRows<P> {
    /// Rows of `lengths`, whose entries `fill(row, sources, weights)` appends; weights only if
    /// `weighted`. All sources are below `table_len`, or the result is an error.
    pub fn build(
        table_len: usize,
        lengths: &[u32],
        weighted: bool,
        fill: impl Fn(usize, &mut Vec<u32>, &mut Vec<f64>) + Sync,
    ) -> Result<Self, BadIndex> {
        if table_len > i32::MAX as usize {
            // Vector gathers take signed indices.
            return Self::build_for(table_len, lengths, weighted, fill, plain(weighted));
        }
        Self::build_for(table_len, lengths, weighted, fill, P::choose(weighted))
    }

    fn build_for(
        table_len: usize,
        lengths: &[u32],
        weighted: bool,
        fill: impl Fn(usize, &mut Vec<u32>, &mut Vec<f64>) + Sync,
        kernel: BlockSums<P>,
    ) -> Result<Self, BadIndex> {
        let (places, along, total) = place(lengths);
        let mut entries = vec![PAD; total + LANES];
        let mut weights = vec![P::Sum::default(); if weighted { total + LANES } else { 0 }];
        // Each block fills its own part.
        let ends = || places.iter().skip(1).map(|p| p.at).chain([total]);
        let mut work = Vec::with_capacity(places.len());
        let (mut e, mut w) = (&mut entries[..], &mut weights[..]);
        for (index, (place, end)) in places.iter().zip(ends()).enumerate() {
            let (own_e, own_w);
            (own_e, e) = e.split_at_mut(end - place.at);
            (own_w, w) = w.split_at_mut(if weighted { end - place.at } else { 0 });
            work.push((index, place, own_e, own_w));
        }
        work.into_par_iter().with_min_len(64).try_for_each_init(
            || (Vec::new(), Vec::new()),
            |(sources, values), (index, place, entries, weights)| {
                let mut at = 0;
                let rows = index * LANES..(index * LANES + LANES).min(lengths.len());
                for (lane, row) in rows.enumerate() {
                    sources.clear();
                    values.clear();
                    fill(row, sources, values);
                    let good = sources.len() == lengths[row] as usize
                        && values.len() == if weighted { sources.len() } else { 0 }
                        && sources.iter().all(|&s| (s as usize) < table_len && s != PAD);
                    if !good {
                        return Err(BadIndex);
                    }
                    let (start, stride) =
                        if place.along == ACROSS { (lane, LANES) } else { (at, 1) };
                    for (k, &source) in sources.iter().enumerate() {
                        entries[start + k * stride] = source;
                    }
                    for (k, &weight) in values.iter().enumerate() {
                        weights[start + k * stride] = P::Sum::from_f64(weight);
                    }
                    at += sources.len();
                }
                Ok(())
            },
        )?;
        let rows = lengths.len();
        Ok(GatherRows { table_len, rows, places, lengths: along, entries, weights, kernel })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of blocks: rows / [`LANES`], rounded up.
    pub fn blocks(&self) -> usize {
        self.places.len()
    }

    /// Entries stored up to each block and in total, padding included: what a block costs.
    pub fn prefix(&self) -> Vec<u64> {
        let total = self.entries.len() - LANES;
        self.places.iter().map(|place| place.at).chain([total]).map(|at| at as u64).collect()
    }

    /// The sums of the rows of a block.
    ///
    /// # Panics
    /// If the table has another length than the rows were built for, or there is no such block.
    #[inline]
    pub fn sums(&self, block: usize, table: &[P::Wire], sums: &mut [P::Sum; LANES]) {
        assert_eq!(table.len(), self.table_len, "rows are built for a table");
        let place = self.places[block];
        let lengths = if place.along == ACROSS {
            &[]
        } else {
            &self.lengths[place.along as usize * LANES..][..LANES]
        };
        let weights = if self.weights.is_empty() { &[] } else { &self.weights[place.at..] };
        let block = Block { entries: &self.entries[place.at..], weights, place, lengths };
        // SAFETY: `build` compared all indices with the length of the table, and chose a loop for
        // this processor; the lists end with 16 more entries.
        unsafe { (self.kernel)(&block, table, sums) }
    }
}

/// Whether a block of rows of these lengths is stored across, so that each row is added up in its
/// order; otherwise in [`LANES`] lanes.
pub fn lies_across(lengths: &[u32]) -> bool {
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
    let total: usize = lengths.iter().map(|&length| length as usize).sum();
    LANES * longest <= total + total / 8 + LANES
}

/// Where blocks go, the lengths of the rows stored along, and the number of entries.
fn place(lengths: &[u32]) -> (Vec<Place>, Vec<u32>, usize) {
    let mut places = Vec::with_capacity(lengths.len().div_ceil(LANES));
    let (mut along, mut at) = (Vec::new(), 0);
    for block in lengths.chunks(LANES) {
        let steps = block.iter().copied().max().unwrap_or(0);
        let shortest = block.iter().copied().min().unwrap_or(0);
        let full = if block.len() == LANES { shortest } else { 0 };
        let total: usize = block.iter().map(|&l| l as usize).sum();
        let padded = LANES * steps as usize;
        if lies_across(block) {
            places.push(Place { at, steps, full, along: ACROSS });
            at += padded;
        } else {
            places.push(Place { at, steps, full, along: (along.len() / LANES) as u32 });
            along.extend((0..LANES).map(|lane| block.get(lane).copied().unwrap_or(0)));
            at += total;
        }
    }
    (places, along, at)
}

/// The loops over a block, compiled for each kind of vector.
///
/// # Safety
/// See [`BlockSums`].
#[inline(always)]
unsafe fn block_sums<P: Precision, V: Vector<P>, const WEIGHTED: bool>(
    block: &Block<'_, P>,
    table: &[P::Wire],
    sums: &mut [P::Sum; LANES],
) {
    let (entries, weights) = (block.entries.as_ptr(), block.weights.as_ptr());
    let (steps, full) = (block.place.steps as usize, block.place.full as usize);
    // SAFETY: a block across has 16 entries and weights a step, one along the sum of its lengths,
    // and 16 more may be read after them; indices are inside the table or masked.
    unsafe {
        if block.place.along == ACROSS {
            let mut sum = V::zero();
            for step in 0..steps {
                let at = entries.add(step * LANES);
                let value =
                    if step < full { V::gather(table, at) } else { V::gather_padded(table, at) };
                let value = if WEIGHTED { value.times(weights.add(step * LANES)) } else { value };
                sum = sum.plus(value);
            }
            sum.store(sums);
            return;
        }
        let mut at = 0;
        for (sum, &length) in sums.iter_mut().zip(block.lengths) {
            *sum = row_sum::<P, V, WEIGHTED>(entries, weights, at, length as usize, table);
            at += length as usize;
        }
    }
}

/// The sum of a row that is stored along.
///
/// # Safety
/// See [`block_sums`].
#[inline(always)]
unsafe fn row_sum<P: Precision, V: Vector<P>, const WEIGHTED: bool>(
    entries: *const u32,
    weights: *const P::Sum,
    start: usize,
    length: usize,
    table: &[P::Wire],
) -> P::Sum {
    // SAFETY: the contract of `block_sums`.
    unsafe {
        let mut sum = V::zero();
        let (end, mut at) = (start + length, start);
        while at + LANES <= end {
            let value = V::gather(table, entries.add(at));
            sum = sum.plus(if WEIGHTED { value.times(weights.add(at)) } else { value });
            at += LANES;
        }
        if at < end {
            let value = V::gather_first(table, entries.add(at), end - at);
            sum = sum.plus(if WEIGHTED { value.times(weights.add(at)) } else { value });
        }
        let mut lanes = [P::Sum::default(); LANES];
        sum.store(&mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] = lanes[lane] + lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// The loop for any processor.
fn plain<P: Precision>(weighted: bool) -> BlockSums<P> {
    if weighted { block_sums::<P, Plain<P>, true> } else { block_sums::<P, Plain<P>, false> }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::super::vector16::x86::{
        Avx2Double, Avx2Mixed, Avx2Single, Avx512Double, Avx512Single,
    };
    use super::{Block, BlockSums, Double, LANES, Mixed, Precision, Single, block_sums};

    macro_rules! compiled {
        ($name:ident, $precision:ty, $vector:ty, $features:literal) => {
            pub(super) fn $name(weighted: bool) -> BlockSums<$precision> {
                #[target_feature(enable = $features)]
                unsafe fn sums<const WEIGHTED: bool>(
                    block: &Block<'_, $precision>,
                    table: &[<$precision as Precision>::Wire],
                    sums: &mut [<$precision as Precision>::Sum; LANES],
                ) {
                    // SAFETY: the contract is passed on.
                    unsafe { block_sums::<$precision, $vector, WEIGHTED>(block, table, sums) }
                }
                if weighted { sums::<true> } else { sums::<false> }
            }
        };
    }

    compiled!(avx2_double, Double, Avx2Double, "avx2");
    compiled!(avx2_single, Single, Avx2Single, "avx2");
    compiled!(avx2_mixed, Mixed, Avx2Mixed, "avx2");
    compiled!(avx512_double, Double, Avx512Double, "avx512f,avx512dq,avx2");
    compiled!(avx512_single, Single, Avx512Single, "avx512f,avx512dq,avx2");
    compiled!(avx512_mixed, Mixed, Avx512Double, "avx512f,avx512dq,avx2");
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
