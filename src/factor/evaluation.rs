//! What a study says about processed factors besides their coefficients: groups, factor-weighted
//! portfolios, stability, decay, and the regressions of Fama and MacBeth.
//!
//! If an asset counts only with the returns of all horizons, as in alphalens, it is left out before
//! groups are cut. What has no group has no weight and no rank either. `sections` computes the rows
//! of a rank's own dates in one visit; gathered, they are summarised here, factor by factor.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::cumulative::{cumulate, maximum_drawdown};
use super::decay::{self, Lag};
use super::fama_macbeth::{self, FamaMacbeth};
use super::panel::Panel;
use super::past::Past;
use super::quantiles::{self, Quantiles};
use super::returns::{self, Forward};
use super::sections::{self, Layout};
use super::stability::{self, Stability};
use super::weighted::{self, Weighted};
use crate::communicator::Communicator;
use crate::error::Result;

/// Factors that are evaluated together: they share the sorted returns of a date, and their
/// standings take 4 bytes a cell.
const TOGETHER: usize = 8;

/// What is known of one factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Returns by group.
    pub quantiles: Quantiles,
    /// Turnover and autocorrelation over each horizon.
    pub stability: Vec<Stability>,
    /// The factor-weighted portfolio of each horizon.
    pub weighted: Vec<Weighted>,
    /// Coefficients by lag.
    pub decay: Vec<Lag>,
}

/// Evaluates the processed factors of a panel, if groups are asked for. Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    forward: &Forward,
    config: &Config,
) -> Result<Vec<Evaluation>> {
    if !config.quantiles.enabled {
        return Ok(Vec::new());
    }
    let daily = returns::daily(comm, panel, &config.returns, config.ic.decay_lags)?;
    let horizons = &forward.horizons;
    let (mut found, mut standings) = (Vec::new(), Vec::new());
    for factors in panel.factors.chunks(TOGETHER) {
        let own = sections::visit(panel, factors, forward, &daily, config, &mut standings);
        let layout = Layout::of(factors.len(), config);
        let size = (layout.factors, layout.groups);
        let stability = stability::run(comm, past, panel, &standings, size, horizons)?;
        let table = past.gather(comm, &own)?;
        let whole = |(k, stability)| evaluate(&table, layout, k, stability, horizons, config);
        let evaluations = stability.into_par_iter().enumerate().map(whole);
        found.extend(evaluations.collect::<Vec<Evaluation>>());
    }
    Ok(found)
}

/// What the rows of all dates say of factor `k`.
fn evaluate(
    table: &[f64],
    layout: Layout,
    k: usize,
    stability: Vec<Stability>,
    horizons: &[usize],
    config: &Config,
) -> Evaluation {
    let start = k * layout.of_factor();
    let part = |from: usize, width: usize| {
        let from = start + from;
        table.chunks_exact(layout.of_date()).flat_map(move |row| &row[from..from + width]).copied()
    };
    let (lags, count) = (layout.lags, layout.groups);
    let lag = |lag: usize| {
        let [pearson, ranks] = [lag, lags + lag].map(|from| part(from, 1).collect::<Vec<f64>>());
        decay::summarise(lag, &pearson, &ranks, config.ic.ddof)
    };
    let groups = |h: usize| part(2 * lags + h * count, count).collect();
    let weighted = |(h, &horizon): (usize, &usize)| {
        let rows: Vec<f64> = part(2 * lags + layout.horizons * count + 2 * h, 2).collect();
        weighted::summarise(rows.as_chunks().0, horizon, config.portfolio.days_per_year)
    };
    Evaluation {
        quantiles: quantiles::summarise(
            (0..horizons.len()).map(groups).collect(),
            horizons,
            &config.quantiles,
        ),
        stability,
        weighted: horizons.iter().enumerate().map(weighted).collect(),
        decay: (0..lags).map(lag).collect(),
    }
}

/// The regressions that a configuration asks for, on the factors of these numbers. Collective.
pub fn regressions(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    chosen: &[usize],
    forward: &Forward,
    config: &Config,
) -> Result<Vec<FamaMacbeth>> {
    if !config.fama_macbeth.enabled {
        return Ok(Vec::new());
    }
    fama_macbeth::run(comm, past, panel, chosen, forward, &config.fama_macbeth)
}

/// What two long-short portfolios of a factor earned over one horizon; field names are JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LongShort {
    /// The factor.
    pub factor: String,
    /// Dates ahead.
    pub horizon: usize,
    /// Mean return of the highest less the lowest group.
    pub spread_mean: f64,
    /// Its t statistic.
    pub spread_t: f64,
    /// The t statistic that allows for overlapping returns.
    pub spread_t_newey_west: f64,
    /// What the spread earned in all, in overlapping parts.
    pub spread_total: f64,
    /// Its largest loss from a high.
    pub spread_drawdown: f64,
    /// Mean return of the factor-weighted portfolio.
    pub weighted_mean: f64,
    /// Its t statistic.
    pub weighted_t: f64,
    /// The t statistic that allows for overlapping returns.
    pub weighted_t_newey_west: f64,
    /// What it earned in all, in overlapping parts.
    pub weighted_total: f64,
    /// Its largest loss from a high.
    pub weighted_drawdown: f64,
    /// Its return in a year that the mean of all assets does not explain.
    pub annual_alpha: f64,
    /// Its slope on the mean of all assets.
    pub beta: f64,
    /// Mean autocorrelation of the factor's ranks over the horizon.
    pub autocorrelation: f64,
}

/// A line for each factor and horizon.
pub fn long_short(
    evaluations: &[Evaluation],
    factors: &[String],
    horizons: &[usize],
    delay: usize,
) -> Vec<LongShort> {
    let line = |i: usize| {
        let (k, h) = (i / horizons.len(), i % horizons.len());
        let (one, horizon) = (&evaluations[k], horizons[h]);
        let all = cumulate(&one.quantiles, &one.weighted, h, horizon, delay);
        let total = |values: &[f64]| values.last().map_or(f64::NAN, |value| value - 1.0);
        let (spread, weighted) = (&one.quantiles.spread_summary[h], &one.weighted[h]);
        LongShort {
            factor: factors[k].clone(),
            horizon,
            spread_mean: spread.mean,
            spread_t: spread.t,
            spread_t_newey_west: spread.t_newey_west,
            spread_total: total(&all.spread),
            spread_drawdown: maximum_drawdown(&all.spread),
            weighted_mean: weighted.summary.mean,
            weighted_t: weighted.summary.t,
            weighted_t_newey_west: weighted.summary.t_newey_west,
            weighted_total: total(&all.weighted),
            weighted_drawdown: maximum_drawdown(&all.weighted),
            annual_alpha: weighted.annual_alpha,
            beta: weighted.beta,
            autocorrelation: one.stability[h].mean_autocorrelation,
        }
    };
    (0..evaluations.len() * horizons.len()).into_par_iter().map(line).collect()
}
