//! Images for drives that have no camera: the vehicles around the car from above, and where they
//! came from.
//!
//! A frame is `height × width` cells, seen from the car at one moment: it looks to the top, in the
//! middle of the columns, with three quarters of the rows ahead of it. Every vehicle within reach,
//! the car itself included, shows with brightness 1 where it is, and less and less where it was in
//! the [`TRAIL_SECONDS`] before; vehicles ahead so show the road as they drove it. **Nothing after
//! the moment is drawn**, so an image tells nothing of the labels that a camera could not. A point
//! is shared among the four cells around it, and a cell keeps the brightest, so frames of a
//! mirrored drive are mirrored frames.
//!
//! An image is two frames, of the step before and of the step, each as it was seen then: the first
//! and the second channel. On recorded drives only the car itself is known.
//!
//! Cost: a search for each frame, and 4 writes for each point. Memory: 8 bytes for each state of
//! the traces.

use serde::{Deserialize, Serialize};

use super::traces::{State, TraceSet};
use crate::error::{Error, Result};

/// Frames of an image.
pub const FRAMES: usize = 2;
/// How long ago the faintest part of a trail is.
pub const TRAIL_SECONDS: f64 = 2.0;
/// Images of more cells than these are a slip of the pen.
const MOST_CELLS: usize = 1 << 20;

/// The cells of a frame.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Raster {
    /// Rows, along the car.
    pub height: usize,
    /// Columns, across.
    pub width: usize,
    /// The side of a cell.
    pub metres_per_cell: f64,
}

impl Raster {
    /// An error unless there are cells, and not too many.
    pub fn validate(&self) -> Result<()> {
        let Raster { height, width, metres_per_cell } = *self;
        let cells = height.saturating_mul(width);
        if !(1..=MOST_CELLS).contains(&cells) {
            return Err(Error::input(format!(
                "image: {height} x {width} cells; expected at least 1, at most {MOST_CELLS}"
            )));
        }
        if !(metres_per_cell.is_finite() && metres_per_cell > 0.0) {
            return Err(Error::input("image: metres_per_cell is a finite number above 0"));
        }
        Ok(())
    }

    /// Cells of a frame.
    pub fn cells(&self) -> usize {
        self.height * self.width
    }

    /// Numbers of an image.
    pub fn elements(&self) -> usize {
        FRAMES * self.cells()
    }

    fn metres_ahead(&self) -> f64 {
        0.75 * self.height as f64 * self.metres_per_cell
    }

    /// How far the farthest cell is, with a margin for coordinates kept in f32.
    fn reach(&self) -> f64 {
        self.metres_ahead().hypot(0.5 * self.width as f64 * self.metres_per_cell) + 1.0
    }

    /// Draws a place seen from the car: forward, left.
    pub(super) fn mark(&self, frame: &mut [f32], [forward, left]: [f64; 2], brightness: f32) {
        let row = (self.metres_ahead() - forward) / self.metres_per_cell - 0.5;
        let column = 0.5 * self.width as f64 - left / self.metres_per_cell - 0.5;
        let inside = |at: f64, n: usize| at > -1.0 && at < n as f64;
        if !inside(row, self.height) || !inside(column, self.width) {
            return;
        }
        let (down, right) = (row - row.floor(), column - column.floor());
        for (row, share) in [(row.floor(), 1.0 - down), (row.floor() + 1.0, down)] {
            for (column, part) in [(column.floor(), 1.0 - right), (column.floor() + 1.0, right)] {
                let there = row >= 0.0 && row < self.height as f64;
                if there && column >= 0.0 && column < self.width as f64 {
                    let cell = &mut frame[row as usize * self.width + column as usize];
                    *cell = cell.max((share * part) as f32 * brightness);
                }
            }
        }
    }

    /// Draws a trail, the newest place first, of which `many` would fade to nothing.
    pub(super) fn trail(
        &self,
        frame: &mut [f32],
        places: impl Iterator<Item = [f64; 2]>,
        many: usize,
    ) {
        for (age, place) in places.enumerate() {
            self.mark(frame, place, 1.0 - age as f32 / many as f32);
        }
    }

