//! Technical factors: what prices and volumes of the past say about an asset.
//!
//! p is the price, v the volume, r = p/p₋₁ - 1 the return of a date; w is the window.
//!
//! | kind | value | dates before |
//! | --- | --- | --- |
//! | momentum | p₋ₛₖᵢₚ / p₋w - 1 | w |
//! | reversal | 1 - p / p₋w | w |
//! | volatility | standard deviation of r, n - 1 | w |
//! | downside_volatility | √ mean of min(r, 0)² | w |
//! | skewness | mean (r - m)³ / (mean (r - m)²)^1.5 | w |
//! | maximum_return | largest r | w |
//! | moving_average_gap | p / mean p - 1 | w - 1 |
//! | high_gap | p / max p - 1 | w - 1 |
//! | maximum_drawdown | max (1 - p / highest p before) | w - 1 |
//! | turnover | mean v | w - 1 |
//! | volume_ratio | v / mean v - 1 | w - 1 |
//! | illiquidity | mean of abs r / (p v) (Amihud 2002) | w |
//!
//! Gaps: means, moments and extremes take what is known in the window, and need half of it (and
//! two values). A date without a price has no technical factor. Results that are no numbers are
//! missing.
//!
//! The earlier rows of a shard come from its neighbours (`rows_around`), w rows of assets × 8
//! bytes; or the panel is turned round, so that ranks hold all dates of their assets, if that moves
//! fewer bytes (`shards` has the formula of both). Every value is summed from the oldest date to
//! the latest over its own window, so it has the same bits on any number of ranks. Cost: window ×
//! cells additions, over rows of assets, so that they run in SIMD.

use rayon::prelude::*;

use super::config::{Technical, TechnicalKind};
use super::panel::{Beyond, Factor, Panel, rows_around};
use super::shards::{Exchange, Shards, to_assets, to_dates};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

impl TechnicalKind {
    /// Its word in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            TechnicalKind::Momentum => "momentum",
            TechnicalKind::Reversal => "reversal",
            TechnicalKind::Volatility => "volatility",
            TechnicalKind::DownsideVolatility => "downside_volatility",
            TechnicalKind::Skewness => "skewness",
            TechnicalKind::MaximumReturn => "maximum_return",
            TechnicalKind::MovingAverageGap => "moving_average_gap",
            TechnicalKind::HighGap => "high_gap",
            TechnicalKind::MaximumDrawdown => "maximum_drawdown",
            TechnicalKind::Turnover => "turnover",
            TechnicalKind::VolumeRatio => "volume_ratio",
            TechnicalKind::Illiquidity => "illiquidity",
        }
    }

    /// The smallest window that means anything.
    pub fn least_window(self) -> usize {
        match self {
            TechnicalKind::Momentum | TechnicalKind::Reversal | TechnicalKind::Turnover => 1,
            TechnicalKind::Skewness => 3,
            _ => 2,
        }
    }

    pub(super) fn needs_volume(self) -> bool {
        use TechnicalKind::{Illiquidity, Turnover, VolumeRatio};
        matches!(self, Turnover | VolumeRatio | Illiquidity)
    }
}

impl Technical {
    /// The name of the factor.
    pub fn name(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None if self.skip > 0 => format!("{}_{}_{}", self.kind.name(), self.window, self.skip),
            None => format!("{}_{}", self.kind.name(), self.window),
        }
    }
}

/// Rows of assets, the first of which is `before` dates before the first own one.
struct Series {
    values: Vec<f64>,
    before: usize,
    width: usize,
}

impl Series {
    /// The row `lag` dates before own date `date`.
    fn row(&self, date: usize, lag: usize) -> &[f64] {
        let start = (self.before + date - lag) * self.width;
        &self.values[start..start + self.width]
    }

