//! Fama and MacBeth (1973): what a unit of each factor earned, given all the others.
//!
//! On every date and for every horizon, the forward returns of the cross-section are regressed on
//! all chosen factors at once, with a constant, over the assets that have the return and every
//! factor (ordinary least squares):
//!
//! ```text
//! r_i(t) = a(t) + Σ_k b_k(t) x_ik(t) + e_i(t)
//! ```
//!
//! The series b_k(t) is then treated as a sample: its mean, its plain t, and the t of Newey and
//! West with at least horizon - 1 lags, because returns over h dates overlap. A date with too few
//! complete assets, or whose factors explain one another, is skipped and counted.
//!
//! Columns are centred and scaled to length 1; the Cholesky factor of their products solves for
//! the slopes, and one more solution for what the residuals leave brings them to the accuracy of
//! an orthogonal method (Björck 1987, corrected seminormal equations). The owner of a date does
//! all that; rows of factors + 3 numbers are all-gathered, and every rank summarises the same
//! series in the order of dates. Cost: K² / 2 + 3 K multiplications an asset, date and horizon.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config;
use super::panel::Panel;
use super::past::Past;
use super::preprocess::{dots, range, sum_with};
use super::returns::Forward;
use super::statistics::{Summary, summary};
use crate::communicator::Communicator;
use crate::error::Result;
use crate::reduce::simd::vectorised;

/// A factor explains no return of its own if the others leave less than this of its square.
const COLLINEAR: f64 = 1e-10;
/// Deviations below this share of the largest value are rounding.
const ROUNDING: f64 = 1e-12;

/// The regressions of one horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FamaMacbeth {
    /// Dates ahead.
    pub horizon: usize,
    /// Dates with a regression.
    pub dates: usize,
    /// Dates skipped for too few complete assets, those without returns among them.
    pub few_assets: usize,
    /// Dates skipped because a factor was constant or explained by the others.
    pub collinear: usize,
    /// Mean number of assets of a regression.
    pub mean_assets: f64,
    /// Mean share of the variance of returns that is explained.
    pub mean_r2: f64,
    /// Lags of Newey and West.
    pub lags: usize,
    /// The constant, then each factor.
    pub coefficients: Vec<Coefficient>,
}

/// One coefficient over dates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coefficient {
    /// The name of the factor, or `constant`.
    pub factor: String,
    /// What its series is like.
    #[serde(flatten)]
    pub summary: Summary,
    /// By date, NaN where there is no regression.
    #[serde(skip)]
    pub series: Vec<f64>,
}

/// Regresses forward returns on the factors of these numbers. Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    chosen: &[usize],
    forward: &Forward,
    options: &config::FamaMacbeth,
) -> Result<Vec<FamaMacbeth>> {
    let (n, dates) = (panel.assets.len(), panel.own_dates().len());
    let least = options.minimum_assets.max(chosen.len() + 2);
    let width = chosen.len() + 3;
    let horizons = forward.horizons.len();
    // By date: horizons × width.
    let mut own = vec![f64::NAN; dates * horizons * width];
    let rows = own.par_chunks_mut((horizons * width).max(1)).enumerate();
    rows.for_each_init(Room::default, |room, (date, into)| {
        let cells = date * n..(date + 1) * n;
        let columns: Vec<&[f64]> =
            chosen.iter().map(|&k| &panel.factors[k].values[cells.clone()]).collect();
        room.begin(n, &columns);
        for (returns, into) in forward.values.iter().zip(into.chunks_exact_mut(width)) {
            room.regress(&returns[cells.clone()], &columns, least, into);
        }
    });
    let rows = past.gather(comm, &own)?;
    let lags = |horizon: usize| options.newey_west_lags.unwrap_or(0).max(horizon.saturating_sub(1));
    let of_horizon = |(h, &horizon): (usize, &usize)| {
        let names = chosen.iter().map(|&k| panel.factors[k].name.as_str());
        let rows: Vec<f64> =
            rows.chunks_exact(width).skip(h).step_by(horizons).flatten().copied().collect();
        over_dates(&rows, names, horizon, lags(horizon), least)
    };
    Ok(forward.horizons.iter().enumerate().map(of_horizon).collect())
}

