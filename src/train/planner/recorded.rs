//! Samples cut from recorded drives, alike those of `windows`.
//!
//! A window is 40 frames, each fourth of a 20 Hz recording by default, with the inputs of
//! `windows::INPUTS` taken from its poses and the labels of `labels` as targets, 10 s ahead.
//! Segments, not windows, are split, by a seeded hash of their name; they are sorted by name first,
//! so the order of a folder does not show. Cost: labels are made when asked for, 600 multiply-adds
//! each; poses take 90 bytes a frame.

use std::ops::Range;
use std::path::PathBuf;

use super::comma2k19::Segment;
use super::labels::{AXES, TRAJECTORY, Timing, labelled_frames, labels, rotation, to_local};
use super::raster::{Raster, TRAIL_SECONDS, stack};
use super::windows::{INPUTS, Part, Sample, mirror, scaled};
use crate::error::{Error, Result};
use crate::train::loader::Dataset;
use crate::train::random::Random;

/// Frames of a recording in a second.
const FRAMES_PER_SECOND: f64 = 20.0;

/// How windows are cut from recordings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordedOptions {
    /// Steps of a window.
    pub steps: usize,
    /// Frames from one step to the next.
    pub frames_per_step: usize,
    /// Frames between the starts of two windows.
    pub stride_frames: usize,
    /// When label points are.
    pub timing: Timing,
    /// Whether a sample is mirrored left to right, half of the time.
    pub mirror: bool,
}

impl Default for RecordedOptions {
    fn default() -> Self {
        RecordedOptions {
            steps: 40,
            frames_per_step: 4,
            stride_frames: 20,
            timing: Timing::Original,
            mirror: false,
        }
    }
}

/// The windows of recorded segments.
#[derive(Clone, Debug)]
pub struct Recordings {
    options: RecordedOptions,
    segments: Vec<(String, Segment)>,
    /// (segment, first frame).
    starts: Vec<(usize, usize)>,
    raster: Option<Raster>,
}

impl Recordings {
    /// Reads the segments in these folders; their paths are their names.
    pub fn read(folders: &[PathBuf], part: Part, options: RecordedOptions) -> Result<Self> {
        let named = folders.iter().map(|folder| (folder.display().to_string(), folder));
        let wanted = named.filter(|(name, _)| part.has(name));
        let segments = wanted.map(|(name, folder)| Ok((name, Segment::read(folder)?)));
        Recordings::new(segments.collect::<Result<_>>()?, Part::All, options)
    }

    /// The windows of named segments.
    pub fn new(
        mut segments: Vec<(String, Segment)>,
        part: Part,
        options: RecordedOptions,
    ) -> Result<Self> {
        let positive = [
            (options.steps, "steps"),
            (options.frames_per_step, "frames_per_step"),
            (options.stride_frames, "stride_frames"),
        ];
        if let Some((_, name)) = positive.iter().find(|(value, _)| *value == 0) {
            return Err(Error::input(format!("{name} = 0: expected a positive number")));
        }
        segments.retain(|(name, _)| part.has(name));
        segments.sort_by(|a, b| a.0.cmp(&b.0));
        let history = (options.steps - 1) * options.frames_per_step;
        let mut starts = Vec::new();
        for (i, (_, segment)) in segments.iter().enumerate() {
            let end = labelled_frames(segment, options.timing).saturating_sub(history);
            starts.extend((0..end).step_by(options.stride_frames).map(|start| (i, start)));
        }
        Ok(Recordings { options, segments, starts, raster: None })
    }

    /// The same windows with images, which show where the car came from.
    pub fn with_images(self, raster: Raster) -> Self {
        Recordings { raster: Some(raster), ..self }
    }

    /// Which segment and frames a window has.
    pub fn place(&self, index: usize) -> (&str, Range<usize>) {
        let (segment, start) = self.starts[index];
        let end = start + (self.options.steps - 1) * self.options.frames_per_step + 1;
        (&self.segments[segment].0, start..end)
    }

