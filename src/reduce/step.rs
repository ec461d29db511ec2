//! The element-wise steps of optimizers: one pass over parameter, gradient and moments.
//!
//! AdamW and Adam give the bits of PyTorch's `AdamW(fused=True)` and `Adam(fused=True)` on CPUs in
//! parameter and both moments. With all scalars computed in f64 and rounded to f32, and `fma(a, b,
//! c)` = a·b + c rounded once:
//!
//! ```text
//! g ← g · factor                                   unscaling and clipping, in the same pass
//! p ← p · (1 − lr·decay)                           AdamW;   Adam: g ← fma(p, decay, g)
//! m ← fma(1 − β₁, g − m, m)                        β₁ ≤ ½: fma(−β₁, g − m, g)
//! v ← fma((1 − β₂)·g, g, v·β₂)
//! p ← p − (lr/(1 − β₁ᵗ) · m) / (√v / √(1 − β₂ᵗ) + ε)
//! ```
//!
//! SGD and Lion follow the same habits; their formulas stand at their scalars below.
//!
//! Every path (AVX-512, AVX2, plain) has the same operations in the same order, each rounded once,
//! so the bits are the same. A processor without FMA instructions emulates them: correct, but far
//! slower.
//!
//! Cost: AdamW reads 16 bytes an element and writes 12, and 2 more for a 16-bit copy of the
//! parameters: 28 or 30, which is the least possible. The root and the two divisions take 0.45 ns
//! an element on one AVX-512 core even from cache, about what 28 bytes take from memory.

#![allow(clippy::too_many_arguments)] // a slice each, so that the compiler knows them apart

use std::ops::Range;

use half::{bf16, f16};

use super::divisor::Divisor;
use super::kernels::{Vectors, for_vectors, vectors};

/// One step of Adam or AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamScalars {
    /// What the parameter is multiplied with first: 1 − lr·decay, or 1.
    pub keep: f32,
    /// What times the parameter is added to the gradient: 0, or Adam's decay.
    pub l2: f32,
    /// β₁, the memory of the first moment.
    pub beta1: f32,
    /// 1 − β₁, computed in f64.
    pub one_minus_beta1: f32,
    /// β₂, the memory of the second moment.
    pub beta2: f32,
    /// 1 − β₂, computed in f64.
    pub one_minus_beta2: f32,
    /// lr / (1 − β₁ᵗ).
    pub rate: f32,
    /// √(1 − β₂ᵗ): from 2⁻⁶⁰ to 2⁶⁰.
    pub correction2_sqrt: f32,
    /// ε, added to the root of the second moment.
    pub epsilon: f32,
}

/// One step of SGD as PyTorch's `SGD(fused=True)`:
///
/// ```text
/// g ← fma(p, decay, g)
/// b ← g at the first step, else momentum·b + (1 − dampening)·g
/// d ← b; with Nesterov fma(momentum, b, g); without momentum g
/// p ← fma(−lr, d, p)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdScalars {
    /// The learning rate.
    pub lr: f32,
    /// What times the parameter is added to the gradient.
    pub decay: f32,
    /// The memory of the buffer; 0 keeps no buffer.
    pub momentum: f32,
    /// 1 − dampening, computed in f64.
    pub one_minus_dampening: f32,
    /// Whether to look ahead by one step of the buffer.
    pub nesterov: bool,
    /// Whether the buffer holds nothing yet and becomes the gradient.
    pub first: bool,
}

/// One step of Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023):
///
/// ```text
/// c ← fma(β₁, m, (1 − β₁)·g)
/// p ← p·(1 − lr·decay) − lr·sign(c)                sign(0) = 0
/// m ← fma(β₂, m, (1 − β₂)·g)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionScalars {
    /// 1 − lr·decay.
    pub keep: f32,
    /// The learning rate.
    pub lr: f32,
    /// β₁, the weight of the moment in the update.
    pub beta1: f32,
    /// 1 − β₁, computed in f64.
    pub one_minus_beta1: f32,
    /// β₂, the memory of the moment.
    pub beta2: f32,
    /// 1 − β₂, computed in f64.
    pub one_minus_beta2: f32,
}

