//! Coefficients against scipy, and against their definitions on all small cases.

use super::super::fixtures::{Small, close_to};
use super::super::preprocess::{Brackets, Day, Preprocess, Section};
use super::*;

/// Spearman or Pearson by the book, over pairs without gaps.
fn slow(x: &[f64], y: &[f64], rank: bool) -> f64 {
    let pairs: Vec<(f64, f64)> =
        x.iter().copied().zip(y.iter().copied()).filter(|p| !(p.0 + p.1).is_nan()).collect();
    let ranks = |side: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let below = |v: f64| pairs.iter().filter(|p| side(p) < v).count() as f64;
        let alike = |v: f64| pairs.iter().filter(|p| side(p) == v).count() as f64;
        let value = |v: f64| if rank { 2.0 * below(v) + alike(v) } else { v };
        pairs.iter().map(|p| value(side(p))).collect()
    };
    let (a, b) = (ranks(|p| p.0), ranks(|p| p.1));
    let n = pairs.len() as f64;
    if pairs.len() < 3 {
        return f64::NAN;
    }
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(&a), mean(&b));
    let inner = |u: &[f64], mu: f64, v: &[f64], mv: f64| {
        u.iter().zip(v).map(|(u, v)| (u - mu) * (v - mv)).sum::<f64>()
    };
    let (aa, bb) = (inner(&a, ma, &a, ma), inner(&b, mb, &b, mb));
    if aa < 1e-9 || bb < 1e-9 { f64::NAN } else { inner(&a, ma, &b, mb) / (aa * bb).sqrt() }
}

fn coefficients(x: &[f64], returns: &[&[f64]]) -> (Vec<f64>, Vec<f64>) {
    let order: Vec<u32> = (0..x.len() as u32).collect();
    let mut day = DayReturns::default();
    day.prepare(&order, returns);
    let places: Vec<u32> = order.into_iter().filter(|&i| !x[i as usize].is_nan()).collect();
    let values: Vec<f64> = places.iter().map(|&i| x[i as usize]).collect();
    let mut correlator = Correlator::default();
    let (mut ranks, mut pearson) = (vec![0.0; returns.len()], vec![0.0; returns.len()]);
    correlator.ranks(&values, &places, &day, 3, &mut ranks);
    correlator.pearson(&values, &places, &day, 3, &mut pearson);
    (ranks, pearson)
}

#[test]
fn all_small_cases_match_the_definition() {
    // Values 0, 1, 2 or missing, on both sides, against four horizons (more than a word holds).
    let level = |code: usize, i: usize| [0.0, 1.0, 2.0, f64::NAN][code / 4usize.pow(i as u32) % 4];
    let n = 4;
    let all: Vec<Vec<f64>> =
        (0..256).map(|code| (0..n).map(|i| level(code, i)).collect()).collect();
    for x in &all {
        for start in (0..256).step_by(4) {
            let returns: Vec<&[f64]> = all[start..start + 4].iter().map(|y| &y[..]).collect();
            let (ranks, pearson) = coefficients(x, &returns);
            for (h, y) in returns.iter().enumerate() {
                assert!(close_to(ranks[h], slow(x, y, true), 1e-14), "{x:?} {y:?} {ranks:?}");
                assert!(close_to(pearson[h], slow(x, y, false), 1e-14), "{x:?} {y:?}");
            }
        }
    }
}

#[test]
fn larger_cases_with_gaps_and_ties_match_the_definition() {
    let value = |i: usize, seed: usize, levels: usize| {
        let mixed = (i * 2_654_435_761 + seed * 40_503 + i * i * 97) % 65_537;
        if mixed % 11 == seed % 11 { f64::NAN } else { (mixed % levels) as f64 - 7.5 }
    };
    for n in [3, 8, 9, 100, 257] {
        for levels in [3, 40, 65_537] {
            let column = |seed| (0..n).map(|i| value(i, seed, levels)).collect::<Vec<f64>>();
            let x = column(1);
            let returns: Vec<Vec<f64>> = (2..9).map(column).collect();
            let rows: Vec<&[f64]> = returns.iter().map(|y| &y[..]).collect();
            let (ranks, pearson) = coefficients(&x, &rows);
            for (h, y) in rows.iter().enumerate() {
                assert!(close_to(ranks[h], slow(&x, y, true), 1e-13));
                assert!(close_to(pearson[h], slow(&x, y, false), 1e-13));
            }
        }
    }
}

#[test]
fn coefficients_of_the_small_panel_match_scipy() {
    let small = Small::load();
    for (options, name) in [(Preprocess::default(), "ic"), (Preprocess::none(), "raw_ic")] {
        let expected = small.expected(name);
        let (mut day, mut section) = (Day::default(), Section::default());
        let (mut returns, mut correlator) = (DayReturns::default(), Correlator::default());
        let mut brackets = Brackets::default();
        for date in 0..small.dates {
            day.prepare(&small.day(date), &options);
            let forward: Vec<Vec<f64>> = [1, 5, 20]
                .iter()
                .map(|h| {
                    let price = |asset, date| {
                        let cell = date * small.assets + asset;
                        small.price.get(cell).copied().unwrap_or(f64::NAN)
                    };
                    (0..small.assets).map(|a| price(a, date + h) / price(a, date) - 1.0).collect()
                })
                .collect();
            let rows: Vec<&[f64]> = forward.iter().map(|r| &r[..]).collect();
            returns.prepare(&day.order, &rows);
            for (k, factor) in small.factors.iter().enumerate() {
                let mut found = [f64::NAN; 3];
                if section.process(&day, small.row(factor, date), &options, &mut brackets) {
                    let (values, places) = (&section.values, &section.places);
                    correlator.ranks(values, places, &returns, 3, &mut found);
                }
                for (h, found) in found.iter().enumerate() {
                    let wanted = expected[(date * 8 + k) * 3 + h];
                    assert!(
                        close_to(*found, wanted, 1e-15),
                        "{name} date {date} factor {k} horizon {h}: {found} {wanted}"
                    );
                }
            }
        }
    }
}
