//! The memory of one running collective: the buffers of this rank and of its node peers, and the
//! only code that moves elements between them.
//!
//! A frame executes nothing but steps of a [`Checked`] plan, so what the checker proved (ranges
//! inside their buffers, disjoint writes, no peer's memory written and read in one epoch) holds for
//! every pointer made here. Lengths are compared once more when a step runs, because buffers come
//! from callers.

use std::marker::PhantomData;

use super::lane::Lane;
use super::memory::Registered;
use super::{Direction, Message, Posted, Tag, Transport};
use crate::error::Result;
use crate::plan::check::Checked;
use crate::plan::{Buffer, Slice, Step};
use crate::reduce::{ReduceFn, streaming};
use crate::topology::Topology;

/// How elements are combined.
#[derive(Clone, Copy, Debug)]
pub struct Combine {
    /// The reduction kernel of the element type and operator.
    pub kernel: ReduceFn,
    /// What the last reduction divides by; 1 unless the operator is the average.
    pub divisor: f64,
    /// Whether results go past the caches (see [`streaming`]).
    pub streams: bool,
}

/// Bytes from a start, without a lifetime; the frame's lifetime stands for it.
#[derive(Clone, Copy, Debug)]
struct Region {
    at: *mut u8,
    bytes: usize,
}

impl Region {
    const EMPTY: Region =
        Region { at: std::ptr::NonNull::<u64>::dangling().as_ptr().cast(), bytes: 0 };
}

/// The buffers a caller lends for one collective.
#[derive(Debug)]
pub struct Buffers<'a> {
    input: Region,
    output: Region,
    lent: PhantomData<&'a mut [u8]>,
}

impl<'a> Buffers<'a> {
    /// Separate buffers.
    pub fn separate(input: &'a [u8], output: &'a mut [u8]) -> Self {
        Buffers {
            // The plan never writes its input; the pointer is mutable only to share a type.
            input: Region { at: input.as_ptr().cast_mut(), bytes: input.len() },
            output: Region { at: output.as_mut_ptr(), bytes: output.len() },
            lent: PhantomData,
        }
    }

    /// In place: the input is `range` (bytes) of the output.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn input_in_output(output: &'a mut [u8], range: std::ops::Range<usize>) -> Self {
        let whole = Region { at: output.as_mut_ptr(), bytes: output.len() };
        let input = Region { at: output[range.clone()].as_mut_ptr(), bytes: range.len() };
        Buffers { input, output: whole, lent: PhantomData }
    }

    /// In place: the output is `range` (bytes) of the input, which holds garbage elsewhere after.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn output_in_input(input: &'a mut [u8], range: std::ops::Range<usize>) -> Self {
        let whole = Region { at: input.as_mut_ptr(), bytes: input.len() };
        let output = Region { at: input[range.clone()].as_mut_ptr(), bytes: range.len() };
        Buffers { input: whole, output, lent: PhantomData }
    }
}

/// The memory of one call. Used again from call to call, so that a call allocates nothing.
#[derive(Debug, Default)]
pub struct Frame {
    /// Input, output and workspace of each rank of the node, as far as they are known.
    regions: Vec<[Region; 3]>,
    local: usize,
    element_bytes: usize,
    halves: Vec<*mut u8>,
    sources: Vec<*const u8>,
    messages: Vec<Message>,
}

impl Frame {
    /// Takes on the caller's buffers and workspace of the lane, for `plan`: its next half, or what
    /// rides on the flag lines.
    /// Whoever lends keeps the buffers valid and untouched until [`Frame::give_back`].
    pub(crate) fn lend(
        &mut self,
        plan: &Checked,
        buffers: &Buffers<'_>,
        lane: &Lane,
        element_bytes: usize,
        rides: bool,
    ) {
        self.local = lane.local();
        self.element_bytes = element_bytes;
        self.regions.clear();
        self.regions.resize(lane.locals(), [Region::EMPTY; 3]);
        if plan.scratch > 0 {
            let bytes = match rides {
                true => lane.take_payload(&mut self.halves),
                false => lane.take_half(&mut self.halves),
            };
            for (regions, &at) in self.regions.iter_mut().zip(&self.halves) {
                regions[index(Buffer::Scratch)] = Region { at, bytes };
            }
        }
        let own = &mut self.regions[self.local];
        own[index(Buffer::Input)] = buffers.input;
        own[index(Buffer::Output)] = buffers.output;
    }

    /// Forgets all memory: no later step can reach it.
    pub(crate) fn give_back(&mut self) {
        self.regions.clear();
    }

