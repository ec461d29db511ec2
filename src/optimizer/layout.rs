//! Where parameters lie in the flat buffers: Megatron-LM's layout with a distributed optimizer.
//!
//! ```text
//! for each parameter, last registered first:
//!     start ← end of the one before, rounded up to 64 elements
//!     a shared embedding closes the open bucket first, and its own after itself
//!     the bucket closes when it has `bucket_elements` or more
//! a closed bucket ends at a multiple of lcm(ranks, 128); the next one starts there
//! ```
//!
//! (`megatron/core/optimizer/distrib_optimizer.py`, `_compute_per_buffer_param_layout`.) So each
//! bucket is cut into equal shards, one a rank, at multiples of 64 elements at least when ranks are
//! a power of two. A shard respects no border of parameters, and may be padding altogether.

use std::ops::Range;

use serde::Serialize;

use super::parameter::Parameter;
use crate::sharding::Sharding;

/// Elements that every parameter's start is a multiple of.
pub const START_ELEMENTS: usize = 64;
/// Elements that every bucket's end is a multiple of, together with the number of ranks.
pub const END_ELEMENTS: usize = 128;

/// Where one parameter lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its elements in the buffer.
    pub range: Range<usize>,
    /// The number of its bucket.
    pub bucket: usize,
}

/// A part of the buffer that is communicated as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Its elements in the buffer, padding at the end included.
    pub range: Range<usize>,
    /// Elements without the padding at the end. As in Megatron-LM, a bucket that a shared embedding
    /// closes counts the padding up to the embedding's start.
    pub unpadded: usize,
    /// Its parameters, in the order of the buffer.
    pub parameters: Vec<usize>,
}

/// The layout of a buffer over a number of ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// How many ranks share each bucket.
    pub ranks: usize,
    /// Where each parameter lies, by its number.
    pub places: Vec<Place>,
    /// The buckets, in the order of the buffer: the first one is ready first in a backward pass.
    pub buckets: Vec<Bucket>,
}