    /// The images of a sample as seen on the other side of the road.
    pub(super) fn mirror(&self, images: &mut [f32]) {
        images.chunks_exact_mut(self.width).for_each(<[f32]>::reverse);
    }
}

/// Stacks `frames`, one more than there are images, into images: each frame is the second of one
/// image and the first of the next.
pub(super) fn stack(frames: &[f32], cells: usize) -> Vec<f32> {
    let many = (frames.len() / cells).saturating_sub(1);
    (0..many).flat_map(|i| &frames[i * cells..(i + FRAMES) * cells]).copied().collect()
}

/// Where vehicles are at each time, for those who look around.
#[derive(Clone, PartialEq, Debug)]
pub struct Surroundings {
    raster: Raster,
    first_tick: u64,
    /// For each time, x and trace of the vehicles that are there, by x.
    ticks: Vec<Vec<(f32, u32)>>,
}

impl Surroundings {
    /// Of all vehicles of some traces.
    pub fn new(traces: &TraceSet, raster: Raster) -> Self {
        let first_tick = traces.traces.iter().map(|t| t.first_tick).min().unwrap_or(0);
        let end = traces.traces.iter().map(|t| t.first_tick + t.states.len() as u64).max();
        let mut ticks = vec![Vec::new(); (end.unwrap_or(0) - first_tick) as usize];
        for (i, trace) in traces.traces.iter().enumerate() {
            let start = (trace.first_tick - first_tick) as usize;
            for (tick, state) in ticks[start..].iter_mut().zip(&trace.states) {
                tick.push((state.x as f32, i as u32));
            }
        }
        ticks.iter_mut().for_each(|tick| tick.sort_by(|a, b| a.0.total_cmp(&b.0)));
        Surroundings { raster, first_tick, ticks }
    }

    /// The cells.
    pub fn raster(&self) -> Raster {
        self.raster
    }

