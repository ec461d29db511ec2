//! Memory that the ranks of a node share: segments, who may find them, and typed buffers on them.
//!
//! A segment holds the same number of bytes for each of its ranks. Peers find a segment by its
//! key, which the members agree on when they allocate it, because addresses differ between
//! processes. A [`SharedBuffer`] is one rank's own part, borrowed as an ordinary slice; peers read
//! it only during a collective to which it was passed, when the borrow checker keeps the owner
//! from writing it.
//!
//! Segments are never unmapped while the job runs (unmapping is collective in MPI, and a drop is
//! not); a dropped buffer's segment is used again by the next buffer of at most its size.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use super::Parts;
use super::huge_pages::{self, HUGE_PAGE};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};

/// Shared memory of a group of ranks on one node.
#[derive(Clone)]
pub struct Segment {
    bases: Arc<[NonNull<u8>]>,
    bytes: usize,
    /// Whatever unmaps the memory when the last user is gone.
    _keep: Arc<dyn Any>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({} ranks of {} bytes)", self.bases.len(), self.bytes)
    }
}

impl Segment {
    /// A segment whose rank `r` has `bytes` zeroed bytes at `bases[r]`.
    ///
    /// # Safety
    /// The memory is readable and writable by this process at least as long as `keep` lives, and
    /// aligned to 64 bytes. Whoever makes a segment vouches for that.
    pub(in crate::transport) unsafe fn new(
        bases: Vec<NonNull<u8>>,
        bytes: usize,
        keep: Arc<dyn Any>,
    ) -> Self {
        Segment { bases: bases.into(), bytes, _keep: keep }
    }

    /// Where the part of a rank of the group starts, in this process.
    pub fn base(&self, rank: usize) -> NonNull<u8> {
        self.bases[rank]
    }

    /// Bytes of each rank's part.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of ranks that have a part.
    pub fn ranks(&self) -> usize {
        self.bases.len()
    }
}

/// A segment that peers can look up, with the world ranks of its members.
#[derive(Debug)]
pub struct Registered {
    /// The name that all members know it by; never zero.
    pub key: u64,
    /// The memory.
    pub segment: Segment,
    /// `members[i]` is the world rank whose part is `segment.base(i)`.
    pub members: Vec<usize>,
    in_use: Cell<bool>,
}

impl Registered {
    /// Where the part of a world rank starts, if it is a member.
    pub fn base_of(&self, world_rank: usize) -> Option<NonNull<u8>> {
        let place = self.members.iter().position(|&member| member == world_rank)?;
        Some(self.segment.base(place))
    }
}

/// All shared segments that one rank knows. One a job, shared by all communicators of the rank.
#[derive(Debug, Default)]
pub struct Registry {
    segments: RefCell<Vec<Rc<Registered>>>,
    next: Cell<u64>,
}

impl Registry {
    /// A key that no other rank hands out.
    pub fn fresh_key(&self, world_rank: usize) -> u64 {
        self.next.set(self.next.get() + 1);
        ((world_rank as u64) << 32) | self.next.get()
    }

    /// Adds a segment, in use.
    pub fn insert(&self, key: u64, segment: Segment, members: Vec<usize>) -> Rc<Registered> {
        let entry = Rc::new(Registered { key, segment, members, in_use: Cell::new(true) });
        self.segments.borrow_mut().push(entry.clone());
        entry
    }

    /// The segment that is known by `key`.
    pub fn find(&self, key: u64) -> Option<Rc<Registered>> {
        self.segments.borrow().iter().find(|s| s.key == key).cloned()
    }

    /// Unused segments of exactly these members and size, oldest first.
    pub fn unused(&self, members: &[usize], bytes: usize) -> Vec<Rc<Registered>> {
        let fits = |s: &&Rc<Registered>| {
            !s.in_use.get() && s.members == members && s.segment.bytes() == bytes
        };
        self.segments.borrow().iter().filter(fits).cloned().collect()
    }

    /// Takes an unused segment into use again.
    pub fn reuse(&self, segment: &Registered) {
        segment.in_use.set(true);
    }
}

/// `len` elements of this rank in memory that the other ranks of the node can read.
///
/// Made by `Communicator::shared`. Collectives that are given one read it in place instead of
/// copying it into the workspace first.
#[derive(Debug)]
pub struct SharedBuffer<T: Element> {
    registered: Rc<Registered>,
    at: NonNull<u8>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Element> SharedBuffer<T> {
    /// The own part of a segment that was allocated for at least `len` elements.
    ///
    /// # Panics
    /// If the segment is too small or `world_rank` has no part in it.
    pub fn new(registered: Rc<Registered>, world_rank: usize, len: usize) -> Self {
        assert!(len.saturating_mul(size_of::<T>()) <= registered.segment.bytes());
        let at = registered.base_of(world_rank).expect("the own rank is a member");
        SharedBuffer { registered, at, len, of: PhantomData }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The own elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `new` compared the length with the segment; segments are aligned to 64 bytes,
        // zeroed, and `Pod`; peers never write another rank's part; the `Rc` keeps it mapped.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr().cast(), self.len) }
    }

    /// The own elements, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; peers read it only inside a collective that borrows `self`.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.len) }
    }

