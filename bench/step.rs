//! The AdamW kernel, in f32 and with a bf16 copy, beside a plain loop that moves the same bytes;
//! and the sum of squares before it.
//!
//! 1 M parameters (28 MB, near the last-level cache) and 16 M (memory). The throughput counts
//! elements, so that its inverse is the time of a parameter; `bench/peers/adamw.py` measures
//! PyTorch's fused kernel at the same sizes. Before anything is timed, one step is checked.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use rankwise::optimizer::hyper::Rule;
use rankwise::reduce::exact::ExactSum;
use rankwise::reduce::squares::add_squares;
use rankwise::reduce::step::{Copy16, Elements, step};

/// Parameters.
const SIZES: [usize; 2] = [1 << 20, 16 << 20];

/// Reads four arrays and writes three (and a 16-bit one): what AdamW moves, without its arithmetic.
#[inline(never)]
fn plain(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], copy: &mut [u16]) {
    let (n, copies) = (p.len(), !copy.is_empty());
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    if copies {
        let copy = &mut copy[..n];
        for i in 0..n {
            (p[i], m[i], v[i]) = (p[i] + g[i], m[i] + g[i], v[i] + g[i]);
            copy[i] = (p[i].to_bits() >> 16) as u16;
        }
    } else {
        for i in 0..n {
            (p[i], m[i], v[i]) = (p[i] + g[i], m[i] + g[i], v[i] + g[i]);
        }
    }
}

fn adamw(criterion: &mut Criterion) {
    let rule = Rule::default();
    for n in SIZES {
        let mut group = criterion.benchmark_group(format!("adamw/{}M", n >> 20));
        group.throughput(Throughput::Elements(n as u64));
        let mut p: Vec<f32> = (0..n).map(|i| (i % 13) as f32 / 13.0).collect();
        let g: Vec<f32> = (0..n).map(|i| (i % 7) as f32 / 7.0 - 0.4).collect();
        let (mut m, mut v) = (vec![0.0f32; n], vec![0.0f32; n]);
        let (mut bf16s, mut u16s) = (vec![bf16::ZERO; n], vec![0u16; n]);
        let scalars = rule.scalars(1, 1e-3, 1.0);
        let copy = Copy16::None;
        step(&scalars, 1.0, Elements { p: &mut p, g: &g, m: &mut m, v: &mut v, copy });
        // The first step of AdamW moves by the learning rate against the sign of the gradient.
        for (i, &p) in p.iter().enumerate() {
            let start = (i % 13) as f32 / 13.0;
            let expected = start * (1.0 - 1e-5) - 1e-3 * g[i].signum();
            assert!((p - expected).abs() < 1e-6, "element {i}: {p}, expected {expected}");
        }
        group.bench_function(BenchmarkId::from_parameter("f32"), |bencher| {
            bencher.iter(|| {
                let copy = Copy16::None;
                step(&scalars, 1.0, Elements { p: &mut p, g: &g, m: &mut m, v: &mut v, copy });
            });
        });
        group.bench_function(BenchmarkId::from_parameter("f32 with bf16 copy"), |bencher| {
            bencher.iter(|| {
                let copy = Copy16::Bf16(&mut bf16s);
                step(&scalars, 1.0, Elements { p: &mut p, g: &g, m: &mut m, v: &mut v, copy });
            });
        });
        group.bench_function(BenchmarkId::from_parameter("plain 28 bytes"), |bencher| {
            bencher.iter(|| plain(&mut p, black_box(&g), &mut m, &mut v, &mut []));
        });
        group.bench_function(BenchmarkId::from_parameter("plain 30 bytes"), |bencher| {
            bencher.iter(|| plain(&mut p, black_box(&g), &mut m, &mut v, &mut u16s));
        });
        group.bench_function(BenchmarkId::from_parameter("squares"), |bencher| {
            bencher.iter(|| {
                let mut sum = ExactSum::new();
                assert!(add_squares(black_box(&g), &mut sum));
                sum
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = steps;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = adamw
}
criterion_main!(steps);
