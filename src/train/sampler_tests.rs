//! Tests of `sampler`: PyTorch's own orders, and what a cursor promises.

use super::*;

/// Cases written by PyTorch: `n world rank seed epoch shuffle drop_last len fnv1a64 first-64`.
const ORACLE: &str = include_str!("../../tests/data/train/sampler.tsv");

/// FNV-1a over the indices, each as one digit.
fn fnv(indices: &[usize]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325u64;
    indices.iter().fold(start, |h, &i| (h ^ i as u64).wrapping_mul(0x0100_0000_01b3))
}

/// Checks one line and says whether it has samples.
fn check_case(line: &str) -> bool {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |i: usize| fields[i].parse::<u64>().unwrap();
    let (n, ranks, rank) = (number(0) as usize, number(1) as usize, number(2) as usize);
    let options =
        SamplerOptions { shuffle: number(5) == 1, seed: number(3), drop_last: number(6) == 1 };
    let sampler = DistributedSampler::new(n, ranks, rank, options);
    if number(7) == 0 {
        assert!(sampler.unwrap_err().message.contains("no rank has any"), "{line}");
        return false;
    }
    let mut sampler = sampler.unwrap();
    sampler.set_epoch(number(4)).unwrap();
    let indices: Vec<usize> = sampler.iter().collect();
    assert_eq!(sampler.len() as u64, number(7), "{line}");
    assert_eq!(format!("{:016x}", fnv(&indices)), fields[8], "{line}");
    let first: Vec<String> = indices.iter().take(64).map(|i| i.to_string()).collect();
    assert_eq!(first.join(","), fields[9].replace(' ', ","), "{line}");
    true
}

#[test]
fn orders_are_those_of_pytorch() {
    let cases: Vec<&str> = ORACLE.lines().filter(|l| !l.starts_with(['#', 'n'])).collect();
    assert!(cases.len() > 100, "{} cases", cases.len());
    let with_samples = cases.iter().filter(|line| check_case(line)).count();
    assert!(with_samples > 80 && with_samples < cases.len());
}

#[test]
fn only_the_low_bits_of_seed_plus_epoch_count() {
    let order = |seed: u64, epoch: u64| {
        let options = SamplerOptions { seed, ..SamplerOptions::default() };
        let mut sampler = DistributedSampler::new(50, 1, 0, options).unwrap();
        sampler.set_epoch(epoch).unwrap();
        sampler.iter().collect::<Vec<_>>()
    };
    assert_eq!(order(0, 1), order(1, 0));
    assert_eq!(order((1 << 32) + 5, 0), order(5, 0));
    assert_eq!(order(u64::MAX, 1), order(0, 0));
    assert_ne!(order(0, 0), order(0, 1));
}

#[test]
fn the_closed_form_is_the_padded_list() {
    for n in 1..=24 {
        for ranks in 1..=9 {
            for drop_last in [false, true] {
                let options = SamplerOptions { shuffle: true, seed: 3, drop_last };
                let mut list: Vec<usize> =
                    (0..n).map(|p| EpochOrder::shuffled(n, 3).unwrap().index(p)).collect();
                if drop_last {
                    list.truncate(n / ranks * ranks);
                } else {
                    list = list.iter().copied().cycle().take(n.div_ceil(ranks) * ranks).collect();
                }
                for rank in 0..ranks {
                    let Ok(sampler) = DistributedSampler::new(n, ranks, rank, options) else {
                        assert!(drop_last && n < ranks);
                        continue;
                    };
                    let own: Vec<usize> = list.iter().copied().skip(rank).step_by(ranks).collect();
                    assert_eq!(sampler.iter().collect::<Vec<_>>(), own, "{n} {ranks} {rank}");
                }
            }
        }
    }
}

