//! Large blocks of private memory on huge pages.
//!
//! A gather from a vector of 16 MB misses the translation buffer on nearly every access with pages
//! of 4 KiB, and a fresh vector takes a page fault every 4 KiB. Where the kernel hands out huge
//! pages only on request (`madvise`), nobody requests them for ordinary vectors; so the `rankwise`
//! program makes [`HugePages`] its allocator. Blocks from [`LARGE`] on are mapped at multiples of
//! 2 MiB and marked; they come zeroed and grow by moving page tables, not bytes. Smaller ones are
//! the system allocator's.
//!
//! What it gains depends on the machine: in a virtual one whose host backs the guest with small
//! pages, gathers are not faster (measured), and only page faults are saved.

#![allow(unsafe_code)] // mmap, and the interface of allocators

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{NonNull, null_mut};

/// A huge page.
pub const HUGE_PAGE: usize = 2 << 20;
/// Blocks of at least this many bytes lie on huge pages: at most a third of one is lost.
pub const LARGE: usize = 3 * HUGE_PAGE;

/// Zeroed memory at a multiple of a huge page; `None` if there is none left.
pub(in crate::transport) fn map(bytes: usize) -> Option<NonNull<u8>> {
    let size = bytes.checked_next_multiple_of(HUGE_PAGE)?;
    let room = size.checked_add(HUGE_PAGE)?;
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping touches no other memory.
    let start = unsafe { libc::mmap(null_mut(), room, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(HUGE_PAGE);
    let after = room - size - before;
    // SAFETY: `before <= HUGE_PAGE`, so `size` bytes from `at` lie inside the mapping, and what is
    // given back lies before and after them.
    unsafe {
        let at = start.add(before);
        if before > 0 {
            libc::munmap(start.cast(), before);
        }
        if after > 0 {
            libc::munmap(at.add(size).cast(), after);
        }
        // A hint, whose failure is harmless.
        libc::madvise(at.cast(), size, libc::MADV_HUGEPAGE);
        NonNull::new(at)
    }
}

/// Gives memory back.
///
/// # Safety
/// `at` came from [`map`] with `bytes`, and nobody uses it any more.
pub(in crate::transport) unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise; `map` rounded the size up in the same way.
    unsafe { libc::munmap(at.as_ptr().cast(), bytes.next_multiple_of(HUGE_PAGE)) };
}

/// An allocator that puts large blocks on huge pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct HugePages;

fn is_large(size: usize, align: usize) -> bool {
    size >= LARGE && align <= HUGE_PAGE
}

/// Moves a mapped block to a mapping of another size. Null, with the block as it was, on failure.
///
/// # Safety
/// `at` came from [`map`] with `old` bytes.
unsafe fn remap(at: *mut u8, old: usize, new: usize) -> *mut u8 {
    let (from, into) = (old.next_multiple_of(HUGE_PAGE), new.next_multiple_of(HUGE_PAGE));
    if from == into {
        return at;
    }
    if into < from {
        // SAFETY: the tail of a mapping of `from` bytes.
        unsafe { libc::munmap(at.add(into).cast(), from - into) };
        return at;
    }
    let Some(place) = map(new) else { return null_mut() };
    let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the old mapping is the caller's, and the new place is a mapping made just now that
    // nobody uses; its first part is replaced by the pages of the old one.
    let moved = unsafe { libc::mremap(at.cast(), from, from, how, place.as_ptr()) };
    if moved == libc::MAP_FAILED {
        // SAFETY: mapped above, with this size.
        unsafe { unmap(place, new) };
        return null_mut();
    }
    place.as_ptr()
}

// SAFETY: blocks of `is_large` layouts are mappings of their own and all others are the system
// allocator's; which one a block is follows from its layout alone, so each goes back where it came
// from. Mappings are aligned to 2 MiB, at least what `is_large` admits, and never overlap.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size()).map_or(null_mut(), NonNull::as_ptr);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size()).map_or(null_mut(), NonNull::as_ptr); // zeroed by the kernel
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match NonNull::new(at).filter(|_| is_large(layout.size(), layout.align())) {
            // SAFETY: `alloc` mapped blocks of this layout, and the caller gives it up.
            Some(at) => unsafe { unmap(at, layout.size()) },
            // SAFETY: the caller's promise.
            None => unsafe { System.dealloc(at, layout) },
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        let align = layout.align();
        match (is_large(layout.size(), align), is_large(new, align)) {
            // SAFETY: the caller's promise.
            (false, false) => unsafe { System.realloc(at, layout, new) },
            // SAFETY: `alloc` mapped blocks of this layout.
            (true, true) => unsafe { remap(at, layout.size(), new) },
            _ => {
                // SAFETY: the size is the caller's, who keeps it in range for the alignment.
                let into = unsafe { Layout::from_size_align_unchecked(new, align) };
                // SAFETY: `new` is not zero, as the caller promises.
                let place = unsafe { self.alloc(into) };
                if !place.is_null() {
                    // SAFETY: both blocks have at least as many bytes, and are different ones.
                    unsafe {
                        std::ptr::copy_nonoverlapping(at, place, layout.size().min(new));
                        self.dealloc(at, layout);
                    }
                }
                place
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grows and shrinks a block through all kinds of sizes and compares every byte that stays.
    #[test]
    fn a_block_keeps_its_bytes_through_all_changes_of_size() {
        let sizes = [
            1,
            LARGE - 1,
            LARGE,
            LARGE + 1,
            9 * HUGE_PAGE,
            9 * HUGE_PAGE + 5,
            64 * HUGE_PAGE,
            4 * HUGE_PAGE + 3,
            LARGE - 7,
            100,
            LARGE + HUGE_PAGE,
        ];
        let byte = |i: usize| (i % 251) as u8;
        let layout = |size| Layout::from_size_align(size, 64).unwrap();
        let mut size = 10;
        // SAFETY: the layouts follow the size of the block, as the interface asks.
        unsafe {
            let mut at = HugePages.alloc(layout(size));
            (0..size).for_each(|i| at.add(i).write(byte(i)));
            for new in sizes {
                at = HugePages.realloc(at, layout(size), new);
                assert!(!at.is_null() && at.align_offset(64) == 0);
                let kept = size.min(new);
                assert!((0..kept).all(|i| at.add(i).read() == byte(i)), "{size} to {new}");
                (kept..new).for_each(|i| at.add(i).write(byte(i)));
                size = new;
            }
            HugePages.dealloc(at, layout(size));
        }
    }

    #[test]
    fn large_blocks_come_zeroed_and_aligned_and_impossible_ones_are_null() {
        for size in [LARGE, LARGE + 1, 5 * HUGE_PAGE - 1] {
            let layout = Layout::from_size_align(size, 4096).unwrap();
            // SAFETY: allocated and given back with one layout.
            unsafe {
                let at = HugePages.alloc_zeroed(layout);
                assert_eq!(at.align_offset(HUGE_PAGE), 0);
                assert!((0..size).all(|i| at.add(i).read() == 0));
                at.write_bytes(7, size);
                HugePages.dealloc(at, layout);
            }
        }
        let most = Layout::from_size_align(isize::MAX as usize - 4095, 4096).unwrap();
        // SAFETY: a layout with a size above zero.
        assert!(unsafe { HugePages.alloc(most) }.is_null());
    }
}
