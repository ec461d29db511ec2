//! The network, without and with images: gradients against PyTorch and against slopes, chunks
//! against the whole, threads against one.

use std::sync::Arc;

use super::super::batch::Batch;
use super::super::head::Head;
use super::super::labels::times;
use super::super::loss::{LossOptions, Rule};
use super::super::raster::Surroundings;
use super::super::synthetic;
use super::super::windows::{Part, WindowOptions, Windows};
use super::*;
use crate::train::layers::tests::{assert_close, read_tensors};
use crate::train::model::Tensors;

const HIDDEN: usize = 6;

fn small_images() -> ImageConfig {
    ImageConfig { height: 8, width: 4, metres_per_cell: 4.0, channels: vec![3, 4] }
}

/// With images, which a network without a backbone must be spared.
fn batch(samples: usize) -> Batch {
    let traces = Arc::new(synthetic::traces(4, 20.0, 5));
    let around = Arc::new(Surroundings::new(&traces, small_images().raster()));
    let windows = Windows::new(traces, Part::All, WindowOptions::default()).unwrap();
    let windows = windows.with_images(around);
    let samples: Vec<_> = (0..samples).map(|i| windows.window(i)).collect();
    Batch::of(&samples).unwrap()
}

fn planner(threads: usize) -> Planner {
    let loss = LossOptions { rule: Rule::EndPoint, alpha: 0.7 };
    let objective = Objective { modes: 2, head: Head::Residual, loss, times: times(5.0) };
    Planner::new(HIDDEN, objective, threads)
}

