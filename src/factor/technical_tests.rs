//! Tests of technical factors: a reference that knows the whole panel, on any number of ranks.

use super::*;
use crate::launch;
use crate::sharding::Sharding;

const ASSETS: usize = 5;

/// Prices and volumes with gaps, the same everywhere.
fn cell(date: usize, asset: usize, salt: u64) -> f64 {
    let mut z = (date as u64 * 31 + asset as u64 * 7919 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 32;
    let late = asset == 4 && date < 6;
    if late || z % 100 < 12 { f64::NAN } else { 1.0 + (z % 1_000_003) as f64 / 50_000.0 }
}

fn panel(dates: usize, ranks: usize, rank: usize) -> Panel {
    let sharding = Sharding::even(dates, ranks);
    let matrix = |salt| {
        let own = sharding.range(rank);
        own.flat_map(|date| (0..ASSETS).map(move |asset| cell(date, asset, salt))).collect()
    };
    Panel {
        dates: (0..dates as i32).collect(),
        assets: (0..ASSETS).map(|a| format!("a{a}")).collect(),
        rank,
        price: matrix(1),
        volume: matrix(2),
        sharding,
        ..Panel::default()
    }
}

/// The value by its definition, from all prices.
fn reference(kind: TechnicalKind, w: usize, skip: usize, date: usize, asset: usize) -> f64 {
    let at = |salt: u64, lag: usize| {
        date.checked_sub(lag).map_or(f64::NAN, |date| cell(date, asset, salt))
    };
    let (p, v) = (|lag| at(1, lag), |lag| at(2, lag));
    let r = |lag| p(lag) / p(lag + 1) - 1.0;
    let known = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..w).rev().map(f).filter(|x| !x.is_nan()).collect()
    };
    let mean = |xs: &[f64]| {
        let enough = xs.len() >= w.div_ceil(2).max(2).min(w);
        if enough { xs.iter().sum::<f64>() / xs.len() as f64 } else { f64::NAN }
    };
    let central = |power: i32| {
        let rs = known(&r);
        let m = mean(&rs);
        rs.iter().map(|r| (r - m).powi(power)).sum::<f64>() / rs.len() as f64
    };
    let highest = |xs: &[f64]| mean(xs) * 0.0 + xs.iter().copied().fold(f64::MIN, f64::max);
    let n = || known(&r).len() as f64;
    let value = match kind {
        TechnicalKind::Momentum => p(skip) / p(w) - 1.0,
        TechnicalKind::Reversal => 1.0 - p(0) / p(w),
        TechnicalKind::Volatility => (central(2) * n() / (n() - 1.0)).sqrt(),
        TechnicalKind::DownsideVolatility => mean(&known(&|l| r(l).min(r(l) * 0.0).powi(2))).sqrt(),
        TechnicalKind::Skewness => central(3) / central(2).powf(1.5),
        TechnicalKind::MaximumReturn => highest(&known(&r)),
        TechnicalKind::MovingAverageGap => p(0) / mean(&known(&p)) - 1.0,
        TechnicalKind::HighGap => p(0) / highest(&known(&p)) - 1.0,
        TechnicalKind::MaximumDrawdown => {
            let ps = known(&p);
            let falls = (0..ps.len()).map(|i| 1.0 - ps[i] / highest(&ps)).collect::<Vec<f64>>();
            let mut worst: f64 = 0.0;
            for i in 0..falls.len() {
                (0..=i).for_each(|j| worst = worst.max(1.0 - ps[i] / ps[j]));
            }
            mean(&ps) * 0.0 + worst
        }
        TechnicalKind::Turnover => mean(&known(&v)),
        TechnicalKind::VolumeRatio => v(0) / mean(&known(&v)) - 1.0,
        TechnicalKind::Illiquidity => mean(&known(&|l| r(l).abs() / (p(l) * v(l)))),
    };
    if p(0).is_nan() || !value.is_finite() { f64::NAN } else { value }
}

fn wanted() -> Vec<Technical> {
    use TechnicalKind::*;
    let kinds = [
        Momentum,
        Reversal,
        Volatility,
        DownsideVolatility,
        Skewness,
        MaximumReturn,
        MovingAverageGap,
        HighGap,
        MaximumDrawdown,
        Turnover,
        VolumeRatio,
        Illiquidity,
    ];
    let mut wanted = Vec::new();
    for kind in kinds {
        for window in [kind.least_window(), 4, 11] {
            if kind != Momentum {
                wanted.push(Technical { kind, window, skip: 0, name: None });
            } else {
                (0..window.min(3))
                    .for_each(|skip| wanted.push(Technical { kind, window, skip, name: None }));
            }
        }
    }
    wanted
}

