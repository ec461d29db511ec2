//! Stepwise choice of factors.
//!
//! Each step takes the factor whose coefficients say most beyond those already chosen: its series
//! is regressed on theirs, c = a + Σ b_j c_j + e, and the t statistic of a is its score (the plain
//! t of the mean in the first step). A factor enters if abs t reaches `minimum_t` and its mean
//! correlation with every chosen one stays within `maximum_correlation`; the choice ends when none
//! does. All of it reads the gathered table, so nothing is exchanged and all ranks choose alike.
//! Ties go to the earlier factor.

use serde::{Deserialize, Serialize};

use super::config;
use super::correlation::Correlations;

/// A factor that entered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the factor.
    pub factor: usize,
    /// The t statistic it entered with.
    pub t: f64,
    /// Its largest correlation in size with those before it; 0 for the first.
    pub correlation: f64,
}

/// Chooses among factors with the given coefficients by date.
pub fn choose(
    series: &[Vec<f64>],
    correlations: &Correlations,
    options: &config::Screening,
) -> Vec<Step> {
    let mut chosen: Vec<Step> = Vec::new();
    let most = if options.most == 0 { series.len() } else { options.most };
    while chosen.len() < most {
        let mut best: Option<Step> = None;
        for factor in 0..series.len() {
            let alike = |step: &Step| correlations.of(factor, step.factor).abs();
            let correlation = chosen.iter().map(alike).fold(0.0, f64::max);
            let taken = chosen.iter().any(|step| step.factor == factor);
            if taken || correlation > options.maximum_correlation {
                continue;
            }
            let given: Vec<&[f64]> = chosen.iter().map(|s| &series[s.factor][..]).collect();
            let t = intercept_t(&series[factor], &given);
            let better = best.as_ref().is_none_or(|best| t.abs() > best.t.abs());
            if t.abs() >= options.minimum_t && better {
                best = Some(Step { factor, t, correlation });
            }
        }
        match best {
            Some(step) => chosen.push(step),
            None => break,
        }
    }
    chosen
}

/// The t statistic of the constant in a regression of `y` on `columns`, over dates that know all of
/// them; NaN where there are too few, or `columns` explain `y` or one another.
///
/// Gram and Schmidt: what `columns` leave of y is y - Σ b x; they leave of the constant what is
/// orthogonal to them, and the slope on that is a.
pub fn intercept_t(y: &[f64], columns: &[&[f64]]) -> f64 {
    let rows: Vec<usize> = (0..y.len())
        .filter(|&t| !y[t].is_nan() && columns.iter().all(|column| !column[t].is_nan()))
        .collect();
    let pick = |column: &[f64]| rows.iter().map(|&t| column[t]).collect::<Vec<f64>>();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let n = rows.len();
    if n < columns.len() + 2 {
        return f64::NAN;
    }
    let (mut rest, mut one) = (pick(y), vec![1.0; n]);
    let size = dot(&rest, &rest);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let remove = |from: &mut [f64], direction: &[f64]| {
        let slope = dot(from, direction) / dot(direction, direction);
        from.iter_mut().zip(direction).for_each(|(x, d)| *x -= slope * d);
    };
    for column in columns {
        let mut direction = pick(column);
        let before = dot(&direction, &direction);
        // Twice is enough (Kahan): the second pass removes what rounding left.
        for _ in 0..2 {
            basis.iter().for_each(|b| remove(&mut direction, b));
        }
        if dot(&direction, &direction) > 1e-20 * before {
            basis.push(direction);
        }
    }
    for _ in 0..2 {
        basis.iter().for_each(|b| remove(&mut rest, b));
        basis.iter().for_each(|b| remove(&mut one, b));
    }
    let square = dot(&one, &one);
    let a = dot(&rest, &one) / square;
    let left: f64 = rest.iter().zip(&one).map(|(r, o)| (r - a * o) * (r - a * o)).sum();
    let freedom = (n - basis.len() - 1) as f64;
    if square <= 1e-20 * n as f64 || left <= 1e-24 * size {
        return f64::NAN;
    }
    a / (left / freedom / square).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::statistics::summary;

    fn noise(seed: usize) -> Vec<f64> {
        let mixed = |t: usize| (t * 7_919 + seed * 104_729 + t * t * (31 + seed)) % 1_009;
        (0..200).map(|t| mixed(t) as f64 / 1_009.0 - 0.5).collect()
    }

    fn correlations(k: usize) -> Correlations {
        let mean = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.1 }).collect();
        let factors = (0..k).map(|f| format!("f{f}")).collect();
        Correlations { factors, mean, dates: vec![200; k * k] }
    }

    #[test]
    fn the_first_t_is_the_plain_one() {
        let series = noise(3);
        let t = intercept_t(&series, &[]);
        assert!((t - summary(&series, 1, 0).t).abs() < 1e-10);
    }

    #[test]
    fn what_chosen_factors_explain_does_not_enter() {
        let add = |x: &[f64], mean: f64| x.iter().map(|x| x * 0.3 + mean).collect::<Vec<f64>>();
        let good = add(&noise(1), 0.2);
        let other = add(&noise(2), 0.1);
        let copy: Vec<f64> =
            good.iter().zip(noise(4)).map(|(x, e)| 0.9 * x + 0.01 * e - 0.0001).collect();
        let useless = add(&noise(5), 0.0);
        let series = vec![useless, copy, other, good];
        let options = config::Screening { enabled: true, ..config::Screening::default() };
        let mut limits = correlations(4);
        let chosen = |limits: &Correlations, options: &config::Screening| {
            choose(&series, limits, options).iter().map(|s| s.factor).collect::<Vec<_>>()
        };
        let all = chosen(&limits, &options);
        assert!(all.contains(&2) && !all.contains(&0), "{all:?}");
        assert_eq!(all.iter().filter(|&&f| f == 1 || f == 3).count(), 1, "{all:?}");
        // A limit on correlation keeps the second one out, and `most` ends the choice.
        for (a, b) in [(0, 1), (2, 1), (2, 3)] {
            limits.mean[a * 4 + b] = 0.9;
            limits.mean[b * 4 + a] = 0.9;
        }
        assert_eq!(chosen(&limits, &options).len(), 1);
        let one = config::Screening { most: 1, ..options };
        assert_eq!(chosen(&correlations(4), &one).len(), 1);
    }
}
