//! The rules against PyTorch's fused CPU kernels, bit for bit: `bench/peers/adamw_oracle.py` made
//! the files in `tests/data/optimizer/`.

use super::hyper::Rule;
use crate::reduce::step::{Copy16, Elements, step};

const N: usize = 1024;
const STEPS: u64 = 25;

/// Numbers in [-1, 1) that f32 holds exactly; `values` of the script.
fn value(i: usize, salt: u64) -> f32 {
    let mut x = (i as u32).wrapping_mul(2_654_435_761);
    x = x.wrapping_add((salt as u32).wrapping_mul(40503));
    x ^= x >> 15;
    x = x.wrapping_mul(2_246_822_519);
    x ^= x >> 13;
    x = x.wrapping_mul(3_266_489_917);
    x ^= x >> 16;
    ((x >> 8) as i32 - (1 << 23)) as f32 * 2f32.powi(-23)
}

/// `gradient` of the script.
fn gradient(i: usize, step: u64) -> f32 {
    let scale = 2f32.powi(-((i % 16) as i32));
    if i as u64 % 37 == step % 37 { 0.0 } else { value(i, step) * scale }
}

/// p, m and v after all steps; gradients come multiplied by 4, a loss scale, which is taken out.
fn run(lr: f64, rule: &Rule) -> [Vec<f32>; 3] {
    rule.validate().unwrap();
    let mut p: Vec<f32> = (0..N).map(|i| value(i, 1000)).collect();
    let (mut m, mut v) = (vec![0.0; N], vec![0.0; N]);
    for t in 1..=STEPS {
        let g: Vec<f32> = (0..N).map(|i| gradient(i, t) * 4.0).collect();
        let scalars = rule.scalars(t, lr, 1.0);
        let elements = Elements { p: &mut p, g: &g, m: &mut m, v: &mut v, copy: Copy16::None };
        step(&scalars, 0.25, elements);
    }
    [p, m, v]
}

/// A learning rate and a rule.
type Run = (f64, Rule);

fn adamw(lr: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Run {
    (lr, Rule::AdamW { betas: [beta1, beta2], eps, weight_decay })
}

fn adam(lr: f64, beta2: f64, eps: f64, weight_decay: f64) -> Run {
    (lr, Rule::Adam { betas: [0.9, beta2], eps, weight_decay })
}

fn sgd(lr: f64, momentum: f64, dampening: f64, nesterov: bool, weight_decay: f64) -> Run {
    (lr, Rule::Sgd { momentum, dampening, nesterov, weight_decay })
}

#[test]
fn the_bits_are_those_of_torch_fused() {
    for (name, (lr, rule)) in [
        ("adamw-default", (1e-3, Rule::default())),
        ("adamw-gpt", adamw(6e-4, 0.9, 0.95, 1e-8, 0.1)),
        ("adamw-no-decay", adamw(0.02, 0.8, 0.99, 1e-6, 0.0)),
        ("adamw-short-memory", adamw(3e-3, 0.3, 0.4, 1e-3, 1.0)),
        ("adam-l2", adam(2e-3, 0.98, 1e-9, 0.05)),
        ("adam-plain", adam(1e-3, 0.999, 1e-8, 0.0)),
        ("sgd-momentum", sgd(0.05, 0.9, 0.1, false, 0.01)),
        ("sgd-nesterov", sgd(0.03, 0.85, 0.0, true, 0.02)),
        ("sgd-plain", sgd(0.1, 0.0, 0.0, false, 0.003)),
    ] {
        let path = format!("{}/tests/data/optimizer/{name}.f32", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4 * N * (1 + rule.moments()), "{path}");
        let expected: Vec<f32> =
            bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let got = run(lr, &rule);
        for (part, (want, got)) in expected.chunks(N).zip(&got).enumerate() {
            let differ = |i: &usize| want[*i].to_bits() != got[*i].to_bits();
            let wrong: Vec<usize> = (0..N).filter(differ).collect();
            let first = wrong.first().map(|&i| (i, want[i], got[i]));
            assert!(wrong.is_empty(), "{name} part {part}: {} differ; {first:?}", wrong.len());
        }
    }
}
