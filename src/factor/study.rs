//! The factor study: every factor against every horizon, in one pass over the dates.
//!
//! The rank that owns a date prepares it once (industries, capitalisation, sorted returns) and then
//! takes each factor through preprocessing and correlation while it is in the first cache level.
//! Nothing crosses ranks but prices of later dates before, and the table of coefficients after:
//! dates × factors × horizons × 16 bytes, all-gathered, so that every rank computes the summary
//! from the same numbers. So results have the same bits at any number of ranks and threads.
//! Cost for three horizons: 14 ns of processor time a cell (date, asset, factor), with 2,000 assets
//! and 20 factors of eight families on a core with AVX-512; Pearson coefficients add 5.

use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{self, Config, FillMethod};
use super::ic::{Correlator, DayReturns, MOST_ASSETS};
use super::panel::{Factor, Panel};
use super::past::Past;
use super::preprocess::{Brackets, Day, DayInput, Preprocess, Section};
use super::returns::{self, Forward};
use super::statistics::{self, Month, Summary};
use super::universe;
use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// What a study does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StudyOptions {
    /// Which assets take part.
    pub universe: config::Universe,
    /// What is done to cross-sections.
    pub preprocess: Preprocess,
    /// Forward returns.
    pub returns: config::Returns,
    /// Coefficients and their statistics.
    pub ic: config::Ic,
    /// Whether Pearson coefficients are wanted besides those of ranks.
    pub pearson: bool,
    /// Whether the processed factors are kept, for quantiles, composites and portfolios.
    pub keep: bool,
}

impl Default for StudyOptions {
    fn default() -> Self {
        StudyOptions {
            universe: config::Universe::default(),
            preprocess: Preprocess::default(),
            returns: config::Returns::default(),
            ic: config::Ic::default(),
            pearson: true,
            keep: true,
        }
    }
}

impl From<&Config> for StudyOptions {
    fn from(config: &Config) -> StudyOptions {
        StudyOptions {
            universe: config.universe.clone(),
            preprocess: Preprocess::from(config),
            returns: config.returns.clone(),
            ic: config.ic.clone(),
            pearson: config.ic.pearson,
            keep: config.uses_processed_factors(),
        }
    }
}

/// Coefficients of one date, factor and horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IcRow {
    /// Days since 1970-01-01.
    pub date: i32,
    /// Number of the factor.
    pub factor: usize,
    /// Dates ahead.
    pub horizon: usize,
    /// Pearson, NaN where there is none.
    pub ic: f64,
    /// Of ranks.
    pub rank_ic: f64,
}

/// What the coefficients of a factor and a horizon are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// The name of the factor.
    pub factor: String,
    /// Dates ahead.
    pub horizon: usize,
    /// Of Pearson coefficients.
    pub ic: Summary,
    /// Of rank coefficients.
    pub rank_ic: Summary,
    /// Autocorrelation of rank coefficients at lags from 1.
    pub autocorrelation: Vec<f64>,
    /// Mean rank coefficients by month.
    pub months: Vec<Month>,
}

/// Seconds of the phases of a rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Universe and forward returns.
    pub returns: f64,
    /// Preprocessing and correlation.
    pub correlate: f64,
    /// The gathered table and its statistics.
    pub summarise: f64,
}

/// The results of a study, the same on every rank but for what is said to be its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// The names of the factors.
    pub factors: Vec<String>,
    /// The horizons.
    pub horizons: Vec<usize>,
    /// All dates, in days since 1970-01-01.
    pub dates: Vec<i32>,
    /// Pearson coefficients: dates × factors × horizons.
    pub ic: Vec<f64>,
    /// Rank coefficients, as `ic`.
    pub rank_ic: Vec<f64>,
    /// Factors × horizons.
    pub summary: Vec<SummaryRow>,
    /// The processed factors of the own dates, if they are kept.
    pub processed: Vec<Factor>,
    /// Forward returns of the own dates.
    pub forward: Forward,
    /// The assets of the own dates that take part; empty if all do.
    pub universe: Vec<bool>,
    /// This rank's time.
    pub seconds: Seconds,
    /// Time of correlation by cells of this rank and one of its threads.
    pub ns_per_cell: f64,
}

impl Study {
    /// The rank coefficients of a factor and a horizon (numbers), by date.
    pub fn rank_series(&self, factor: usize, horizon: usize) -> Vec<f64> {
        self.series(&self.rank_ic, factor, horizon)
    }

    /// The Pearson coefficients, as [`Study::rank_series`].
    pub fn pearson_series(&self, factor: usize, horizon: usize) -> Vec<f64> {
        self.series(&self.ic, factor, horizon)
    }

    fn series(&self, table: &[f64], factor: usize, horizon: usize) -> Vec<f64> {
        let (k, h) = (self.factors.len(), self.horizons.len());
        (0..self.dates.len()).map(|t| table[(t * k + factor) * h + horizon]).collect()
    }

