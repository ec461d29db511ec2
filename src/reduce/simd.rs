//! Runs a loop on the widest vectors of this processor, with the same bits on all of them.
//!
//! [`vectorised`] compiles its closure for AVX-512, AVX2 and the plain target and picks one at run
//! time, so that element-wise loops elsewhere in the crate are fast without `unsafe`. Rust neither
//! contracts `a * b + c` to a fused multiply-add nor reorders sums, so the versions agree bit for
//! bit as long as the loop does not ask for `mul_add`, whose plain version is a slow library call.
//!
//! Everything the closure calls must be inlined into it, or it runs with plain vectors: mark the
//! closure and the functions it calls `#[inline(always)]`, and write loops as `for`: the body of a
//! `for_each` is a closure of its own, which the compiler may leave outside.

#![allow(unsafe_code)] // a function for a wider target may be called only once that was detected

/// Runs `work`, compiled for the widest vectors of this processor:
/// `vectorised(#[inline(always)] || loop_over(x, y))`.
#[inline]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c,bmi2,popcnt")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2,popcnt")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        match super::kernels::vectors() {
            // SAFETY: the features were detected on this processor.
            super::kernels::Vectors::Avx512 => return unsafe { avx512(work) },
            // SAFETY: the features were detected on this processor.
            super::kernels::Vectors::Avx2 => return unsafe { avx2(work) },
            super::kernels::Vectors::Plain => {}
        }
    }
    work()
}