    fn window(&self, index: usize) -> Result<Sample> {
        let (segment, start) = self.starts[index];
        let segment = &self.segments[segment].1;
        let RecordedOptions { steps, frames_per_step, timing, .. } = self.options;
        let mut sample = Sample {
            inputs: Vec::with_capacity(steps * INPUTS),
            targets: Vec::with_capacity(steps * TRAJECTORY),
            speeds: Vec::with_capacity(steps),
            images: self.images(segment, start),
        };
        for now in (start..).step_by(frames_per_step).take(steps) {
            // The first window of a segment begins as if the car had stood there.
            let before = now.saturating_sub(frames_per_step);
            let (inputs, speed) = inputs(segment, before, now);
            sample.inputs.extend(inputs);
            sample.speeds.push(speed);
            sample.targets.extend(labels(segment, now..now + 1, timing)?.values);
        }
        Ok(sample)
    }

    fn images(&self, segment: &Segment, start: usize) -> Vec<f32> {
        let Some(raster) = self.raster else { return Vec::new() };
        let RecordedOptions { steps, frames_per_step, .. } = self.options;
        let trail = (TRAIL_SECONDS * FRAMES_PER_SECOND) as usize;
        let mut frames = vec![0.0; (steps + 1) * raster.cells()];
        for (i, frame) in frames.chunks_exact_mut(raster.cells()).enumerate() {
            let now = (start + i * frames_per_step).saturating_sub(frames_per_step);
            let (axes, origin) = (rotation(segment.orientations[now]), segment.positions[now]);
            let past = segment.positions[..=now].iter().rev().take(trail);
            let seen = past.map(|&place| {
                let [x, y, _] = to_local(&axes, origin, place);
                [x, y]
            });
            raster.trail(frame, seen, trail);
        }
        stack(&frames, raster.cells())
    }
}

/// The inputs and the speed (m/s) of a frame, given the frame of the step before.
fn inputs(segment: &Segment, before: usize, now: usize) -> ([f32; INPUTS], f32) {
    let [was, is] = [before, now].map(|frame| rotation(segment.orientations[frame]));
    let speed_at = |frame: usize, rotation: &[[f64; 3]; 3]| {
        to_local(rotation, [0.0; AXES], segment.velocities[frame])[0]
    };
    let (speed, speed_before) = (speed_at(now, &is), speed_at(before, &was));
    let seconds = segment.times[now] - segment.times[before];
    let acceleration = if seconds > 0.0 { (speed - speed_before) / seconds } else { 0.0 };
    // Where the car pointed before, seen from now.
    let pointed = to_local(&is, [0.0; AXES], std::array::from_fn(|i| was[i][0]));
    let turn = -pointed[1].atan2(pointed[0]);
    let [x, y, _] = to_local(&is, segment.positions[now], segment.positions[before]);
    let speed = speed as f32;
    (scaled(speed, acceleration as f32, turn as f32, [x, y]), speed)
}

