//! The parameter buffer: what the forward pass reads, and how buckets are gathered after a step.
//!
//! On one node the buffer exists once for all ranks (`InPlaceVector`: each rank changes its shard,
//! and gathering is a synchronisation). Elsewhere each rank has its own copy; a bucket's all_gather
//! is in place and started, and the forward pass waits for it where its first parameter is used.
//! Buckets are started from the last one, which holds the first layers.
//!
//! 16-bit parameters are computed with in f32, so the forward pass has an f32 copy of them: on one
//! node that exists once, too, and each rank writes its shard in the step (`state`); elsewhere each
//! rank writes its own when a bucket arrives.

use std::ops::Range;
use std::time::Instant;

use half::{bf16, f16};

use super::layout::Layout;
use super::parameter::ParameterSource;
use super::timeline::Timeline;
use crate::communicator::{Communicator, InPlaceVector, Pending};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::reduce::streaming::{STREAMED_FROM, widen};

/// An all_gather under way, and when it started.
type Gathering<T> = (Pending<T, Vec<T>, Vec<T>>, Instant);

/// One bucket of the buffer.
#[derive(Debug)]
enum Bucket<T: Element> {
    /// A copy of this rank; `None` while it is gathered.
    Private(Option<Vec<T>>, Option<Gathering<T>>),
    /// One copy a node.
    Shared(InPlaceVector<T>),
}

/// The buckets, of one element type.
#[derive(Debug)]
pub(super) struct Buckets<T: Element> {
    buckets: Vec<Bucket<T>>,
}

/// The parameters of all layers.
#[derive(Debug)]
pub struct Values {
    communicator: Communicator,
    layout: Layout,
    pub(super) stored: Stored,
    /// The f32 copy of 16-bit parameters.
    pub(super) wide: Wide,
    /// Whether that is so large that it is written past the caches.
    pub(super) streamed: bool,
    pub(super) timeline: Timeline,
}

/// The f32 copy of 16-bit parameters, bucket after bucket.
#[derive(Debug)]
pub(super) enum Wide {
    /// Of this rank; of f32 parameters there is none.
    Private(Vec<Vec<f32>>),
    /// One a node.
    Shared(Buckets<f32>),
}

/// The buffer in its element type.
#[derive(Debug)]
pub(super) enum Stored {
    F32(Buckets<f32>),
    Bf16(Buckets<bf16>),
    F16(Buckets<f16>),
}

/// Runs an expression on the buckets, whatever their type.
macro_rules! on_stored {
    ($stored:expr, $buckets:ident => $work:expr) => {
        match $stored {
            Stored::F32($buckets) => $work,
            Stored::Bf16($buckets) => $work,
            Stored::F16($buckets) => $work,
        }
    };
}

impl<T: Element> Buckets<T> {
    /// Zeros. Collective.
    pub(super) fn new(c: &Communicator, layout: &Layout, shared: bool) -> Result<Self> {
        let mut buckets = Vec::new();
        for (number, bucket) in layout.buckets.iter().enumerate() {
            buckets.push(match shared {
                true => Bucket::Shared(c.in_place_vector(&layout.sharding(number))?),
                false => Bucket::Private(Some(vec![T::default(); bucket.range.len()]), None),
            });
        }
        Ok(Buckets { buckets })
    }

    /// The shard of this rank, `own`, once it is open.
    pub(super) fn own_mut(&mut self, bucket: usize, own: Range<usize>) -> &mut [T] {
        match &mut self.buckets[bucket] {
            Bucket::Private(Some(buffer), _) => &mut buffer[own],
            Bucket::Private(None, _) => &mut [],
            Bucket::Shared(vector) => vector.own_mut(),
        }
    }

    /// Bytes that this rank holds: its copy, or its part of the copy of its node.
    fn bytes(&self, locals: usize) -> usize {
        let elements = |bucket: &Bucket<T>| match bucket {
            Bucket::Private(buffer, _) => buffer.as_ref().map_or(0, Vec::capacity),
            Bucket::Shared(vector) => vector.whole().len().div_ceil(locals),
        };
        self.buckets.iter().map(elements).sum::<usize>() * size_of::<T>()
    }

    /// Waits until no rank reads the shared buckets any more. Collective.
    fn open(&mut self) -> Result<()> {
        for bucket in &mut self.buckets {
            if let Bucket::Shared(vector) = bucket {
                vector.open()?;
            }
        }
        Ok(())
    }

    /// Starts to gather a bucket. Collective.
    fn start(&mut self, c: &Communicator, layout: &Layout, number: usize) -> Result<()> {
        match &mut self.buckets[number] {
            Bucket::Private(buffer, pending) => {
                if let Some(buffer) = buffer.take() {
                    let sharding = layout.sharding(number);
                    let started = c.start_all_gather_in_place(&sharding, buffer)?;
                    *pending = Some((started, Instant::now()));
                }
            }
            Bucket::Shared(vector) => vector.close()?,
        }
        Ok(())
    }

    /// Waits for a bucket. True if it was under way.
    fn finish(&mut self, number: usize, timeline: &mut Timeline) -> Result<bool> {
        if let Bucket::Private(buffer, pending) = &mut self.buckets[number]
            && let Some((pending, started)) = pending.take()
        {
            *buffer = Some(pending.wait()?.1);
            timeline.add("all_gather", number, started);
            return Ok(true);
        }
        Ok(false)
    }

