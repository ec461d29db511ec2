//! Sum, squares and step of an optimizer in one loop: gradients are read once from the buffers of
//! all ranks and never written.
//!
//! As three loops over blocks, each waits for something else: the sum for memory, the squares and
//! the step for their arithmetic. In one loop the processor does all three at once. Measured on two
//! cores of a Zen 4, both at work, 25 M elements each (32 bytes an element): 0.63 ns an element
//! (51 GB/s a core, what a plain loop moves), against 0.78 as three loops over 4 KiB and 0.95 over
//! 64 KiB.
//!
//! The exact squares must know the largest element before they see it (`squares::ifma`), so each
//! block bets on 2⁵ times that of the block before. If the bet is lost, the sums of the block are
//! made again for the squares alone: parts are not written. Processors without those instructions
//! take three loops over 4 KiB.
//!
//! Where gradients are clipped, the norm must be known before the step: then the sums of few parts
//! are made twice, [`sum_squares`] and [`sum_step`], which moves no more than writing and reading
//! them would, and reading is what memory does best.
//!
//! Tried and slower: prefetching ahead (1.2 times); 64 KiB blocks (1.5 times).

#![allow(unsafe_code)] // what is compiled for wider vectors is called once they were detected

use std::ops::Range;

use super::exact::ExactSum;
use super::squares::add_squares;
#[cfg(target_arch = "x86_64")]
use super::squares::ifma;
use super::step::{Elements, Scalars, step};
#[cfg(target_arch = "x86_64")]
use super::step::{Narrow, Rule, Slices, Work, with_rule};
use crate::element::Op;

/// Elements between two looks at the squares: 4 KiB.
const BLOCK: usize = 1024;
/// Elements of a vector.
const LANES: usize = 16;
/// Most parts that the loop reads itself.
pub const MOST_PARTS: usize = 4;
/// Most parts whose sums are made twice.
pub const MOST_TWICE: usize = 2;
/// Bits by which a block may exceed the one before.
#[cfg(target_arch = "x86_64")]
const HEADROOM: i32 = 5;

/// Does one step of a rule with the gradients `factor` times the sum of `parts`, by the canonical
/// tree, and adds the squares of that sum to `squares`, exactly. `elements.g` is not looked at.
/// True if all sums are finite; otherwise `squares` is an infinity or NaN, and the step was done.
///
/// # Panics
/// If there are no parts or more than [`MOST_PARTS`], or a length differs.
pub fn sum_square_step(
    parts: &[&[f32]],
    (scalars, factor): (&Scalars, f32),
    elements: Elements<'_>,
    squares: &mut ExactSum,
) -> bool {
    let n = elements.p.len();
    assert!(parts.iter().all(|part| part.len() == n), "as many gradients as parameters");
    assert!((1..=MOST_PARTS).contains(&parts.len()), "{} parts", parts.len());
    #[cfg(target_arch = "x86_64")]
    if ifma::available() {
        return with_rule(scalars, elements, OneLoop { parts, factor, squares });
    }
    in_blocks(parts, (scalars, factor), elements, squares)
}

/// Adds the squares of the sums of `parts` to `squares`, exactly, as [`sum_square_step`] does. True
/// if all sums are finite; otherwise `squares` is an infinity or NaN.
///
/// # Panics
/// If there are no parts or more than [`MOST_TWICE`], or a length differs.
pub fn sum_squares(parts: &[&[f32]], squares: &mut ExactSum) -> bool {
    check_twice(parts, parts.first().map_or(0, |part| part.len()));
    #[cfg(target_arch = "x86_64")]
    if ifma::available() {
        return match *parts {
            [a] => in_bets([a], squares, square_loop),
            [a, b] => in_bets([a, b], squares, square_loop),
            _ => unreachable!("up to {MOST_TWICE} parts"),
        };
    }
    let (n, mut finite, mut sums) = (parts[0].len(), true, [0.0; BLOCK]);
    for start in (0..n).step_by(BLOCK) {
        let sums = &mut sums[..BLOCK.min(n - start)];
        sum_of(parts, start, sums);
        finite &= add_squares(sums, squares);
    }
    finite
}

/// Does one step of a rule as [`sum_square_step`] does, without the squares.
///
/// # Panics
/// If there are no parts or more than [`MOST_TWICE`], or a length differs.
pub fn sum_step(parts: &[&[f32]], (scalars, factor): (&Scalars, f32), mut elements: Elements<'_>) {
    let n = elements.p.len();
    check_twice(parts, n);
    #[cfg(target_arch = "x86_64")]
    if ifma::available() {
        return with_rule(scalars, elements, SumStep { parts, factor });
    }
    let mut sums = [0.0; BLOCK];
    for start in (0..n).step_by(BLOCK) {
        let block = start..n.min(start + BLOCK);
        let sums = &mut sums[..block.len()];
        sum_of(parts, start, sums);
        step(scalars, factor, elements.part(&block, sums));
    }
}