    /// The table of coefficients: by date, factor and horizon.
    pub fn ic_rows(&self) -> impl Iterator<Item = IcRow> + '_ {
        let (k, h) = (self.factors.len(), self.horizons.len());
        self.ic.iter().zip(&self.rank_ic).enumerate().map(move |(i, (&ic, &rank_ic))| IcRow {
            date: self.dates[i / (k * h)],
            factor: i / h % k,
            horizon: self.horizons[i % h],
            ic,
            rank_ic,
        })
    }
}

/// Studies all factors of a panel. Collective.
pub fn run(comm: &Communicator, panel: &Panel, options: &StudyOptions) -> Result<Study> {
    run_after(comm, &mut Past::default(), panel, options)
}

/// Studies a block of dates; the coefficients and the summary are those of all dates so far.
/// Collective.
pub fn run_after(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    options: &StudyOptions,
) -> Result<Study> {
    let kept = if options.keep { panel.factors.clone() } else { Vec::new() };
    study(comm, past, panel, options, kept)
}

/// [`run_after`], with the processed factors in the memory of the raw ones, which the panel loses:
/// a panel is mostly factors, and fresh memory for as many costs as much as the work on them.
/// Collective.
pub fn run_in_place(
    comm: &Communicator,
    past: &mut Past,
    panel: &mut Panel,
    options: &StudyOptions,
) -> Result<Study> {
    if !options.keep {
        return study(comm, past, panel, options, Vec::new());
    }
    let kept = std::mem::take(&mut panel.factors);
    study(comm, past, panel, options, kept)
}

/// Studies the factors that are `kept`, in place; those of the panel if there are none.
fn study(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    options: &StudyOptions,
    mut kept: Vec<Factor>,
) -> Result<Study> {
    comm.agree(check(panel, options))?;
    let start = Instant::now();
    let universe = universe::mask(comm, panel, &options.universe)?;
    let forward = returns::forward(comm, panel, &options.returns)?;
    let returns_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let own = correlate(panel, options, &universe, &forward, &mut kept);
    let factors = if kept.is_empty() { &panel.factors } else { &kept };
    let correlate_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let ic = past.gather(comm, &own.ic)?;
    let rank_ic = past.gather(comm, &own.rank_ic)?;
    let cells = (panel.own_dates().len() * panel.assets.len() * factors.len()).max(1);
    let threads = rayon::current_num_threads() as f64;
    let mut study = Study {
        factors: factors.iter().map(|f| f.name.clone()).collect(),
        horizons: options.returns.horizons.clone(),
        dates: past.dates(panel),
        ic,
        rank_ic,
        summary: Vec::new(),
        processed: kept,
        forward,
        universe,
        seconds: Seconds::default(),
        ns_per_cell: correlate_seconds * 1e9 * threads / cells as f64,
    };
    study.summary = summarise(&study, &options.ic);
    study.seconds = Seconds {
        returns: returns_seconds,
        correlate: correlate_seconds,
        summarise: start.elapsed().as_secs_f64(),
    };
    Ok(study)
}

/// Refuses what the panel cannot give.
fn check(panel: &Panel, options: &StudyOptions) -> Result<()> {
    let cells = panel.own_dates().len() * panel.assets.len();
    let preprocess = &options.preprocess;
    if preprocess.needs_capitalisation() && panel.capitalisation.len() != cells {
        return Err(Error::input(
            "the panel has no capitalisation, which [neutralise] or [standardise] needs; name the \
             column or set neutralise.capitalisation = \"none\"",
        ));
    }
    if preprocess.groups() && panel.industry.len() != cells {
        return Err(Error::input(
            "the panel has no industries, which [neutralise] or [fill] needs; name the column or \
             set neutralise.industry = false",
        ));
    }
    if panel.assets.len() > MOST_ASSETS {
        let found = panel.assets.len();
        return Err(Error::input(format!("{found} assets; at most {MOST_ASSETS} can be ranked")));
    }
    Ok(())
}

/// The coefficients of the own dates.
struct Own {
    ic: Vec<f64>,
    rank_ic: Vec<f64>,
}

/// The row of one factor and date: read, or read and then written.
enum Row<'r> {
    Read(&'r [f64]),
    Kept(&'r mut [f64]),
}

impl Row<'_> {
    fn values(&self) -> &[f64] {
        match self {
            Row::Read(values) => values,
            Row::Kept(values) => values,
        }
    }
}

/// What a thread works with.
#[derive(Default)]
struct Room {
    day: Day,
    section: Section,
    returns: DayReturns,
    correlator: Correlator,
    brackets: Vec<Brackets>,
    complete: Vec<bool>,
}