/// The means of rows that hold the number of assets, R², the constant and the slopes of a date.
fn over_dates<'a>(
    rows: &[f64],
    names: impl ExactSizeIterator<Item = &'a str>,
    horizon: usize,
    lags: usize,
    least: usize,
) -> FamaMacbeth {
    let width = names.len() + 3;
    let column = |c: usize| rows.iter().skip(c).step_by(width).copied();
    let done: Vec<bool> = column(2).map(|constant| !constant.is_nan()).collect();
    let dates = done.iter().filter(|&&done| done).count();
    let few_assets = column(0).filter(|&assets| assets < least as f64).count();
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = values.fold((0.0, 0u32), |(sum, n), x| (sum + x, n + 1));
        sum / f64::from(n)
    };
    let coefficient = |(c, name): (usize, &str)| {
        let series: Vec<f64> = column(c + 2).collect();
        Coefficient { factor: name.to_string(), summary: summary(&series, 1, lags), series }
    };
    FamaMacbeth {
        horizon,
        dates,
        few_assets,
        collinear: done.len() - dates - few_assets,
        mean_assets: mean(&mut column(0).zip(&done).filter(|pair| *pair.1).map(|pair| pair.0)),
        mean_r2: mean(&mut column(1).filter(|r2| !r2.is_nan())),
        lags,
        coefficients: std::iter::once("constant")
            .chain(names)
            .enumerate()
            .map(coefficient)
            .collect(),
    }
}

/// The regressions of one date. Its room is used again for the next.
#[derive(Debug, Default)]
struct Room {
    /// The assets that have every factor.
    known: Vec<u32>,
    /// Those of them that have the return, and those of the horizon before.
    complete: Vec<u32>,
    before: Vec<u32>,
    /// Whether the factors of the horizon before could be solved for; `None` if there was none.
    solvable: Option<bool>,
    /// Returns and factors of the complete assets, centred, one column after the other.
    y: Vec<f64>,
    x: Vec<f64>,
    means: Vec<f64>,
    scales: Vec<f64>,
    products: Vec<f64>,
    slopes: Vec<f64>,
    step: Vec<f64>,
}

impl Room {
    /// Begins a date: finds the assets that have all factors.
    fn begin(&mut self, assets: usize, columns: &[&[f64]]) {
        let known = &mut self.known;
        known.clear();
        known.extend(0..assets as u32);
        for column in columns {
            known.retain(|&a| column[a as usize].is_finite());
        }
        self.solvable = None;
    }

    /// Writes the number of complete assets, R², the constant and the slopes.
    fn regress(&mut self, returns: &[f64], columns: &[&[f64]], least: usize, into: &mut [f64]) {
        std::mem::swap(&mut self.complete, &mut self.before);
        self.complete.clear();
        self.complete.extend(self.known.iter().filter(|&&a| returns[a as usize].is_finite()));
        let n = self.complete.len();
        into[0] = n as f64;
        if n < least {
            self.solvable = None;
            return;
        }
        // Horizons often have the same assets: then their factors are ready.
        let ready = self.solvable.filter(|_| self.complete == self.before);
        let solvable = match ready {
            Some(solvable) => solvable,
            None => self.centre(columns) && self.factorise(),
        };
        self.solvable = Some(solvable);
        if solvable {
            self.solve_for(returns, into);
        }
    }

    /// The slopes of the returns on the factors that are ready.
    fn solve_for(&mut self, returns: &[f64], into: &mut [f64]) {
        let (n, k) = (self.complete.len(), self.scales.len());
        self.y.clear();
        self.y.extend(self.complete.iter().map(|&a| returns[a as usize]));
        let mean = take_mean(&mut self.y);
        let whole = dot(&self.y, &self.y);
        self.slopes.clear();
        self.slopes.resize(k, 0.0);
        // The second turn adds what the residuals of the first one still hold.
        for _ in 0..2 {
            let (x, y, step) = (&self.x, &mut self.y[..], &mut self.step);
            step.clear();
            step.resize(k, 0.0);
            products(y, x, step);
            solve(&self.products, step);
            for (j, column) in x.chunks_exact(n).enumerate() {
                let slope = step[j];
                self.slopes[j] += slope;
                vectorised(
                    #[inline(always)]
                    || {
                        for (y, x) in y.iter_mut().zip(column) {
                            *y -= slope * x;
                        }
                    },
                );
            }
        }
        let left = dot(&self.y, &self.y);
        into[1] = if whole > 0.0 { 1.0 - left / whole } else { f64::NAN };
        into[2] = mean;
        for j in 0..k {
            let slope = self.slopes[j] / self.scales[j];
            into[2] -= slope * self.means[j];
            into[j + 3] = slope;
        }
    }