fn check_twice(parts: &[&[f32]], n: usize) {
    assert!(parts.iter().all(|part| part.len() == n), "as many gradients as parameters");
    assert!((1..=MOST_TWICE).contains(&parts.len()), "{} parts", parts.len());
}

/// The same in three loops.
fn in_blocks(
    parts: &[&[f32]],
    (scalars, factor): (&Scalars, f32),
    mut elements: Elements<'_>,
    squares: &mut ExactSum,
) -> bool {
    let (n, mut finite, mut sums) = (elements.p.len(), true, [0.0; BLOCK]);
    for start in (0..n).step_by(BLOCK) {
        let block = start..n.min(start + BLOCK);
        let sums = &mut sums[..block.len()];
        sum_of(parts, block.start, sums);
        finite &= add_squares(sums, squares);
        step(scalars, factor, elements.part(&block, sums));
    }
    finite
}

/// The sums of the parts from `start` on.
fn sum_of(parts: &[&[f32]], start: usize, sums: &mut [f32]) {
    let end = start + sums.len();
    let mut at: [&[f32]; MOST_PARTS] = [&[]; MOST_PARTS];
    at.iter_mut().zip(parts).for_each(|(at, part)| *at = &part[start..end]);
    super::combine(&at[..parts.len()], sums, Op::Sum);
}

/// The work of [`sum_square_step`] for a rule that is known.
#[cfg(target_arch = "x86_64")]
struct OneLoop<'a> {
    parts: &'a [&'a [f32]],
    factor: f32,
    squares: &'a mut ExactSum,
}

#[cfg(target_arch = "x86_64")]
impl Work for OneLoop<'_> {
    type Output = bool;

    fn run<R: Rule, C: Narrow>(self, rule: R, slices: Slices<'_, C>) -> bool {
        let work = (rule, self.factor, self.squares);
        match *self.parts {
            [a] => blocks(work, [a], slices),
            [a, b] => blocks(work, [a, b], slices),
            [a, b, c] => blocks(work, [a, b, c], slices),
            [a, b, c, d] => blocks(work, [a, b, c, d], slices),
            _ => unreachable!("up to {MOST_PARTS} parts"),
        }
    }
}

/// One loop after another over blocks. Only where the processor has `ifma`.
#[cfg(target_arch = "x86_64")]
fn blocks<R: Rule, C: Narrow, const K: usize>(
    (rule, factor, squares): (R, f32, &mut ExactSum),
    parts: [&[f32]; K],
    mut slices: Slices<'_, C>,
) -> bool {
    in_bets(parts, squares, |block, at, top, squares| {
        let slices = slices.part(&block);
        // SAFETY: the caller has asked for the instructions.
        unsafe { one_loop::<R, C, K, true>((rule, factor), at, slices, top, squares) }
    })
}

/// Gives `look` block after block: its range, the parts there, and the exponent that the sums are
/// bet to stay below. It tells whether their squares were exact and have been added, and the bits
/// of the largest size; where they were not, they are added here. Whether all sums are finite.
#[cfg(target_arch = "x86_64")]
fn in_bets<'p, const K: usize>(
    parts: [&'p [f32]; K],
    squares: &mut ExactSum,
    mut look: impl FnMut(Range<usize>, [&'p [f32]; K], i32, &mut ExactSum) -> (bool, u32),
) -> bool {
    let (n, mut finite, mut sums) = (parts[0].len(), true, [0.0f32; BLOCK]);
    let first = &mut sums[..n.min(LANES)];
    sum_of(&parts, 0, first);
    let size = |x: &f32| x.to_bits() & 0x7fff_ffff;
    let mut top = bet(first.iter().map(size).max().unwrap_or(0));
    for start in (0..n).step_by(BLOCK) {
        let block = start..n.min(start + BLOCK);
        let at = parts.map(|part| &part[block.clone()]);
        let sums = &mut sums[..block.len()];
        let (exact, largest) = look(block, at, top, squares);
        if !exact {
            sum_of(&parts, start, sums);
            finite &= add_squares(sums, squares);
        }
        top = bet(largest);
    }
    finite
}

/// The squares of a block. Only where the processor has `ifma`.
#[cfg(target_arch = "x86_64")]
fn square_loop<const K: usize>(
    block: Range<usize>,
    parts: [&[f32]; K],
    top: i32,
    squares: &mut ExactSum,
) -> (bool, u32) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx2,fma,f16c")]
    fn with_ifma<const K: usize>(
        parts: [&[f32]; K],
        n: usize,
        top: i32,
        squares: &mut ExactSum,
    ) -> (bool, u32) {
        let mut lanes = ifma::Lanes::new(top);
        let whole = parts.map(|part| &part.as_chunks::<LANES>().0[..n / LANES]);
        for i in 0..n / LANES {
            lanes.add(&tree(whole.map(|part| part[i])));
        }
        let at = n / LANES * LANES;
        if at < n {
            lanes.add(&tree(parts.map(|part| padded(&part[at..]))));
        }
        lanes.finish(squares)
    }
    // SAFETY: the caller has asked for the instructions.
    unsafe { with_ifma(parts, block.len(), top, squares) }
}

/// The work of [`sum_step`] for a rule that is known.
#[cfg(target_arch = "x86_64")]
struct SumStep<'a> {
    parts: &'a [&'a [f32]],
    factor: f32,
}