    /// Some of the own elements, as the input of a collective.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn part(&self, range: Range<usize>) -> Source<'_, T> {
        Source { data: &self.as_slice()[range.clone()], located: self.locate(range.start) }
    }

    /// Some of the own elements, as the output of a collective.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn part_mut(&mut self, range: Range<usize>) -> Sink<'_, T> {
        let located = self.locate(range.start);
        Sink { data: &mut self.as_mut_slice()[range], located }
    }

    /// Where the own elements start.
    pub(in crate::transport) fn at(&mut self) -> NonNull<u8> {
        self.at
    }

    /// The key of the segment and the byte offset of element `start` in the rank's part.
    pub(crate) fn locate(&self, start: usize) -> Located {
        Located { key: self.registered.key, offset: start * size_of::<T>() }
    }
}

impl<T: Element> Drop for SharedBuffer<T> {
    fn drop(&mut self) {
        self.registered.in_use.set(false);
    }
}

impl<T: Element> std::ops::Deref for SharedBuffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Element> std::ops::DerefMut for SharedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

/// Where in shared memory a buffer starts; key 0 means in private memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Located {
    /// The key of the segment.
    pub key: u64,
    /// Bytes from the start of the owner's part.
    pub offset: usize,
}

/// What a collective reads: a plain slice, or one in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a, T: Element> {
    pub(crate) data: &'a [T],
    pub(crate) located: Located,
}

/// What a collective writes: a plain slice, or one in shared memory.
#[derive(Debug)]
pub struct Sink<'a, T: Element> {
    pub(crate) data: &'a mut [T],
    pub(crate) located: Located,
}

impl<'a, T: Element> From<&'a [T]> for Source<'a, T> {
    fn from(data: &'a [T]) -> Self {
        Source { data, located: Located::default() }
    }
}

impl<'a, T: Element> From<&'a Vec<T>> for Source<'a, T> {
    fn from(data: &'a Vec<T>) -> Self {
        Source { data, located: Located::default() }
    }
}

impl<'a, T: Element, const N: usize> From<&'a [T; N]> for Source<'a, T> {
    fn from(data: &'a [T; N]) -> Self {
        Source { data, located: Located::default() }
    }
}

impl<'a, T: Element> From<&'a SharedBuffer<T>> for Source<'a, T> {
    fn from(buffer: &'a SharedBuffer<T>) -> Self {
        Source { data: buffer.as_slice(), located: buffer.locate(0) }
    }
}

impl<'a, T: Element> From<&'a mut [T]> for Sink<'a, T> {
    fn from(data: &'a mut [T]) -> Self {
        Sink { data, located: Located::default() }
    }
}

impl<'a, T: Element> From<&'a mut Vec<T>> for Sink<'a, T> {
    fn from(data: &'a mut Vec<T>) -> Self {
        Sink { data, located: Located::default() }
    }
}

impl<'a, T: Element, const N: usize> From<&'a mut [T; N]> for Sink<'a, T> {
    fn from(data: &'a mut [T; N]) -> Self {
        Sink { data, located: Located::default() }
    }
}

impl<'a, T: Element> From<&'a mut SharedBuffer<T>> for Sink<'a, T> {
    fn from(buffer: &'a mut SharedBuffer<T>) -> Self {
        let located = buffer.locate(0);
        Sink { data: buffer.as_mut_slice(), located }
    }
}

/// Zeroed memory for all ranks of a group; pages are placed where they are first touched.
#[derive(Debug)]
pub struct Allocation {
    at: NonNull<u8>,
    layout: Layout,
    stride: usize,
}

// SAFETY: the allocation is only a range of memory; who may touch which part of it when is the
// business of plans and borrows, the same as between processes.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Allocation {
    pub(in crate::transport) fn new(bytes: usize, ranks: usize) -> Result<Self> {
        const PAGE: usize = 4096;
        let too_large = || Error::input(format!("{bytes} bytes of shared memory are too many"));
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
        let stride = bytes.max(1).checked_next_multiple_of(align).ok_or_else(too_large)?;
        let size = stride.checked_mul(ranks).ok_or_else(too_large)?;
        let layout = Layout::from_size_align(size, align).map_err(|_| too_large())?;
        let at = if align == HUGE_PAGE {
            huge_pages::map(size)
        } else {
            // SAFETY: the layout has a size above zero.
            NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
        };
        let at = at.ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("no memory for {size} bytes of shared buffers"))
        })?;
        Ok(Allocation { at, layout, stride })
    }

    /// A segment for a rank that is alone on its node.
    pub fn private(bytes: usize) -> Result<Segment> {
        Ok(Allocation::into_segment(Arc::new(Allocation::new(bytes, 1)?), bytes, 1, Parts::Each))
    }

    /// The memory as a segment of `ranks` parts of `bytes`, or of one that they share.
    pub(in crate::transport) fn into_segment(
        this: Arc<Self>,
        bytes: usize,
        ranks: usize,
        parts: Parts,
    ) -> Segment {
        let stride = if parts == Parts::Each { this.stride } else { 0 };
        // SAFETY: the allocation was made with `stride` >= `bytes` bytes for each part.
        let bases = (0..ranks).map(|r| unsafe { this.at.add(r * stride) }).collect();
        // SAFETY: each part has `bytes` zeroed bytes, page-aligned, as long as `this` lives.
        unsafe { Segment::new(bases, bytes, this) }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: `new` mapped or allocated it by its alignment; nobody uses it after the drop.
        unsafe {
            if self.layout.align() == HUGE_PAGE {
                huge_pages::unmap(self.at, self.layout.size());
            } else {
                std::alloc::dealloc(self.at.as_ptr(), self.layout);
            }
        }
    }
}