/// One step of any rule: everything that is the same for all elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalars {
    /// Adam or AdamW; both moments.
    Adam(AdamScalars),
    /// SGD; one moment, or none without momentum.
    Sgd(SgdScalars),
    /// Lion; one moment.
    Lion(LionScalars),
}

impl Scalars {
    /// How many moments the rule keeps for each element: 0, 1 or 2.
    pub fn moments(&self) -> usize {
        match self {
            Scalars::Adam(_) => 2,
            Scalars::Sgd(s) => usize::from(s.momentum != 0.0),
            Scalars::Lion(_) => 1,
        }
    }
}

/// Where the pass also writes the new parameters, rounded to nearest even.
#[derive(Debug, Default)]
pub enum Copy16<'a> {
    /// Nowhere.
    #[default]
    None,
    /// As bf16.
    Bf16(&'a mut [bf16]),
    /// As f16.
    F16(&'a mut [f16]),
}

/// What a step reads and writes; all slices have one length, but for moments that the rule does not
/// keep, which are not looked at.
#[derive(Debug)]
pub struct Elements<'a> {
    /// The parameters.
    pub p: &'a mut [f32],
    /// Their gradients.
    pub g: &'a [f32],
    /// The first moment, or the momentum buffer.
    pub m: &'a mut [f32],
    /// The second moment.
    pub v: &'a mut [f32],
    /// A 16-bit copy of the parameters.
    pub copy: Copy16<'a>,
}

/// Does one step of a rule on all elements, with gradients multiplied by `factor` first.
///
/// # Panics
/// If a length differs, or a scalar is out of its range.
pub fn step(scalars: &Scalars, factor: f32, elements: Elements<'_>) {
    step_with(vectors(), scalars, factor, elements);
}

fn step_with(vectors: Vectors, scalars: &Scalars, factor: f32, elements: Elements<'_>) {
    assert_eq!(elements.g.len(), elements.p.len(), "as many gradients as parameters");
    let work = Pass { vectors, g: elements.g, factor };
    with_rule(scalars, elements, work);
}

impl<'a> Elements<'a> {
    /// The elements `range`, but for the gradients, which are `g`.
    pub(crate) fn part<'b>(&'b mut self, range: &Range<usize>, g: &'b [f32]) -> Elements<'b> {
        let of = |moment: &[f32]| range.start.min(moment.len())..range.end.min(moment.len());
        let (in_m, in_v) = (of(self.m), of(self.v));
        let copy = match &mut self.copy {
            Copy16::None => Copy16::None,
            Copy16::Bf16(copy) => Copy16::Bf16(&mut copy[range.clone()]),
            Copy16::F16(copy) => Copy16::F16(&mut copy[range.clone()]),
        };
        let (m, v) = (&mut self.m[in_m], &mut self.v[in_v]);
        Elements { p: &mut self.p[range.clone()], g, m, v, copy }
    }
}

/// What a rule changes; of moments that it does not keep, and of no copy, nothing.
#[derive(Debug)]
pub(super) struct Slices<'a, C> {
    pub(super) p: &'a mut [f32],
    pub(super) m: &'a mut [f32],
    pub(super) v: &'a mut [f32],
    pub(super) copy: &'a mut [C],
}

impl<C> Slices<'_, C> {
    /// The elements `range`.
    pub(super) fn part(&mut self, range: &Range<usize>) -> Slices<'_, C> {
        fn of<'a, T>(slice: &'a mut [T], range: &Range<usize>) -> &'a mut [T] {
            if slice.is_empty() { slice } else { &mut slice[range.clone()] }
        }
        let [p, m, v] = [&mut *self.p, self.m, self.v].map(|slice| of(slice, range));
        Slices { p, m, v, copy: of(self.copy, range) }
    }
}

