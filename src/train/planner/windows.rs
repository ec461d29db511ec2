//! Samples cut from traces: some seconds of driving, and at each step what came next.
//!
//! A window is a history of 40 steps at 5 Hz and 5 s after its last step. Each step has the inputs
//! a car knows of itself, and as target the 33 points at 5·(i/32)² s after it, seen from the car (x
//! forward, y left, z 0): a recurrent model learns at every step, as the original does.
//!
//! On the traces of `bench/peers/sumo_traces.sh`: 25,444 moving windows of 2,088 vehicles; half of
//! all 53,207 windows stand. After 5 s, |y| is above 1 m in 22 % of all and above 5 m in 13 %;
//! constant velocity has ADE 1.11 m and FDE 4.80 m on the moving ones.
//! Vehicles, not windows, are split into training and held-out ones, by a seeded hash of the name.
//! Cost: 40·33 interpolations a sample, about 30 µs; windows are indices, cut when asked for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::labels::{AXES, POINTS, TRAJECTORY, times};
use super::raster::{Raster, Surroundings, stack};
use super::traces::{State, Trace, TraceSet, turned};
use crate::error::{Error, Result};
use crate::train::loader::Dataset;
use crate::train::random::{Random, hash_text};

/// Inputs of a step, in this order: speed ÷ 20 m/s; acceleration ÷ 3 m/s²; turn since the step
/// before ÷ 0.1 rad; way since then, forward ÷ 4 m and to the left ÷ 1 m.
pub const INPUTS: usize = 5;
/// What speeds are divided by as an input.
pub const SPEED_SCALE: f32 = 20.0;

/// How windows are cut.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowOptions {
    /// Steps of a window.
    pub steps: usize,
    /// Steps in a second; states between those of the trace are interpolated.
    pub steps_per_second: f64,
    /// How far targets look ahead.
    pub horizon_seconds: f64,
    /// Time between the starts of two windows of a trace.
    pub stride_seconds: f64,
    /// Only windows whose vehicle is at least this fast (m/s) at the last step; 0 for all.
    pub moving: f32,
    /// Whether a sample is mirrored left to right, half of the time.
    pub mirror: bool,
}

impl Default for WindowOptions {
    fn default() -> Self {
        WindowOptions {
            steps: 40,
            steps_per_second: 5.0,
            horizon_seconds: 5.0,
            stride_seconds: 4.0,
            moving: 1.0,
            mirror: false,
        }
    }
}

/// Which vehicles a data set has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Part {
    /// All of them.
    All,
    /// Those that are trained on.
    Training(Split),
    /// Those that are held out.
    HeldOut(Split),
}

/// How vehicles are split.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Split {
    /// The seed of the split.
    pub seed: u64,
    /// The share of vehicles that are held out, from 0 to 1.
    pub held_out: f64,
}

impl Split {
    /// Whether a vehicle is held out.
    pub fn holds_out(&self, vehicle: &str) -> bool {
        Random::unit(&mut Random::of(&[hash_text(self.seed, vehicle)])) < self.held_out
    }
}

impl Part {
    /// Whether it has this vehicle, or recorded segment.
    pub fn has(&self, vehicle: &str) -> bool {
        match self {
            Part::All => true,
            Part::Training(split) => !split.holds_out(vehicle),
            Part::HeldOut(split) => split.holds_out(vehicle),
        }
    }
}

/// One window.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// [`INPUTS`] numbers for each step.
    pub inputs: Vec<f32>,
    /// [`TRAJECTORY`] numbers for each step.
    pub targets: Vec<f32>,
    /// The speed at each step in m/s, for the constant-velocity baseline.
    pub speeds: Vec<f32>,
    /// An image for each step (see `raster`), or nothing.
    pub images: Vec<f32>,
}

/// The windows of a set of traces.
#[derive(Clone, Debug)]
pub struct Windows {
    traces: Arc<TraceSet>,
    options: WindowOptions,
    /// States of a trace between two steps.
    stretch: f64,
    times: [f64; POINTS],
    /// (trace, position of the first step in states).
    starts: Vec<(u32, f64)>,
    around: Option<Arc<Surroundings>>,
}

