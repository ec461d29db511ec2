//! Tests of `windows`: counts, inputs and targets of known drives, splits, mirrors.

use std::collections::BTreeSet;

use super::super::synthetic;
use super::*;
use crate::train::loader::{Loader, LoaderOptions};

/// A car at constant speed and turn rate, at 10 Hz.
fn circle(name: &str, states: usize, speed: f64, turn: f64) -> Trace {
    let state = |i: usize| {
        let t = i as f64 * 0.1;
        let angle = 0.3 + turn * t;
        let (x, y) = if turn == 0.0 {
            (speed * t * 0.3f64.cos(), speed * t * 0.3f64.sin())
        } else {
            let r = speed / turn;
            (r * (angle.sin() - 0.3f64.sin()), r * (0.3f64.cos() - angle.cos()))
        };
        State {
            x: 10.0 + x,
            y: y - 5.0,
            heading: angle as f32,
            speed: speed as f32,
            acceleration: 0.0,
        }
    };
    Trace { vehicle: name.into(), first_tick: 0, states: (0..states).map(state).collect() }
}

fn set(traces: Vec<Trace>) -> Arc<TraceSet> {
    Arc::new(TraceSet { step_seconds: 0.1, traces })
}

#[test]
fn windows_are_counted_to_the_last_state() {
    // 39 steps of 0.2 s and 5 s are 128 steps of 0.1 s: 129 states for one window.
    let wanted = [(1, 0), (128, 0), (129, 1), (168, 1), (169, 2), (208, 2), (209, 3)];
    for (states, windows) in wanted {
        let traces = set(vec![circle("a", states, 10.0, 0.0)]);
        let found = Windows::new(traces, Part::All, WindowOptions::default()).unwrap();
        assert_eq!(found.len(), windows, "{states} states");
        (0..found.len()).for_each(|i| assert_eq!(found.window(i).speeds.len(), 40));
    }
}

#[test]
fn standing_windows_are_left_out_unless_asked_for() {
    let traces = set(vec![circle("a", 200, 0.5, 0.0), circle("b", 200, 5.0, 0.0)]);
    let count = |moving| {
        let options = WindowOptions { moving, ..WindowOptions::default() };
        Windows::new(traces.clone(), Part::All, options).unwrap().len()
    };
    assert_eq!((count(0.0), count(1.0), count(6.0)), (4, 2, 0));
}

#[test]
fn inputs_and_targets_of_a_circle_are_known() {
    // 5 Hz falls on the states; 4 and 3 Hz are interpolated.
    for rate in [5.0, 4.0, 3.0] {
        for turn in [0.0, 0.2, -0.3] {
            let (speed, seconds) = (12.0, 1.0 / rate);
            let traces = set(vec![circle("a", 400, speed, turn)]);
            let options = WindowOptions { steps_per_second: rate, ..WindowOptions::default() };
            let windows = Windows::new(traces, Part::All, options).unwrap();
            let sample = windows.window(1);
            let along = |t: f64| match turn {
                0.0 => (speed * t, 0.0),
                _ => (speed / turn * (turn * t).sin(), speed / turn * (1.0 - (turn * t).cos())),
            };
            for step in [0, 1, 39] {
                let input = &sample.inputs[step * INPUTS..][..INPUTS];
                let (x, y) = along(-seconds);
                let wanted = [0.6, 0.0, turn * seconds / 0.1, -x / 4.0, -y];
                for (a, b) in input.iter().zip(wanted) {
                    assert!((f64::from(*a) - b).abs() < 0.01, "{rate} {turn} {input:?} {wanted:?}");
                }
                let target = &sample.targets[step * TRAJECTORY..][..TRAJECTORY];
                for (point, t) in target.chunks(AXES).zip(windows.times()) {
                    let (x, y) = along(*t);
                    assert!((f64::from(point[0]) - x).abs() < 0.02, "{rate} {turn} {t} {point:?}");
                    assert!((f64::from(point[1]) - y).abs() < 0.02, "{rate} {turn} {t} {point:?}");
                    assert_eq!(point[2], 0.0);
                }
                assert_eq!(target[..3], [0.0, 0.0, 0.0]);
            }
        }
    }
}