    /// The elements of a bucket that has arrived.
    fn whole(&self, number: usize) -> &[T] {
        match &self.buckets[number] {
            Bucket::Private(buffer, _) => buffer.as_deref().unwrap_or(&[]),
            Bucket::Shared(vector) => vector.whole(),
        }
    }
}

impl Wide {
    /// The own shard of a bucket of the node's copy, once it is open; else nothing.
    pub(super) fn own_mut(&mut self, number: usize) -> &mut [f32] {
        match self {
            Wide::Private(_) => &mut [],
            Wide::Shared(wide) => wide.own_mut(number, 0..0),
        }
    }

    fn whole(&self, number: usize) -> &[f32] {
        match self {
            Wide::Private(wide) => &wide[number],
            Wide::Shared(wide) => wide.whole(number),
        }
    }
}

impl Values {
    /// The parameters that are `stored`. Collective.
    pub(super) fn new(
        c: &Communicator,
        layout: &Layout,
        stored: Stored,
        shared: bool,
        timeline: Timeline,
    ) -> Result<Self> {
        let wide = match &stored {
            Stored::F32(_) => Wide::Private(Vec::new()),
            _ if shared => Wide::Shared(Buckets::new(c, layout, shared)?),
            _ => Wide::Private(layout.buckets.iter().map(|b| vec![0.0; b.range.len()]).collect()),
        };
        let elements: usize = layout.buckets.iter().map(|bucket| bucket.range.len()).sum();
        let streamed = elements * size_of::<f32>() >= STREAMED_FROM;
        let (communicator, layout) = (c.clone(), layout.clone());
        Ok(Values { communicator, layout, stored, wide, streamed, timeline })
    }

    /// Lets the ranks change their shards, until [`Values::gather`]. All buckets have arrived
    /// (`synchronise`). Collective.
    pub(super) fn open(&mut self) -> Result<()> {
        if let Wide::Shared(wide) = &mut self.wide {
            wide.open()?;
        }
        on_stored!(&mut self.stored, buckets => buckets.open())
    }

    /// Starts to gather all buckets, those of the first layers first. Collective.
    pub(super) fn gather(&mut self) -> Result<()> {
        let (c, layout) = (&self.communicator, &self.layout);
        for number in (0..layout.buckets.len()).rev() {
            if let Wide::Shared(wide) = &mut self.wide {
                wide.start(c, layout, number)?;
            }
            on_stored!(&mut self.stored, buckets => buckets.start(c, layout, number))?;
        }
        Ok(())
    }

    /// Waits until all parameters have arrived: before they are saved or evaluated.
    pub fn synchronise(&mut self) -> Result<()> {
        (0..self.layout.buckets.len()).rev().try_for_each(|number| self.finish(number))
    }

    fn finish(&mut self, number: usize) -> Result<()> {
        let timeline = &mut self.timeline;
        if on_stored!(&mut self.stored, buckets => buckets.finish(number, timeline))? {
            self.widen(number);
        }
        Ok(())
    }

    /// Writes this rank's f32 copy of a bucket.
    fn widen(&mut self, number: usize) {
        let Wide::Private(wide) = &mut self.wide else { return };
        match &self.stored {
            Stored::F32(_) => {}
            Stored::Bf16(b) => widen(b.whole(number), &mut wide[number], self.streamed),
            Stored::F16(b) => widen(b.whole(number), &mut wide[number], self.streamed),
        }
    }

    /// Bytes of the parameters, and of their f32 copy; of what the node shares, this rank's part.
    /// All have arrived (`synchronise`).
    pub(super) fn bytes(&self) -> [usize; 2] {
        let locals = self.communicator.topology().peers(self.communicator.rank()).len();
        let stored = on_stored!(&self.stored, buckets => buckets.bytes(locals));
        let wide = match &self.wide {
            Wide::Private(wide) => wide.iter().map(|w| w.capacity() * size_of::<f32>()).sum(),
            Wide::Shared(wide) => wide.bytes(locals),
        };
        [stored, wide]
    }

    /// The elements of a parameter as f32, whole. Waits for its bucket.
    pub fn read(&mut self, parameter: usize) -> Result<&[f32]> {
        self.arrive(parameter..parameter + 1)?;
        Ok(self.values(parameter))
    }
}

impl ParameterSource for Values {
    fn arrive(&mut self, parameters: Range<usize>) -> Result<()> {
        if parameters.end > self.layout.places.len() {
            return Err(Error::internal(format!("there are no parameters {parameters:?}")));
        }
        for parameter in parameters {
            self.finish(self.layout.places[parameter].bucket)?;
        }
        Ok(())
    }

    fn values(&self, parameter: usize) -> &[f32] {
        let place = &self.layout.places[parameter];
        let start = self.layout.buckets[place.bucket].range.start;
        let range = place.range.start - start..place.range.end - start;
        match &self.stored {
            Stored::F32(buckets) => buckets.whole(place.bucket).get(range).unwrap_or(&[]),
            _ => self.wide.whole(place.bucket).get(range).unwrap_or(&[]),
        }
    }
}