    /// Tells where a peer's buffer lies: `offset` bytes into its part of a shared segment.
    /// False when the peer has no part there or `bytes` do not fit.
    pub fn set_peer(
        &mut self,
        local: usize,
        buffer: Buffer,
        segment: &Registered,
        world_rank: usize,
        offset: usize,
        bytes: usize,
    ) -> bool {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= segment.segment.bytes());
        let Some(base) = segment.base_of(world_rank).filter(|_| fits) else { return false };
        // SAFETY: offset + bytes lie inside the peer's part, which is at least that long.
        let at = unsafe { base.as_ptr().add(offset) };
        self.regions[local][index(buffer)] = Region { at, bytes };
        true
    }

    /// The address of a slice on a local rank.
    ///
    /// # Panics
    /// If the slice is not inside the buffer: a defect, since the plan was checked.
    #[inline]
    fn at(&self, local: usize, slice: Slice) -> *mut u8 {
        let region = self.regions[local][index(slice.buffer)];
        let (start, end) = (slice.start * self.element_bytes, slice.end() * self.element_bytes);
        assert!(end <= region.bytes, "{slice} lies outside a buffer of {} bytes", region.bytes);
        // SAFETY: start <= end <= bytes of the region.
        unsafe { region.at.add(start) }
    }

    /// Runs the local steps of a round of the plan it was lent for: copies, pulls and reductions.
    pub fn run_local_steps(
        &mut self,
        plan: &Checked,
        round: usize,
        combine: Combine,
        topology: &Topology,
    ) {
        for step in &plan.rounds[round].steps {
            match step {
                Step::Send { .. } | Step::Receive { .. } => {}
                Step::Copy { from, into } => {
                    self.copy(self.local, *from, *into, combine.streams);
                }
                Step::Pull { peer, from, into } => {
                    self.copy(topology.local(*peer), *from, *into, combine.streams);
                }
                Step::Reduce { sources, into, last } => {
                    let mut pointers = std::mem::take(&mut self.sources);
                    pointers.clear();
                    pointers.extend(sources.iter().map(|operand| {
                        self.at(topology.local(operand.rank), operand.slice).cast_const()
                    }));
                    let divisor = if *last { combine.divisor } else { 1.0 };
                    let at = self.at(self.local, *into);
                    // SAFETY: `at` compared all ranges with their buffers; `Checked` says that
                    // `into` overlaps no operand except one exactly, and that no rank writes any
                    // of this in this epoch; the kernel is that of the elements' type.
                    unsafe {
                        let streams = combine.streams && into.buffer == Buffer::Output;
                        // In place, the line is in the cache already.
                        if streams && !pointers.contains(&at.cast_const()) {
                            let bytes = self.element_bytes;
                            let sources = &mut pointers;
                            streaming::reduce(
                                combine.kernel,
                                sources,
                                at,
                                into.len,
                                bytes,
                                divisor,
                            );
                        } else {
                            (combine.kernel)(&pointers, at, into.len, divisor);
                        }
                    }
                    self.sources = pointers;
                }
            }
        }
    }

    fn copy(&self, local: usize, from: Slice, into: Slice, streams: bool) {
        debug_assert_eq!(from.len, into.len);
        let (source, target) = (self.at(local, from), self.at(self.local, into));
        if source == target {
            return; // in place: the elements are there already
        }
        let bytes = from.len * self.element_bytes;
        // What goes to the workspace is read by peers at once.
        let streams = streams && into.buffer == Buffer::Output;
        let copy = if streams { streaming::copy } else { std::ptr::copy_nonoverlapping };
        // SAFETY: both ranges lie in their buffers (`at`) and `Checked` says they are disjoint.
        unsafe { copy(source, target, bytes) };
    }

    /// Starts the messages of a round. False if it has none.
    pub fn post(
        &mut self,
        plan: &Checked,
        round: usize,
        transport: &dyn Transport,
        tag: Tag,
        posted: &mut Posted,
    ) -> Result<bool> {
        let mut messages = std::mem::take(&mut self.messages);
        messages.clear();
        for step in &plan.rounds[round].steps {
            let (peer, direction, slice) = match step {
                Step::Send { to, from } => (*to, Direction::Send, *from),
                Step::Receive { from, into } => (*from, Direction::Receive, *into),
                Step::Copy { .. } | Step::Pull { .. } | Step::Reduce { .. } => continue,
            };
            let at = self.at(self.local, slice);
            messages.push(Message { peer, direction, at, bytes: slice.len * self.element_bytes });
        }
        let some = !messages.is_empty();
        let result = if some {
            // SAFETY: the ranges lie in buffers that were lent; `Checked` says that no
            // other step of the round writes them; the executor polls or cancels before it
            // leaves the round.
            unsafe { transport.post(tag, &messages, posted) }
        } else {
            Ok(())
        };
        self.messages = messages;
        result.map(|()| some)
    }
}

fn index(buffer: Buffer) -> usize {
    match buffer {
        Buffer::Input => 0,
        Buffer::Output => 1,
        Buffer::Scratch => 2,
    }
}
