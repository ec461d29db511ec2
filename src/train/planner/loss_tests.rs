//! Tests of `loss`: torch's values and gradients, and what must hold for any numbers.

use std::collections::BTreeMap;

use super::super::head::Head;
use super::*;
use crate::launch;

/// Written by bench/peers/planner_oracle.py.
const ORACLE: &str = include_str!("../../../tests/data/train/planner-loss.tsv");

/// A case of the oracle: its options, and its tensors by name.
struct Case {
    rule: Rule,
    head: Head,
    alpha: f32,
    modes: usize,
    points: usize,
    tensors: BTreeMap<&'static str, Vec<f32>>,
}

fn cases() -> BTreeMap<&'static str, Case> {
    let mut cases = BTreeMap::new();
    for line in ORACLE.lines().filter(|l| !l.starts_with('#')) {
        let [name, tensor, values] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let words: Vec<&str> = values.split(' ').collect();
        if tensor == "options" {
            let case = Case {
                rule: Rule::named(words[0]).unwrap(),
                head: Head::named(words[1]).unwrap(),
                alpha: words[2].parse().unwrap(),
                modes: words[4].parse().unwrap(),
                points: words[5].parse().unwrap(),
                tensors: BTreeMap::new(),
            };
            cases.insert(name, case);
        } else {
            let values = words.iter().map(|w| w.parse().unwrap()).collect();
            cases.get_mut(name).unwrap().tensors.insert(tensor, values);
        }
    }
    cases
}

fn near(name: &str, found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{name} {i}: {a} not {b}");
    }
}

#[test]
fn loss_and_gradients_are_those_of_torch() {
    let cases = cases();
    assert_eq!(cases.len(), 6);
    for (name, case) in cases {
        let options = LossOptions { rule: case.rule, alpha: case.alpha };
        let size = case.points * AXES;
        let (logits, raw) = (&case.tensors["logits"], &case.tensors["raw"]);
        let steps = logits.len() / case.modes;
        let mut trajectories = raw.clone();
        case.head.forward(&mut trajectories, &[]);
        let mut sums = LossSums::new(case.modes, options);
        let mut of_logits = vec![9.0; logits.len()];
        let mut of_raw = vec![9.0; raw.len()];
        for step in 0..steps {
            let modes = step * case.modes..(step + 1) * case.modes;
            let numbers = modes.start * size..modes.end * size;
            let loss = step_loss(
                options,
                (&logits[modes.clone()], &trajectories[numbers.clone()]),
                &case.tensors["truth"][step * size..(step + 1) * size],
                1.0 / steps as f32,
                (&mut of_logits[modes], &mut of_raw[numbers]),
            );
            assert_eq!(loss.best as f32, case.tensors["best"][step], "{name} {step}");
            sums.add(loss);
        }
        case.head.backward(&trajectories, &mut of_raw);
        let (classification, regression) = sums.parts().unwrap();
        near(name, &[classification as f32, regression as f32], &case.tensors["loss"]);
        near(name, &of_logits, &case.tensors["logits_gradient"]);
        near(name, &of_raw, &case.tensors["raw_gradient"]);
        let mean = classification + f64::from(case.alpha) * regression;
        assert_eq!(sums.mean(), Some(mean));
        assert_eq!(sums.steps(), steps as u64);
        let best: u64 = (0..case.modes).map(|m| sums.times_best(m)).sum();
        assert_eq!(best, steps as u64);
    }
}

/// A step whose numbers depend on `seed`.
fn step(seed: usize, modes: usize, points: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let wave = |n: usize, k: usize| -> Vec<f32> {
        (0..n).map(|i| ((i * 7 + seed * 13 + k) as f32 * 0.71).sin() * 4.0).collect()
    };
    (wave(modes, 1), wave(modes * points * AXES, 2), wave(points * AXES, 3))
}

