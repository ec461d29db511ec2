//! Preprocessing against numpy and statsmodels on a small panel with all the awkward cases.

use super::*;
use crate::factor::config::*;
use crate::factor::fixtures::{Small, close_to};

/// All cross-sections of the small panel, each asset in its column, NaN where nothing came out.
fn processed(small: &Small, options: &Preprocess) -> Vec<Vec<f64>> {
    let (mut day, mut section) = (Day::default(), Section::default());
    let mut brackets = vec![Brackets::default(); small.factors.len()];
    let mut rows = Vec::new();
    for date in 0..small.dates {
        day.prepare(&small.day(date), options);
        for (factor, brackets) in small.factors.iter().zip(&mut brackets) {
            let mut row = vec![f64::NAN; small.assets];
            section.process(&day, small.row(factor, date), options, brackets);
            for (&place, &x) in section.places.iter().zip(&section.values) {
                row[day.order[place as usize] as usize] = x;
            }
            rows.push(row);
        }
    }
    rows
}

fn compare(rows: &[Vec<f64>], expected: &[f64], tolerance: f64) {
    let found: Vec<f64> = rows.concat();
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(close_to(*a, *b, tolerance), "value {i}: {a:e}, expected {b:e}");
    }
}

#[test]
fn winsorised_values_match_numpy() {
    let small = Small::load();
    let options = Preprocess::default();
    let expected = small.expected("winsor");
    let (mut day, mut section) = (Day::default(), Section::default());
    let mut brackets = Brackets::default();
    for date in 0..small.dates {
        day.prepare(&small.day(date), &options);
        for (k, factor) in small.factors.iter().enumerate() {
            section.load(&day, small.row(factor, date), true);
            if section.values.len() < LEAST {
                continue;
            }
            section.winsorise(&options, &mut brackets);
            for (&place, &x) in section.places.iter().zip(&section.values) {
                let asset = day.order[place as usize] as usize;
                let wanted = expected[(date * small.factors.len() + k) * small.assets + asset];
                assert!(close_to(x, wanted, 1e-13), "{date} {k} {asset}: {x} {wanted}");
            }
        }
    }
}

#[test]
fn z_scores_match_numpy() {
    let small = Small::load();
    compare(&processed(&small, &Preprocess::default()), &small.expected("z"), 1e-12);
}

#[test]
fn residuals_match_numpy_and_statsmodels() {
    let small = Small::load();
    let mut options = Preprocess::default();
    options.standardise.method = StandardiseMethod::None;
    let expected = small.expected("resid");
    let rows = processed(&small, &options);
    // The reference keeps residuals that are rounding, which have no z-scores.
    let z = small.expected("z");
    let kept: Vec<f64> =
        expected.iter().zip(&z).map(|(e, z)| if z.is_nan() { f64::NAN } else { *e }).collect();
    compare(&rows, &kept, 1e-12);
    options.neutralise.weights = RegressionWeights::SqrtCap;
    let wls = small.expected("wls_resid");
    let kept: Vec<f64> = wls
        .iter()
        .zip(processed(&small, &options).concat())
        .map(|(e, found)| if found.is_nan() { f64::NAN } else { *e })
        .collect();
    let rows = processed(&small, &options);
    // Sections of fewer than ten values are not in the reference.
    for (i, (a, b)) in rows.concat().iter().zip(&kept).enumerate() {
        let section = i / small.assets;
        let known = rows[section].iter().filter(|x| !x.is_nan()).count();
        assert!(known < 10 || close_to(*a, *b, 1e-12), "value {i}: {a:e}, expected {b:e}");
    }
    assert!(wls.iter().filter(|x| !x.is_nan()).count() > 10_000);
}

#[test]
fn industry_means_fill_gaps() {
    let small = Small::load();
    let mut options = Preprocess::none();
    options.fill.method = FillMethod::IndustryMean;
    let expected = small.expected("f00_industry_mean_fill");
    let (mut day, mut section) = (Day::default(), Section::default());
    for date in 0..small.dates {
        day.prepare(&small.day(date), &options);
        section.load(&day, small.row(&small.factors[0], date), false);
        let mut row = vec![f64::NAN; small.assets];
        for (&place, &x) in section.places.iter().zip(&section.values) {
            row[day.order[place as usize] as usize] = x;
        }
        for (asset, x) in row.iter().enumerate() {
            let wanted = expected[date * small.assets + asset];
            assert!(close_to(*x, wanted, 1e-13), "{date} {asset}: {x} {wanted}");
        }
    }
}

/// The regression by normal equations, to check what Frisch, Waugh and Lovell promise.
fn slow_residuals(x: &[f64], columns: &[Vec<f64>], w: &[f64]) -> Vec<f64> {
    let q = columns.len();
    let inner = |a: &[f64], b: &[f64]| (0..a.len()).map(|i| w[i] * a[i] * b[i]).sum::<f64>();
    let mut m: Vec<Vec<f64>> = columns
        .iter()
        .map(|a| columns.iter().map(|b| inner(a, b)).chain([inner(a, x)]).collect())
        .collect();
    for i in 0..q {
        for j in (0..q).filter(|&j| j != i) {
            let factor = m[j][i] / m[i][i];
            let pivot = m[i].clone();
            m[j].iter_mut().zip(&pivot).skip(i).for_each(|(x, p)| *x -= factor * p);
        }
    }
    let fitted = |i: usize| (0..q).map(|c| m[c][q] / m[c][c] * columns[c][i]).sum::<f64>();
    (0..x.len()).map(|i| x[i] - fitted(i)).collect()
}