/// Processes and correlates the own dates of the factors that are `kept`, where the processed
/// values then stand; of those of the panel if there are none, which are left alone.
fn correlate(
    panel: &Panel,
    options: &StudyOptions,
    universe: &[bool],
    forward: &Forward,
    kept: &mut [Factor],
) -> Own {
    let (dates, n) = (panel.own_dates().len(), panel.assets.len());
    // All factors of a date, which one thread reads and writes.
    let mut rows: Vec<Vec<Row<'_>>> = (0..dates).map(|_| Vec::new()).collect();
    let factors = if kept.is_empty() { panel.factors.len() } else { kept.len() };
    if kept.is_empty() {
        for (date, rows) in rows.iter_mut().enumerate() {
            for factor in &panel.factors {
                rows.push(Row::Read(&factor.values[date * n..(date + 1) * n]));
            }
        }
    } else {
        for factor in kept.iter_mut() {
            let mut rest = &mut factor.values[..];
            for rows in &mut rows {
                let (row, after) = rest.split_at_mut(n);
                rows.push(Row::Kept(row));
                rest = after;
            }
        }
    }
    let horizons = forward.horizons.len();
    let coefficients = dates * factors * horizons;
    let mut own = Own { ic: vec![f64::NAN; coefficients], rank_ic: vec![f64::NAN; coefficients] };
    let width = (factors * horizons).max(1);
    let tables = own.ic.par_chunks_mut(width).zip(own.rank_ic.par_chunks_mut(width));
    tables.zip(rows).enumerate().for_each_init(
        Room::default,
        |room, (date, (tables, mut rows))| {
            let (ic, rank_ic) = tables;
            room.prepare(panel, options, universe, forward, date, &rows);
            for (k, row) in rows.iter_mut().enumerate() {
                let Room { day, section, returns, correlator, brackets, .. } = &mut *room;
                let good =
                    section.process(day, row.values(), &options.preprocess, &mut brackets[k]);
                if let Row::Kept(row) = row {
                    row.fill(f64::NAN);
                    for (&place, &x) in section.places.iter().zip(&section.values) {
                        row[day.order[place as usize] as usize] = x;
                    }
                }
                if !good {
                    continue;
                }
                let (values, places) = (&section.values, &section.places);
                let at = k * horizons..(k + 1) * horizons;
                let least = options.ic.minimum_pairs;
                correlator.ranks(values, places, returns, least, &mut rank_ic[at.clone()]);
                if options.pearson {
                    correlator.pearson(values, places, returns, least, &mut ic[at]);
                }
            }
        },
    );
    own
}

impl Room {
    /// What all factors of a date share.
    fn prepare(
        &mut self,
        panel: &Panel,
        options: &StudyOptions,
        universe: &[bool],
        forward: &Forward,
        date: usize,
        rows: &[Row<'_>],
    ) {
        let n = panel.assets.len();
        let cells = date * n..(date + 1) * n;
        let mut input = DayInput {
            assets: n,
            price: row(&panel.price, &cells),
            capitalisation: row(&panel.capitalisation, &cells),
            industry: row(&panel.industry, &cells),
            universe: row(universe, &cells),
        };
        if options.preprocess.fill.method == FillMethod::Drop {
            self.complete.clear();
            self.complete.extend(cells.clone().zip(0..).map(|(cell, asset): (usize, usize)| {
                (universe.is_empty() || universe[cell])
                    && rows.iter().all(|row| row.values()[asset].is_finite())
            }));
            input.universe = &self.complete;
        }
        self.day.prepare(&input, &options.preprocess);
        let returns: Vec<&[f64]> =
            (0..forward.horizons.len()).map(|h| forward.row(h, date, n)).collect();
        self.returns.prepare(&self.day.order, &returns);
        self.brackets.resize(rows.len(), Brackets::default());
    }
}

/// A part of a matrix that may be empty.
fn row<'a, T>(matrix: &'a [T], cells: &std::ops::Range<usize>) -> &'a [T] {
    matrix.get(cells.clone()).unwrap_or(&[])
}

fn summarise(study: &Study, options: &config::Ic) -> Vec<SummaryRow> {
    let horizons = study.horizons.len();
    (0..study.factors.len() * horizons)
        .into_par_iter()
        .map(|i| {
            let (k, h) = (i / horizons, i % horizons);
            let horizon = study.horizons[h];
            let lags = options.newey_west_lags.unwrap_or(horizon.saturating_sub(1));
            let ranks = study.rank_series(k, h);
            let pearson = study.pearson_series(k, h);
            SummaryRow {
                factor: study.factors[k].clone(),
                horizon,
                ic: statistics::summary(&pearson, options.ddof, lags),
                rank_ic: statistics::summary(&ranks, options.ddof, lags),
                autocorrelation: (1..=options.decay_lags)
                    .map(|lag| statistics::autocorrelation(&ranks, lag))
                    .collect(),
                months: statistics::monthly(&study.dates, &ranks),
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "study_tests.rs"]
mod tests;
