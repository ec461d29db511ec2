//! The loops of the reductions, written once and compiled three times.
//!
//! Operands are combined by the canonical tree (`plan::table::Canonical`): the largest power of two
//! of them, and the rest. Up to four sources are one fused loop. More go through a stack of blocks
//! that stays in the first-level cache, so each source streams through once and memory sees `k`
//! reads and one write an element.
//!
//! Tried and slower: an inner loop over the sources for each element (the compiler cannot
//! vectorise it for unknown `k`).

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::ReduceFn;
use super::simd::vectorised;
use crate::element::{DType, Op};

/// How one element type accumulates.
trait Accumulate: Copy {
    type Wide: Copy;
    const ZERO: Self::Wide;
    fn wide(self) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;
    fn add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn multiply(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn min(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn max(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn divide(a: Self::Wide, divisor: f64) -> Self::Wide;
}

macro_rules! float_extremes {
    ($wide:ty) => {
        // Equal values differ at most in the sign of zero: OR keeps a minus, AND drops it.
        #[inline(always)]
        fn min(a: $wide, b: $wide) -> $wide {
            let same = <$wide>::from_bits(a.to_bits() | b.to_bits());
            let low = if a < b { a } else { b };
            let value = if a == b { same } else { low };
            if a.is_nan() || b.is_nan() { <$wide>::NAN } else { value }
        }
        #[inline(always)]
        fn max(a: $wide, b: $wide) -> $wide {
            let same = <$wide>::from_bits(a.to_bits() & b.to_bits());
            let high = if a > b { a } else { b };
            let value = if a == b { same } else { high };
            if a.is_nan() || b.is_nan() { <$wide>::NAN } else { value }
        }
    };
}

macro_rules! float {
    ($type:ty, $wide:ty, $to:expr, $from:expr) => {
        impl Accumulate for $type {
            type Wide = $wide;
            const ZERO: $wide = 0.0;
            #[inline(always)]
            fn wide(self) -> $wide {
                $to(self)
            }
            #[inline(always)]
            fn narrow(wide: $wide) -> Self {
                $from(wide)
            }
            #[inline(always)]
            fn add(a: $wide, b: $wide) -> $wide {
                a + b
            }
            #[inline(always)]
            fn multiply(a: $wide, b: $wide) -> $wide {
                a * b
            }
            float_extremes!($wide);
            #[inline(always)]
            fn divide(a: $wide, divisor: f64) -> $wide {
                a / divisor as $wide
            }
        }
    };
}

float!(f32, f32, |x| x, |x| x);
float!(f64, f64, |x| x, |x| x);
float!(bf16, f32, bf16_to_f32, bf16_from_f32);
float!(f16, f32, f16::to_f32, f16::from_f32);

/// Exact: a bf16 is the upper half of an f32.
#[inline(always)]
fn bf16_to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// To nearest, ties to even, without a branch so that it vectorises; NaN stays NaN.
#[inline(always)]
pub(super) fn bf16_from_f32(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
}

macro_rules! integer {
    ($type:ty) => {
        impl Accumulate for $type {
            type Wide = $type;
            const ZERO: $type = 0;
            #[inline(always)]
            fn wide(self) -> $type {
                self
            }
            #[inline(always)]
            fn narrow(wide: $type) -> Self {
                wide
            }
            #[inline(always)]
            fn add(a: $type, b: $type) -> $type {
                a.wrapping_add(b)
            }
            #[inline(always)]
            fn multiply(a: $type, b: $type) -> $type {
                a.wrapping_mul(b)
            }
            #[inline(always)]
            fn min(a: $type, b: $type) -> $type {
                Ord::min(a, b)
            }
            #[inline(always)]
            fn max(a: $type, b: $type) -> $type {
                Ord::max(a, b)
            }
            #[inline(always)]
            fn divide(a: $type, divisor: f64) -> $type {
                a / divisor as $type
            }
        }
    };
}

integer!(i32);
integer!(i64);
integer!(u32);
integer!(u64);

/// An operator as a type, so that the loops are compiled for each.
trait Operator {
    const DIVIDES: bool = false;
    fn apply<T: Accumulate>(a: T::Wide, b: T::Wide) -> T::Wide;
}

macro_rules! operator {
    ($name:ident, $method:ident, $divides:expr) => {
        struct $name;
        impl Operator for $name {
            const DIVIDES: bool = $divides;
            #[inline(always)]
            fn apply<T: Accumulate>(a: T::Wide, b: T::Wide) -> T::Wide {
                T::$method(a, b)
            }
        }
    };
}

operator!(Sum, add, false);
operator!(Product, multiply, false);
operator!(Min, min, false);
operator!(Max, max, false);
operator!(Average, add, true);

/// Elements of a block of partial results.
const BLOCK: usize = 128;
/// Levels of the tree: up to 2^16 sources.
const LEVELS: usize = 17;

/// The reduction of [`super::ReduceFn`], with its safety contract.
#[inline(always)]
unsafe fn fold<T: Accumulate, O: Operator>(
    sources: &[*const u8],
    into: *mut u8,
    n: usize,
    divisor: f64,
) {
    let into = into.cast::<T>();
    let finish = |wide: T::Wide| {
        T::narrow(if O::DIVIDES && divisor != 1.0 { T::divide(wide, divisor) } else { wide })
    };
    // SAFETY: i < n in all loops below; the caller vouches for n elements behind each pointer.
    let read = |source: *const u8, i: usize| unsafe { *source.cast::<T>().add(i) }.wide();
    // SAFETY: as above, and all sources of element i have been read.
    let write = |i: usize, wide: T::Wide| unsafe { into.add(i).write(finish(wide)) };
    let add = O::apply::<T>;
    match *sources {
        [a] => (0..n).for_each(|i| write(i, read(a, i))),
        [a, b] => (0..n).for_each(|i| write(i, add(read(a, i), read(b, i)))),
        [a, b, c] => {
            (0..n).for_each(|i| write(i, add(add(read(a, i), read(b, i)), read(c, i))));
        }
        [a, b, c, d] => (0..n).for_each(|i| {
            write(i, add(add(read(a, i), read(b, i)), add(read(c, i), read(d, i))));
        }),
        _ => {
            assert!(sources.len() < 1 << (LEVELS - 1), "more sources than the tree has levels");
            for start in (0..n).step_by(BLOCK) {
                let len = BLOCK.min(n - start);
                let block = tree::<T, O>(sources, len, |source, i| read(source, start + i));
                (0..len).for_each(|i| write(start + i, block[i]));
            }
        }
    }
}

/// One block of the tree over many sources: partial results of 1, 2, 4, … sources wait on a stack
/// until their neighbour is there, as the ones of a binary counter do.
#[inline(always)]
fn tree<T: Accumulate, O: Operator>(
    sources: &[*const u8],
    len: usize,
    read: impl Fn(*const u8, usize) -> T::Wide,
) -> [T::Wide; BLOCK] {
    let mut stack = [[T::ZERO; BLOCK]; LEVELS];
    let mut height = 0;
    for (count, pair) in sources.chunks(2).enumerate() {
        let top = &mut stack[height];
        match *pair {
            [a, b] => (0..len).for_each(|i| top[i] = O::apply::<T>(read(a, i), read(b, i))),
            [a] => (0..len).for_each(|i| top[i] = read(a, i)),
            _ => {}
        }
        height += 1;
        let is_whole = pair.len() == 2;
        let merges = if is_whole { (count + 1).trailing_zeros() } else { 0 };
        for _ in 0..merges {
            height -= 1;
            merge::<T, O>(&mut stack, height, len);
        }
    }
    while height > 1 {
        height -= 1;
        merge::<T, O>(&mut stack, height, len);
    }
    stack[0]
}

/// Combines the partial result at `top` into the one below it.
#[inline(always)]
fn merge<T: Accumulate, O: Operator>(
    stack: &mut [[T::Wide; BLOCK]; LEVELS],
    top: usize,
    len: usize,
) {
    let (below, above) = stack.split_at_mut(top);
    let (left, right) = (&mut below[top - 1], &above[0]);
    for (l, r) in left.iter_mut().zip(right).take(len) {
        *l = O::apply::<T>(*l, *r);
    }
}

/// The three compilations of one loop, and the choice between them.
macro_rules! compiled {
    ($type:ty, $op:ty) => {{
        unsafe fn plain(sources: &[*const u8], into: *mut u8, n: usize, divisor: f64) {
            // SAFETY: the contract is passed on.
            unsafe { fold::<$type, $op>(sources, into, n, divisor) }
        }
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2(sources: &[*const u8], into: *mut u8, n: usize, divisor: f64) {
                // SAFETY: the contract is passed on.
                unsafe { fold::<$type, $op>(sources, into, n, divisor) }
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            unsafe fn avx512(sources: &[*const u8], into: *mut u8, n: usize, divisor: f64) {
                // SAFETY: the contract is passed on.
                unsafe { fold::<$type, $op>(sources, into, n, divisor) }
            }
            match vectors() {
                Vectors::Avx512 => return avx512,
                Vectors::Avx2 => return avx2,
                Vectors::Plain => {}
            }
        }
        plain
    }};
}

/// The kinds of vectors that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Vectors {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// What this processor has. The standard library caches the answers.
pub(super) fn vectors() -> Vectors {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx2, avx512) {
            (true, true) => return Vectors::Avx512,
            (true, false) => return Vectors::Avx2,
            (false, _) => {}
        }
    }
    Vectors::Plain
}

/// Every kind that this processor has.
#[cfg(test)]
pub(super) fn all_vectors() -> Vec<Vectors> {
    let mut all = vec![Vectors::Plain];
    #[cfg(target_arch = "x86_64")]
    all.extend([Vectors::Avx2, Vectors::Avx512]);
    all.retain(|&kind| kind <= vectors());
    all
}

/// Makes of a loop over slices, an `inline(always)` function, one that is compiled for each kind
/// of vectors and takes the kind, at most that of [`vectors`], as its first argument.
macro_rules! for_vectors {
    (
        fn $name:ident<$($t:ident: $bound:path),*>($($arg:ident: $type:ty),*) -> $out:ty
        = $loop:path
    ) => {
        fn $name<$($t: $bound),*>(
            vectors: $crate::reduce::kernels::Vectors,
            $($arg: $type),*
        ) -> $out {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::reduce::kernels::Vectors;
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<$($t: $bound),*>($($arg: $type),*) -> $out {
                    $loop($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512<$($t: $bound),*>($($arg: $type),*) -> $out {
                    $loop($($arg),*)
                }
                assert!(vectors <= $crate::reduce::kernels::vectors(), "not of this processor");
                match vectors {
                    // SAFETY: the processor has been asked for these instructions.
                    Vectors::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Vectors::Avx2 => return unsafe { avx2($($arg),*) },
                    Vectors::Plain => {}
                }
            }
            let _ = vectors;
            $loop($($arg),*)
        }
    };
}
pub(super) use for_vectors;

macro_rules! by_operator {
    ($type:ty, $op:expr) => {
        match $op {
            Op::Sum => compiled!($type, Sum),
            Op::Product => compiled!($type, Product),
            Op::Min => compiled!($type, Min),
            Op::Max => compiled!($type, Max),
            Op::Average => compiled!($type, Average),
        }
    };
}

/// See [`super::kernel`].
pub(super) fn choose(dtype: DType, op: Op) -> ReduceFn {
    match dtype {
        DType::F32 => by_operator!(f32, op),
        DType::F64 => by_operator!(f64, op),
        DType::Bf16 => by_operator!(bf16, op),
        DType::F16 => by_operator!(f16, op),
        DType::I32 => by_operator!(i32, op),
        DType::I64 => by_operator!(i64, op),
        DType::U32 => by_operator!(u32, op),
        DType::U64 => by_operator!(u64, op),
    }
}

/// Widens half-precision elements to f32, exactly.
///
/// # Panics
/// If the lengths differ.
pub fn widen<T: crate::element::Element>(from: &[T], into: &mut [f32]) {
    assert_eq!(from.len(), into.len());
    match (T::DTYPE, bytemuck::try_cast_slice::<T, u16>(from)) {
        (DType::Bf16, Ok(from)) => vectorised(
            #[inline(always)]
            || {
                for (wide, narrow) in into.iter_mut().zip(from) {
                    *wide = f32::from_bits(u32::from(*narrow) << 16);
                }
            },
        ),
        (DType::F16, Ok(from)) => {
            bytemuck::cast_slice::<u16, f16>(from).convert_to_f32_slice(into);
        }
        _ => {
            for (wide, narrow) in into.iter_mut().zip(from) {
                *wide = narrow.to_f64() as f32;
            }
        }
    }
}

/// Rounds f32 to half precision, to nearest even.
///
/// # Panics
/// If the lengths differ, or `T` is not a half-precision type.
pub fn narrow<T: crate::element::Element>(from: &[f32], into: &mut [T]) {
    assert_eq!(from.len(), into.len());
    match (T::DTYPE, bytemuck::try_cast_slice_mut::<T, u16>(into)) {
        (DType::Bf16, Ok(into)) => vectorised(
            #[inline(always)]
            || {
                for (narrow, wide) in into.iter_mut().zip(from) {
                    *narrow = bf16_from_f32(*wide).to_bits();
                }
            },
        ),
        (DType::F16, Ok(into)) => {
            bytemuck::cast_slice_mut::<u16, f16>(into).convert_from_f32_slice(from);
        }
        (other, _) => unreachable!("{other} is not a half-precision type"),
    }
}