#[test]
fn all_regressions_match_normal_equations() {
    let n = 23;
    let value = |i: usize, k: usize| ((i * 37 + k * 101) % 59) as f64 / 7.0 - 3.0;
    let x: Vec<f64> = (0..n).map(|i| value(i, 1)).collect();
    let cap: Vec<f64> = (0..n).map(|i| (value(i, 2) + 4.0).exp()).collect();
    let industry: Vec<u16> = (0..n).map(|i| (i * i % 4) as u16).collect();
    for (industries, intercept) in [(false, false), (false, true), (true, false), (true, true)] {
        for size in [Capitalisation::None, Capitalisation::Log, Capitalisation::Raw] {
            for weights in [RegressionWeights::Ols, RegressionWeights::SqrtCap] {
                let mut options = Preprocess::none();
                options.neutralise =
                    Neutralise { industry: industries, capitalisation: size, intercept, weights };
                let mut day = Day::default();
                let (industry, capitalisation) = (&industry[..], &cap[..]);
                day.prepare(
                    &DayInput { assets: n, industry, capitalisation, ..Default::default() },
                    &options,
                );
                let mut section = Section::default();
                assert!(section.process(&day, &x, &options, &mut Brackets::default()));
                let mut columns: Vec<Vec<f64>> = Vec::new();
                if industries {
                    columns.extend(
                        (0..4).filter(|g| industry.contains(g)).map(|g| {
                            industry.iter().map(|&i| f64::from(u8::from(i == g))).collect()
                        }),
                    );
                } else if intercept {
                    columns.push(vec![1.0; n]);
                }
                match size {
                    Capitalisation::None => {}
                    Capitalisation::Log => columns.push(cap.iter().map(|c| c.ln()).collect()),
                    Capitalisation::Raw => columns.push(cap.clone()),
                }
                let sqrt = weights == RegressionWeights::SqrtCap;
                let w: Vec<f64> = cap.iter().map(|c| if sqrt { c.sqrt() } else { 1.0 }).collect();
                let expected = slow_residuals(&x, &columns, &w);
                for (&place, &found) in section.places.iter().zip(&section.values) {
                    let wanted = expected[day.order[place as usize] as usize];
                    assert!(
                        (found - wanted).abs() < 1e-11,
                        "{industries} {intercept} {size:?} {weights:?}: {found} {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn medians_are_exact_whatever_the_bracket() {
    use super::median::{Bracket, median};
    let mut bracket = Bracket::default();
    let mut room = Vec::new();
    let mut state = 1u64;
    for round in 0..3000usize {
        let n = 1 + round % 67;
        let levels = [2, 5, 1000, 1 << 40][round / 7 % 4];
        let values: Vec<f64> = (0..n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 20) % levels) as f64 - levels as f64 / 3.0
            })
            .collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let expected = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        assert_eq!(median(&values, |x| x, &mut bracket, &mut room), expected, "{values:?}");
        let mirrored = median(&values, |x| 1.0 - x, &mut Bracket::default(), &mut room);
        let mut sorted: Vec<f64> = values.iter().map(|x| 1.0 - x).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        assert_eq!(mirrored, (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0, "{values:?}");
    }
}

#[test]
fn other_bounds_and_scales() {
    let mut options = Preprocess::none();
    options.winsorise.method = WinsoriseMethod::Quantile;
    (options.winsorise.lower, options.winsorise.upper) = (0.1, 0.85);
    let row: Vec<f64> = (0..11).map(|i| f64::from(i * i)).collect();
    let mut day = Day::default();
    let mut section = Section::default();
    let mut process = |row: &[f64], options: &Preprocess, cap: &[f64]| {
        let input = DayInput { assets: row.len(), capitalisation: cap, ..Default::default() };
        day.prepare(&input, options);
        let good = section.process(&day, row, options, &mut Brackets::default());
        (good, section.values.clone())
    };
    // np.quantile(x, [0.1, 0.85]) = 1, 72.5
    let (_, values) = process(&row, &options, &[]);
    assert_eq!(values, [1.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, 64.0, 72.5, 72.5]);
    options.winsorise.method = WinsoriseMethod::Sigma;
    (options.winsorise.n, options.winsorise.ddof) = (1.0, 0);
    let (_, values) = process(&[0.0, 0.0, 0.0, 8.0], &options, &[]);
    assert_eq!(values, [0.0, 0.0, 0.0, 2.0 + 12f64.sqrt()]);
    options.winsorise.method = WinsoriseMethod::None;
    options.standardise.method = StandardiseMethod::RankNormal;
    let (_, values) = process(&[3.0, 1.0, 2.0, 2.0], &options, &[]);
    // Φ⁻¹ of 7/8, 1/8, 1/2, 1/2
    let wanted = [1.150_349_380_376_008, -1.150_349_380_376_008, 0.0, 0.0];
    assert!(values.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{values:?}");
    options.standardise.method = StandardiseMethod::Zscore;
    options.standardise.mean = MeanWeights::Cap;
    options.standardise.ddof = 0;
    let (_, values) = process(&[0.0, 2.0, 0.0, 2.0], &options, &[1.0, 3.0, 1.0, 3.0]);
    assert_eq!(values, [-1.5, 0.5, -1.5, 0.5]);
    // Constants up to rounding, and too few values.
    let almost = [0.1 + 0.2, 0.3, 0.3, 0.3];
    assert!(!process(&almost, &Preprocess::none(), &[]).0);
    assert!(!process(&[1.0, f64::INFINITY, f64::NAN, 2.0], &Preprocess::none(), &[]).0);
    let (good, values) = process(&[1.0, -0.0, f64::NEG_INFINITY, 2.0], &Preprocess::none(), &[]);
    assert!(good && values[1].to_bits() == 0 && values.len() == 3);
}
