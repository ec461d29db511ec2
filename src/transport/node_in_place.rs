//! One vector a node, in one copy, that is either read by all ranks or written by all, each its own
//! shard.
//!
//! Unlike `node_vector`, which has two copies that take turns, a rank must not write before the
//! others have given up what they read, so the ranks meet twice: before they write and after. That
//! saves half of the memory, and a shard that is changed in place moves no other bytes.

use std::marker::PhantomData;
use std::ops::Range;

use super::memory::Segment;
use crate::element::Element;

/// One rank's handle on the vector of its node.
#[derive(Debug)]
pub(crate) struct NodeInPlace<T: Element> {
    segment: Segment,
    n: usize,
    own: Range<usize>,
    /// Whether the ranks write.
    open: bool,
    of: PhantomData<T>,
}

impl<T: Element> NodeInPlace<T> {
    /// The vector of `n` elements in a common segment, of which this rank owns `own`. All can read.
    ///
    /// # Panics
    /// If the segment is too small or `own` is not inside.
    pub(crate) fn new(segment: Segment, n: usize, own: Range<usize>) -> Self {
        assert!(n.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= segment.bytes()));
        assert!(own.start <= own.end && own.end <= n);
        NodeInPlace { segment, n, own, open: false, of: PhantomData }
    }

    /// Turns from reading to writing, or back, after a meet of all ranks of the node. To have met,
    /// the peers had given up what they borrowed: it takes a handle for itself.
    pub(crate) fn turn(&mut self, open: bool) {
        self.open = open;
    }

    /// The own shard.
    ///
    /// # Panics
    /// While the ranks read.
    pub(crate) fn own_mut(&mut self) -> &mut [T] {
        assert!(self.open, "a vector in place is written between `open` and `close`");
        let (start, len) = (self.own.start, self.own.len());
        // SAFETY: `new` compared the segment with n elements; shards are disjoint, and nobody reads
        // while the vector is open; aligned, zeroed, `Pod`.
        unsafe {
            let at = self.segment.base(0).cast::<T>().add(start);
            std::slice::from_raw_parts_mut(at.as_ptr(), len)
        }
    }

    /// The vector.
    ///
    /// # Panics
    /// While the ranks write.
    pub(crate) fn whole(&self) -> &[T] {
        assert!(!self.open, "a vector in place is read before `open` or after `close`");
        // SAFETY: as above, and nobody writes while the vector is closed.
        unsafe { std::slice::from_raw_parts(self.segment.base(0).cast::<T>().as_ptr(), self.n) }
    }
}
