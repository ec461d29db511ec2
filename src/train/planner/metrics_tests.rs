//! Tests of `metrics`: the original's numbers, and the same bits at any number of ranks.

use std::collections::BTreeMap;

use super::*;
use crate::launch;

/// Written by bench/peers/planner_oracle.py.
const ORACLE: &str = include_str!("../../../tests/data/train/planner-metrics.tsv");

fn near(name: &str, found: Option<f64>, wanted: f64) {
    let found = found.unwrap();
    assert!((found - wanted).abs() <= 2e-6 * wanted.abs().max(1.0), "{name}: {found} not {wanted}");
}

#[test]
fn numbers_are_those_of_the_original() {
    let mut tensors = BTreeMap::new();
    for line in ORACLE.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let values: Vec<f32> = fields[2].split(' ').map(|v| v.parse().unwrap()).collect();
        tensors.insert(fields[1], values);
    }
    let shape: Vec<usize> = tensors["shape"].iter().map(|&v| v as usize).collect();
    let (steps, modes, size) = (shape[0], shape[1], shape[2] * AXES);
    let mut metrics = Metrics::new(modes);
    for step in 0..steps {
        metrics.add(
            &tensors["logits"][step * modes..][..modes],
            &tensors["trajectories"][step * modes * size..][..modes * size],
            &tensors["truth"][step * size..][..size],
            &vec![0.0; size],
        );
    }
    let report = metrics.report();
    let of = |name: &str, i: usize| f64::from(tensors[name][i]);
    assert_eq!(report.steps, steps as u64);
    near("ade", report.model.ade, of("ade_fde", 0));
    near("fde", report.model.fde, of("ade_fde", 1));
    near("l2_dist", report.mean_square, of("l2_dist", 0));
    near("cls_acc", report.accuracy, of("cls_acc", 0));
    assert_eq!(report.ranges.len(), 5);
    for range in &report.ranges {
        let name = format!("range_{}_{}", range.from_metres, range.to_metres);
        assert_eq!(range.points as f64, of(&name, 0), "{name}");
        let values = [range.error, range.x_error, range.y_error];
        for (i, value) in values.into_iter().chain(range.ap).enumerate() {
            near(&format!("{name} {i}"), value, of(&name, i + 1));
        }
    }
}

const MODES_USED: usize = 3;

/// Step `i` of a run: logits, trajectories, truth, constant velocity; far points in every 5th only.
fn step(i: usize) -> [Vec<f32>; 4] {
    let reach = if i % 5 == 4 { 30.0 } else { 2.0 };
    let wave = |n: usize, k: usize| (0..n).map(move |j| ((i * 31 + j * 7 + k) as f32 * 0.37).sin());
    let truth: Vec<f32> = (0..12).map(|j| reach * j as f32 / 3.0).collect();
    let trajectories = wave(36, 1).enumerate().map(|(j, w)| truth[j % 12] + 2.0 * w).collect();
    let straight = truth.iter().map(|t| t * 0.9).collect();
    [wave(MODES_USED, 2).collect(), trajectories, truth, straight]
}

fn of(steps: impl Iterator<Item = usize>) -> Metrics {
    let mut metrics = Metrics::new(MODES_USED);
    for i in steps {
        let [logits, trajectories, truth, straight] = step(i);
        metrics.add(&logits, &trajectories, &truth, &straight);
    }
    metrics
}

#[test]
fn ranks_do_not_show_in_any_bit() {
    for n in [0, 1, 3, 4, 5, 23] {
        let whole = serde_json::to_string(&of(0..n).report()).unwrap();
        for ranks in 1..=4 {
            // In ranges, and interleaved.
            let spread = launch::threads(ranks, |comm| {
                let own = crate::train::sampler::evaluation(n, comm.ranks(), comm.rank());
                let parts = [of(own), of((comm.rank()..n).step_by(comm.ranks()))];
                parts.map(|m| m.combine(comm)).into_iter().collect::<Result<Vec<_>>>()
            })
            .unwrap();
            for metrics in spread.iter().flatten() {
                let report = serde_json::to_string(&metrics.report()).unwrap();
                assert_eq!(report, whole, "{n} steps on {ranks} ranks");
            }
        }
        let mut merged = of(0..n / 2);
        merged.merge(&of(n / 2..n));
        assert_eq!(serde_json::to_string(&merged.report()).unwrap(), whole);
    }
}

#[test]
fn a_range_that_is_empty_on_one_rank_changes_nothing() {
    // With two ranks, rank 0 has the steps 0..4 without a far point, rank 1 has step 4 with them.
    let far = |metrics: &Metrics| metrics.report().ranges[4];
    let parts = launch::threads(2, |comm| {
        let own = if comm.rank() == 0 { of(0..4) } else { of(4..5) };
        Ok((far(&own), far(&own.combine(comm)?)))
    })
    .unwrap();
    assert_eq!((parts[0].0.points, parts[0].0.error), (0, None));
    assert!(parts[1].0.points > 0);
    assert_eq!(parts[0].1, parts[1].0);
    assert_eq!(parts[1].1, parts[1].0);
}

#[test]
fn an_empty_range_is_null_and_not_a_number_that_is_none() {
    let text = serde_json::to_string(&Metrics::new(2).report()).unwrap();
    assert!(text.contains("\"ade\":null") && text.contains("\"ap\":[null,null,null]"), "{text}");
    let mut one = Metrics::new(1);
    one.add(&[0.0], &[-1.0, 0.0, 0.0], &[-1.0, 0.0, 0.0], &[2.0, 4.0, 0.0]);
    let report = one.report();
    // Behind the car is in no range.
    assert!(report.ranges.iter().all(|r| r.points == 0));
    assert_eq!((report.model.ade, report.model.fde), (Some(0.0), Some(0.0)));
    assert_eq!(report.constant_velocity.fde, Some(5.0));
}

#[test]
fn the_best_of_modes_and_the_use_of_modes_are_told_apart() {
    let truth = [10.0, 0.0, 0.0];
    let trajectories = [0.0, 0.0, 0.0, 10.0, 3.0, 0.0, 10.0, 1.0, 0.0];
    let mut metrics = Metrics::new(3);
    for logits in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 1.0]] {
        metrics.add(&logits, &trajectories, &truth, &truth);
    }
    let report = metrics.report();
    assert_eq!(report.mode_use, [1, 2, 1]);
    assert_eq!(report.best_mode_use, [0, 0, 4]);
    assert_eq!(report.accuracy, Some(0.25));
    assert_eq!(report.mode_entropy_bits, 1.5);
    assert_eq!(report.model.ade, Some((10.0 + 3.0 + 3.0 + 1.0) / 4.0));
    assert_eq!(report.best_of_modes.ade, Some(1.0));
    assert_eq!(report.constant_velocity.ade, Some(0.0));
}

#[test]
fn entropy_shows_collapse() {
    assert_eq!(entropy_bits(&[]), 0.0);
    assert_eq!(entropy_bits(&[0, 0]), 0.0);
    assert!(entropy_bits(&[0, 9, 0]).is_sign_positive());
    assert_eq!(entropy_bits(&[0, 9, 0]), 0.0);
    assert_eq!(entropy_bits(&[5, 5, 5, 5]), 2.0);
}