#[cfg(target_arch = "x86_64")]
impl Work for SumStep<'_> {
    type Output = ();

    fn run<R: Rule, C: Narrow>(self, rule: R, slices: Slices<'_, C>) {
        let (work, none) = ((rule, self.factor), &mut ExactSum::new());
        // SAFETY: the caller has asked for the instructions.
        unsafe {
            match *self.parts {
                [a] => one_loop::<R, C, 1, false>(work, [a], slices, 0, none),
                [a, b] => one_loop::<R, C, 2, false>(work, [a, b], slices, 0, none),
                _ => unreachable!("up to {MOST_TWICE} parts"),
            }
        };
    }
}

/// The exponent that the next block is expected to stay below.
#[cfg(target_arch = "x86_64")]
fn bet(largest: u32) -> i32 {
    (ifma::top_of(largest) + HEADROOM).min(128)
}

/// The loop over at most [`BLOCK`] elements; any number without squares. Whether the squares were
/// exact and have been added, and the bits of the largest size.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx2,fma,f16c")]
fn one_loop<R: Rule, C: Narrow, const K: usize, const SQUARES: bool>(
    (rule, factor): (R, f32),
    parts: [&[f32]; K],
    slices: Slices<'_, C>,
    top: i32,
    squares: &mut ExactSum,
) -> (bool, u32) {
    let mut lanes = ifma::Lanes::new(top);
    let n = slices.p.len();
    let (p, p_tail) = slices.p.as_chunks_mut::<LANES>();
    let (m, m_tail) = slices.m.as_chunks_mut::<LANES>();
    let (v, v_tail) = slices.v.as_chunks_mut::<LANES>();
    let (copy, copy_tail) = slices.copy.as_chunks_mut::<LANES>();
    let whole = parts.map(|part| part.as_chunks::<LANES>().0);
    for (i, p) in p.iter_mut().enumerate() {
        let g = tree(whole.map(|part| part[i]));
        if SQUARES {
            lanes.add(&g);
        }
        let none = &mut [0.0; LANES];
        let m = if R::MOMENTS > 0 { &mut m[i] } else { none };
        let none = &mut [0.0; LANES];
        let v = if R::MOMENTS > 1 { &mut v[i] } else { none };
        step_lanes::<R, C>((rule, factor), &g, p, m, v, copy.get_mut(i));
    }
    if !p_tail.is_empty() {
        let at = n / LANES * LANES;
        let g = tree(parts.map(|part| padded(&part[at..])));
        if SQUARES {
            lanes.add(&g);
        }
        let (mut p, mut m, mut v) = (padded(p_tail), padded(m_tail), padded(v_tail));
        let mut copy = [C::default(); LANES];
        step_lanes((rule, factor), &g, &mut p, &mut m, &mut v, Some(&mut copy));
        p_tail.copy_from_slice(&p[..p_tail.len()]);
        m_tail.copy_from_slice(&m[..m_tail.len()]);
        v_tail.copy_from_slice(&v[..v_tail.len()]);
        copy_tail.copy_from_slice(&copy[..copy_tail.len()]);
    }
    if SQUARES { lanes.finish(squares) } else { (true, 0) }
}

/// A short slice with zeros after it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut padded = [0.0; LANES];
    padded[..tail.len()].copy_from_slice(tail);
    padded
}

/// The sum of up to four parts by the canonical tree.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tree<const K: usize>(parts: [[f32; LANES]; K]) -> [f32; LANES] {
    let mut sum = parts[0];
    for lane in 0..LANES {
        sum[lane] = match K {
            1 => parts[0][lane],
            2 => parts[0][lane] + parts[1][lane],
            3 => (parts[0][lane] + parts[1][lane]) + parts[2][lane],
            _ => (parts[0][lane] + parts[1][lane]) + (parts[2][lane] + parts[3][lane]),
        };
    }
    sum
}

/// The rule on 16 elements.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn step_lanes<R: Rule, C: Narrow>(
    (rule, factor): (R, f32),
    g: &[f32; LANES],
    p: &mut [f32; LANES],
    m: &mut [f32; LANES],
    v: &mut [f32; LANES],
    copy: Option<&mut [C; LANES]>,
) {
    for lane in 0..LANES {
        (p[lane], m[lane], v[lane]) = rule.element(p[lane], g[lane] * factor, m[lane], v[lane]);
    }
    if C::WRITES
        && let Some(copy) = copy
    {
        for lane in 0..LANES {
            copy[lane] = C::narrow(p[lane]);
        }
    }
}

#[cfg(test)]
#[path = "fused_tests.rs"]
mod tests;