/// Work that is compiled for each rule.
pub(super) trait Work {
    type Output;
    fn run<R: Rule, C: Narrow>(self, rule: R, slices: Slices<'_, C>) -> Self::Output;
}

/// Makes of every choice that is the same for all elements a type, and checks the lengths.
pub(super) fn with_rule<W: Work>(scalars: &Scalars, elements: Elements<'_>, work: W) -> W::Output {
    let Elements { p, m, v, copy, .. } = elements;
    let (n, moments) = (p.len(), scalars.moments());
    let (m, v) = (if moments > 0 { m } else { &mut [] }, if moments > 1 { v } else { &mut [] });
    assert!(moments < 1 || m.len() == n, "as many first moments as parameters");
    assert!(moments < 2 || v.len() == n, "as many second moments as parameters");
    match copy {
        Copy16::None => by_rule::<(), W>(scalars, Slices { p, m, v, copy: &mut [] }, work),
        Copy16::Bf16(copy) => by_rule(scalars, Slices { p, m, v, copy }, work),
        Copy16::F16(copy) => by_rule(scalars, Slices { p, m, v, copy }, work),
    }
}

fn by_rule<C: Narrow, W: Work>(scalars: &Scalars, slices: Slices<'_, C>, work: W) -> W::Output {
    assert!(!C::WRITES || slices.copy.len() == slices.p.len(), "a copy as long as the parameters");
    match *scalars {
        Scalars::Adam(s) if s.l2 != 0.0 => work.run(Adam::<true>::new(s), slices),
        Scalars::Adam(s) => work.run(Adam::<false>::new(s), slices),
        Scalars::Sgd(s) if s.momentum == 0.0 => work.run(Sgd::<PLAIN>(s), slices),
        Scalars::Sgd(s) if s.nesterov => work.run(Sgd::<NESTEROV>(s), slices),
        Scalars::Sgd(s) => work.run(Sgd::<MOMENTUM>(s), slices),
        Scalars::Lion(s) => work.run(Lion(s), slices),
    }
}

/// The step alone.
struct Pass<'a> {
    vectors: Vectors,
    g: &'a [f32],
    factor: f32,
}

impl Work for Pass<'_> {
    type Output = ();
    fn run<R: Rule, C: Narrow>(self, rule: R, slices: Slices<'_, C>) {
        let Slices { p, m, v, copy } = slices;
        pass(self.vectors, (rule, self.factor), p, self.g, m, v, copy);
    }
}

for_vectors!(fn pass<R: Rule, C: Narrow>(
    rule: (R, f32), p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], copy: &mut [C]
) -> () = pass_loop);

/// The loop. Slices come as arguments of their own: that is how the compiler knows them apart.
#[inline(always)]
fn pass_loop<R: Rule, C: Narrow>(
    (rule, factor): (R, f32),
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    copy: &mut [C],
) {
    let n = p.len();
    let g = &g[..n];
    let m = if R::MOMENTS > 0 { &mut m[..n] } else { m };
    let v = if R::MOMENTS > 1 { &mut v[..n] } else { v };
    let copy = if C::WRITES { &mut copy[..n] } else { copy };
    for i in 0..n {
        let first = if R::MOMENTS > 0 { m[i] } else { 0.0 };
        let second = if R::MOMENTS > 1 { v[i] } else { 0.0 };
        let (new_p, new_m, new_v) = rule.element(p[i], g[i] * factor, first, second);
        p[i] = new_p;
        if R::MOMENTS > 0 {
            m[i] = new_m;
        }
        if R::MOMENTS > 1 {
            v[i] = new_v;
        }
        if C::WRITES {
            copy[i] = C::narrow(new_p);
        }
    }
}

/// A type that parameters are rounded to.
pub(super) trait Narrow: Copy + Default {
    const WRITES: bool = true;
    fn narrow(x: f32) -> Self;
}

impl Narrow for () {
    const WRITES: bool = false;
    #[inline(always)]
    fn narrow(_: f32) -> Self {}
}

impl Narrow for bf16 {
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        super::kernels::bf16_from_f32(x)
    }
}

