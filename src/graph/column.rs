//! Values of the edges of a rank: in memory of its own, or in place in a mapped file.

use std::ops::Deref;

use bytemuck::AnyBitPattern;

use crate::transport::mapped::MappedSlice;

/// A list of values that is only copied when it has to change.
#[derive(Clone, Debug)]
pub enum Column<T> {
    /// In memory of this rank.
    Owned(Vec<T>),
    /// In a file, whose pages the ranks of a node share.
    Mapped(MappedSlice<T>),
}

impl<T: AnyBitPattern> Column<T> {
    /// The values as a vector; those of a file are copied first.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        if let Column::Mapped(slice) = self {
            *self = Column::Owned(slice.to_vec());
        }
        match self {
            Column::Owned(values) => values,
            Column::Mapped(_) => unreachable!("it was replaced above"),
        }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column::Owned(Vec::new())
    }
}

impl<T> From<Vec<T>> for Column<T> {
    fn from(values: Vec<T>) -> Self {
        Column::Owned(values)
    }
}

impl<T: AnyBitPattern> Deref for Column<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Column::Owned(values) => values,
            Column::Mapped(values) => values,
        }
    }
}

impl<T: AnyBitPattern + PartialEq> PartialEq for Column<T> {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}
