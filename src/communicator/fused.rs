//! Many small collectives as one: the latency of one call instead of one for each.

use super::Communicator;
use crate::element::{Element, Op};
use crate::error::Result;

impl Communicator {
    /// Reduces each of several vectors in place, as one call. All ranks pass the same number of
    /// vectors of the same lengths. The bits are those of one call a vector, in the same order.
    /// Collective.
    #[track_caller]
    pub fn all_reduce_many<T: Element>(&self, vectors: &mut [&mut [T]], op: Op) -> Result<()> {
        together(vectors, |one| self.all_reduce_in_place(one, op))
    }

    /// Gives all ranks several vectors of the root, as one call. All ranks pass the same number of
    /// vectors of the same lengths. Collective.
    #[track_caller]
    pub fn broadcast_many<T: Element>(&self, vectors: &mut [&mut [T]], root: usize) -> Result<()> {
        together(vectors, |one| self.broadcast(one, root))
    }
}

/// Runs `call` on the vectors one after another in memory.
#[track_caller]
fn together<T: Element>(
    vectors: &mut [&mut [T]],
    call: impl FnOnce(&mut Vec<T>) -> Result<()>,
) -> Result<()> {
    let mut one: Vec<T> = vectors.iter().flat_map(|vector| vector.iter()).copied().collect();
    call(&mut one)?;
    let mut rest = one.as_slice();
    for vector in vectors {
        let (own, others) = rest.split_at(vector.len());
        vector.copy_from_slice(own);
        rest = others;
    }
    Ok(())
}
