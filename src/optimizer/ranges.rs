//! Which part of which parameter lies in whose shard: Megatron-LM's range maps as plain data.
//!
//! For every rank, bucket and parameter that overlap there are four ranges of the same elements
//! (`_build_model_gbuf_param_range_map`): in the whole buffer, in the bucket, in the shard of the
//! rank, and in the parameter itself. Checkpoints and the step work on these; nothing else knows
//! where shards are cut.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::layout::Layout;
use super::parameter::Parameter;

/// One piece of a parameter in the shard of one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The owner.
    pub rank: usize,
    /// The bucket.
    pub bucket: usize,
    /// The parameter, by its number.
    pub parameter: usize,
    /// Its elements in the whole buffer (Megatron-LM: `gbuf_world`).
    pub in_buffer: Range<usize>,
    /// The same in the bucket (`gbuf_world_in_bucket`).
    pub in_bucket: Range<usize>,
    /// The same in the owner's shard of the bucket (`gbuf_local`).
    pub in_shard: Range<usize>,
    /// The same in the parameter (`param`).
    pub in_parameter: Range<usize>,
}

/// All pieces of a rank, bucket after bucket, in the order of the buffer.
pub fn pieces_of(layout: &Layout, rank: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (number, bucket) in layout.buckets.iter().enumerate() {
        let shard = layout.sharding(number).range(rank);
        let shard = bucket.range.start + shard.start..bucket.range.start + shard.end;
        for &parameter in &bucket.parameters {
            let place = &layout.places[parameter].range;
            let (start, end) = (place.start.max(shard.start), place.end.min(shard.end));
            if start >= end {
                continue;
            }
            let from = |origin: usize| start - origin..end - origin;
            pieces.push(Piece {
                rank,
                bucket: number,
                parameter,
                in_buffer: start..end,
                in_bucket: from(bucket.range.start),
                in_shard: from(shard.start),
                in_parameter: from(place.start),
            });
        }
    }
    pieces
}

/// The range maps of all ranks, to be printed.
#[derive(Clone, Debug, Serialize)]
pub struct RangeMaps {
    /// Names and shapes of the parameters, by their numbers.
    pub parameters: Vec<(String, Vec<usize>)>,
    /// The layout.
    pub layout: Layout,
    /// All pieces, rank after rank.
    pub pieces: Vec<Piece>,
}

impl RangeMaps {
    /// The maps of a layout of `parameters`.
    pub fn new(parameters: &[Parameter], layout: &Layout) -> Self {
        RangeMaps {
            parameters: parameters.iter().map(|p| (p.name.clone(), p.shape.clone())).collect(),
            layout: layout.clone(),
            pieces: (0..layout.ranks).flat_map(|rank| pieces_of(layout, rank)).collect(),
        }
    }
}

impl fmt::Display for RangeMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |range: &Range<usize>| format!("{}..{}", range.start, range.end);
        let layout = &self.layout;
        writeln!(f, "{} elements in {} buckets", layout.elements(), layout.buckets.len())?;
        for (number, bucket) in layout.buckets.iter().enumerate() {
            writeln!(
                f,
                "bucket {number}: {} ({} without the padding at its end), {} a rank",
                span(&bucket.range),
                bucket.unpadded,
                layout.shard_elements(number)
            )?;
        }
        writeln!(
            f,
            "{:>4} {:>6} {:<32} {:>21} {:>21} {:>21} {:>21}",
            "rank", "bucket", "parameter", "in buffer", "in bucket", "in shard", "in parameter"
        )?;
        for piece in &self.pieces {
            writeln!(
                f,
                "{:>4} {:>6} {:<32} {:>21} {:>21} {:>21} {:>21}",
                piece.rank,
                piece.bucket,
                self.parameters[piece.parameter].0,
                span(&piece.in_buffer),
                span(&piece.in_bucket),
                span(&piece.in_shard),
                span(&piece.in_parameter)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Odd parameters: empty, one element, more than a shard, more than all shards of a bucket.
    fn odd() -> Vec<Parameter> {
        let shapes: [&[usize]; 9] =
            [&[1], &[0], &[129], &[64], &[2000], &[], &[3, 3], &[700], &[128]];
        let named = shapes.iter().enumerate();
        named.map(|(i, shape)| Parameter::new(format!("p{i}"), shape)).collect()
    }

    #[test]
    fn every_element_is_owned_exactly_once() {
        let (mut empty, mut crossing) = (0, 0);
        for ranks in 1..=9 {
            for most in [None, Some(1), Some(128), Some(700), Some(5000)] {
                for shared in [None, Some(2), Some(8)] {
                    let mut parameters = odd();
                    if let Some(shared) = shared {
                        let shared: &mut Parameter = &mut parameters[shared];
                        shared.shared_embedding = true;
                    }
                    let layout = Layout::new(&parameters, ranks, most);
                    let mut owned: Vec<Vec<u32>> =
                        parameters.iter().map(|p| vec![0; p.elements()]).collect();
                    for rank in 0..ranks {
                        let pieces = pieces_of(&layout, rank);
                        empty += usize::from(pieces.is_empty());
                        for piece in &pieces {
                            consistent(&layout, piece);
                            let count = &mut owned[piece.parameter][piece.in_parameter.clone()];
                            count.iter_mut().for_each(|c| *c += 1);
                            crossing += usize::from(piece.in_parameter.start > 0);
                        }
                    }
                    assert!(owned.iter().flatten().all(|&count| count == 1), "{ranks} {most:?}");
                }
            }
        }
        assert!(
            empty > 0 && crossing > 0,
            "the examples have shards of padding and cut parameters"
        );
    }

    fn consistent(layout: &Layout, piece: &Piece) {
        let bucket = &layout.buckets[piece.bucket].range;
        let shard = layout.sharding(piece.bucket).range(piece.rank);
        let place = &layout.places[piece.parameter].range;
        let moved = |range: &Range<usize>, by: usize| range.start + by..range.end + by;
        assert_eq!(moved(&piece.in_bucket, bucket.start), piece.in_buffer);
        assert_eq!(moved(&piece.in_shard, shard.start), piece.in_bucket);
        assert_eq!(moved(&piece.in_parameter, place.start), piece.in_buffer);
        assert!(piece.in_shard.end <= shard.len() && !piece.in_shard.is_empty());
        assert_eq!(layout.places[piece.parameter].bucket, piece.bucket);
    }

    #[test]
    fn maps_are_printed() {
        let parameters = [Parameter::new("w", &[10, 13]), Parameter::new("b", &[10])];
        let layout = Layout::new(&parameters, 2, None);
        let text = RangeMaps::new(&parameters, &layout).to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(text.lines().next(), Some("256 elements in 1 buckets"));
        assert_eq!(lines[1][..3], ["bucket", "0:", "0..256"]);
        assert_eq!(lines[3], ["0", "0", "b", "0..10", "0..10", "0..10", "0..10"]);
        assert_eq!(lines[4], ["0", "0", "w", "64..128", "64..128", "64..128", "0..64"]);
        assert_eq!(lines[5], ["1", "0", "w", "128..194", "128..194", "0..66", "64..130"]);
        assert_eq!(lines.len(), 6);
    }
}