    /// A series of the same shape from this one and the row before in it.
    fn derived(&self, value: impl Fn(f64, f64) -> f64 + Sync) -> Series {
        let width = self.width;
        let mut values = vec![f64::NAN; self.values.len()];
        if width > 0 && values.len() > width {
            let rows = values[width..].par_chunks_mut(width);
            rows.zip(self.values.par_windows(2 * width).step_by(width)).for_each(|(out, pair)| {
                for (a, out) in out.iter_mut().enumerate() {
                    *out = value(pair[a + width], pair[a]);
                }
            });
        }
        Series { values, before: self.before, width }
    }
}

/// What the formulas are made of.
struct Ingredients {
    price: Series,
    returns: Series,
    volume: Option<Series>,
    illiquidity: Option<Series>,
}

impl Ingredients {
    /// Collective.
    fn gather(
        comm: &Communicator,
        panel: &Panel,
        wanted: &[Technical],
        shards: Shards,
    ) -> Result<Ingredients> {
        // A rank without dates has empty matrices of a panel that has them.
        let held = [&panel.price, &panel.volume].map(|matrix| u64::from(!matrix.is_empty()));
        let held = comm.all_reduce_vec(&held, Op::Max)?;
        let volume_needed = wanted.iter().find(|technical| technical.kind.needs_volume());
        let lacking = match volume_needed {
            _ if held[0] == 0 => wanted.first().map(|technical| (technical, "price")),
            Some(technical) if held[1] == 0 => Some((technical, "volume")),
            _ => None,
        };
        if let Some((technical, column)) = lacking {
            let name = technical.name();
            return Err(Error::input(format!(
                "{name}: the panel has no {column}; name its column in [input] as '{column}'"
            )));
        }
        let before = wanted.iter().map(|technical| technical.window).max().unwrap_or(0);
        let assets = Sharding::even(panel.assets.len(), comm.ranks());
        let width = match shards {
            Shards::Halo => panel.assets.len(),
            Shards::Transpose => assets.count(comm.rank()),
        };
        let around = |matrix: &[f64], earlier: &[f64]| -> Result<Series> {
            let values = match shards {
                Shards::Halo => {
                    let beyond = Beyond { before: earlier, after: &[] };
                    rows_around(comm, panel, matrix, (before, 0), beyond)?
                }
                Shards::Transpose => {
                    let own = to_assets(comm, &panel.sharding, &assets, matrix)?;
                    with_earlier(own, earlier, before, &assets.range(comm.rank()), assets.n())
                }
            };
            Ok(Series { values, before, width })
        };
        let price = around(&panel.price, &panel.edges.price_before)?;
        let returns = price.derived(|now, earlier| now / earlier - 1.0);
        let volume =
            volume_needed.map(|_| around(&panel.volume, &panel.edges.volume_before)).transpose()?;
        let illiquidity = volume.as_ref().map(|volume| {
            let mut values = returns.values.clone();
            let traded = price.values.par_iter().zip(&volume.values);
            values.par_iter_mut().zip(traded).for_each(|(r, (&p, &v))| {
                *r = if p * v > 0.0 { r.abs() / (p * v) } else { f64::NAN };
            });
            Series { values, before, width }
        });
        Ok(Ingredients { price, returns, volume, illiquidity })
    }

    /// The values of a factor on `dates` dates.
    fn values(&self, technical: &Technical, dates: usize) -> Vec<f64> {
        let width = self.price.width;
        let mut values = vec![f64::NAN; dates * width];
        if width > 0 {
            values.par_chunks_mut(width).enumerate().for_each(|(date, out)| {
                fill_row(technical, self, date, out);
                // Today's price decides.
                for (x, p) in out.iter_mut().zip(self.price.row(date, 0)) {
                    *x = if p.is_nan() || !x.is_finite() { f64::NAN } else { *x };
                }
            });
        }
        values
    }
}

