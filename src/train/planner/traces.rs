//! Floating-car traces, as the traffic simulator SUMO writes them to CSV.
//!
//! One row is one vehicle at one time: `timestep_time;vehicle_id;vehicle_x;vehicle_y;vehicle_angle;
//! vehicle_speed;vehicle_acceleration`, in any order and with further columns; angles are degrees
//! clockwise from north. Rows come by time, and times lie on a grid. A vehicle that is away for a
//! while, or jumps as a simulator's teleport does, starts a new trace.
//! Cost: one pass over the file, 32 bytes a row.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::{self, FileRecord};

/// A vehicle at one time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct State {
    /// Metres to the east.
    pub x: f64,
    /// Metres to the north.
    pub y: f64,
    /// Radians, counter-clockwise from east.
    pub heading: f32,
    /// m/s.
    pub speed: f32,
    /// m/s².
    pub acceleration: f32,
}

impl State {
    /// A place seen from this vehicle: x forward, y to the left.
    pub fn sees(&self, x: f64, y: f64) -> [f64; 2] {
        let (sin, cos) = f64::from(self.heading).sin_cos();
        let (dx, dy) = (x - self.x, y - self.y);
        [dx * cos + dy * sin, dy * cos - dx * sin]
    }
}

/// An unbroken stretch of one vehicle's drive.
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// The vehicle's name.
    pub vehicle: String,
    /// The number of the first time step.
    pub first_tick: u64,
    /// One state for each time step.
    pub states: Vec<State>,
}

impl Trace {
    /// The state at a time in steps after the first state, linear between steps.
    ///
    /// # Panics
    /// If `position` is negative or after the last state.
    pub fn at(&self, position: f64) -> State {
        let nearest = position.round();
        if (position - nearest).abs() < 1e-6 {
            return self.states[nearest as usize];
        }
        let (a, b) = (self.states[position as usize], self.states[position as usize + 1]);
        let share = position.fract();
        let mix = |a: f32, b: f32| a + share as f32 * (b - a);
        State {
            x: a.x + share * (b.x - a.x),
            y: a.y + share * (b.y - a.y),
            heading: a.heading + share as f32 * turned(a.heading, b.heading),
            speed: mix(a.speed, b.speed),
            acceleration: mix(a.acceleration, b.acceleration),
        }
    }
}

/// The turn from one heading to another, the short way round.
pub fn turned(from: f32, to: f32) -> f32 {
    use std::f32::consts::{PI, TAU};
    (to - from + PI).rem_euclid(TAU) - PI
}

/// Traces on one grid of times.
#[derive(Clone, PartialEq, Debug)]
pub struct TraceSet {
    /// Seconds between two states.
    pub step_seconds: f64,
    /// In the order in which they begin.
    pub traces: Vec<Trace>,
}

impl TraceSet {
    /// Reads SUMO's CSV output.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = String::new();
        let mut number = 0;
        let mut builder: Option<Builder> = None;
        loop {
            line.clear();
            number += 1;
            let read = reader.read_line(&mut line);
            if read.map_err(|e| Error::line(path, number, format!("cannot read: {e}")))? == 0 {
                break;
            }
            let text = line.trim_end_matches(['\n', '\r']);
            let result = match &mut builder {
                None => Columns::of(text).map(|columns| builder = Some(Builder::new(columns))),
                Some(builder) => builder.row(text),
            };
            result.map_err(|what| Error::line(path, number, what))?;
        }
        let empty = || Error::input(format!("{}: no rows of vehicles", path.display()));
        let builder = builder.filter(|b| !b.traces.is_empty()).ok_or_else(empty)?;
        let step_seconds = builder.step.ok_or_else(|| {
            Error::input(format!("{}: only one time step; a trace has many", path.display()))
        })?;
        Ok(TraceSet { step_seconds, traces: builder.traces })
    }

    /// Writes the traces as SUMO does, so that they are read back alike up to its two decimals.
    pub fn write(&self, path: &Path) -> Result<FileRecord> {
        let ticks = self.traces.iter().map(|t| t.first_tick + t.states.len() as u64);
        let end = ticks.max().unwrap_or(0);
        files::write_atomically(path, |out| {
            writeln!(
                out,
                "{}",
                COLUMNS.map(|(prefix, name)| format!("{prefix}_{name}")).join(";")
            )?;
            for tick in 0..end {
                for trace in &self.traces {
                    let index = tick.checked_sub(trace.first_tick);
                    let Some(s) = index.and_then(|i| trace.states.get(i as usize)) else {
                        continue;
                    };
                    let time = tick as f64 * self.step_seconds;
                    let angle = (90.0 - f64::from(s.heading).to_degrees()).rem_euclid(360.0);
                    writeln!(
                        out,
                        "{time:.2};{};{:.2};{:.2};{angle:.2};{:.2};{:.2}",
                        trace.vehicle, s.x, s.y, s.speed, s.acceleration
                    )?;
                }
            }
            Ok(())
        })
    }

    /// How many states there are.
    pub fn rows(&self) -> usize {
        self.traces.iter().map(|t| t.states.len()).sum()
    }
}

