//! The parameter buffer: what the forward pass reads, and how buckets are gathered after a step.
//!
//! On one node the buffer exists once for all ranks (`InPlaceVector`: each rank changes its shard,
//! and gathering is a synchronisation). Elsewhere each rank has its own copy; a bucket's all_gather
//! is in place and started, and the forward pass waits for it where its first parameter is used.
//! Buckets are started from the last one, which holds the first layers.
//!
//! 16-bit parameters are computed with in f32, so the forward pass has an f32 copy of them, written
//! when a bucket arrives.

use std::ops::Range;
use std::time::Instant;

use half::{bf16, f16};

use super::layout::Layout;
use super::parameter::ParameterSource;
use super::timeline::Timeline;
use crate::communicator::{Communicator, InPlaceVector, Pending};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::reduce::streaming::widen;

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
    /// The f32 copy of 16-bit parameters; empty for f32.
    wide: Vec<Vec<f32>>,
    pub(super) timeline: Timeline,
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

    /// The shard of this rank, once it is open.
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

    fn is_shared(&self, number: usize) -> bool {
        matches!(self.buckets[number], Bucket::Shared(_))
    }
}

impl Values {
    pub(super) fn new(
        c: &Communicator,
        layout: &Layout,
        stored: Stored,
        timeline: Timeline,
    ) -> Self {
        let wide = match &stored {
            Stored::F32(_) => Vec::new(),
            _ => layout.buckets.iter().map(|b| vec![0.0; b.range.len()]).collect(),
        };
        Values { communicator: c.clone(), layout: layout.clone(), stored, wide, timeline }
    }

    /// Lets the ranks change their shards, until [`Values::gather`]. All buckets have arrived
    /// (`synchronise`). Collective.
    pub(super) fn open(&mut self) -> Result<()> {
        on_stored!(&mut self.stored, buckets => buckets.open())
    }

    /// Starts to gather all buckets, those of the first layers first. Collective.
    pub(super) fn gather(&mut self) -> Result<()> {
        for number in (0..self.layout.buckets.len()).rev() {
            let (c, layout) = (&self.communicator, &self.layout);
            on_stored!(&mut self.stored, buckets => buckets.start(c, layout, number))?;
            if on_stored!(&self.stored, buckets => buckets.is_shared(number)) {
                self.widen(number);
            }
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

    /// Writes the f32 copy of a bucket.
    fn widen(&mut self, number: usize) {
        match &self.stored {
            Stored::F32(_) => {}
            Stored::Bf16(buckets) => widen(buckets.whole(number), &mut self.wide[number]),
            Stored::F16(buckets) => widen(buckets.whole(number), &mut self.wide[number]),
        }
    }

    /// Bytes of the parameters, and of their f32 copy. All have arrived (`synchronise`).
    pub(super) fn bytes(&self) -> [usize; 2] {
        let locals = self.communicator.topology().peers(self.communicator.rank()).len();
        let stored = on_stored!(&self.stored, buckets => buckets.bytes(locals));
        [stored, self.wide.iter().map(|wide| wide.capacity() * size_of::<f32>()).sum()]
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
            _ => &self.wide[place.bucket][range],
        }
    }
}
