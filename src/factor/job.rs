//! The whole study of a panel: from its files to everything that tables and pages show.
//!
//! All results are the same on every rank, with the same bits at any number of ranks, but for the
//! times. A step that a configuration does not ask for costs nothing.
//!
//! A panel may be studied by blocks of dates (`cut`): what a block needs of the dates around it is
//! in its `edges`, tables of earlier dates are in `past`, and the results of the last block are
//! those of all dates, with the same bits as without blocks.

use std::time::Instant;

use serde::Serialize;

use super::composite::{self, LookBack};
use super::config::{Capitalisation, CompositeWeights, Config, Correlation, FillMethod};
use super::config::{StandardiseMethod, WinsoriseMethod};
use super::correlation::{self, Correlations};
use super::cut::{Cut, Reach};
use super::edges::Edges;
use super::evaluation::{self, Evaluation, LongShort};
use super::fama_macbeth::FamaMacbeth;
use super::input::Reader;
use super::panel::{Factor, Panel};
use super::past::Past;
use super::portfolio::{self, Portfolio};
use super::screening;
use super::shards::Exchange;
use super::study::{self, Study, StudyOptions};
use super::technical::technical_factors;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::measure::memory::peak_rss_bytes;

/// One line of the summary; the field names are JSON keys and heads of columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The factor or composite.
    pub factor: String,
    /// Dates ahead.
    pub horizon: usize,
    /// Dates with a coefficient.
    pub dates: usize,
    /// Mean of Pearson coefficients.
    pub ic_mean: f64,
    /// Their standard deviation.
    pub ic_std: f64,
    /// Mean over standard deviation.
    pub ic_ir: f64,
    /// The t statistic of the mean.
    pub t: f64,
    /// Its two-sided p value.
    pub p: f64,
    /// The t statistic that allows for overlapping returns.
    pub t_newey_west: f64,
    /// The share of dates with a positive coefficient.
    pub hit_rate: f64,
    /// Mean of rank coefficients.
    pub rank_ic_mean: f64,
    /// Their standard deviation.
    pub rank_ic_std: f64,
    /// Mean over standard deviation.
    pub rank_ic_ir: f64,
    /// The t statistic of the mean.
    pub rank_ic_t: f64,
    /// Its two-sided p value.
    pub rank_ic_p: f64,
    /// The t statistic that allows for overlapping returns.
    pub rank_ic_t_newey_west: f64,
    /// Skewness of the rank coefficients.
    pub rank_ic_skew: f64,
    /// Their excess kurtosis.
    pub rank_ic_kurtosis: f64,
    /// The share of dates with a positive rank coefficient.
    pub rank_ic_hit_rate: f64,
}

/// A portfolio and what it was made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tested {
    /// The factor or composite.
    pub factor: String,
    /// How it did.
    #[serde(flatten)]
    pub portfolio: Portfolio,
}

/// A factor that stepwise screening took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// Its name.
    pub factor: String,
    /// The t statistic it entered with.
    pub t: f64,
    /// Its largest correlation with those before it.
    pub correlation: f64,
}

/// Seconds by phase, of this rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Reading and laying out.
    pub load: f64,
    /// Technical factors.
    pub technical: f64,
    /// Returns, preprocessing and coefficients.
    pub study: f64,
    /// Quantiles, composites, portfolios.
    pub results: f64,
    /// Writing.
    pub write: f64,
}

/// How the panel was laid out and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Layout {
    /// Blocks of dates that the panel was read in.
    pub blocks: usize,
    /// Dates in a block, at most.
    pub block_dates: usize,
    /// What technical factors move between ranks, in the first block; without them, nothing.
    pub technical_exchange: Option<Exchange>,
    /// The largest resident memory of a process of the job.
    pub peak_rss_bytes: u64,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Results {
    /// Coefficients of the factors.
    pub study: Study,
    /// Coefficients of the composites, if there are any.
    pub composites: Option<Study>,
    /// Groups, portfolios and decay of each factor.
    pub evaluations: Vec<Evaluation>,
    /// Regressions of returns on all factors, for each horizon.
    pub fama_macbeth: Vec<FamaMacbeth>,
    /// Dates between a factor and the start of its return.
    pub delay: usize,
    /// Correlations of the factors.
    pub correlations: Correlations,
    /// Factors that screening took.
    pub screening: Vec<Chosen>,
    /// Portfolios.
    pub portfolios: Vec<Tested>,
    /// Assets of the panel.
    pub assets: usize,
    /// Blocks and memory.
    pub layout: Layout,
    /// Times.
    pub seconds: Seconds,
}

impl Results {
    /// The lines of the summary: factors, then composites.
    pub fn lines(&self) -> Vec<Line> {
        let studies = std::iter::once(&self.study).chain(&self.composites);
        studies.flat_map(|study| &study.summary).map(line).collect()
    }

    /// What long-short portfolios of each factor earned, by horizon.
    pub fn long_short(&self) -> Vec<LongShort> {
        let (names, horizons) = (&self.study.factors, &self.study.horizons);
        evaluation::long_short(&self.evaluations, names, horizons, self.delay)
    }

