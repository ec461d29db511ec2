//! Statistics of a series of information coefficients.
//!
//! All are over the dates whose coefficient is known, in the order of dates, on the gathered
//! series: every rank computes the same bits. With mean m, deviations u and n dates,
//!
//! ```text
//! ir = m / std,   t = ir √n,   p two-sided from Student's t with n - 1 degrees of freedom,
//! t (Newey, West 1987) = m n / √S,   S = Σ u² + 2 Σ_l (1 - l / (L+1)) Σ u_i u_(i-l).
//! ```
//!
//! Returns over h dates overlap, so neighbouring coefficients share h - 1 dates of returns and the
//! plain t is too large; L = h - 1 lags allow for that (Bartlett weights, no small-sample factor,
//! p from the normal distribution). Skewness and excess kurtosis are biased, as in scipy.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// What a series is like. Numbers that need more dates than there are, are NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Dates with a coefficient.
    pub n: usize,
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
    /// Mean over standard deviation.
    pub ir: f64,
    /// The t statistic of the mean.
    pub t: f64,
    /// Its two-sided p value.
    pub p: f64,
    /// The t statistic that allows for overlapping returns.
    pub t_newey_west: f64,
    /// Its two-sided p value.
    pub p_newey_west: f64,
    /// Skewness.
    pub skew: f64,
    /// Excess kurtosis.
    pub kurtosis: f64,
    /// The share of dates with a positive coefficient.
    pub hit_rate: f64,
}

/// Summarises a series with gaps (NaN). `ddof` is lost by the standard deviation, `lags` are those
/// of Newey and West.
pub fn summary(series: &[f64], ddof: u32, lags: usize) -> Summary {
    let known: Vec<f64> = series.iter().copied().filter(|x| !x.is_nan()).collect();
    let n = known.len();
    let count = n as f64;
    let none = f64::NAN;
    let mut summary = Summary {
        n,
        mean: none,
        std: none,
        ir: none,
        t: none,
        p: none,
        t_newey_west: none,
        p_newey_west: none,
        skew: none,
        kurtosis: none,
        hit_rate: none,
    };
    if n < 2 {
        return summary;
    }
    let mean = known.iter().sum::<f64>() / count;
    let moment = |power: i32| known.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / count;
    let variance = moment(2);
    summary.mean = mean;
    summary.std = (variance * count / (count - f64::from(ddof))).sqrt();
    summary.hit_rate = known.iter().filter(|&&x| x > 0.0).count() as f64 / count;
    if summary.std > 1e-14 * mean.abs() {
        summary.ir = mean / summary.std;
        summary.t = summary.ir * count.sqrt();
        summary.p = student_p(summary.t, count - 1.0);
        summary.skew = moment(3) / variance.powf(1.5);
        summary.kurtosis = moment(4) / (variance * variance) - 3.0;
        summary.t_newey_west = newey_west(&known, lags);
        summary.p_newey_west = 2.0 * Normal::standard().sf(summary.t_newey_west.abs());
    }
    summary
}

/// The two-sided p value of a t statistic.
fn student_p(t: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |student| 2.0 * student.sf(t.abs()))
}

/// The t statistic of the mean of a series without gaps, with covariances up to `lags`.
pub fn newey_west(known: &[f64], lags: usize) -> f64 {
    let n = known.len();
    let mean = known.iter().sum::<f64>() / n as f64;
    let deviations: Vec<f64> = known.iter().map(|x| x - mean).collect();
    let product =
        |lag: usize| deviations[lag..].iter().zip(&deviations).map(|(a, b)| a * b).sum::<f64>();
    let mut variance = product(0);
    for lag in 1..=lags.min(n.saturating_sub(1)) {
        variance += 2.0 * (1.0 - lag as f64 / (lags as f64 + 1.0)) * product(lag);
    }
    if variance > 0.0 { mean * n as f64 / variance.sqrt() } else { f64::NAN }
}

/// The correlation of a series with itself `lag` dates before, over pairs of known dates.
pub fn autocorrelation(series: &[f64], lag: usize) -> f64 {
    let later = series.get(lag..).unwrap_or(&[]);
    let pairs: Vec<(f64, f64)> = later
        .iter()
        .copied()
        .zip(series.iter().copied())
        .filter(|p| !(p.0 + p.1).is_nan())
        .collect();
    pearson(&pairs)
}

