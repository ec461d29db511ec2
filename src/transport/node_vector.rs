//! One vector a node that its ranks write in parts and read as a whole, without copies.
//!
//! There are two copies that take turns. In the **open** one each rank writes its own shard and
//! nobody reads; the **closed** one is read by all and written by nobody. When all ranks have met,
//! they turn both round: what was open is closed and can be read, what was closed is open. A rank
//! that has turned may write at once, because to have met, its peers had given up their borrows of
//! the old closed copy. So one meet a turn is enough; memory is 2n elements a node instead of n
//! a rank.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use super::memory::Segment;
use crate::element::Element;

/// One rank's handle on the vector of its node.
#[derive(Debug)]
pub(crate) struct NodeVector<T: Element> {
    segment: Segment,
    n: usize,
    own: Range<usize>,
    /// The copy that is open: 0 or 1.
    open: usize,
    of: PhantomData<T>,
}

impl<T: Element> NodeVector<T> {
    /// Bytes that the common segment of a vector of `n` elements needs; `None` if too many.
    pub(crate) fn bytes(n: usize) -> Option<usize> {
        n.checked_mul(2 * size_of::<T>())
    }

    /// The vector in a common segment, of which this rank owns `own`.
    ///
    /// # Panics
    /// If the segment is too small or `own` is not inside.
    pub(crate) fn new(segment: Segment, n: usize, own: Range<usize>) -> Self {
        assert!(Self::bytes(n).is_some_and(|bytes| bytes <= segment.bytes()));
        assert!(own.start <= own.end && own.end <= n);
        NodeVector { segment, n, own, open: 0, of: PhantomData }
    }

    fn copy(&self, which: usize) -> NonNull<T> {
        // SAFETY: `new` compared the segment with two copies of n elements.
        unsafe { self.segment.base(0).cast::<T>().add(which * self.n) }
    }

    /// The own shard of the open copy.
    pub(crate) fn own_mut(&mut self) -> &mut [T] {
        let range = self.own.clone();
        // SAFETY: shards are disjoint and nobody reads the open copy; aligned, zeroed, `Pod`.
        unsafe {
            let at = self.copy(self.open).add(range.start);
            std::slice::from_raw_parts_mut(at.as_ptr(), range.len())
        }
    }

    /// The closed copy, and the own shard of the open one.
    pub(crate) fn split(&mut self) -> (&[T], &mut [T]) {
        let (n, closed, open) = (self.n, self.copy(1 - self.open), self.copy(self.open));
        let range = self.own.clone();
        // SAFETY: as in `whole` and `own_mut`; the two copies do not overlap.
        unsafe {
            let own = open.add(range.start).as_ptr();
            (
                std::slice::from_raw_parts(closed.as_ptr(), n),
                std::slice::from_raw_parts_mut(own, range.len()),
            )
        }
    }

    /// The whole open copy, for the one rank of the node that fills in the shards of other nodes.
    ///
    /// Only between two meets of the node, when all ranks have written their shards and none has
    /// turned yet; `SharedVector::gather` is the only caller.
    pub(crate) fn open_mut(&mut self) -> &mut [T] {
        // SAFETY: the peers wait in a meet, so nobody else touches the open copy.
        unsafe { std::slice::from_raw_parts_mut(self.copy(self.open).as_ptr(), self.n) }
    }

    /// The closed copy.
    pub(crate) fn whole(&self) -> &[T] {
        // SAFETY: nobody writes the closed copy while any rank can borrow it (see above).
        unsafe { std::slice::from_raw_parts(self.copy(1 - self.open).as_ptr(), self.n) }
    }

    /// Turns the copies round, after all ranks of the node have met.
    pub(crate) fn turn(&mut self) {
        self.open = 1 - self.open;
    }
}