#[test]
fn equal_steps_consume_what_the_pytorch_sampler_gives() {
    let (n, batch, seed) = (24, 2, 7);
    for ranks in [1, 2, 3, 4] {
        let mut elastic = ElasticSampler::new(n, true, seed, 0).unwrap();
        for epoch in 0..3 {
            let mut own = vec![Vec::new(); ranks];
            while elastic.epoch() == epoch {
                let step = elastic.next_batch(batch * ranks).unwrap();
                for (rank, own) in own.iter_mut().enumerate() {
                    own.extend(step.share(rank, ranks));
                }
            }
            for (rank, own) in own.iter().enumerate() {
                let options = SamplerOptions { seed, ..SamplerOptions::default() };
                let mut sampler = DistributedSampler::new(n, ranks, rank, options).unwrap();
                sampler.set_epoch(epoch).unwrap();
                assert_eq!(*own, sampler.iter().collect::<Vec<_>>(), "{ranks} ranks, rank {rank}");
            }
        }
    }
}

#[test]
fn resuming_at_another_number_of_ranks_sees_each_remaining_sample_once() {
    for n in [1usize, 2, 7, 8, 9, 30] {
        for (before, after) in [(1, 4), (4, 1), (3, 2), (2, 3), (4, 4)] {
            for steps in 0..=n.div_ceil(before * 2) {
                let mut first = ElasticSampler::new(n, true, 11, 0).unwrap();
                let mut seen = Vec::new();
                for _ in 0..steps {
                    let batch = first.next_batch(before * 2).unwrap();
                    seen.extend((0..before).flat_map(|rank| batch.share(rank, before)));
                }
                let mut second = ElasticSampler::new(n, true, 11, first.cursor()).unwrap();
                while second.cursor() < 2 * n as u64 {
                    let batch = second.next_batch(after * 3).unwrap();
                    assert!(batch.positions.end <= n, "a batch never crosses an epoch");
                    seen.extend((0..after).flat_map(|rank| batch.share(rank, after)));
                }
                let mut counts = vec![0; n];
                seen.iter().for_each(|&i| counts[i] += 1);
                assert_eq!(counts, vec![2; n], "{n} samples, {before} then {after} ranks");
                let mut epoch = seen[..n].to_vec();
                epoch.sort_unstable();
                assert!(epoch.iter().copied().eq(0..n), "the first epoch has each sample once");
            }
        }
    }
}

#[test]
fn weights_of_uneven_shares_sum_to_one() {
    for n in [1, 2, 3, 5, 10, 19] {
        for ranks in [1, 2, 3, 4] {
            let batch = ElasticSampler::new(n, true, 1, 0).unwrap().next_batch(100).unwrap();
            let values: Vec<f64> = batch.indices.iter().map(|&i| (i * i) as f64).collect();
            let mean = values.iter().sum::<f64>() / n as f64;
            let mut weighted = 0.0;
            for rank in 0..ranks {
                let own = batch.share(rank, ranks);
                assert_eq!(batch.weight(rank, ranks), own.len() as f64 / n as f64);
                if !own.is_empty() {
                    let sum: f64 = own.iter().map(|&i| (i * i) as f64).sum();
                    weighted += batch.weight(rank, ranks) * sum / own.len() as f64;
                }
            }
            assert!((weighted - mean).abs() <= 1e-12 * mean.max(1.0), "{n} on {ranks}");
        }
    }
}

#[test]
fn evaluation_covers_each_sample_once() {
    for n in 0..12 {
        for ranks in 1..6 {
            let all: Vec<usize> = (0..ranks).flat_map(|rank| evaluation(n, ranks, rank)).collect();
            assert!(all.iter().copied().eq(0..n), "{n} on {ranks}");
        }
    }
}

#[test]
fn impossible_samplers_are_refused() {
    let shuffled = SamplerOptions::default();
    let dropping = SamplerOptions { drop_last: true, ..shuffled };
    assert!(DistributedSampler::new(3, 4, 0, dropping).unwrap_err().message.contains("drop_last"));
    assert!(DistributedSampler::new(0, 1, 0, shuffled).unwrap_err().message.contains("path"));
    assert!(DistributedSampler::new(5, 2, 2, shuffled).is_err());
    assert!(DistributedSampler::new(3, 4, 3, shuffled).is_ok());
    assert!(ElasticSampler::new(0, true, 0, 0).is_err());
    assert!(EpochOrder::shuffled(LONGEST_SHUFFLE, 0).is_err());
}
