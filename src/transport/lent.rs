//! A slice that is written by a call under way and comes back when the call is done.
//!
//! While the call writes through its own pointer, no reference to the elements may exist; so the
//! borrow is kept as a pointer, and becomes a reference again at the end.

#![allow(unsafe_code)] // a borrow as a pointer and back

use std::marker::PhantomData;
use std::ptr::NonNull;

/// The borrow of a slice, without a reference to its elements.
#[derive(Debug)]
pub(crate) struct LentSlice<'a, T> {
    at: NonNull<[T]>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> LentSlice<'a, T> {
    /// Puts the borrow away.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        LentSlice { at: NonNull::from(slice), borrow: PhantomData }
    }

    /// The elements, to start a call that writes them.
    pub(crate) fn lend(&mut self) -> &mut [T] {
        // SAFETY: the pointer was made of a mutable borrow that lives as long as `self`, and
        // nothing else was made of that.
        unsafe { self.at.as_mut() }
    }

    /// The borrow itself. Called when the call that was lent the elements is done.
    pub(crate) fn take_back(mut self) -> &'a mut [T] {
        // SAFETY: as in `lend`; `self` is gone, so this is the one reference for the rest of 'a.
        unsafe { self.at.as_mut() }
    }
}
