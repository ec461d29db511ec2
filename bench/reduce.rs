//! The reduction kernels: sums of 2 and 4 sources, in cache (64 KiB a source) and in memory
//! (16 MiB a source).
//!
//! The throughput counts the bytes that a reduction must move: every source read once, the result
//! written once. In memory it should be the bandwidth that one core reaches with a copy. Before
//! anything is timed the result is compared with the expected one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use rankwise::element::{Element, Op};
use rankwise::reduce::combine;

/// Bytes of one source.
const SIZES: [usize; 2] = [64 << 10, 16 << 20];
/// How many sources are summed: two ranks, and four.
const SOURCES: [usize; 2] = [2, 4];

fn sums<T: Element>(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("sum/{}", T::DTYPE));
    for bytes in SIZES {
        let n = bytes / size_of::<T>();
        for sources in SOURCES {
            let value = |source: usize, i: usize| T::from_small(((7 * source + i) % 5) as u8);
            let data: Vec<Vec<T>> =
                (0..sources).map(|s| (0..n).map(|i| value(s, i)).collect()).collect();
            let slices: Vec<&[T]> = data.iter().map(Vec::as_slice).collect();
            let mut into = vec![T::default(); n];
            combine(&slices, &mut into, Op::Sum);
            for (i, sum) in into.iter().enumerate() {
                let expected: f64 = (0..sources).map(|s| value(s, i).to_f64()).sum();
                assert_eq!(sum.to_f64(), expected, "element {i} of {sources} sources");
            }
            group.throughput(Throughput::Bytes(((sources + 1) * bytes) as u64));
            let id = BenchmarkId::new(format!("{sources} sources"), format!("{}K", bytes >> 10));
            group.bench_function(id, |bencher| {
                bencher.iter(|| combine(black_box(&slices), black_box(&mut into), Op::Sum));
            });
        }
    }
    group.finish();
}

fn all_types(criterion: &mut Criterion) {
    sums::<f32>(criterion);
    sums::<f64>(criterion);
    sums::<bf16>(criterion);
}

criterion_group! {
    name = reduce;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(800));
    targets = all_types
}
criterion_main!(reduce);