impl Narrow for f16 {
    /// Without a branch, so that it vectorises; the bits of `f16::from_f32`.
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let sign = x.to_bits() >> 16 & 0x8000;
        let size = x.to_bits() & 0x7fff_ffff;
        // Below 2⁻¹⁴ the addition of ½ leaves a multiple of 2⁻²⁴ in the low bits, rounded.
        let small = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        // Elsewhere the exponent's bias changes by 112; a carry out of the mantissa is right.
        let normal = size.wrapping_sub(112 << 23).wrapping_add(0xfff + (size >> 13 & 1)) >> 13;
        let nan = 0x7e00 | (size >> 13 & 0x3ff);
        let finite = if size < 113 << 23 { small } else { normal };
        let number = if size >= 143 << 23 { 0x7c00 } else { finite };
        let bits = if size > 0x7f80_0000 { nan } else { number };
        f16::from_bits((sign | bits) as u16)
    }
}

/// A rule on one element: (p, g, m, v) to the new (p, m, v).
pub(super) trait Rule: Copy {
    const MOMENTS: usize;
    fn element(&self, p: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32);
}

#[derive(Clone, Copy)]
struct Adam<const L2: bool> {
    scalars: AdamScalars,
    correction2_sqrt: Divisor,
}

impl<const L2: bool> Adam<L2> {
    fn new(scalars: AdamScalars) -> Self {
        Adam { scalars, correction2_sqrt: Divisor::new(scalars.correction2_sqrt) }
    }
}

impl<const L2: bool> Rule for Adam<L2> {
    const MOMENTS: usize = 2;
    #[inline(always)]
    fn element(&self, p: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
        let s = &self.scalars;
        let (p, g) = if L2 { (p, p.mul_add(s.l2, g)) } else { (p * s.keep, g) };
        // As torch's `lerp`: from the nearer end.
        let from_moment = s.one_minus_beta1 < 0.5;
        let weight = if from_moment { s.one_minus_beta1 } else { s.one_minus_beta1 - 1.0 };
        let m = weight.mul_add(g - m, if from_moment { m } else { g });
        let v = (s.one_minus_beta2 * g).mul_add(g, v * s.beta2);
        let denominator = self.correction2_sqrt.divide(v.sqrt()) + s.epsilon;
        (p - (s.rate * m) / denominator, m, v)
    }
}

/// The kinds of SGD.
const PLAIN: u8 = 0;
const MOMENTUM: u8 = 1;
const NESTEROV: u8 = 2;

#[derive(Clone, Copy)]
struct Sgd<const KIND: u8>(SgdScalars);

impl<const KIND: u8> Rule for Sgd<KIND> {
    const MOMENTS: usize = (KIND != PLAIN) as usize;
    #[inline(always)]
    fn element(&self, p: f32, g: f32, m: f32, _: f32) -> (f32, f32, f32) {
        let s = &self.0;
        let g = p.mul_add(s.decay, g);
        let later = s.one_minus_dampening.mul_add(g, m * s.momentum);
        let m = if s.first { g } else { later };
        let direction = match KIND {
            PLAIN => g,
            MOMENTUM => m,
            _ => m.mul_add(s.momentum, g),
        };
        ((-s.lr).mul_add(direction, p), m, 0.0)
    }
}

#[derive(Clone, Copy)]
struct Lion(LionScalars);

impl Rule for Lion {
    const MOMENTS: usize = 1;
    #[inline(always)]
    fn element(&self, p: f32, g: f32, m: f32, _: f32) -> (f32, f32, f32) {
        let s = &self.0;
        let c = s.beta1.mul_add(m, s.one_minus_beta1 * g);
        // Zero stays zero and NaN stays NaN.
        let sign = if c > 0.0 { 1.0 } else { c };
        let sign = if c < 0.0 { -1.0 } else { sign };
        (p * s.keep - s.lr * sign, s.beta2.mul_add(m, s.one_minus_beta2 * g), 0.0)
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
pub(super) mod tests;