    /// Cells of the panel: dates × assets × factors.
    pub fn cells(&self) -> usize {
        self.study.dates.len() * self.assets * self.study.factors.len()
    }
}

fn line(row: &study::SummaryRow) -> Line {
    let (ic, rank) = (&row.ic, &row.rank_ic);
    Line {
        factor: row.factor.clone(),
        horizon: row.horizon,
        dates: rank.n,
        ic_mean: ic.mean,
        ic_std: ic.std,
        ic_ir: ic.ir,
        t: ic.t,
        p: ic.p,
        t_newey_west: ic.t_newey_west,
        hit_rate: ic.hit_rate,
        rank_ic_mean: rank.mean,
        rank_ic_std: rank.std,
        rank_ic_ir: rank.ir,
        rank_ic_t: rank.t,
        rank_ic_p: rank.p,
        rank_ic_t_newey_west: rank.t_newey_west,
        rank_ic_skew: rank.skew,
        rank_ic_kurtosis: rank.kurtosis,
        rank_ic_hit_rate: rank.hit_rate,
    }
}

/// Reads a panel, at once or by blocks, and does all that the configuration asks for. Collective.
pub fn run(comm: &Communicator, source: &str, config: &Config, cut: &Cut) -> Result<Results> {
    let start = Instant::now();
    let mut reader = Reader::open(comm, source, config, cut.is_asked())?;
    let ranges = comm.agree(cut.ranges(reader.shape(), config, comm.ranks()))?;
    let (reach, technical) = (Reach::of(config), &config.factors.technical);
    let (mut past, mut edges) = (Past::default(), Edges::default());
    let mut seconds = Seconds { load: start.elapsed().as_secs_f64(), ..Seconds::default() };
    let mut found = None;
    let mut exchange = None;
    for range in &ranges {
        let start = Instant::now();
        let more = range.end < ranges[ranges.len() - 1].end;
        let mut panel = reader.block(comm, range.clone(), reach.after)?;
        panel.edges = Edges { price_after: std::mem::take(&mut panel.edges.price_after), ..edges };
        edges = Edges::default();
        if more {
            edges = Edges::following(comm, &panel, reach.before)?;
        }
        past.begin(&panel.dates, more);
        seconds.load += start.elapsed().as_secs_f64();
        let start = Instant::now();
        if exchange.is_none() && !technical.is_empty() {
            exchange = Some(Exchange::of(&panel, technical));
        }
        let made = technical_factors(comm, &panel, technical)?;
        panel.factors.extend(made);
        seconds.technical += start.elapsed().as_secs_f64();
        comm.agree(unique_names(&panel))?;
        // The results of the block before have had their turn; those of this one contain them.
        drop(found.take());
        found = Some(study_block(comm, &mut past, panel, config, &mut seconds)?);
    }
    let peak = comm.all_reduce_vec(&[peak_rss_bytes()], Op::Max)?[0];
    let mut results = found.ok_or_else(|| Error::input(format!("{source}: no dates")))?;
    results.seconds = seconds;
    results.layout = Layout {
        blocks: ranges.len(),
        block_dates: ranges.first().map_or(0, ExactSizeIterator::len),
        technical_exchange: exchange,
        peak_rss_bytes: peak,
    };
    Ok(results)
}

/// The results of all dates up to the last one of `panel`. Collective.
fn study_block(
    comm: &Communicator,
    past: &mut Past,
    mut panel: Panel,
    config: &Config,
    seconds: &mut Seconds,
) -> Result<Results> {
    let start = Instant::now();
    let mut study = study::run_in_place(comm, past, &mut panel, &StudyOptions::from(config))?;
    seconds.study += start.elapsed().as_secs_f64();
    // From here on the processed factors count; the raw ones have had their turn.
    panel.factors = std::mem::take(&mut study.processed);
    let start = Instant::now();
    let evaluations = evaluation::run(comm, past, &panel, &study.forward, config)?;
    let named = numbers(&study.factors, &config.fama_macbeth.factors, "fama_macbeth.factors");
    let chosen = comm.agree(named)?;
    let forward = &study.forward;
    let fama_macbeth = evaluation::regressions(comm, past, &panel, &chosen, forward, config)?;
    let correlations = match config.ic.correlations || config.screening.enabled {
        true => correlation::run(comm, past, &panel, &panel.factors)?,
        false => Correlations::default(),
    };
    let screening = screen(comm, config, &study, &correlations)?;
    let made = comm.agree(composites(config, &study, &panel))?;
    let many = panel.factors.len();
    panel.factors.extend(made);
    let portfolios = portfolios(comm, past, config, &panel)?;
    let composites = if panel.factors.len() > many {
        panel.factors.drain(..many);
        let mut found = study::run_after(comm, past, &panel, &as_they_are(config))?;
        found.processed.clear();
        Some(found)
    } else {
        None
    };
    seconds.results += start.elapsed().as_secs_f64();
    let assets = panel.assets.len();
    let layout = Layout { blocks: 1, block_dates: 0, technical_exchange: None, peak_rss_bytes: 0 };
    let seconds = *seconds;
    Ok(Results {
        study,
        composites,
        evaluations,
        fama_macbeth,
        delay: config.returns.delay,
        correlations,
        screening,
        portfolios,
        assets,
        layout,
        seconds,
    })
}