/// The correlation of pairs without gaps; NaN for fewer than 3 or a constant side.
pub(crate) fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    if pairs.len() < 3 {
        return f64::NAN;
    }
    let mean = |side: fn(&(f64, f64)) -> f64| pairs.iter().map(side).sum::<f64>() / n;
    let (a, b) = (mean(|p| p.0), mean(|p| p.1));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    let mut largest = (0.0f64, 0.0f64);
    for (x, y) in pairs {
        largest = (largest.0.max(x.abs()), largest.1.max(y.abs()));
        aa += (x - a) * (x - a);
        bb += (y - b) * (y - b);
        ab += (x - a) * (y - b);
    }
    let constant = |squares: f64, largest: f64| squares <= n * (1e-12 * largest).powi(2);
    if constant(aa, largest.0) || constant(bb, largest.1) {
        return f64::NAN;
    }
    ab / (aa * bb).sqrt()
}

/// The mean of a series in one month.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Month {
    /// The year.
    pub year: i32,
    /// The month, from 1.
    pub month: u32,
    /// Dates with a coefficient.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
}

/// Means by calendar month, of ascending dates in days since 1970-01-01; months without a known
/// value are left out.
pub fn monthly(dates: &[i32], series: &[f64]) -> Vec<Month> {
    let mut months: Vec<Month> = Vec::new();
    for (&date, &x) in dates.iter().zip(series).filter(|pair| !pair.1.is_nan()) {
        let (year, month) = year_and_month(date);
        match months.last_mut() {
            Some(last) if (last.year, last.month) == (year, month) => {
                last.n += 1;
                last.mean += x;
            }
            _ => months.push(Month { year, month, n: 1, mean: x }),
        }
    }
    months.iter_mut().for_each(|m| m.mean /= m.n as f64);
    months
}

/// The year and month of a day since 1970-01-01 in the proleptic Gregorian calendar: years start
/// in March, so that the leap day is the last one (Howard Hinnant, `chrono`-compatible dates).
fn year_and_month(days: i32) -> (i32, u32) {
    let shifted = i64::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ((year + era * 400 + next) as i32, month as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::fixtures::{Small, close_to, number, table};

    #[test]
    fn summaries_match_scipy_and_statsmodels() {
        let ic = Small::load().expected("ic");
        let newey_west = table("expected_newey_west.csv");
        let rows = table("expected_summary.csv");
        assert_eq!((rows.len(), newey_west.len()), (24, 24));
        for (i, (row, hac)) in rows.iter().zip(&newey_west).enumerate() {
            let (k, h) = (i / 3, i % 3);
            let series: Vec<f64> = (0..40).map(|t| ic[(t * 8 + k) * 3 + h]).collect();
            let s = summary(&series, 1, [0, 4, 19][h]);
            assert_eq!(s.n, row[2].parse::<usize>().unwrap());
            let found = [s.mean, s.std, s.ir, s.t, s.p, s.skew, s.kurtosis, s.hit_rate];
            for (found, cell) in found.iter().zip(&row[3..]) {
                assert!(close_to(*found, number(cell), 1e-11), "{row:?}: {found}");
            }
            assert!(close_to(s.t_newey_west, number(&hac[3]), 1e-12), "{hac:?}");
        }
    }

    #[test]
    fn months_follow_the_calendar() {
        let cases = [
            (0, (1970, 1)),
            (58, (1970, 2)),
            (59, (1970, 3)),
            (-1, (1969, 12)),
            (11_016, (2000, 2)),
            (11_017, (2000, 3)),
            (19_782, (2024, 2)),
            (19_783, (2024, 3)),
            (19_723, (2024, 1)),
            (19_722, (2023, 12)),
        ];
        for (day, expected) in cases {
            assert_eq!(year_and_month(day), expected, "{day}");
        }
        let months = monthly(&[0, 30, 31, 60, 90], &[1.0, 2.0, 4.0, f64::NAN, 8.0]);
        let means: Vec<_> = months.iter().map(|m| (m.month, m.n, m.mean)).collect();
        assert_eq!(means, [(1, 2, 1.5), (2, 1, 4.0), (4, 1, 8.0)]);
    }

    #[test]
    fn short_and_constant_series_have_no_statistics() {
        assert!(summary(&[0.5, f64::NAN], 1, 0).mean.is_nan());
        let constant = summary(&[0.1; 9], 1, 2);
        assert!(constant.t.is_nan() && constant.t_newey_west.is_nan());
        assert!((constant.mean - 0.1).abs() < 1e-16);
        let alternating: Vec<f64> = (0..10).map(|i| f64::from(i % 2)).collect();
        assert!((autocorrelation(&alternating, 1) + 1.0).abs() < 1e-12);
        assert!((autocorrelation(&alternating, 2) - 1.0).abs() < 1e-12);
        assert!(autocorrelation(&alternating, 9).is_nan());
    }
}