/// A network without images, and one with, and rows for each.
fn both(threads: usize, rows: Rows<'_>) -> [(Planner, Rows<'_>); 2] {
    let seeing = planner(threads).with_images(&small_images());
    [(planner(threads), Rows { images: &[], ..rows }), (seeing, rows)]
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
fn loss_and_gradients_are_those_of_pytorch() {
    let bytes = include_bytes!("../../../tests/data/train/planner-model.safetensors");
    let file = read_tensors(bytes);
    for case in ["numbers", "images"] {
        let of = |name: &str| &file[&format!("{case}.{name}")].values;
        let loss = LossOptions { rule: Rule::EndPoint, alpha: 1.0 };
        let objective = Objective { modes: 2, head: Head::Residual, loss, times: times(5.0) };
        let mut planner = Planner::new(HIDDEN, objective, 1);
        let mut images = &[][..];
        if case == "images" {
            (planner, images) = (planner.with_images(&small_images()), of("images"));
        }
        let (inputs, targets, speeds) = (of("inputs"), of("targets"), of("speeds"));
        let rows = Rows { inputs, targets, speeds, images };
        let mut at = tensors(&planner, true);
        for (values, parameter) in at.values.iter_mut().zip(planner.parameters()) {
            values.copy_from_slice(of(&format!("weights.{}", parameter.name)));
        }
        let (mut carried, mut found) = (of("carried").clone(), tensors(&planner, true));
        let sums = planner.learn(&mut at, rows, &mut carried, 1.0, &mut found).unwrap();
        assert_close(&[sums.mean().unwrap() as f32], of("loss"), case);
        assert_close(&carried, of("last"), case);
        for (gradient, parameter) in found.values.iter().zip(planner.parameters()) {
            let what = format!("{case} {}", parameter.name);
            assert_close(gradient, of(&parameter.name), &what);
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_mean_loss() {
    let batch = batch(3);
    for (planner, rows) in both(1, batch.rows(20..25)) {
        slopes(planner, rows);
    }
}

fn slopes(mut planner: Planner, rows: Rows<'_>) {
    let mut at = tensors(&planner, false);
    // Larger than at the start, so that all layers matter.
    let output = at.values.len() - 2;
    at.values[output].iter_mut().for_each(|w| *w *= 10.0);
    at.values[..output - OUTPUT].iter_mut().flatten().for_each(|w| *w *= 2.0);
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
        // Not always the same column of a kernel: the first may see nothing but padding.
        let step = n.div_ceil(40);
        for i in (0..n).step_by(step + usize::from(step.is_multiple_of(3))) {
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
        // Images are mostly dark.
        let least = if place + OUTPUT < output { 1e-3 } else { 4e-3 };
        assert!(largest > least, "parameter {place} hardly matters: {largest}");
    }
}

#[test]
fn gradients_are_added_and_ready_once_with_the_head_first() {
    let batch = batch(2);
    let mut order = Vec::new();
    for (mut planner, rows) in both(1, batch.rows(0..4)) {
        let mut at = tensors(&planner, false);
        let mut once = tensors(&planner, true);
        planner.learn(&mut at, rows, &mut state(2), 1.0, &mut once).unwrap();
        let mut twice = tensors(&planner, true);
        twice.values.iter_mut().flatten().for_each(|g| *g = 1.0);
        planner.learn(&mut at, rows, &mut state(2), 1.0, &mut twice).unwrap();
        for (a, b) in once.values.iter().flatten().zip(twice.values.iter().flatten()) {
            assert!((a + 1.0 - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
        }
        order.push(once.ready);
    }
    assert_eq!(order[0], [8, 9, 6, 7, 4, 5, 2, 3, 0, 1]);
    assert_eq!(order[1], [13, 14, 11, 12, 9, 10, 7, 8, 5, 6, 4, 2, 3, 0, 1]);
}

#[test]
fn a_backbone_comes_before_the_rest_and_changes_no_name() {
    let (blind, seeing) = (planner(1), planner(1).with_images(&small_images()));
    assert_eq!(seeing.parameters()[5..], *blind.parameters());
    let names: Vec<&str> = seeing.parameters()[..5].iter().map(|p| p.name.as_str()).collect();
    let layers = ["image.convolution0", "image.convolution1"];
    let kinds = |l: &&str| [format!("{l}.weight"), format!("{l}.bias")];
    let expected: Vec<String> = layers.iter().flat_map(kinds).collect();
    assert_eq!(names[..4], expected);
    assert_eq!(
        (names[4], &seeing.parameters()[4].shape[..]),
        ("image.projection.weight", &[6, 8][..])
    );
    // Within 1/√(inputs of an output), the output layer's bias alone zero.
    let initial: Vec<Vec<f32>> = (0..15).map(|i| seeing.initialise(3, i)).collect();
    for (i, inputs) in [18.0f32, 18.0, 27.0, 27.0, 8.0, 5.0, 5.0].into_iter().enumerate() {
        let limit = 1.0 / inputs.sqrt();
        assert!(initial[i].iter().all(|w| w.abs() <= limit && *w != 0.0), "{i}");
        assert!(initial[i].iter().any(|w| w.abs() > 0.3 * limit), "{i}");
    }
    assert!(initial[14].iter().all(|w| *w == 0.0));
    assert!(initial[13].iter().all(|w| w.abs() <= 0.1 / 6f32.sqrt()));
}

#[test]
fn chunks_carry_the_hidden_state_as_if_there_were_none() {
    let (batch, mut planner) = (batch(3), planner(1).with_images(&small_images()));
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
    for seeing in [0, 1] {
        let found = [1, 2, 3].map(|threads| {
            let [blind, other] = both(threads, batch.rows(0..20));
            let (mut planner, rows) = if seeing == 0 { blind } else { other };
            let (mut at, mut gradients) = (tensors(&planner, false), tensors(&planner, true));
            planner.learn(&mut at, rows, &mut state(3), 1.0, &mut gradients).unwrap();
            gradients
        });
        assert!(found[0] == found[1] && found[0] == found[2]);
    }
    let mut planner = planner(1);
    let mut at = tensors(&planner, false);
    let blind = |rows| Rows { images: &[], ..rows };
    let [none, one] = [batch.rows(3..3), batch.rows(0..1)].map(blind);
    for (rows, samples) in [(none, 3), (one, 0), (one, 2), (batch.rows(0..1), 3)] {
        assert!(planner.forward(&mut at, rows, &mut state(samples)).is_err());
    }
    let mut seeing = planner.with_images(&small_images());
    let mut at = tensors(&seeing, false);
    let error = seeing.forward(&mut at, one, &mut state(3)).unwrap_err();
    assert!(error.message.contains("the network takes 64 a row"), "{error}");
}
