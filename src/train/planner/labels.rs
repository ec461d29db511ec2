//! Labels of a recorded drive: where the car will be, seen from where it is.
//!
//! The label of a frame is 33 positions in its own frame of reference (x forward, y to the left or
//! the right as the recording has it, z up or down likewise), at times 10·(i/32)² s. Positions are
//! rotated by the transpose of the frame's orientation, and interpolated linearly between frames.
//! Cost: 600 multiply-adds for the rotation of 200 positions, and 33 interpolations.
//!
//! [`Timing::Original`] gives Openpilot-Deepdive's numbers, with what is odd about them:
//! - It takes 200 frames to span 10 s, so it spaces them 10/199 s: 0.5 % slower than 20 Hz.
//! - Its times are written with 8 decimals: 0.00976562 for 0.009765625.
//! - Rotated positions are rounded to f32 before they are interpolated.
//! - The recorded times are not used.
//!
//! [`Timing::Recorded`] uses the recorded times and exact anchors instead.

use super::comma2k19::Segment;
use crate::error::{Error, Result};

/// Points of a trajectory.
pub const POINTS: usize = 33;
/// Coordinates of a point.
pub const AXES: usize = 3;
/// Numbers of a trajectory: x, y, z of each point.
pub const TRAJECTORY: usize = POINTS * AXES;
/// Frames that the original's label of a frame reads: itself and those after it.
pub const ORIGINAL_FRAMES: usize = 200;

/// The times of the original, as it writes them.
const ORIGINAL_TIMES: [f64; POINTS] = [
    0.0, 0.00976562, 0.0390625, 0.08789062, 0.15625, 0.24414062, 0.3515625, 0.47851562, 0.625,
    0.79101562, 0.9765625, 1.18164062, 1.40625, 1.65039062, 1.9140625, 2.19726562, 2.5, 2.82226562,
    3.1640625, 3.52539062, 3.90625, 4.30664062, 4.7265625, 5.16601562, 5.625, 6.10351562,
    6.6015625, 7.11914062, 7.65625, 8.21289062, 8.7890625, 9.38476562, 10.0,
];

/// The times of the points after now: `horizon · (i/32)²`, dense where the car is now.
pub fn times(horizon_seconds: f64) -> [f64; POINTS] {
    let last = (POINTS - 1) as f64;
    std::array::from_fn(|i| horizon_seconds * (i as f64 / last) * (i as f64 / last))
}

/// When the positions of a label are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Timing {
    /// As Openpilot-Deepdive has it.
    #[default]
    Original,
    /// By the times that were recorded.
    Recorded,
}

/// The labels of consecutive frames.
#[derive(Clone, PartialEq, Debug)]
pub struct Labels {
    /// [`TRAJECTORY`] numbers for each frame.
    pub values: Vec<f32>,
}

impl Labels {
    /// How many frames they are of.
    pub fn frames(&self) -> usize {
        self.values.len() / TRAJECTORY
    }

    /// The label of one frame.
    pub fn frame(&self, frame: usize) -> &[f32] {
        &self.values[frame * TRAJECTORY..(frame + 1) * TRAJECTORY]
    }
}

/// How many frames of a segment have a label, from its first.
pub fn labelled_frames(segment: &Segment, timing: Timing) -> usize {
    match timing {
        Timing::Original => (segment.frames() + 1).saturating_sub(ORIGINAL_FRAMES),
        Timing::Recorded => {
            let Some(last) = segment.times.last() else { return 0 };
            segment.times.partition_point(|t| t + 10.0 <= *last)
        }
    }
}

/// The labels of `frames` of a segment.
pub fn labels(segment: &Segment, frames: std::ops::Range<usize>, timing: Timing) -> Result<Labels> {
    let labelled = labelled_frames(segment, timing);
    if frames.end > labelled {
        return Err(Error::input(format!(
            "labels of frames {}..{} were asked for; of {} frames the first {labelled} have 10 s \
             after them",
            frames.start,
            frames.end,
            segment.frames()
        )));
    }
    let mut values = Vec::with_capacity(frames.len() * TRAJECTORY);
    for frame in frames {
        match timing {
            Timing::Original => original_label(segment, frame, &mut values),
            Timing::Recorded => recorded_label(segment, frame, &mut values),
        }
    }
    Ok(Labels { values })
}

fn original_label(segment: &Segment, frame: usize, values: &mut Vec<f32>) {
    let rotation = rotation(segment.orientations[frame]);
    let origin = segment.positions[frame];
    let local: Vec<[f32; AXES]> = segment.positions[frame..frame + ORIGINAL_FRAMES]
        .iter()
        .map(|&p| to_local(&rotation, origin, p).map(|x| x as f32))
        .collect();
    // numpy's linspace: multiples of the step, and the end as it is.
    let step = 10.0 / (ORIGINAL_FRAMES - 1) as f64;
    let time = |i: usize| if i == ORIGINAL_FRAMES - 1 { 10.0 } else { i as f64 * step };
    for anchor in ORIGINAL_TIMES {
        // The first frame that is not earlier; the point lies between it and the one before.
        let later = (0..ORIGINAL_FRAMES).position(|i| time(i) >= anchor);
        let later = later.unwrap_or(ORIGINAL_FRAMES - 1).max(1);
        let between = time(later) - time(later - 1);
        let after = anchor - time(later - 1);
        for (low, high) in local[later - 1].iter().zip(local[later]) {
            let (low, high) = (f64::from(*low), f64::from(high));
            values.push(((high - low) / between * after + low) as f32);
        }
    }
}

fn recorded_label(segment: &Segment, frame: usize, values: &mut Vec<f32>) {
    let rotation = rotation(segment.orientations[frame]);
    let (origin, now) = (segment.positions[frame], segment.times[frame]);
    for after in times(10.0) {
        let later = segment.times.partition_point(|&t| t < now + after);
        let later = later.clamp(1, segment.frames() - 1);
        let (from, to) = (segment.times[later - 1], segment.times[later]);
        let share = (now + after - from) / (to - from);
        let low = to_local(&rotation, origin, segment.positions[later - 1]);
        let high = to_local(&rotation, origin, segment.positions[later]);
        values.extend((0..AXES).map(|a| (low[a] + share * (high[a] - low[a])) as f32));
    }
}

/// A position in the frame whose axes are the columns of `rotation`.
pub fn to_local(rotation: &[[f64; 3]; 3], origin: [f64; 3], position: [f64; 3]) -> [f64; 3] {
    let d: [f64; 3] = std::array::from_fn(|j| position[j] - origin[j]);
    std::array::from_fn(|i| rotation[0][i] * d[0] + rotation[1][i] * d[1] + rotation[2][i] * d[2])
}

/// The rotation matrix of a unit quaternion (w, x, y, z).
pub fn rotation([w, x, y, z]: [f64; 4]) -> [[f64; 3]; 3] {
    [
        [w * w + x * x - y * y - z * z, 2.0 * (x * y - w * z), 2.0 * (w * y + x * z)],
        [2.0 * (x * y + w * z), w * w - x * x + y * y - z * z, 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (w * x + y * z), w * w - x * x - y * y + z * z],
    ]
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
