//! Stores that pass the caches by.
//!
//! An ordinary store first reads the line it writes, so a copy moves 3 bytes a byte through memory
//! and a sum of two 4 an element byte; a streaming store moves 2 and 3. It pays once what the ranks
//! of a node move together no longer fits the last-level cache, and costs several times as much
//! where it does, since the next reader must go to memory. Two ranks copying 16 MiB each to each
//! other took 1.9 ms streamed and 2.9 to 4.0 ms by the C library or `rep movsb`; 4 MiB each 0.34
//! and 0.25; 512 KiB each 38 and 13 µs. The C library streams too, from three quarters of the
//! last-level cache that the system reports, which on a virtual machine is the host's: never.
//!
//! Reductions stream through a block in the first-level cache, so every kernel can.

#![allow(unsafe_code)] // raw memory of several ranks; see `ReduceFn`

use super::ReduceFn;
use crate::element::{Element, Op};

/// Bytes that the ranks of a node move in one call from which its results are streamed: about the
/// cache that the cores of one complex share on the servers of today.
pub const STREAMED_FROM: usize = 32 << 20;

/// Bytes of the block that a reduction goes through.
const BLOCK: usize = 4096;
/// Shorter results are not worth it.
const LEAST: usize = 2 * BLOCK;

/// Whether results are streamed when each of `locals` ranks of a node handles a vector of `bytes`.
pub fn pays(bytes: usize, locals: usize) -> bool {
    bytes.saturating_mul(locals) >= STREAMED_FROM
}

/// Copies a slice past the caches.
///
/// # Panics
/// If the lengths differ.
pub fn copy_slice<T: Copy>(from: &[T], into: &mut [T]) {
    assert_eq!(from.len(), into.len());
    // SAFETY: two slices of one length; `into` borrows apart from `from`.
    unsafe { copy(from.as_ptr().cast(), into.as_mut_ptr().cast(), size_of_val(from)) };
}

/// Combines slices of one length with the kernel of their type, as collectives do.
///
/// # Panics
/// If there are no sources or the lengths differ.
pub fn combine<T: Element>(sources: &[&[T]], into: &mut [T], op: Op) {
    assert!(!sources.is_empty() && sources.iter().all(|s| s.len() == into.len()));
    let mut pointers: Vec<*const u8> = sources.iter().map(|s| s.as_ptr().cast()).collect();
    let (n, divisor) = (into.len(), sources.len() as f64);
    let kernel = super::kernel(T::DTYPE, op);
    // SAFETY: all slices have the length of `into`, which borrows apart from them.
    unsafe {
        reduce(kernel, &mut pointers, into.as_mut_ptr().cast(), n, size_of::<T>(), divisor);
    }
}

/// [`super::widen`], past the caches if `streamed`.
///
/// # Panics
/// If the lengths differ.
pub fn widen<T: Element>(from: &[T], into: &mut [f32], streamed: bool) {
    /// Elements of a block in the first-level cache.
    const PART: usize = 4096;
    assert_eq!(from.len(), into.len());
    if !streamed {
        return super::widen(from, into);
    }
    let mut wide = [0.0; PART];
    for (from, into) in from.chunks(PART).zip(into.chunks_mut(PART)) {
        let wide = &mut wide[..from.len()];
        super::widen(from, wide);
        copy_slice(wide, into);
    }
}

/// Copies past the caches.
///
/// # Safety
/// `from` is readable and `into` writable for `bytes`; they do not overlap, and no one else writes
/// the one or touches the other meanwhile.
pub unsafe fn copy(from: *const u8, into: *mut u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    if bytes >= LEAST && is_x86_feature_detected!("avx512f") {
        // SAFETY: the contract is passed on; the processor has the instructions.
        return unsafe { vectors::copy_512(from, into, bytes) };
    }
    #[cfg(target_arch = "x86_64")]
    if bytes >= LEAST && is_x86_feature_detected!("avx") {
        // SAFETY: the contract is passed on; the processor has the instructions.
        return unsafe { vectors::copy_256(from, into, bytes) };
    }
    // SAFETY: the contract is passed on.
    unsafe { std::ptr::copy_nonoverlapping(from, into, bytes) };
}

/// Runs a reduction whose result goes past the caches.
///
/// # Safety
/// As for the kernel; `into` is none of the sources; `n` elements of `element_bytes` each.
pub unsafe fn reduce(
    kernel: ReduceFn,
    sources: &mut [*const u8],
    into: *mut u8,
    n: usize,
    element_bytes: usize,
    divisor: f64,
) {
    if n * element_bytes < LEAST {
        // SAFETY: the contract is passed on.
        return unsafe { kernel(sources, into, n, divisor) };
    }
    #[repr(align(64))]
    struct Block([u8; BLOCK]);
    let mut block = Block([0; BLOCK]);
    let block = block.0.as_mut_ptr();
    let step = BLOCK / element_bytes;
    // Blocks end at lines of the result, so that only the first and the last are partly written.
    let first = into.align_offset(64) / element_bytes;
    let mut done = 0;
    while done < n {
        let len = if done == 0 && first > 0 { first } else { step }.min(n - done);
        // SAFETY: the block holds `step` elements; the sources have as many left as `into`; the
        // block is copied to its own place in `into` before it is used again.
        unsafe {
            kernel(sources, block, len, divisor);
            store_block(block, into.add(done * element_bytes), len * element_bytes);
        }
        for source in sources.iter_mut() {
            // SAFETY: done + len <= n elements are behind each source.
            *source = unsafe { source.add(len * element_bytes) };
        }
        done += len;
    }
    fence();
}