    /// Takes the factors of the complete assets, less their means and with length 1. False if one
    /// is constant.
    fn centre(&mut self, columns: &[&[f64]]) -> bool {
        let Room { complete, x, means, scales, .. } = self;
        let n = complete.len();
        means.clear();
        scales.clear();
        x.clear();
        for column in columns {
            let start = x.len();
            x.extend(complete.iter().map(|&a| column[a as usize]));
            let values = &mut x[start..];
            let (low, high) = vectorised(
                #[inline(always)]
                || range(values),
            );
            let largest = high.abs().max(low.abs());
            means.push(take_mean(values));
            let length = dot(values, values).sqrt();
            if length.is_nan() || length <= ROUNDING * largest * (n as f64).sqrt() {
                return false;
            }
            vectorised(
                #[inline(always)]
                || {
                    for x in &mut *values {
                        *x /= length;
                    }
                },
            );
            scales.push(length);
        }
        true
    }

    /// The lower Cholesky factor of the products of the columns; false if one is explained by
    /// those before it.
    fn factorise(&mut self) -> bool {
        let (n, k) = (self.complete.len(), self.scales.len());
        let a = &mut self.products;
        a.clear();
        a.resize(k * k, 0.0);
        for i in 0..k {
            let (before, column) = self.x.split_at(i * n);
            products(&column[..n], before, &mut a[i * k..i * k + i]);
            for j in 0..i {
                let before = dot(&a[i * k..i * k + j], &a[j * k..j * k + j]);
                a[i * k + j] = (a[i * k + j] - before) / a[j * k + j];
            }
            let rest = 1.0 - dot(&a[i * k..i * k + i], &a[i * k..i * k + i]);
            if rest.is_nan() || rest <= COLLINEAR {
                return false;
            }
            a[i * k + i] = rest.sqrt();
        }
        true
    }
}

/// Σ x y of one column with each of those that `columns` holds on end. An order that does not
/// depend on the processor; eight columns at once read `x` once.
fn products(x: &[f64], columns: &[f64], into: &mut [f64]) {
    let n = x.len();
    let column = |j: usize| &columns[j * n..(j + 1) * n];
    let (eights, rest) = into.as_chunks_mut::<8>();
    let many = 8 * eights.len();
    vectorised(
        #[inline(always)]
        || {
            for (i, into) in eights.iter_mut().enumerate() {
                *into = dots(x, std::array::from_fn::<_, 8, _>(|j| column(8 * i + j)));
            }
            for (j, into) in rest.iter_mut().enumerate() {
                [*into] = dots(x, [column(many + j)]);
            }
        },
    );
}

/// Σ x y in vectors, in an order that does not depend on the processor.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let [sum] = vectorised(
        #[inline(always)]
        || dots(x, [y]),
    );
    sum
}

/// Takes the mean away and returns it.
fn take_mean(values: &mut [f64]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let sum = sum_with(
                values,
                #[inline(always)]
                |x| x,
            );
            let mean = sum / values.len() as f64;
            for x in &mut *values {
                *x -= mean;
            }
            mean
        },
    )
}

/// Solves L Lᵀ b = x for the lower factor L, in place.
fn solve(l: &[f64], x: &mut [f64]) {
    let k = x.len();
    for i in 0..k {
        let before: f64 = (0..i).map(|j| l[i * k + j] * x[j]).sum();
        x[i] = (x[i] - before) / l[i * k + i];
    }
    for i in (0..k).rev() {
        let after: f64 = (i + 1..k).map(|j| l[j * k + i] * x[j]).sum();
        x[i] = (x[i] - after) / l[i * k + i];
    }
}

#[cfg(test)]
#[path = "fama_macbeth_tests.rs"]
mod tests;