#[test]
fn factors_are_those_of_the_whole_panel_on_any_number_of_ranks() {
    let wanted = wanted();
    for dates in [1, 5, 23] {
        let run = |ranks: usize, shards: Shards| -> Vec<Vec<f64>> {
            let parts = launch::threads(ranks, |comm| {
                technical_factors_by(comm, &panel(dates, ranks, comm.rank()), &wanted, shards)
            })
            .unwrap();
            (0..wanted.len())
                .map(|k| parts.iter().flat_map(|part| part[k].values.clone()).collect())
                .collect()
        };
        let alone = run(1, Shards::Halo);
        let mut known = 0;
        for (technical, values) in wanted.iter().zip(&alone) {
            for (cell, &x) in values.iter().enumerate() {
                let (kind, w, skip) = (technical.kind, technical.window, technical.skip);
                let y = reference(kind, w, skip, cell / ASSETS, cell % ASSETS);
                let close = (x - y).abs() <= 1e-12 * (1.0 + y.abs());
                assert!(close || x.is_nan() && y.is_nan(), "{technical:?} {cell}: {x} {y}");
                known += usize::from(!x.is_nan());
            }
        }
        assert!(dates < 20 || known > 1000, "{known} values compared");
        for ranks in [1, 2, 3, 4, 7] {
            for shards in [Shards::Halo, Shards::Transpose] {
                for (one, many) in alone.iter().zip(run(ranks, shards)) {
                    let bits = |xs: &[f64]| xs.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
                    assert_eq!(bits(one), bits(&many), "{ranks} ranks, {dates} dates, {shards:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_lacking_or_named_twice_is_an_error() {
    let one = Technical { kind: TechnicalKind::Turnover, window: 3, skip: 0, name: None };
    let run = |panel: Panel, wanted: &[Technical]| {
        launch::threads(1, |comm| technical_factors(comm, &panel, wanted)).unwrap_err().message
    };
    let message = run(panel(3, 1, 0), &[one.clone(), one.clone()]);
    assert!(message.contains("'turnover_3'"), "{message}");
    let bare = Panel { volume: Vec::new(), ..panel(3, 1, 0) };
    assert!(run(bare, std::slice::from_ref(&one)).contains("turnover_3: the panel has no volume"));
    let bare = Panel { price: Vec::new(), ..panel(3, 1, 0) };
    assert!(run(bare, &[one]).contains("the panel has no price"));
}

#[test]
fn a_block_takes_up_where_the_one_before_ended() {
    let (wanted, dates) = (wanted(), 23);
    let whole = launch::threads(1, |comm| technical_factors(comm, &panel(dates, 1, 0), &wanted))
        .unwrap()
        .remove(0);
    for ranks in [1, 2, 3] {
        for (first, reach) in [(1, 11), (8, 11), (20, 30)] {
            for shards in [Shards::Halo, Shards::Transpose] {
                let parts = launch::threads(ranks, |comm| {
                    let sharding = Sharding::even(dates - first, ranks);
                    let own = sharding.range(comm.rank());
                    let all = panel(dates, 1, 0);
                    let rows = |matrix: &[f64], rows: std::ops::Range<usize>| {
                        matrix[rows.start * ASSETS..rows.end * ASSETS].to_vec()
                    };
                    let earlier = first.saturating_sub(reach)..first;
                    let edges = crate::factor::edges::Edges {
                        price_before: rows(&all.price, earlier.clone()),
                        volume_before: rows(&all.volume, earlier),
                        ..Default::default()
                    };
                    let own = first + own.start..first + own.end;
                    let block = Panel {
                        dates: all.dates[first..].to_vec(),
                        price: rows(&all.price, own.clone()),
                        volume: rows(&all.volume, own),
                        rank: comm.rank(),
                        sharding,
                        edges,
                        ..all.clone()
                    };
                    technical_factors_by(comm, &block, &wanted, shards)
                })
                .unwrap();
                for (k, factor) in whole.iter().enumerate() {
                    let bits = |xs: &[f64]| xs.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
                    let found: Vec<f64> =
                        parts.iter().flat_map(|part| part[k].values.clone()).collect();
                    let expected = bits(&factor.values[first * ASSETS..]);
                    assert_eq!(bits(&found), expected, "{} {first} {shards:?}", factor.name);
                }
            }
        }
    }
}