    /// Draws what the vehicle of a trace sees at a position, in states after its first.
    ///
    /// # Panics
    /// If the trace has no such position.
    pub fn draw(&self, traces: &TraceSet, trace: usize, position: f64, frame: &mut [f32]) {
        let own = &traces.traces[trace];
        let now = own.at(position);
        // A millionth of a step is rounding, as in `Trace::at`; else the last state before now.
        let tick = own.first_tick + (position + 1e-6) as u64;
        let reach = self.raster.reach();
        let trail = ((TRAIL_SECONDS / traces.step_seconds).round() as usize).max(1);
        let near = &self.ticks[(tick - self.first_tick) as usize];
        let from = near.partition_point(|(x, _)| f64::from(*x) < now.x - reach);
        let (sin, cos) = f64::from(now.heading).sin_cos();
        let sees = |place: &State| {
            let (dx, dy) = (place.x - now.x, place.y - now.y);
            [dx * cos + dy * sin, dy * cos - dx * sin]
        };
        for &(x, other) in &near[from..] {
            if f64::from(x) > now.x + reach {
                break;
            }
            let track = &traces.traces[other as usize];
            let past = &track.states[..=(tick - track.first_tick) as usize];
            if past.last().is_some_and(|last| (last.y - now.y).abs() <= reach) {
                self.raster.trail(frame, past.iter().rev().take(trail).map(sees), trail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    const RASTER: Raster = Raster { height: 16, width: 8, metres_per_cell: 2.0 };

    fn drawn(place: [f64; 2]) -> Vec<(usize, usize, f32)> {
        let mut frame = vec![0.0; RASTER.cells()];
        RASTER.mark(&mut frame, place, 1.0);
        let cells = frame.into_iter().enumerate().filter(|(_, value)| *value > 0.0);
        cells.map(|(i, value)| (i / RASTER.width, i % RASTER.width, value)).collect()
    }

    #[test]
    fn places_are_drawn_where_they_are() {
        // 24 m ahead: the car is between rows 11 and 12, and between columns 3 and 4.
        let all = [(11, 3, 0.25), (11, 4, 0.25), (12, 3, 0.25), (12, 4, 0.25)];
        assert_eq!(drawn([0.0, 0.0]), all);
        assert_eq!(drawn([23.0, 7.0]), [(0, 0, 1.0)]);
        assert_eq!(drawn([-7.0, -7.0]), [(15, 7, 1.0)]);
        assert_eq!(drawn([24.0, 7.0]), [(0, 0, 0.5)]);
        for outside in [[25.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0], [f64::NAN, 0.0]] {
            assert_eq!(drawn(outside), [], "{outside:?}");
        }
    }

    #[test]
    fn mirrored_places_are_mirrored_cells() {
        for i in 0..50 {
            let place = [f64::from(i) * 0.61 - 8.0, (f64::from(i) * 1.3).sin() * 8.0];
            let (mut frame, mut other) = (vec![0.0; RASTER.cells()], vec![0.0; RASTER.cells()]);
            RASTER.mark(&mut frame, place, 0.5);
            RASTER.mark(&mut other, [place[0], -place[1]], 0.5);
            RASTER.mirror(&mut other);
            let far = frame.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-6);
            assert!(!far && frame.iter().sum::<f32>() > 0.0, "{place:?}");
        }
    }

    /// Two cars on one road: one 10 m ahead of the other, which starts a second later.
    fn two() -> TraceSet {
        let mut set = synthetic::traces(2, 8.0, 1);
        for (trace, (ahead, late)) in set.traces.iter_mut().zip([(10.0, 0), (0.0, 10)]) {
            trace.first_tick = late;
            for (i, state) in trace.states.iter_mut().enumerate() {
                let tick = i as u64 + late;
                *state = State { x: ahead + tick as f64, speed: 10.0, ..State::default() };
            }
        }
        set
    }

    #[test]
    fn vehicles_are_seen_at_their_time_with_their_trails() {
        let (set, raster) = (two(), Raster { metres_per_cell: 1.0, ..RASTER });
        let around = Surroundings::new(&set, raster);
        let row = |trace, position| -> Vec<f32> {
            let mut frame = vec![0.0; raster.cells()];
            around.draw(&set, trace, position, &mut frame);
            (0..raster.height).map(|row| frame[row * raster.width + 3]).collect()
        };
        // Alone on the road at first: 4 m of trail behind it, at 12 m ahead.
        let first = row(0, 5.0);
        assert!(first[..11].iter().all(|v| *v == 0.0) && first[12..].iter().all(|v| *v > 0.0));
        // The one behind sees the other and its trail ahead, brighter towards it.
        let second = row(1, 3.0);
        assert!(second[0] == 0.0 && second[1] > 0.2 && second[1] > second[5]);
        assert!(second[5] > second[9] && second[9] > 0.0);
        // Between two states of the others, they are where they were last.
        assert_ne!(row(1, 3.5), second);
    }

    #[test]
    fn frames_do_not_show_what_comes_after() {
        let set = synthetic::traces(30, 20.0, 6);
        let mut other = set.clone();
        for trace in &mut other.traces {
            for state in &mut trace.states[101..] {
                (state.x, state.y, state.heading) = (state.y, state.x, -state.heading);
            }
        }
        let raster = Raster { height: 64, width: 64, metres_per_cell: 8.0 };
        let [one, two] = [&set, &other].map(|set| Surroundings::new(set, raster));
        let mut differ = 0;
        for trace in 0..30 {
            let draw = |around: &Surroundings, set: &TraceSet, position: f64| {
                let mut frame = vec![0.0; raster.cells()];
                around.draw(set, trace, position, &mut frame);
                frame
            };
            assert_eq!(draw(&one, &set, 100.0), draw(&two, &other, 100.0));
            differ += usize::from(draw(&one, &set, 103.0) != draw(&two, &other, 103.0));
        }
        assert!(differ > 15, "all but cars that stand alone: {differ}");
    }

    #[test]
    fn stacks_share_frames_and_odd_sizes_are_refused() {
        assert_eq!(stack(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1., 2., 3., 4., 3., 4., 5., 6.]);
        assert!(stack(&[1.0], 1).is_empty() && RASTER.validate().is_ok());
        for (height, width, metres_per_cell) in
            [(0, 8, 1.0), (8, 0, 1.0), (8, 8, 0.0), (8, 8, f64::NAN), (4096, 4096, 1.0)]
        {
            assert!(Raster { height, width, metres_per_cell }.validate().is_err());
        }
    }
}