impl Windows {
    /// The windows of the vehicles of `part`, in the order of the traces.
    pub fn new(traces: Arc<TraceSet>, part: Part, options: WindowOptions) -> Result<Self> {
        let positive = [
            (options.steps as f64, "steps"),
            (options.steps_per_second, "steps_per_second"),
            (options.horizon_seconds, "horizon_seconds"),
            (options.stride_seconds, "stride_seconds"),
            (traces.step_seconds, "the time step of the traces"),
        ];
        if let Some((value, name)) = positive.iter().find(|(v, _)| !v.is_finite() || *v <= 0.0) {
            return Err(Error::input(format!("{name} = {value}: expected a positive number")));
        }
        let per_second = 1.0 / traces.step_seconds;
        let stretch = per_second / options.steps_per_second;
        let history = (options.steps - 1) as f64 * stretch;
        let length = history + options.horizon_seconds * per_second;
        let stride = options.stride_seconds * per_second;
        let mut starts = Vec::new();
        for (i, trace) in traces.traces.iter().enumerate().filter(|(_, t)| part.has(&t.vehicle)) {
            for start in (0..).map(|k| f64::from(k) * stride) {
                // A millionth of a step is rounding, as in `Trace::at`.
                if start + length > (trace.states.len() - 1) as f64 + 1e-6 {
                    break;
                }
                if trace.at(start + history).speed >= options.moving {
                    starts.push((i as u32, start));
                }
            }
        }
        let times = times(options.horizon_seconds);
        Ok(Windows { traces, options, stretch, times, starts, around: None })
    }

    /// The same windows with images, given the surroundings of the same traces.
    pub fn with_images(self, around: Arc<Surroundings>) -> Self {
        Windows { around: Some(around), ..self }
    }

    /// How windows are cut.
    pub fn options(&self) -> &WindowOptions {
        &self.options
    }

    /// When the points of a target are, in seconds after its step.
    pub fn times(&self) -> &[f64; POINTS] {
        &self.times
    }

    /// The vehicle of a window.
    pub fn vehicle(&self, index: usize) -> &str {
        &self.traces.traces[self.starts[index].0 as usize].vehicle
    }

    /// One window as it is, not mirrored.
    pub fn window(&self, index: usize) -> Sample {
        let (number, start) = self.starts[index];
        let trace = &self.traces.traces[number as usize];
        let steps = self.options.steps;
        let mut sample = Sample {
            inputs: Vec::with_capacity(steps * INPUTS),
            targets: Vec::with_capacity(steps * TRAJECTORY),
            speeds: Vec::with_capacity(steps),
            images: self.images(number as usize, start),
        };
        // The step before the window, or the start of the trace as if the car had stood there.
        let mut before = trace.at((start - self.stretch).max(0.0));
        for step in 0..steps {
            let position = start + step as f64 * self.stretch;
            let now = trace.at(position);
            sample.inputs.extend(inputs(before, now));
            self.target(trace, position, now, &mut sample.targets);
            sample.speeds.push(now.speed);
            before = now;
        }
        sample
    }

    /// The images of all steps; the first frame is of the step before the window, as for inputs.
    fn images(&self, trace: usize, start: f64) -> Vec<f32> {
        let Some(around) = &self.around else { return Vec::new() };
        let cells = around.raster().cells();
        let mut frames = vec![0.0; (self.options.steps + 1) * cells];
        for (i, frame) in frames.chunks_exact_mut(cells).enumerate() {
            let position = (start + (i as f64 - 1.0) * self.stretch).max(0.0);
            around.draw(&self.traces, trace, position, frame);
        }
        stack(&frames, cells)
    }

    fn target(&self, trace: &Trace, position: f64, now: State, targets: &mut Vec<f32>) {
        let last = (trace.states.len() - 1) as f64;
        for after in self.times {
            let then = trace.at((position + after / self.traces.step_seconds).min(last));
            let [x, y] = now.sees(then.x, then.y);
            targets.extend([x as f32, y as f32, 0.0]);
        }
    }
}

fn inputs(before: State, now: State) -> [f32; INPUTS] {
    let turn = turned(before.heading, now.heading);
    scaled(now.speed, now.acceleration, turn, now.sees(before.x, before.y))
}

/// The inputs of a step from speed, acceleration, turn, and where the step before was, seen from
/// now.
pub(super) fn scaled(speed: f32, acceleration: f32, turn: f32, was: [f64; 2]) -> [f32; INPUTS] {
    // Where the car came from lies behind it.
    let [forward, left] = was.map(|way| -way as f32);
    [speed / SPEED_SCALE, acceleration / 3.0, turn / 0.1, forward / 4.0, left]
}

/// The same drive on the other side of the road; with images, their cells.
pub(super) fn mirror(sample: &mut Sample, raster: Option<Raster>) {
    if let Some(raster) = raster {
        raster.mirror(&mut sample.images);
    }
    for step in sample.inputs.chunks_exact_mut(INPUTS) {
        step[2] = -step[2];
        step[4] = -step[4];
    }
    for point in sample.targets.chunks_exact_mut(AXES) {
        point[1] = -point[1];
    }
}

impl Dataset for Windows {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.starts.len()
    }

    fn get(&self, index: usize, random: &mut Random) -> Result<Sample> {
        if index >= self.starts.len() {
            return Err(Error::internal(format!("window {index} of {}", self.starts.len())));
        }
        let mut sample = self.window(index);
        if self.options.mirror && random.next_u64() & 1 == 1 {
            mirror(&mut sample, self.around.as_ref().map(|around| around.raster()));
        }
        Ok(sample)
    }
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