fn unique_names(panel: &Panel) -> Result<()> {
    let mut names: Vec<&str> = panel.factors.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => {
            let what = format!("two factors are named '{}'; give one another name", twice[0]);
            Err(Error::input(what))
        }
        None if names.is_empty() => Err(Error::input(
            "the panel has no factors: name columns in [factors], or ask for technical ones",
        )),
        None => Ok(()),
    }
}

/// Options that leave factors as they are.
fn as_they_are(config: &Config) -> StudyOptions {
    let mut plain = config.clone();
    plain.fill.method = FillMethod::None;
    plain.winsorise.method = WinsoriseMethod::None;
    plain.neutralise.industry = false;
    plain.neutralise.capitalisation = Capitalisation::None;
    plain.neutralise.intercept = false;
    plain.standardise.method = StandardiseMethod::None;
    StudyOptions::from(&plain)
}

/// The number of a horizon; the first one if none is named.
fn horizon(study: &Study, wanted: Option<usize>) -> usize {
    wanted.and_then(|h| study.horizons.iter().position(|&x| x == h)).unwrap_or(0)
}

/// The numbers of named factors; all if none is named.
fn numbers(all: &[String], names: &[String], key: &str) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..all.len()).collect());
    }
    let number = |name: &String| {
        all.iter().position(|known| known == name).ok_or_else(|| {
            let known = all.join(", ");
            Error::input(format!("{key}: there is no factor '{name}'; there are {known}"))
        })
    };
    names.iter().map(number).collect()
}

fn screen(
    comm: &Communicator,
    config: &Config,
    study: &Study,
    correlations: &Correlations,
) -> Result<Vec<Chosen>> {
    if !config.screening.enabled {
        return Ok(Vec::new());
    }
    let all: Vec<usize> = (0..study.factors.len()).collect();
    let series = composite::series(study, &all, horizon(study, config.screening.horizon), true);
    let steps = screening::choose(&series, correlations, &config.screening);
    comm.barrier()?;
    let chosen = |step: screening::Step| Chosen {
        factor: study.factors[step.factor].clone(),
        t: step.t,
        correlation: step.correlation,
    };
    Ok(steps.into_iter().map(chosen).collect())
}

/// The composites that the configuration asks for.
pub(super) fn composites(config: &Config, study: &Study, panel: &Panel) -> Result<Vec<Factor>> {
    let options = &config.composites;
    if options.weights.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = numbers(&study.factors, &options.factors, "composites.factors")?;
    let at = horizon(study, options.horizon);
    let rank = options.correlation == Correlation::Rank;
    let series = composite::series(study, &chosen, at, rank);
    let known_after = config.returns.delay + study.horizons[at];
    let factors: Vec<&Factor> = chosen.iter().map(|&k| &panel.factors[k]).collect();
    let mut made = Vec::new();
    for &kind in &options.weights {
        let (name, windows) = match kind {
            CompositeWeights::Equal => ("equal", &[0][..]),
            CompositeWeights::Ic => ("ic", &options.windows[..]),
            CompositeWeights::Ir => ("ir", &options.windows[..]),
            CompositeWeights::MaxIr => ("max_ir", &options.windows[..]),
        };
        for &window in windows {
            let (first, assets) = (panel.edges.first + panel.own_dates().start, panel.assets.len());
            let look = LookBack { window, known_after };
            let weights = composite::weights_from(&series, kind, look, first);
            let name = match kind {
                CompositeWeights::Equal => "composite_equal".to_string(),
                _ => format!("composite_{name}_{window}"),
            };
            made.push(composite::combine(&name, &factors, &weights, first, assets));
        }
    }
    Ok(made)
}

pub(super) fn portfolios(
    comm: &Communicator,
    past: &mut Past,
    config: &Config,
    panel: &Panel,
) -> Result<Vec<Tested>> {
    let options = &config.portfolio;
    // A rank without dates has no prices of a panel that has them.
    let held = panel.price.len() == panel.own_dates().len() * panel.assets.len();
    let all = comm.all_reduce_vec(&[u64::from(held)], Op::Min)?[0] == 1;
    if !options.enabled || !all {
        return Ok(Vec::new());
    }
    let names: Vec<String> = panel.factors.iter().map(|f| f.name.clone()).collect();
    let chosen = comm.agree(numbers(&names, &options.factors, "portfolio.factors"))?;
    let factors: Vec<&[f64]> = chosen.iter().map(|&k| &panel.factors[k].values[..]).collect();
    let tested = portfolio::run_all(comm, past, panel, &factors, options)?;
    let named = |(k, portfolio): (usize, Portfolio)| Tested { factor: names[k].clone(), portfolio };
    Ok(chosen.into_iter().zip(tested).map(named).collect())
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
