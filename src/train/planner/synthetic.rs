//! Generated drives, for tests and demonstrations without a simulator.
//!
//! Each vehicle goes through manoeuvres of a few seconds, drawn at random: straight on, a curve, a
//! change of lane, braking, speeding up. A kinematic model without wheels integrates them: turn
//! rate and acceleration are given, and heading, speed and place follow. A manoeuvre is announced
//! only by its beginning, so the future has several modes, as on a road.

use super::traces::{State, Trace, TraceSet};
use crate::train::random::Random;

/// Seconds between two states.
const STEP: f64 = 0.1;

/// What a vehicle does for a while.
#[derive(Clone, Copy, Debug)]
enum Manoeuvre {
    Straight,
    /// 1/m, positive to the left.
    Curve(f64),
    /// Metres, positive to the left.
    LaneChange(f64),
    /// m/s², negative to brake.
    Accelerate(f64),
}

impl Manoeuvre {
    fn draw(random: &mut Random) -> Self {
        let side = if random.next_u64() & 1 == 0 { 1.0 } else { -1.0 };
        match random.below(5) {
            0 => Manoeuvre::Straight,
            1 => Manoeuvre::Curve(side * random.between(0.005, 0.03)),
            2 => Manoeuvre::LaneChange(side * random.between(3.0, 3.75)),
            3 => Manoeuvre::Accelerate(random.between(0.5, 2.0)),
            _ => Manoeuvre::Accelerate(-random.between(1.0, 3.0)),
        }
    }

    /// Turn rate and acceleration at a share of the way through `seconds` of it.
    fn controls(self, share: f64, seconds: f64, speed: f64) -> (f64, f64) {
        match self {
            Manoeuvre::Straight => (0.0, 0.0),
            // Steered in and out over a quarter of the time.
            Manoeuvre::Curve(curvature) => {
                let ramp = (4.0 * share).min(4.0 * (1.0 - share)).clamp(0.0, 1.0);
                // No faster than tyres allow: 3 m/s² across.
                let limit = 3.0 / speed.max(1.0);
                ((curvature * speed).clamp(-limit, limit) * ramp, 0.0)
            }
            // The heading is a hump whose area is the lane's width: h(t) = a·(1 − cos 2πt/T), and
            // ∫ v·h dt = v·a·T.
            Manoeuvre::LaneChange(width) => {
                let turn = std::f64::consts::TAU / seconds;
                let height = width / (speed.max(3.0) * seconds);
                (height * turn * (turn * share * seconds).sin(), 0.0)
            }
            // Gently in and out.
            Manoeuvre::Accelerate(a) => (0.0, a * (std::f64::consts::PI * share).sin()),
        }
    }
}

/// The drives of `vehicles` vehicles of `seconds` each, at 10 Hz; each depends on the seed and its
/// number alone.
pub fn traces(vehicles: usize, seconds: f64, seed: u64) -> TraceSet {
    let traces = (0..vehicles).map(|v| drive(v, (seconds / STEP).round() as usize, seed)).collect();
    TraceSet { step_seconds: STEP, traces }
}

fn drive(vehicle: usize, steps: usize, seed: u64) -> Trace {
    let mut random = Random::of(&[seed, vehicle as u64]);
    let mut x = random.between(-500.0, 500.0);
    let mut y = random.between(-500.0, 500.0);
    let mut heading = random.between(-3.0, 3.0);
    let mut speed = random.between(5.0, 25.0);
    let mut states = Vec::with_capacity(steps + 1);
    while states.len() <= steps {
        let manoeuvre = Manoeuvre::draw(&mut random);
        let length = 20 + random.below(40);
        for i in 0..length {
            let share = (i as f64 + 0.5) / length as f64;
            let (turn, wanted) = manoeuvre.controls(share, length as f64 * STEP, speed);
            // Nobody drives backwards, or faster than 40 m/s.
            let next = (speed + wanted * STEP).clamp(0.0, 40.0);
            let acceleration = (next - speed) / STEP;
            states.push(State {
                x,
                y,
                heading: heading as f32,
                speed: speed as f32,
                acceleration: acceleration as f32,
            });
            // The middle of the step, which makes the error quadratic in it.
            let (sin, cos) = (heading + turn * STEP / 2.0).sin_cos();
            let way = (speed + next) / 2.0 * STEP;
            (x, y) = (x + way * cos, y + way * sin);
            heading += turn * STEP;
            speed = next;
        }
    }
    states.truncate(steps + 1);
    Trace { vehicle: format!("car{vehicle}"), first_tick: 0, states }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_depend_on_seed_and_number_alone() {
        let many = traces(9, 30.0, 4);
        assert_eq!(traces(3, 30.0, 4).traces, many.traces[..3]);
        assert_ne!(traces(3, 30.0, 5).traces, many.traces[..3]);
        assert_eq!(many.rows(), 9 * 301);
        assert!(traces(0, 30.0, 4).traces.is_empty());
    }

    #[test]
    fn places_follow_speed_and_heading() {
        for trace in traces(20, 60.0, 1).traces {
            for pair in trace.states.windows(2) {
                let [forward, left] = pair[0].sees(pair[1].x, pair[1].y);
                let way = f64::from(pair[0].speed + pair[1].speed) / 2.0 * STEP;
                assert!((forward - way).abs() < 0.02 && left.abs() < 0.1, "{pair:?}");
                let rise = f64::from(pair[1].speed - pair[0].speed) / STEP;
                assert!((rise - f64::from(pair[0].acceleration)).abs() < 1e-3, "{pair:?}");
            }
        }
    }

    #[test]
    fn there_is_something_of_each_kind() {
        let states: Vec<State> =
            traces(50, 60.0, 2).traces.into_iter().flat_map(|t| t.states).collect();
        let share = |f: &dyn Fn(&State) -> bool| {
            states.iter().filter(|s| f(s)).count() as f64 / states.len() as f64
        };
        assert!(share(&|s| s.acceleration < -0.5) > 0.05);
        assert!(share(&|s| s.acceleration > 0.5) > 0.05);
        assert!(share(&|s| s.acceleration == 0.0) > 0.3);
        assert!(share(&|s| s.speed > 3.0) > 0.7);
    }

    #[test]
    fn a_lane_change_ends_beside_where_it_began() {
        let (seconds, speed, width) = (4.0, 20.0, 3.5);
        let (mut y, mut heading) = (0.0f64, 0.0f64);
        let manoeuvre = Manoeuvre::LaneChange(width);
        for i in 0..400 {
            let (turn, _) = manoeuvre.controls((f64::from(i) + 0.5) / 400.0, seconds, speed);
            y += speed * 0.01 * (heading + turn * 0.005).sin();
            heading += turn * 0.01;
        }
        assert!((y - width).abs() < 0.05 && heading.abs() < 1e-6, "{y} {heading}");
    }
}