fn loss_of(seed: usize, weight: f32) -> (StepLoss, Vec<f32>) {
    let (logits, trajectories, truth) = step(seed, 3, 4);
    let mut gradients = vec![0.0; logits.len() + trajectories.len()];
    let (of_logits, of_trajectories) = gradients.split_at_mut(logits.len());
    let inputs = (&logits[..], &trajectories[..]);
    let options = LossOptions::default();
    let loss = step_loss(options, inputs, &truth, weight, (of_logits, of_trajectories));
    (loss, gradients)
}

#[test]
fn uneven_batches_weigh_by_samples_at_any_ranks() {
    for n in [1, 2, 3, 5, 10] {
        let mut whole = LossSums::new(3, LossOptions::default());
        (0..n).for_each(|i| whole.add(loss_of(i, 1.0).0));
        let weight = 1.0 / n as f32;
        for ranks in 1..=4 {
            let all = launch::threads(ranks, |comm| {
                let mut own = LossSums::new(3, LossOptions::default());
                let mut gradient = vec![0.0f64; 3 + 36];
                for i in (comm.rank()..n).step_by(ranks) {
                    let (loss, gradients) = loss_of(i, weight);
                    own.add(loss);
                    gradient.iter_mut().zip(gradients).for_each(|(s, g)| *s += f64::from(g));
                }
                comm.all_reduce_in_place(&mut gradient[..], crate::element::Op::Sum)?;
                Ok((own.combine(comm)?, gradient))
            })
            .unwrap();
            let mut mean = vec![0.0f64; 39];
            for i in 0..n {
                let single = loss_of(i, 1.0).1;
                mean.iter_mut().zip(single).for_each(|(m, g)| *m += f64::from(g) / n as f64);
            }
            for (sums, gradient) in all {
                assert_eq!(sums.mean().unwrap().to_bits(), whole.mean().unwrap().to_bits());
                assert_eq!(sums.steps(), n as u64);
                let worst = gradient.iter().zip(&mean).map(|(a, b)| (a - b).abs());
                assert!(worst.fold(0.0, f64::max) < 1e-6, "{n} on {ranks}");
            }
        }
    }
    assert_eq!(LossSums::new(2, LossOptions::default()).mean(), None);
}

#[test]
fn ties_take_the_first_and_a_nan_is_not_passed_over() {
    let truth = [0.0, 0.0, 0.0, 10.0, 0.0, 0.0];
    let near = [0.0, 0.0, 0.0, 9.0, 0.0, 0.0];
    let far = [0.0, 0.0, 0.0, 5.0, 0.0, 0.0];
    let aside = [0.0, 0.0, 0.0, 10.0, 0.5, 0.0];
    // By the angle, 5 m and 9 m straight ahead are alike.
    let all = [aside, far, near].concat();
    assert_eq!(Rule::Angle.best(&all, &truth), 1);
    assert_eq!(Rule::EndPoint.best(&all, &truth), 0);
    assert_eq!(Rule::Trajectory.best(&[far, near].concat(), &truth), 1);
    let broken = [0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0];
    for rule in [Rule::Angle, Rule::EndPoint, Rule::Trajectory] {
        assert_eq!(rule.best(&[near, broken, broken].concat(), &truth), 1, "{rule:?}");
    }
    // A car that stands has no angle: the first is taken.
    assert_eq!(Rule::Angle.best(&all, &[0.0; 6]), 0);
    assert_eq!(first_largest(&[1.0, 3.0, 3.0]), 1);
}

#[test]
fn large_logits_do_not_overflow() {
    let mut gradients = [0.0; 2];
    let loss = cross_entropy(&[300.0, -300.0], 1, 1.0, &mut gradients);
    assert_eq!((loss, gradients), (600.0, [1.0, -1.0]));
    assert_eq!(cross_entropy(&[5.0], 0, 1.0, &mut gradients[..1]), 0.0);
    assert_eq!(gradients[0], 0.0);
}