/// All dates of own assets (`columns` of `width`), after `before` rows of those before them, which
/// are the last ones of `earlier` (of all assets), or missing.
fn with_earlier(
    own: Vec<f64>,
    earlier: &[f64],
    before: usize,
    columns: &std::ops::Range<usize>,
    width: usize,
) -> Vec<f64> {
    let rows = earlier.len() / width.max(1);
    let taken = rows.min(before);
    let mut all = vec![f64::NAN; (before - taken) * columns.len()];
    for row in earlier.chunks_exact(width.max(1)).skip(rows - taken) {
        all.extend_from_slice(&row[columns.clone()]);
    }
    all.extend(own);
    all
}

/// The factors that `wanted` describes, on the own dates of the panel, in the way that moves fewer
/// bytes. Collective.
pub fn technical_factors(
    comm: &Communicator,
    panel: &Panel,
    wanted: &[Technical],
) -> Result<Vec<Factor>> {
    technical_factors_by(comm, panel, wanted, Exchange::of(panel, wanted).chosen)
}

/// [`technical_factors`] in a given way. Collective.
pub fn technical_factors_by(
    comm: &Communicator,
    panel: &Panel,
    wanted: &[Technical],
    shards: Shards,
) -> Result<Vec<Factor>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let taken = |name: &String| panel.factors.iter().any(|factor| factor.name == *name);
    let names: Vec<String> = wanted.iter().map(Technical::name).collect();
    for (i, name) in names.iter().enumerate() {
        if taken(name) || names[..i].contains(name) {
            return Err(Error::input(format!(
                "factors.technical: two factors have the name '{name}'; give one another name"
            )));
        }
    }
    let ingredients = Ingredients::gather(comm, panel, wanted, shards)?;
    let assets = Sharding::even(panel.assets.len(), comm.ranks());
    let mut factors = Vec::with_capacity(wanted.len());
    for (technical, name) in wanted.iter().zip(names) {
        let values = match shards {
            Shards::Halo => ingredients.values(technical, panel.own_dates().len()),
            Shards::Transpose => {
                let turned = ingredients.values(technical, panel.dates.len());
                to_dates(comm, &panel.sharding, &assets, &turned)?
            }
        };
        factors.push(Factor { name, values });
    }
    Ok(factors)
}

/// The values of one date.
fn fill_row(technical: &Technical, given: &Ingredients, date: usize, out: &mut [f64]) {
    let (window, price, returns) = (technical.window, &given.price, &given.returns);
    // Checked before: where a kind needs volume, there is one.
    let volume = given.volume.as_ref().unwrap_or(price);
    let now = price.row(date, 0);
    match technical.kind {
        TechnicalKind::Momentum => {
            let (late, early) = (price.row(date, technical.skip), price.row(date, window));
            combine(out, late, early, |late, early| late / early - 1.0);
        }
        TechnicalKind::Reversal => {
            combine(out, now, price.row(date, window), |now, early| 1.0 - now / early);
        }
        TechnicalKind::Volatility => {
            moments(returns, date, window, out, |n, squares, _| (squares / (n - 1.0)).sqrt());
        }
        TechnicalKind::Skewness => moments(returns, date, window, out, |n, squares, cubes| {
            (cubes / n) / (squares / n).powf(1.5)
        }),
        TechnicalKind::DownsideVolatility => {
            mean(returns, date, window, out, |r| r.min(0.0) * r.min(0.0));
            out.iter_mut().for_each(|x| *x = x.sqrt());
        }
        TechnicalKind::MaximumReturn => maximum(returns, date, window, out),
        TechnicalKind::MovingAverageGap => {
            mean(price, date, window, out, |p| p);
            out.iter_mut().zip(now).for_each(|(x, p)| *x = p / *x - 1.0);
        }
        TechnicalKind::HighGap => {
            maximum(price, date, window, out);
            out.iter_mut().zip(now).for_each(|(x, p)| *x = p / *x - 1.0);
        }
        TechnicalKind::MaximumDrawdown => drawdown(price, date, window, out),
        TechnicalKind::Turnover => mean(volume, date, window, out, |v| v),
        TechnicalKind::VolumeRatio => {
            mean(volume, date, window, out, |v| v);
            out.iter_mut().zip(volume.row(date, 0)).for_each(|(x, v)| *x = v / *x - 1.0);
        }
        TechnicalKind::Illiquidity => {
            mean(given.illiquidity.as_ref().unwrap_or(price), date, window, out, |x| x);
        }
    }
}

