//! The network: gradients against slopes, chunks against the whole, threads against one.

use std::sync::Arc;

use super::super::batch::Batch;
use super::super::head::Head;
use super::super::labels::times;
use super::super::loss::{LossOptions, Rule};
use super::super::synthetic;
use super::super::windows::{Part, WindowOptions, Windows};
use super::*;
use crate::train::model::Tensors;

const HIDDEN: usize = 6;

fn batch(samples: usize) -> Batch {
    let traces = Arc::new(synthetic::traces(4, 20.0, 5));
    let windows = Windows::new(traces, Part::All, WindowOptions::default()).unwrap();
    let samples: Vec<_> = (0..samples).map(|i| windows.window(i)).collect();
    Batch::of(&samples).unwrap()
}

fn planner(threads: usize) -> Planner {
    let loss = LossOptions { rule: Rule::EndPoint, alpha: 0.7 };
    let objective = Objective { modes: 2, head: Head::Residual, loss, times: times(5.0) };
    Planner::new(HIDDEN, objective, threads)
}

/// Initial values, or zeros for gradients.
fn tensors(planner: &Planner, zeros: bool) -> Tensors {
    let many = 0..planner.parameters().len();
    let values = many.map(|i| {
        let values = planner.initialise(3, i);
        if zeros { vec![0.0; values.len()] } else { values }
    });
    Tensors { values: values.collect(), ready: Vec::new() }
}

fn state(samples: usize) -> Vec<f32> {
    (0..samples * HIDDEN).map(|i| (i as f32 * 0.7).sin() * 0.5).collect()
}

#[test]
fn gradients_are_slopes_of_the_mean_loss() {
    let (batch, mut planner) = (batch(3), planner(1));
    let rows = batch.rows(20..25);
    let mut at = tensors(&planner, false);
    // Larger outputs than at the start, so that all layers matter.
    at.values[OUTPUT].iter_mut().for_each(|w| *w *= 10.0);
    let mut gradients = tensors(&planner, true);
    planner.learn(&mut at, rows, &mut state(3), 2.0, &mut gradients).unwrap();
    let mut other = tensors(&planner, true);
    let mut loss = |at: &mut Tensors| {
        let sums = planner.learn(at, rows, &mut state(3), 1.0, &mut other).unwrap();
        sums.mean().unwrap()
    };
    for place in 0..at.values.len() {
        let n = at.values[place].len();
        let mut largest = 0.0f64;
        for i in (0..n).step_by(n.div_ceil(40)) {
            let (value, step) = (at.values[place][i], 1.0 / 512.0);
            at.values[place][i] = value + step;
            let up = loss(&mut at);
            at.values[place][i] = value - step;
            let down = loss(&mut at);
            at.values[place][i] = value;
            let slope = (up - down) / f64::from(step);
            let found = f64::from(gradients.values[place][i]);
            assert!(
                (slope - found).abs() < 5e-4 + 0.02 * found.abs(),
                "{place} {i} {slope} {found}"
            );
            largest = largest.max(found.abs());
        }
        assert!(largest > 4e-3, "parameter {place} hardly matters: {largest}");
    }
}

#[test]
fn gradients_are_added_and_ready_once_with_the_head_first() {
    let (batch, mut planner) = (batch(2), planner(1));
    let mut at = tensors(&planner, false);
    let mut once = tensors(&planner, true);
    planner.learn(&mut at, batch.rows(0..4), &mut state(2), 1.0, &mut once).unwrap();
    let mut twice = tensors(&planner, true);
    twice.values.iter_mut().flatten().for_each(|g| *g = 1.0);
    planner.learn(&mut at, batch.rows(0..4), &mut state(2), 1.0, &mut twice).unwrap();
    for (a, b) in once.values.iter().flatten().zip(twice.values.iter().flatten()) {
        assert!((a + 1.0 - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
    }
    assert_eq!(once.ready, [8, 9, 6, 7, 4, 5, 2, 3, 0, 1]);
}

#[test]
fn chunks_carry_the_hidden_state_as_if_there_were_none() {
    let (batch, mut planner) = (batch(3), planner(1));
    let mut at = tensors(&planner, false);
    let mut whole = vec![0.0; 3 * HIDDEN];
    planner.forward(&mut at, batch.rows(0..40), &mut whole).unwrap();
    let outputs = planner.memory.outputs.clone();
    for steps in [1, 7, 20, 39, 40] {
        let mut carried = vec![0.0; 3 * HIDDEN];
        let mut found = Vec::new();
        for chunk in batch.chunks(steps) {
            planner.forward(&mut at, batch.rows(chunk), &mut carried).unwrap();
            found.extend_from_slice(&planner.memory.outputs);
        }
        assert_eq!(found.len(), outputs.len());
        let near = |a: &f32, b: &f32| (a - b).abs() < 1e-5;
        assert!(found.iter().zip(&outputs).all(|(a, b)| near(a, b)), "{steps}");
        assert!(carried.iter().zip(&whole).all(|(a, b)| near(a, b)), "{steps}");
    }
    assert!(whole.iter().any(|h| h.abs() > 1e-2));
}

#[test]
fn threads_do_not_show_and_a_chunk_without_rows_is_refused() {
    let batch = batch(3);
    let found = [1, 2, 3].map(|threads| {
        let mut planner = planner(threads);
        let (mut at, mut gradients) = (tensors(&planner, false), tensors(&planner, true));
        planner.learn(&mut at, batch.rows(0..20), &mut state(3), 1.0, &mut gradients).unwrap();
        gradients
    });
    assert!(found[0] == found[1] && found[0] == found[2]);
    let mut planner = planner(1);
    let mut at = tensors(&planner, false);
    for (rows, samples) in [(batch.rows(3..3), 3), (batch.rows(0..1), 0), (batch.rows(0..1), 2)] {
        assert!(planner.forward(&mut at, rows, &mut state(samples)).is_err());
    }
}