/// The columns that are read, with the prefix that SUMO gives them.
const COLUMNS: [(&str, &str); 7] = [
    ("timestep", "time"),
    ("vehicle", "id"),
    ("vehicle", "x"),
    ("vehicle", "y"),
    ("vehicle", "angle"),
    ("vehicle", "speed"),
    ("vehicle", "acceleration"),
];

/// Where the columns are in a row.
struct Columns {
    places: [usize; COLUMNS.len()],
    count: usize,
}

impl Columns {
    fn of(header: &str) -> std::result::Result<Self, String> {
        let names: Vec<&str> = header.trim_start_matches('\u{feff}').split(';').collect();
        let mut places = [0; COLUMNS.len()];
        for (place, (prefix, name)) in places.iter_mut().zip(COLUMNS) {
            let full = format!("{prefix}_{name}");
            let found = names.iter().position(|n| *n == name || *n == full);
            *place = found.ok_or_else(|| {
                format!(
                    "no column {full} in '{header}'; expected what sumo --fcd-output FILE.csv \
                     --fcd-output.attributes x,y,angle,speed,acceleration writes"
                )
            })?;
        }
        Ok(Columns { places, count: names.len() })
    }
}

/// Traces while rows are read.
struct Builder {
    columns: Columns,
    first_time: f64,
    last_time: f64,
    step: Option<f64>,
    /// The trace that each vehicle is on. Looked up only, never iterated.
    open: HashMap<String, usize>,
    traces: Vec<Trace>,
}

impl Builder {
    fn new(columns: Columns) -> Self {
        Builder {
            columns,
            first_time: f64::NAN,
            last_time: f64::NAN,
            step: None,
            open: HashMap::new(),
            traces: Vec::new(),
        }
    }

    fn row(&mut self, text: &str) -> std::result::Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let mut fields = [""; COLUMNS.len()];
        let mut count = 0;
        for (i, field) in text.split(';').enumerate() {
            count += 1;
            for (slot, _) in self.columns.places.iter().enumerate().filter(|(_, p)| **p == i) {
                fields[slot] = field;
            }
        }
        if count != self.columns.count {
            return Err(format!("{count} columns; the header has {}", self.columns.count));
        }
        let [time, vehicle, rest @ ..] = fields;
        // A time step without vehicles has a row of its own.
        let tick = self.tick(number(time, COLUMNS[0].1)?)?;
        if vehicle.is_empty() {
            return Ok(());
        }
        let mut values = [0.0; 5];
        for ((value, field), (_, name)) in values.iter_mut().zip(rest).zip(&COLUMNS[2..]) {
            *value = number(field, name)?;
        }
        let [x, y, angle, speed, acceleration] = values;
        let heading = (90.0 - angle).to_radians() as f32;
        let (speed, acceleration) = (speed as f32, acceleration as f32);
        self.add(tick, vehicle, State { x, y, heading, speed, acceleration })
    }

    /// The number of a time step.
    fn tick(&mut self, time: f64) -> std::result::Result<u64, String> {
        if self.first_time.is_nan() {
            (self.first_time, self.last_time) = (time, time);
        }
        if time < self.last_time {
            return Err(format!("time {time} after {}; rows come by time", self.last_time));
        }
        let since = time - self.first_time;
        if since == 0.0 {
            return Ok(0);
        }
        // Times have two decimals: what they differ by is rounded back to them.
        let step = *self.step.get_or_insert((since * 1e6).round() / 1e6);
        self.last_time = time;
        let tick = (since / step).round();
        if (since / step - tick).abs() > 1e-3 {
            return Err(format!("time {time} is not on the grid of {step} s that the first have"));
        }
        Ok(tick as u64)
    }

    fn add(&mut self, tick: u64, vehicle: &str, state: State) -> std::result::Result<(), String> {
        if let Some(&open) = self.open.get(vehicle) {
            let trace = &mut self.traces[open];
            let next = trace.first_tick + trace.states.len() as u64;
            let last = trace.states[trace.states.len() - 1];
            if tick < next {
                return Err(format!("vehicle '{vehicle}' has two rows for one time"));
            }
            // A change of lane is a jump of a few metres; a teleport is one of many.
            let reach = f64::from(last.speed.max(state.speed)) * self.step.unwrap_or(1.0) + 20.0;
            if tick == next && (state.x - last.x).hypot(state.y - last.y) <= reach {
                trace.states.push(state);
                return Ok(());
            }
        }
        self.open.insert(vehicle.to_string(), self.traces.len());
        let vehicle = vehicle.to_string();
        self.traces.push(Trace { vehicle, first_tick: tick, states: vec![state] });
        Ok(())
    }
}

fn number(field: &str, name: &str) -> std::result::Result<f64, String> {
    let value = field.trim().parse::<f64>().ok().filter(|v| v.is_finite());
    value.ok_or_else(|| format!("'{field}' for {name}; expected a number"))
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