fn combine(out: &mut [f64], late: &[f64], early: &[f64], value: impl Fn(f64, f64) -> f64) {
    for ((out, &late), &early) in out.iter_mut().zip(late).zip(early) {
        *out = value(late, early);
    }
}

/// How many values of a window have to be known.
fn needed(window: usize) -> f64 {
    window.div_ceil(2).max(2).min(window) as f64
}

/// Sums of `value` over the window, and how many are known, oldest first.
fn sums(series: &Series, date: usize, window: usize, mut add: impl FnMut(usize, f64)) {
    for lag in (0..window).rev() {
        for (a, &x) in series.row(date, lag).iter().enumerate() {
            add(a, x);
        }
    }
}

fn mean(series: &Series, date: usize, window: usize, out: &mut [f64], value: impl Fn(f64) -> f64) {
    let mut counts = vec![0.0; out.len()];
    out.fill(0.0);
    sums(series, date, window, |a, x| {
        let known = !x.is_nan();
        out[a] += if known { value(x) } else { 0.0 };
        counts[a] += if known { 1.0 } else { 0.0 };
    });
    let least = needed(window);
    for (x, n) in out.iter_mut().zip(counts) {
        *x = if n >= least { *x / n } else { f64::NAN };
    }
}

/// `value` of the count, the sum of squares and the sum of cubes about the mean.
fn moments(
    series: &Series,
    date: usize,
    window: usize,
    out: &mut [f64],
    value: impl Fn(f64, f64, f64) -> f64,
) {
    let width = out.len();
    mean(series, date, window, out, |x| x);
    let (mut counts, mut squares, mut cubes) =
        (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
    sums(series, date, window, |a, x| {
        let (known, d) = (!x.is_nan(), x - out[a]);
        counts[a] += if known { 1.0 } else { 0.0 };
        squares[a] += if known { d * d } else { 0.0 };
        cubes[a] += if known { d * d * d } else { 0.0 };
    });
    for (a, x) in out.iter_mut().enumerate().filter(|(_, x)| !x.is_nan()) {
        *x = value(counts[a], squares[a], cubes[a]);
    }
}

fn maximum(series: &Series, date: usize, window: usize, out: &mut [f64]) {
    let mut counts = vec![0.0; out.len()];
    out.fill(f64::NEG_INFINITY);
    sums(series, date, window, |a, x| {
        out[a] = out[a].max(x); // the other one where one is NaN
        counts[a] += if x.is_nan() { 0.0 } else { 1.0 };
    });
    let least = needed(window);
    out.iter_mut().zip(counts).filter(|(_, n)| *n < least).for_each(|(x, _)| *x = f64::NAN);
}

fn drawdown(price: &Series, date: usize, window: usize, out: &mut [f64]) {
    let (mut counts, mut highs) = (vec![0.0; out.len()], vec![f64::NEG_INFINITY; out.len()]);
    out.fill(0.0);
    sums(price, date, window, |a, x| {
        highs[a] = highs[a].max(x);
        out[a] = out[a].max(1.0 - x / highs[a]);
        counts[a] += if x.is_nan() { 0.0 } else { 1.0 };
    });
    let least = needed(window);
    out.iter_mut().zip(counts).filter(|(_, n)| *n < least).for_each(|(x, _)| *x = f64::NAN);
}

#[cfg(test)]
#[path = "technical_tests.rs"]
mod tests;
