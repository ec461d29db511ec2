//! Layers against PyTorch in f64 (`bench/peers/layers_oracle.py`), against finite differences of
//! their own forward passes, and at several numbers of threads.

use super::test_cases::{CASES, Case, Results, Tensor, run_cross_entropy};
use std::collections::BTreeMap;

/// The tensors of a safetensors file; integers become f32.
pub(crate) fn read_tensors(bytes: &[u8]) -> BTreeMap<String, Tensor> {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..header]).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<usize> {
        value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
    };
    let tensor = |value: &serde_json::Value| {
        let range = numbers(&value["data_offsets"]);
        let words = bytes[header + range[0]..header + range[1]].as_chunks::<4>().0;
        let integers = value["dtype"] == "I32";
        let number = |word: &[u8; 4]| match integers {
            true => i32::from_le_bytes(*word) as f32,
            false => f32::from_le_bytes(*word),
        };
        Tensor { shape: numbers(&value["shape"]), values: words.iter().map(number).collect() }
    };
    entries.iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
}

fn oracle() -> BTreeMap<String, Tensor> {
    read_tensors(include_bytes!("../../../tests/data/train/layers.safetensors"))
}

/// Asserts that values agree to 1e-5 of their own size and of the typical size of all.
pub(crate) fn assert_close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let squares: f64 = want.iter().map(|&x| f64::from(x).powi(2)).sum();
    let typical = (squares / want.len() as f64).sqrt();
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let (got, want) = (f64::from(got), f64::from(want));
        let error = (got - want).abs();
        assert!(error <= 1e-5 * (want.abs() + typical), "{what}[{i}]: {got} and not {want}");
    }
}

/// The inputs of a case in the file.
fn inputs(case: &Case, file: &BTreeMap<String, Tensor>) -> Vec<Tensor> {
    case.inputs.iter().map(|input| file[&format!("{}.{input}", case.name)].clone()).collect()
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let file = oracle();
    for case in &CASES {
        let dy = &file[&format!("{}.dy", case.name)].values;
        let Results { y, gradients } = (case.run)(&inputs(case, &file), &|i| dy[i], 1);
        assert_close(&y, &file[&format!("{}.y", case.name)].values, case.name);
        for (gradient, input) in gradients.iter().zip(case.inputs) {
            let name = format!("{}.d{input}", case.name);
            assert_close(gradient, &file[&name].values, &name);
        }
    }
}

#[test]
fn cross_entropy_is_that_of_pytorch() {
    let file = oracle();
    let inputs = ["logits", "targets"].map(|name| file[&format!("cross_entropy.{name}")].clone());
    let Results { y, gradients } = run_cross_entropy(&inputs, 1);
    let mean = y.iter().map(|&loss| f64::from(loss)).sum::<f64>() / y.len() as f64;
    assert_close(&[mean as f32], &file["cross_entropy.loss"].values, "loss");
    assert_close(&gradients[0], &file["cross_entropy.dlogits"].values, "gradient");
}

/// `Σ weight(i) · y[i]`, whose gradient a backward pass gives when dy is the weights.
fn weighted(y: &[f32]) -> f64 {
    y.iter().enumerate().map(|(i, &y)| f64::from(weight(i)) * f64::from(y)).sum()
}

fn weight(i: usize) -> f32 {
    ((i * 37 + 11) % 41) as f32 / 20.0 - 1.0
}

#[test]
fn backward_passes_are_the_slopes_of_the_forward_passes() {
    const STEP: f32 = 1e-2;
    let file = oracle();
    for case in &CASES {
        let mut inputs = inputs(case, &file);
        let gradients = (case.run)(&inputs, &weight, 1).gradients;
        for (at, gradient) in gradients.iter().enumerate() {
            let largest = gradient.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for element in (0..gradient.len()).step_by(gradient.len() / 50 + 1) {
                let before = inputs[at].values[element];
                // ReLU and ELU have corners, which no difference may reach over.
                if case.name.ends_with("elu") && before.abs() < 2.0 * STEP {
                    continue;
                }
                let mut moved = |x: f32| {
                    inputs[at].values[element] = x;
                    (weighted(&(case.run)(&inputs, &weight, 1).y), x)
                };
                let (high, low) = (moved(before + STEP), moved(before - STEP));
                moved(before);
                let slope = (high.0 - low.0) / f64::from(high.1 - low.1);
                let error = (slope - f64::from(gradient[element])).abs();
                let name = format!("{}.d{}[{element}]", case.name, case.inputs[at]);
                assert!(error < 2e-3 * f64::from(largest) + 1e-4, "{name}: {slope} {error}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let file = oracle();
    let bits = |results: Results| -> Vec<u32> {
        let all = results.gradients.into_iter().flatten().chain(results.y);
        all.map(f32::to_bits).collect()
    };
    for case in &CASES {
        // More rows than one task takes, by repeating the first input along its first dimension.
        let mut inputs = inputs(case, &file);
        if !matches!(case.name, "embedding" | "gru") {
            let times = if inputs[0].shape.len() == 1 { 300 } else { 11 };
            inputs[0].shape[0] *= times;
            inputs[0].values = inputs[0].values.repeat(times);
        }
        let one = bits((case.run)(&inputs, &weight, 1));
        for threads in [2, 3, 4] {
            let several = pool.install(|| bits((case.run)(&inputs, &weight, threads)));
            assert!(one == several, "{} with {threads} threads", case.name);
        }
    }
}
