//! Cumulated returns where returns over several dates overlap.
//!
//! A return over h dates is known for every date, so compounding all of them counts each date h
//! times. Instead the capital is split into h parts. Part j trades on the dates t ≡ j (mod h) and
//! holds for h dates, so its returns do not overlap; the value of the whole is the mean of the
//! parts:
//!
//! ```text
//! V(s) = 1/h Σ_j Π (1 + r(t))^(share of the holding that has passed at s),   t ≡ j (mod h)
//! ```
//!
//! Between two trades a part grows evenly, (1 + r)^(1/h) a date, as in jqfactor-analyzer and in
//! alphalens before it dropped such parts. V is 1 until the first holding begins, which is `delay`
//! dates after its factor was known; a date without a return holds cash. At h = 1 this is plain
//! compounding. Cost: dates × h multiplications.

use super::quantiles::Quantiles;
use super::weighted::Weighted;

/// Values of one factor and horizon, by date.
#[derive(Clone, Debug, PartialEq)]
pub struct Cumulative {
    /// Of each group, with the returns that [`Quantiles::by_date`] holds.
    pub groups: Vec<Vec<f64>>,
    /// Of the highest less the lowest group.
    pub spread: Vec<f64>,
    /// Of the factor-weighted portfolio.
    pub weighted: Vec<f64>,
}

/// Cumulates the returns of one horizon (its number and its dates).
pub fn cumulate(
    quantiles: &Quantiles,
    weighted: &[Weighted],
    number: usize,
    horizon: usize,
    delay: usize,
) -> Cumulative {
    let (table, count) = (&quantiles.by_date[number], quantiles.count);
    let group = |g: usize| -> Vec<f64> { table.iter().skip(g).step_by(count).copied().collect() };
    Cumulative {
        groups: (0..count).map(|g| values(&group(g), horizon, delay)).collect(),
        spread: values(&quantiles.spread[number], horizon, delay),
        weighted: values(&weighted[number].returns, horizon, delay),
    }
}

/// The value on each date of a portfolio with these returns over `horizon` dates, which begin
/// `delay` dates later.
pub fn values(returns: &[f64], horizon: usize, delay: usize) -> Vec<f64> {
    let dates = returns.len();
    // Parts that begin after the last date stay cash.
    let parts = horizon.min(dates);
    let mut sums = vec![(horizon - parts) as f64; dates];
    for part in 0..parts {
        // Its value at the last trade and now, and what a holding grows in all and in a date.
        let (mut start, mut now) = (1.0f64, 1.0f64);
        let (mut growth, mut daily) = (1.0f64, 1.0f64);
        for (date, sum) in sums.iter_mut().enumerate() {
            if date >= part + delay {
                if (date - part - delay).is_multiple_of(horizon) {
                    start *= growth;
                    now = start;
                    growth = growth_of(returns[date - delay]);
                    daily = growth.powf(1.0 / horizon as f64);
                } else {
                    now *= daily;
                }
            }
            *sum += now;
        }
    }
    sums.iter().map(|sum| sum / horizon as f64).collect()
}

/// What a holding with this return becomes; all of it can be lost, and no more.
fn growth_of(r: f64) -> f64 {
    if r.is_nan() { 1.0 } else { (1.0 + r).max(0.0) }
}

/// How far each value is below the highest one up to its date, as a share: 0 or less.
pub fn drawdowns(values: &[f64]) -> Vec<f64> {
    let mut high = f64::NEG_INFINITY;
    let below = |&value: &f64| {
        high = high.max(value);
        value / high - 1.0
    };
    values.iter().map(below).collect()
}

/// The largest loss from a high, as a positive share.
pub fn maximum_drawdown(values: &[f64]) -> f64 {
    drawdowns(values).iter().fold(0.0, |most, &below| most.max(-below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::config::Demean;
    use crate::factor::evaluation_tests::alphalens;
    use crate::factor::fixtures::{close_to, number, table};

    #[test]
    fn one_date_compounds_as_alphalens_does() {
        for (k, name) in [(0, "f00"), (1, "f01")] {
            let found = alphalens(2, k, Demean::Date).remove(0).weighted;
            let values = values(&found[0].returns, 1, 0);
            assert_eq!((values.len(), values[0]), (40, 1.0));
            let rows = table(&format!("al_{name}_cumret.csv"));
            assert_eq!(rows.len(), 35);
            // alphalens writes a value at the date of the factor, this at the date it is earned.
            for (t, row) in rows.iter().enumerate() {
                assert!(close_to(values[t + 1], number(&row[1]), 1e-14), "{name} {t}");
            }
        }
    }

    #[test]
    fn parts_do_not_overlap() {
        // The parts of three dates, written out.
        let r = [0.1, -0.2, 0.3, 0.05, f64::NAN, -0.1, 0.2, 0.0];
        let g = |t: usize, passed: i32| (1.0f64 + r[t]).powf(f64::from(passed) / 3.0);
        let expected = [
            3.0,
            g(0, 1) + 2.0,
            g(0, 2) + g(1, 1) + 1.0,
            1.1 + g(1, 2) + g(2, 1),
            1.1 * g(3, 1) + 0.8 + g(2, 2),
            1.1 * g(3, 2) + 0.8 + 1.3,
            1.1 * 1.05 + 0.8 + 1.3 * g(5, 1),
            1.1 * 1.05 * g(6, 1) + 0.8 + 1.3 * g(5, 2),
        ];
        let found = values(&r, 3, 0);
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b / 3.0).abs() < 1e-15, "{found:?}");
        }
        // A delay moves everything.
        let late = values(&r, 3, 2);
        assert_eq!(late[..3], [1.0; 3]);
        assert_eq!(late[3..], found[1..6]);
        // Constant growth of c a date is c however long it is held.
        let steady = [1.1f64.powi(4) - 1.0; 40];
        let value = values(&steady, 4, 0)[39];
        let exact = (0..4).map(|part| 1.1f64.powi(39 - part)).sum::<f64>() / 4.0;
        assert!(close_to(value, exact, 1e-13));
        assert_eq!(values(&[], 5, 0), [0.0f64; 0]);
        assert_eq!(values(&[0.5], 7, 0), [1.0]);
        assert_eq!(values(&[-1.5, 0.1, 0.1], 1, 0), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn drawdowns_are_shares() {
        assert_eq!(drawdowns(&[1.0, 2.0, 1.0, 4.0]), [0.0, 0.0, -0.5, 0.0]);
        assert_eq!((maximum_drawdown(&[1.0, 2.0, 1.5]), maximum_drawdown(&[])), (0.25, 0.0));
    }
}
