//! The memory limit of a collective: the same bytes read and written by one rank on private
//! memory, with the same kernels and no synchronisation. No implementation on this machine can be
//! faster than that for data that starts in memory, so it stands beside every measured time.

use crate::element::{Element, Op};
use crate::plan::Collective;
use crate::reduce::{self, streaming};

/// Private buffers of the sizes that a collective reads and writes.
#[derive(Debug)]
pub(super) struct Limit<T: Element> {
    collective: Collective,
    ranks: usize,
    /// Whether the collective would stream its results.
    streams: bool,
    from: Vec<T>,
    into: Vec<T>,
}

impl<T: Element> Limit<T> {
    /// For a vector of `n` elements over `ranks` ranks.
    pub(super) fn new(collective: Collective, n: usize, ranks: usize) -> Self {
        let n = if collective.same_kind(Collective::Barrier) { 0 } else { n };
        let streams = streaming::pays(n * size_of::<T>(), ranks);
        Limit {
            collective,
            ranks,
            streams,
            from: vec![T::default(); n],
            into: vec![T::default(); n],
        }
    }

    /// Writes the source, as a program does before it calls the collective.
    pub(super) fn rewrite(&mut self, value: T) {
        self.from.fill(value);
    }

    /// Moves the bytes of one call.
    pub(super) fn run(&mut self) {
        let (n, op) = (self.from.len(), Op::Sum);
        let shard = n / self.ranks;
        let streams = self.streams;
        match self.collective {
            Collective::ReduceScatter => {
                reduce_parts(&self.from, &mut self.into[..shard], op, streams);
            }
            Collective::AllReduce => {
                reduce_parts(&self.from, &mut self.into[..shard], op, streams);
                copy(&self.from[shard..], &mut self.into[shard..], streams);
            }
            Collective::AllGather
            | Collective::Broadcast { .. }
            | Collective::AllToAll
            | Collective::Gather { .. }
            | Collective::Scatter { .. } => copy(&self.from, &mut self.into, streams),
            Collective::Barrier => {}
        }
        std::hint::black_box(&mut self.into);
    }
}

/// One shard from each of as many ranks as fit.
fn reduce_parts<T: Element>(from: &[T], into: &mut [T], op: Op, streams: bool) {
    if into.is_empty() {
        return;
    }
    let parts: Vec<&[T]> = from.chunks_exact(into.len()).collect();
    match streams {
        true => streaming::combine(&parts, into, op),
        false => reduce::combine(&parts, into, op),
    }
}

fn copy<T: Element>(from: &[T], into: &mut [T], streams: bool) {
    match streams {
        true => streaming::copy_slice(from, into),
        false => into.copy_from_slice(from),
    }
}