/// Megatron-LM's size of a bucket, in elements: large enough that a collective over many ranks is
/// not bound by latency.
pub fn default_bucket_elements(ranks: usize) -> usize {
    (1_000_000 * ranks).max(40_000_000)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// The open bucket of the loop over parameters.
struct Open {
    multiple: usize,
    start: usize,
    parameters: Vec<usize>,
    closed: Vec<Bucket>,
}

impl Open {
    /// Closes the bucket at `end` and returns where the next one starts.
    fn close(&mut self, end: usize) -> usize {
        let range = self.start..end.next_multiple_of(self.multiple);
        let parameters = std::mem::take(&mut self.parameters);
        self.start = range.end;
        self.closed.push(Bucket { unpadded: end - range.start, range, parameters });
        self.start
    }
}

impl Layout {
    /// The layout of `parameters` over `ranks`; `None` for one bucket of everything.
    pub fn new(parameters: &[Parameter], ranks: usize, bucket_elements: Option<usize>) -> Self {
        let multiple = least_common_multiple(ranks.max(1), END_ELEMENTS);
        let mut open = Open { multiple, start: 0, parameters: Vec::new(), closed: Vec::new() };
        let mut places = vec![Place { range: 0..0, bucket: 0 }; parameters.len()];
        let mut end = 0usize;
        for (index, parameter) in parameters.iter().enumerate().rev() {
            let mut start = end.next_multiple_of(START_ELEMENTS);
            if parameter.shared_embedding && !open.parameters.is_empty() {
                start = open.close(start);
            }
            end = start + parameter.elements();
            places[index] = Place { range: start..end, bucket: open.closed.len() };
            open.parameters.push(index);
            let full = bucket_elements.is_some_and(|most| end - open.start >= most);
            if full || parameter.shared_embedding {
                end = open.close(end);
            }
        }
        if !open.parameters.is_empty() {
            open.close(end);
        }
        Layout { ranks: ranks.max(1), places, buckets: open.closed }
    }

    /// Elements of the whole buffer, padding included.
    pub fn elements(&self) -> usize {
        self.buckets.last().map_or(0, |bucket| bucket.range.end)
    }

    /// Who owns which part of a bucket, counted from its start: equal shards.
    pub fn sharding(&self, bucket: usize) -> Sharding {
        Sharding::even(self.buckets[bucket].range.len(), self.ranks)
    }

    /// Elements of the shard that each rank owns of a bucket.
    pub fn shard_elements(&self, bucket: usize) -> usize {
        self.buckets[bucket].range.len() / self.ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `layers` times a square matrix and its bias, as in Megatron-LM's own test.
    fn layers(layers: usize, width: usize) -> Vec<Parameter> {
        (0..layers)
            .flat_map(|i| {
                [
                    Parameter::new(format!("{i}.weight"), &[width, width]),
                    Parameter::new(format!("{i}.bias"), &[width]),
                ]
            })
            .collect()
    }

    fn ends(layout: &Layout) -> Vec<usize> {
        layout.buckets.iter().map(|b| b.range.end).collect()
    }

    #[test]
    fn the_worked_example_of_megatron() {
        let parameters = layers(3, 95);
        for ranks in [1, 2, 3, 4] {
            let layout = Layout::new(&parameters, ranks, Some(9050));
            assert_eq!(ends(&layout), [9216, 18432, 27648], "{ranks} ranks");
            assert!(layout.buckets.iter().all(|b| b.unpadded == 9153));
            let range = |i: usize| layout.places[i].range.clone();
            assert_eq!((range(5), range(4), range(3)), (0..95, 128..9153, 9216..9311));
            assert_eq!(layout.buckets[0].parameters, [5, 4]);
        }
        // Five ranks: ends are multiples of 640.
        assert_eq!(ends(&Layout::new(&parameters, 5, Some(9050))), [9600, 19200, 28800]);
        // Without a bound there is one bucket; 9,000 is reached by the matrix alone.
        assert_eq!(ends(&Layout::new(&parameters, 2, None)), [27648]);
        assert_eq!(ends(&Layout::new(&parameters, 2, Some(9000))), [9216, 18432, 27648]);
        assert_eq!(ends(&Layout::new(&parameters, 2, Some(9154))), [9344, 18560, 27648]);
    }

    #[test]
    fn a_shared_embedding_has_a_bucket_of_its_own() {
        let mut parameters = layers(2, 95);
        parameters[0].shared_embedding = true; // registered first, so it lies last
        let layout = Layout::new(&parameters, 2, None);
        // Three parameters, then padding up to where the embedding would have started.
        assert_eq!(layout.buckets[0].parameters, [3, 2, 1]);
        assert_eq!(layout.buckets[0].unpadded, 9344);
        assert_eq!(layout.buckets[1].parameters, [0]);
        assert_eq!(layout.buckets[1].unpadded, 9025);
        let mut parameters = layers(2, 95);
        parameters[3].shared_embedding = true; // lies first
        let layout = Layout::new(&parameters, 2, None);
        assert_eq!(layout.buckets[0].parameters, [3]);
        assert_eq!((layout.buckets[0].unpadded, layout.buckets[0].range.end), (95, 128));
    }

    #[test]
    fn every_layout_holds_its_rules() {
        let shapes = [vec![], vec![1], vec![0], vec![7, 3], vec![64], vec![65], vec![300, 5]];
        for ranks in [1, 2, 3, 4, 5, 7, 8] {
            for mask in 0..1usize << shapes.len() {
                for most in [None, Some(1), Some(100), Some(1000)] {
                    let chosen = shapes.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                    let parameters: Vec<Parameter> =
                        chosen.map(|(i, shape)| Parameter::new(i.to_string(), shape)).collect();
                    check(&Layout::new(&parameters, ranks, most), &parameters);
                }
            }
        }
    }

    fn check(layout: &Layout, parameters: &[Parameter]) {
        let mut next = 0;
        for (number, bucket) in layout.buckets.iter().enumerate() {
            assert_eq!(bucket.range.start, next, "buckets tile the buffer");
            next = bucket.range.end;
            assert_eq!(bucket.range.len() % layout.ranks, 0);
            assert_eq!(bucket.range.end % END_ELEMENTS, 0);
            assert!(bucket.unpadded <= bucket.range.len());
            let mut at = bucket.range.start;
            for &index in &bucket.parameters {
                let place = &layout.places[index];
                assert_eq!(place.bucket, number);
                assert_eq!(place.range.start % START_ELEMENTS, 0);
                assert_eq!(place.range.len(), parameters[index].elements());
                assert!(place.range.start >= at && place.range.start < at + START_ELEMENTS);
                at = place.range.end;
                assert!(at <= bucket.range.end);
            }
            let shards = layout.sharding(number);
            assert_eq!(shards.max_count(), layout.shard_elements(number));
            assert!(shards.is_uniform());
        }
        let order: Vec<usize> = layout.buckets.iter().flat_map(|b| b.parameters.clone()).collect();
        assert_eq!(order, (0..parameters.len()).rev().collect::<Vec<_>>());
    }
}