#[test]
fn vehicles_are_on_one_side_of_the_split_whatever_the_file() {
    let traces = Arc::new(synthetic::traces(200, 30.0, 1));
    let split = Split { seed: 5, held_out: 0.25 };
    let names = |part| {
        let windows = Windows::new(traces.clone(), part, WindowOptions::default()).unwrap();
        (0..windows.len()).map(|i| windows.vehicle(i).to_string()).collect::<BTreeSet<_>>()
    };
    let (training, held_out) = (names(Part::Training(split)), names(Part::HeldOut(split)));
    assert!(training.is_disjoint(&held_out));
    let all = names(Part::All);
    assert_eq!(&training | &held_out, all);
    let share = held_out.len() as f64 / all.len() as f64;
    assert!((0.15..0.35).contains(&share), "{share}");
    assert_ne!(held_out, names(Part::HeldOut(Split { seed: 6, ..split })));
    assert!(names(Part::HeldOut(Split { held_out: 0.0, ..split })).is_empty());
    assert_eq!(names(Part::HeldOut(Split { held_out: 1.0, ..split })), all);
}

#[test]
fn mirrors_do_not_depend_on_the_workers() {
    let traces = Arc::new(synthetic::traces(6, 30.0, 1));
    let options = WindowOptions { mirror: true, ..WindowOptions::default() };
    let raster = Raster { height: 16, width: 8, metres_per_cell: 4.0 };
    let around = Arc::new(Surroundings::new(&traces, raster));
    let windows = Windows::new(traces, Part::All, options).unwrap().with_images(around);
    let windows = Arc::new(windows);
    let epochs = |workers| {
        let options = LoaderOptions { workers, prefetch: 2, seed: 3 };
        let mut loader = Loader::new(windows.clone(), options).unwrap();
        let all: Vec<usize> = (0..windows.len()).collect();
        let batches: Vec<Vec<usize>> = all.chunks(4).map(<[usize]>::to_vec).collect();
        let mut epoch = |e| {
            let run = loader.epoch(e, batches.clone());
            run.flat_map(Result::unwrap).collect::<Vec<Sample>>()
        };
        [epoch(0), epoch(1)]
    };
    let one = epochs(0);
    assert_eq!(one, epochs(3));
    assert_ne!(one[0], one[1]);
    let plain: Vec<Sample> = (0..windows.len()).map(|i| windows.window(i)).collect();
    let mirrored = one[0].iter().zip(&plain).filter(|(a, b)| a != b).count();
    assert!(mirrored > 0 && mirrored < plain.len(), "{mirrored} of {}", plain.len());
    let mut sided = 0;
    for (a, b) in one[0].iter().zip(&plain) {
        let mut other = b.clone();
        mirror(&mut other, Some(raster));
        sided += usize::from(other.images != b.images);
        assert!(a == b || *a == other);
    }
    assert!(sided > 0, "all drives are straight");
}

#[test]
fn images_are_of_the_step_before_and_of_the_step_and_not_of_what_comes_after() {
    let traces = set(vec![circle("a", 300, 12.0, 0.2), circle("b", 300, 9.0, 0.1)]);
    let raster = Raster { height: 16, width: 16, metres_per_cell: 2.0 };
    let cells = raster.cells();
    let of = |traces: &Arc<TraceSet>| {
        let windows = Windows::new(traces.clone(), Part::All, WindowOptions::default()).unwrap();
        windows.with_images(Arc::new(Surroundings::new(traces, raster)))
    };
    let windows = of(&traces);
    let sample = windows.window(1);
    assert_eq!(sample.images.len(), 40 * raster.elements());
    for step in 1..40 {
        let [before, now] = [step - 1, step].map(|s| &sample.images[s * 2 * cells..][..2 * cells]);
        assert_eq!(before[cells..], now[..cells]);
        assert!(now[cells..].iter().any(|v| *v > 0.2), "the car itself");
    }
    // The second window starts at state 40, so its last step is state 118.
    let mut later = (*traces).clone();
    later.traces.iter_mut().for_each(|t| t.states[119..].fill(State::default()));
    let changed = of(&Arc::new(later)).window(1);
    assert!(changed.images == sample.images && changed.inputs == sample.inputs);
    assert_ne!(changed.targets, sample.targets);
}

#[test]
fn impossible_options_are_refused() {
    let traces = set(vec![circle("a", 200, 5.0, 0.0)]);
    let default = WindowOptions::default();
    for (options, name) in [
        (WindowOptions { steps: 0, ..default }, "steps"),
        (WindowOptions { stride_seconds: 0.0, ..default }, "stride_seconds"),
        (WindowOptions { steps_per_second: f64::NAN, ..default }, "steps_per_second"),
        (WindowOptions { horizon_seconds: -1.0, ..default }, "horizon_seconds"),
    ] {
        let error = Windows::new(traces.clone(), Part::All, options).unwrap_err();
        assert!(error.message.contains(name), "{error}");
    }
    let windows = Windows::new(traces, Part::All, default).unwrap();
    assert!(windows.get(windows.len(), &mut Random::of(&[0])).is_err());
}