impl Dataset for Recordings {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.starts.len()
    }

    fn get(&self, index: usize, random: &mut Random) -> Result<Sample> {
        if index >= self.starts.len() {
            return Err(Error::internal(format!("window {index} of {}", self.starts.len())));
        }
        let mut sample = self.window(index)?;
        if self.options.mirror && random.next_u64() & 1 == 1 {
            mirror(&mut sample, self.raster);
        }
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::super::comma2k19::{arc, generate};
    use super::super::windows::Split;
    use super::*;

    fn of(frames: usize, curvature: f64, options: RecordedOptions) -> Recordings {
        let segments = vec![("a".to_string(), generate(frames, 15.0, curvature))];
        Recordings::new(segments, Part::All, options).unwrap()
    }

    #[test]
    fn windows_are_counted_to_the_last_label() {
        // 39 steps of 4 frames and 200 frames of a label.
        let wanted = [(0, 0), (199, 0), (355, 0), (356, 1), (375, 1), (376, 2), (1200, 43)];
        for (frames, windows) in wanted {
            let recordings = of(frames, 0.0, RecordedOptions::default());
            assert_eq!(recordings.len(), windows, "{frames} frames");
        }
        let last = of(376, 0.0, RecordedOptions::default());
        assert_eq!(last.place(1), ("a", 20..177));
        assert!(last.get(2, &mut Random::of(&[0])).is_err());
    }

    #[test]
    fn inputs_and_targets_of_circles_are_known() {
        for curvature in [0.0, 0.01, -0.02] {
            let recordings = of(500, curvature, RecordedOptions::default());
            let sample = recordings.get(2, &mut Random::of(&[0])).unwrap();
            let (x, y) = arc(-3.0, curvature);
            let turn = 3.0 * curvature;
            let wanted = [0.75, 0.0, turn / 0.1, -x / 4.0, -y];
            for step in [0, 1, 39] {
                let found = &sample.inputs[step * INPUTS..][..INPUTS];
                for (a, b) in found.iter().zip(wanted) {
                    assert!((f64::from(*a) - b).abs() < 1e-4, "{found:?} not {wanted:?}");
                }
                assert!((sample.speeds[step] - 15.0).abs() < 1e-4);
                let end = &sample.targets[(step + 1) * TRAJECTORY - AXES..(step + 1) * TRAJECTORY];
                let (x, y) = arc(15.0 * 9.95, curvature);
                let near = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-3;
                assert!(near(end[0], x) && near(end[1], y), "{end:?} not {x} {y}");
            }
            let first = recordings.get(0, &mut Random::of(&[0])).unwrap();
            assert_eq!(first.inputs[1..INPUTS].iter().map(|v| v.abs()).sum::<f32>(), 0.0);
        }
    }

    #[test]
    fn images_show_the_way_that_the_car_came() {
        let raster = Raster { height: 16, width: 16, metres_per_cell: 1.0 };
        let blind = of(500, 0.05, RecordedOptions::default());
        let sample = blind.clone().with_images(raster).get(2, &mut Random::of(&[0])).unwrap();
        assert!(blind.get(2, &mut Random::of(&[0])).unwrap().images.is_empty());
        assert_eq!(sample.images.len(), 40 * raster.elements());
        let frame = &sample.images[39 * raster.elements() + raster.cells()..];
        let cells = (0..raster.cells()).filter(|&i| frame[i] > 0.0);
        let rows: Vec<usize> = cells.map(|i| i / raster.width).collect();
        // 4 m behind the car are 4 rows and half of the one it stands on the edge of.
        assert!(rows.len() > 8 && rows.iter().all(|row| *row >= 11), "{rows:?}");
        // At the start of a segment the car has come from nowhere, one step later from somewhere.
        let first = blind.with_images(raster).get(0, &mut Random::of(&[0])).unwrap().images;
        let halves = |step: usize| {
            first[step * raster.elements()..][..raster.elements()].split_at(raster.cells())
        };
        assert_eq!(halves(0).0, halves(0).1);
        assert_ne!(halves(1).0, halves(1).1);
    }

    #[test]
    fn order_and_split_are_by_name() {
        let segment = |i: usize| (format!("s{i}"), generate(356, 5.0 + i as f64, 0.0));
        let names = |segments: Vec<(String, Segment)>, part| {
            let found = Recordings::new(segments, part, RecordedOptions::default()).unwrap();
            (0..found.len()).map(|i| found.place(i).0.to_string()).collect::<Vec<_>>()
        };
        let all = names((0..9).map(segment).collect(), Part::All);
        assert_eq!(all, names((0..9).rev().map(segment).collect(), Part::All));
        let split = Split { seed: 1, held_out: 0.4 };
        let training = names((0..9).map(segment).collect(), Part::Training(split));
        let held_out = names((0..9).map(segment).collect(), Part::HeldOut(split));
        assert!(!training.is_empty() && !held_out.is_empty());
        let mut both = [training, held_out].concat();
        both.sort();
        assert_eq!(both, all);
    }

    #[test]
    fn impossible_options_and_missing_folders_are_refused() {
        let options = RecordedOptions { stride_frames: 0, ..RecordedOptions::default() };
        let error = Recordings::new(Vec::new(), Part::All, options).unwrap_err();
        assert!(error.message.contains("stride_frames"), "{error}");
        let folders = [PathBuf::from("no/such/segment")];
        let error = Recordings::read(&folders, Part::All, RecordedOptions::default()).unwrap_err();
        assert!(error.message.contains("no/such/segment"), "{error}");
    }
}
