//! The planner's readers against data that is not in the repository: a recorded minute of driving
//! and all of PyTorch's orders. Where it is not at hand, the tests say so; the unit tests have
//! generated drives and a part of the orders.

use std::path::{Path, PathBuf};

use rankwise::train::planner::comma2k19::Segment;
use rankwise::train::planner::labels::{AXES, Labels, POINTS, TRAJECTORY, Timing, labels};
use rankwise::train::planner::npy;
use rankwise::train::sampler::{DistributedSampler, SamplerOptions};

/// Where a file is that only a developer's checkout has beside it.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/oracles").join(name)
}

#[test]
fn a_real_segment_has_the_labels_of_the_original() {
    let folder = beside("comma2k19");
    if !folder.is_dir() {
        println!("skipped: no recorded segment in {}", folder.display());
        return;
    }
    let segment = Segment::read(&folder).unwrap();
    let wanted = npy::read(&folder.join("labels_f32.npy")).unwrap();
    assert_eq!(wanted.shape, [800, POINTS, AXES]);
    // The original starts at frame 1: the frame before is the older half of its input.
    let found = labels(&segment, 1..801, Timing::Original).unwrap();
    let found_f64 = found.values.iter().map(|&v| f64::from(v));
    assert!(found_f64.eq(wanted.values.iter().copied()), "labels differ from the original's");
    // The recorded clock is the faster one, by 0.5 %.
    let recorded = labels(&segment, 1..801, Timing::Recorded).unwrap();
    let ends =
        |labels: &Labels| (0..800).map(|f| f64::from(labels.frame(f)[TRAJECTORY - 3])).sum::<f64>();
    let ratio = ends(&recorded) / ends(&found);
    assert!((ratio - 1.005).abs() < 0.002, "{ratio}");
}

#[test]
fn all_orders_are_those_of_pytorch() {
    let path = beside("sampler.tsv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} cannot be read", path.display());
        return;
    };
    let mut cases = 0;
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |i: usize| fields[i].parse::<u64>().unwrap();
        let (shuffle, drop_last) = (number(5) == 1, number(6) == 1);
        let options = SamplerOptions { shuffle, seed: number(3), drop_last };
        let (n, ranks, rank) = (number(0) as usize, number(1) as usize, number(2) as usize);
        let sampler = DistributedSampler::new(n, ranks, rank, options);
        cases += 1;
        if number(7) == 0 {
            assert!(sampler.is_err(), "{line}");
            continue;
        }
        let mut sampler = sampler.unwrap();
        sampler.set_epoch(number(4)).unwrap();
        assert_eq!(sampler.len() as u64, number(7), "{line}");
        let hash = sampler.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, index| {
            (hash ^ index as u64).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(format!("{hash:016x}"), fields[8], "{line}");
    }
    assert!(cases > 1000, "{cases} cases");
}
