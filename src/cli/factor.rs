//! `rankwise factor`: studies the factors of a panel.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use super::Session;
use super::size::size;
use crate::error::{Error, Result};
use crate::factor::config::{Config, TEMPLATE};
use crate::factor::cut::Cut;
use crate::factor::evaluation::LongShort;
use crate::factor::fama_macbeth::FamaMacbeth;
use crate::factor::generator::Synthetic;
use crate::factor::job::{self, Chosen, Layout, Line, Results, Seconds};
use crate::factor::panel_file::Codec;
use crate::factor::shards::Shards;
use crate::factor::tables;
use crate::files;
use crate::report::tear_sheet;

/// Study the factors of a panel: rank IC, quantiles, composites, portfolios.
///
/// PANEL is a table with one row for each date and asset (Parquet, or CSV, also packed with gzip or
/// zstd), a folder or pattern of such files, a folder of date × asset matrices (.npy or Parquet),
/// or synthetic:assets=500,dates=500,factors=8,seed=1. OUTPUT gets tables, summary.json and
/// tear_sheet.html. The results have the same bits on any number of ranks.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Factor {
    #[command(subcommand)]
    action: Option<Action>,
    /// Panel: a file, a folder, a pattern, or synthetic:…
    #[arg(required = true)]
    panel: Option<String>,
    /// Configuration of the study [default: that of `factor init`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for tables and the tear sheet
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Study the panel by blocks of so many dates, for panels larger than memory. Long tables are
    /// then read block by block, best sorted by date; matrices are still read whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_dates: Option<u32>,
    /// Blocks of as many dates as fit into so much memory of each rank, such as 512M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a commented configuration
    Init {
        /// Where to write it
        #[arg(default_value = "factor.toml")]
        file: PathBuf,
    },
    /// Write a generated panel as a Parquet table
    Generate {
        /// What to make: assets=500,dates=500,factors=8,seed=1
        spec: String,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// How it is packed
        #[arg(long, value_enum, default_value = "zstd")]
        codec: CodecName,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CodecName {
    /// Not at all
    None,
    /// Fast
    Snappy,
    /// Small
    Zstd,
}

#[derive(Serialize)]
struct Document {
    dates: usize,
    assets: usize,
    factors: usize,
    summary: Vec<Line>,
    fama_macbeth: Vec<FamaMacbeth>,
    decay: Vec<DecayLine>,
    long_short: Vec<LongShort>,
    screening: Vec<Chosen>,
    portfolios: Vec<PortfolioLine>,
    #[serde(flatten)]
    layout: Layout,
    seconds: Seconds,
    ns_per_cell: f64,
}

/// Mean coefficients of a factor against the return of one date, by its lag from 0.
#[derive(Serialize)]
struct DecayLine {
    factor: String,
    ic_mean: Vec<f64>,
    rank_ic_mean: Vec<f64>,
}

/// A portfolio without its days.
#[derive(Serialize)]
struct PortfolioLine {
    factor: String,
    annual_return: f64,
    annual_excess: f64,
    annual_volatility: f64,
    sharpe: f64,
    maximum_drawdown: f64,
    turnover: f64,
}

impl Factor {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let c = session.communicator;
        if let Some(action) = &self.action {
            let done = if session.speaks() { action.run() } else { Ok(()) };
            return c.agree(done).map_err(whole_job);
        }
        let loaded = self.config.as_deref().map_or_else(default_config, Config::load);
        let config = c.agree(loaded).map_err(whole_job)?;
        let mut made = Ok(Vec::new());
        if let Some(folder) = self.output.as_deref().filter(|_| session.speaks()) {
            made = make(folder);
        }
        let (made, failed) = match made {
            Ok(made) => (made, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        c.agree(failed).map_err(whole_job)?;
        let source = self.panel.as_deref().unwrap_or_default();
        let dates = self.block_dates.map(|dates| dates as usize);
        let cut = Cut { dates, memory: self.memory };
        let mut results = job::run(c, source, &config, &cut).inspect_err(|_| {
            // Folders are made first, so that a wrong name costs no study; empty ones go again.
            made.iter().all(|folder| std::fs::remove_dir(folder).is_ok());
        })?;
        let start = Instant::now();
        let written = match &self.output {
            Some(folder) if session.speaks() => write(folder, &results, &config, c.ranks()),
            _ => Ok(()),
        };
        c.agree(written)?;
        results.seconds.write = start.elapsed().as_secs_f64();
        if session.speaks_to_people() {
            show(&results);
        }
        session.print_json(&document(&results))
    }
}

impl Action {
    fn run(&self) -> Result<()> {
        match self {
            Action::Init { file } => {
                if file.exists() {
                    return Err(Error::input(format!("{} exists already", file.display())));
                }
                files::write_atomically(file, |f| f.write_all(TEMPLATE.as_bytes())).map(|_| ())
            }
            Action::Generate { spec, output, codec } => {
                let codec = match codec {
                    CodecName::None => Codec::None,
                    CodecName::Snappy => Codec::Snappy,
                    CodecName::Zstd => Codec::Zstd,
                };
                let text = format!("synthetic:{}", spec.trim_start_matches("synthetic:"));
                match Synthetic::parse(&text) {
                    Some(made) => made?.write(output, codec).map(|_| ()),
                    None => Err(Error::input(format!("'{spec}' describes no panel"))),
                }
            }
        }
    }
}

/// An error of what the user named, and no rank's own.
fn whole_job(error: Error) -> Error {
    Error { rank: None, ..error }
}

fn default_config() -> Result<Config> {
    Config::parse(TEMPLATE, Path::new("the default configuration"))
}

/// Makes the folder, and takes away the manifest of an earlier run. Returns the folders that were
/// not there before, the innermost first.
fn make(folder: &Path) -> Result<Vec<PathBuf>> {
    let new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let made: Vec<PathBuf> = folder.ancestors().take_while(new).map(Path::to_owned).collect();
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
    files::remove_manifest(&folder.join("summary.json"))?;
    Ok(made)
}

fn write(folder: &Path, results: &Results, config: &Config, ranks: usize) -> Result<()> {
    let mut records = tables::write(folder, results, &config.report.tables)?;
    let page = tear_sheet::page(results, config.report.language, &config.report.title);
    let path = folder.join("tear_sheet.html");
    records.push(files::write_atomically(&path, |f| f.write_all(page.as_bytes()))?);
    let text = serde_json::to_string_pretty(&document(results))
        .map_err(|e| Error::internal(format!("a summary has no JSON form: {e}")))?;
    let path = folder.join("summary.json");
    records.push(files::write_atomically(&path, |f| f.write_all(text.as_bytes()))?);
    files::manifest(&path, "factor", ranks, &records, &results.lines()).map(|_| ())
}

fn document(results: &Results) -> Document {
    let portfolio = |tested: &job::Tested| PortfolioLine {
        factor: tested.factor.clone(),
        annual_return: tested.portfolio.annual_return,
        annual_excess: tested.portfolio.annual_excess,
        annual_volatility: tested.portfolio.annual_volatility,
        sharpe: tested.portfolio.sharpe,
        maximum_drawdown: tested.portfolio.maximum_drawdown,
        turnover: tested.portfolio.turnover,
    };
    let named = results.study.factors.iter().zip(&results.evaluations);
    let decay = named.map(|(name, evaluation)| DecayLine {
        factor: name.clone(),
        ic_mean: evaluation.decay.iter().map(|lag| lag.ic.mean).collect(),
        rank_ic_mean: evaluation.decay.iter().map(|lag| lag.rank_ic.mean).collect(),
    });
    Document {
        dates: results.study.dates.len(),
        assets: results.assets,
        factors: results.study.factors.len(),
        summary: results.lines(),
        fama_macbeth: results.fama_macbeth.clone(),
        decay: decay.collect(),
        long_short: results.long_short(),
        screening: results.screening.clone(),
        portfolios: results.portfolios.iter().map(portfolio).collect(),
        layout: results.layout,
        seconds: results.seconds,
        ns_per_cell: results.study.ns_per_cell,
    }
}

fn show(results: &Results) {
    println!(
        "{:<24}{:>8}{:>7}{:>10}{:>9}{:>9}{:>11}{:>9}{:>9}{:>9}",
        "factor", "horizon", "dates", "IC", "IR", "t", "rank IC", "IR", "t", "t NW"
    );
    for line in results.lines() {
        println!(
            "{:<24}{:>8}{:>7}{:>10.4}{:>9.3}{:>9.2}{:>11.4}{:>9.3}{:>9.2}{:>9.2}",
            line.factor,
            line.horizon,
            line.dates,
            line.ic_mean,
            line.ic_ir,
            line.t,
            line.rank_ic_mean,
            line.rank_ic_ir,
            line.rank_ic_t,
            line.rank_ic_t_newey_west
        );
    }
    for all in &results.fama_macbeth {
        for one in &all.coefficients {
            println!(
                "Fama-MacBeth {:<18}{:>8}{:>7} mean {:>9.6}  t {:>6.2}  t NW {:>6.2}",
                one.factor,
                all.horizon,
                all.dates,
                one.summary.mean,
                one.summary.t,
                one.summary.t_newey_west
            );
        }
    }
    show_layout(&results.layout);
    for chosen in &results.screening {
        println!("screening takes {} (t {:.2})", chosen.factor, chosen.t);
    }
    for tested in &results.portfolios {
        let p = &tested.portfolio;
        println!(
            "portfolio {:<24} {:>7.2} % a year, Sharpe {:.2}, drawdown {:.1} %, turnover {:.2}",
            tested.factor,
            p.annual_return * 100.0,
            p.sharpe,
            p.maximum_drawdown * 100.0,
            p.turnover
        );
    }
}

/// Blocks and memory, and why technical factors were computed where they were.
fn show_layout(layout: &Layout) {
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    if layout.blocks > 1 {
        let peak = megabytes(layout.peak_rss_bytes);
        println!("{} blocks of {} dates; peak {peak:.0} MiB", layout.blocks, layout.block_dates);
    }
    if let Some(exchange) = layout.technical_exchange.filter(|e| e.transpose_bytes > 0) {
        let (halo, turned) = (megabytes(exchange.halo_bytes), megabytes(exchange.transpose_bytes));
        let way = match exchange.chosen {
            Shards::Halo => "by dates with the rows before them",
            Shards::Transpose => "by assets",
        };
        println!(
            "technical factors {way}: {halo:.1} MiB between ranks with earlier rows, {turned:.1} \
             MiB to turn the panel round and back"
        );
    }
}