/// Streams one block, without the fence.
///
/// # Safety
/// As for [`copy`].
#[inline]
unsafe fn store_block(from: *const u8, into: *mut u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    if bytes.is_multiple_of(64) && into.align_offset(64) == 0 {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the contract is passed on; whole, aligned lines.
            return unsafe { vectors::lines_512(from, into, bytes) };
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: as above.
            return unsafe { vectors::lines_256(from, into, bytes) };
        }
    }
    // SAFETY: the contract is passed on.
    unsafe { std::ptr::copy_nonoverlapping(from, into, bytes) };
}

/// Streaming stores are ordered by nothing else: a flag raised after them could be seen first.
fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64 processor.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::{
        _mm256_loadu_si256, _mm256_stream_si256, _mm512_loadu_si512, _mm512_stream_si512,
    };

    /// Copies for one width of vectors: the lines of `into` streamed, the ends as usual.
    macro_rules! streams {
        ($feature:literal, $lines:ident, $copy:ident, $load:ident, $store:ident, $width:expr) => {
            /// Whole lines of 64 bytes.
            ///
            /// # Safety
            /// As for [`super::copy`]; `into` starts at a line, `bytes` are whole lines.
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $lines(from: *const u8, into: *mut u8, bytes: usize) {
                const WIDTH: usize = $width;
                for at in (0..bytes).step_by(64) {
                    for at in (at..at + 64).step_by(WIDTH) {
                        // SAFETY: at + WIDTH <= bytes; `into` starts at a line.
                        unsafe { $store(into.add(at).cast(), $load(from.add(at).cast())) };
                    }
                }
            }

            /// Any range.
            ///
            /// # Safety
            /// As for [`super::copy`].
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $copy(from: *const u8, into: *mut u8, bytes: usize) {
                let head = into.align_offset(64).min(bytes);
                let lines = (bytes - head) / 64 * 64;
                let tail = head + lines;
                // SAFETY: head, lines and tail are parts of the ranges of the contract.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, into, head);
                    $lines(from.add(head), into.add(head), lines);
                    std::ptr::copy_nonoverlapping(from.add(tail), into.add(tail), bytes - tail);
                }
                super::fence();
            }
        };
    }

    streams!("avx512f", lines_512, copy_512, _mm512_loadu_si512, _mm512_stream_si512, 64);
    streams!("avx", lines_256, copy_256, _mm256_loadu_si256, _mm256_stream_si256, 32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{DType, Op};

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32).collect()
    }

    #[test]
    fn a_streamed_copy_is_a_copy_at_any_length_and_alignment() {
        for n in [0, 1, 63, 2047, 2048, 2049, 2064, 5000, 10_007] {
            for offset in [0, 1, 3, 15, 16, 17] {
                let from = values(n, offset);
                let mut into = vec![-1.0; n + offset + 1];
                copy_slice(&from, &mut into[offset..offset + n]);
                assert_eq!(into[offset..offset + n], from, "n={n} offset={offset}");
                assert_eq!(into[n + offset], -1.0, "n={n} offset={offset}");
                assert!(into[..offset].iter().all(|&x| x == -1.0), "n={n} offset={offset}");
            }
        }
    }

    #[test]
    fn what_is_widened_past_the_caches_is_what_is_widened() {
        let n = 100_077;
        let narrow: Vec<half::bf16> =
            (0..n).map(|i| half::bf16::from_f32((i * 7919 % 1013) as f32 - 500.0)).collect();
        let (mut want, mut got) = (vec![0.0; n], vec![1.0; n]);
        crate::reduce::widen(&narrow, &mut want);
        for streamed in [false, true] {
            got.fill(1.0);
            widen(&narrow, &mut got, streamed);
            assert!(want == got);
            widen(&narrow[..5], &mut got[..5], streamed);
            assert!(want == got);
        }
    }

    #[test]
    fn a_streamed_reduction_has_the_bits_of_its_kernel_and_touches_nothing_else() {
        let kernel = crate::reduce::kernel(DType::F32, Op::Average);
        for k in [1, 2, 3, 5] {
            for n in [0, 1, 2047, 2048, 2049, 3072, 10_007] {
                for offset in [0, 1, 15, 16] {
                    let sources: Vec<Vec<f32>> = (0..k).map(|s| values(n, s)).collect();
                    let mut pointers: Vec<*const u8> =
                        sources.iter().map(|s| s.as_ptr().cast()).collect();
                    let mut want = vec![0.0f32; n];
                    let mut got = vec![-1.0f32; n + offset + 1];
                    // SAFETY: all sources and results hold n elements and lie apart.
                    unsafe {
                        kernel(&pointers, want.as_mut_ptr().cast(), n, 3.0);
                        let into = got[offset..].as_mut_ptr().cast();
                        reduce(kernel, &mut pointers, into, n, 4, 3.0);
                    }
                    assert_eq!(got[offset..offset + n], want, "k={k} n={n} offset={offset}");
                    assert_eq!(got[offset + n], -1.0, "k={k} n={n} offset={offset}");
                    assert!(got[..offset].iter().all(|&x| x == -1.0));
                }
            }
        }
    }
}
