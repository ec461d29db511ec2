//! `rankwise train`: trains a model with the sharded optimizer.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Session;
use super::progress::StepBar;
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::files;
use crate::optimizer::layout::Layout;
use crate::optimizer::ranges::RangeMaps;
use crate::optimizer::timeline::{Event, hidden_share};
use crate::train::config::TrainConfig;
use crate::train::log::Log;
use crate::train::run::{RunOptions, Seen, StepLine, TrainSummary, run};
use crate::train::task::task;

/// Train a model with the sharded optimizer, on all ranks of the job.
///
/// CONFIG is a TOML file; examples/gpt.toml has every key with its meaning. Parameters, gradients
/// and optimizer state are sharded as Megatron-LM's distributed optimizer does. The parameters have
/// the same bits on any number of ranks, and a run goes on from its checkpoints on any number.
#[derive(Debug, clap::Args)]
pub(super) struct Train {
    /// Configuration of the run
    config: PathBuf,
    /// Go on from the last checkpoint, if there is one
    #[arg(long)]
    resume: bool,
    /// Train for N steps instead of those of the configuration
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Communicate after the backward pass and before the next forward pass, not meanwhile
    #[arg(long)]
    no_overlap: bool,
    /// Print where parameters lie in buffers, buckets and shards, and stop
    #[arg(long)]
    plan: bool,
    /// Write what every rank did when, as a trace for Chrome or Perfetto
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Names of events by number, as they are sent.
const EVENTS: [&str; 6] = ["compute", "backward", "ready", "reduce_scatter", "all_gather", "step"];

/// One entry of a Chrome trace.
#[derive(Serialize)]
struct TraceEvent {
    name: String,
    ph: &'static str,
    pid: usize,
    tid: &'static str,
    ts: f64,
    dur: f64,
}

impl Train {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let c = session.communicator;
        let loaded = TrainConfig::load(&self.config);
        let mut config = c.agree(loaded).map_err(whole_job)?;
        if let Some(steps) = self.steps {
            config.training.steps = steps;
        }
        config.buffers.overlap &= !self.no_overlap;
        let made = task(&config, rayon::current_num_threads());
        let mut task = c.agree(made).map_err(whole_job)?;
        if self.plan {
            return plan(session, &config, &task.parameters());
        }
        if let Some(path) = &self.record {
            c.agree(files::check_folder(path)).map_err(whole_job)?;
        }
        let options = RunOptions { resume: self.resume, record: self.record.is_some() };
        let mut watcher = Watcher::new(session, &config)?;
        let mut observe = |seen: Seen<'_>| watcher.see(seen);
        let (mut summary, events) = run(c, &config, &mut *task, options, &mut observe)?;
        if let Some(path) = &self.record {
            summary.communication_hidden = Some(self.write_trace(c, path, &events)?);
        }
        watcher.bar = None;
        let written = if session.speaks() { watcher.finish(&summary) } else { Ok(()) };
        c.agree(written)?;
        if session.speaks_to_people() {
            say(&summary);
        }
        session.print_json(&summary)
    }

    /// Gathers the timelines and writes them. Returns the share of communication that was hidden.
    fn write_trace(&self, c: &Communicator, path: &Path, events: &[Event]) -> Result<f64> {
        let number = |name: &str| EVENTS.iter().position(|n| *n == name).unwrap_or(0) as u64;
        let words = events
            .iter()
            .flat_map(|e| [number(e.name), e.number as u64, e.start_ns, e.end_ns])
            .collect::<Vec<u64>>();
        let (all, sharding) = c.all_gather_vec(&words)?;
        let mut trace = Vec::new();
        let mut hidden = 1.0f64;
        for rank in 0..c.ranks() {
            let own: Vec<Event> = all[sharding.range(rank)]
                .chunks_exact(4)
                .map(|w| Event {
                    name: EVENTS.get(w[0] as usize).copied().unwrap_or("?"),
                    number: w[1] as usize,
                    start_ns: w[2],
                    end_ns: w[3],
                })
                .collect();
            let communication = ["reduce_scatter", "all_gather"];
            hidden = hidden.min(hidden_share(&own, &communication, &["compute"]));
            trace.extend(own.iter().map(|event| TraceEvent {
                name: format!("{} {}", event.name, event.number),
                ph: "X",
                pid: rank,
                tid: match event.name {
                    name if communication.contains(&name) => "communication",
                    "ready" => "ready",
                    _ => "work",
                },
                ts: event.start_ns as f64 / 1e3,
                dur: (event.end_ns - event.start_ns) as f64 / 1e3,
            }));
        }
        let write = || {
            let text = serde_json::to_string(&serde_json::json!({ "traceEvents": trace }))
                .map_err(|e| Error::internal(format!("a trace has no JSON form: {e}")))?;
            files::write_atomically(path, |file| file.write_all(text.as_bytes())).map(|_| ())
        };
        c.agree(if c.rank() == 0 { write() } else { Ok(()) })?;
        Ok(hidden)
    }
}

/// An error of the configuration is the user's, and no rank's own.
fn whole_job(error: Error) -> Error {
    Error { rank: None, ..error }
}

fn plan(
    session: Session<'_>,
    config: &TrainConfig,
    parameters: &[crate::optimizer::parameter::Parameter],
) -> Result<()> {
    let ranks = session.communicator.ranks();
    let options = config.buffers.options(config.optimizer.moments(), false);
    let most = options.bucket_limit(ranks);
    let maps = RangeMaps::new(parameters, &Layout::new(parameters, ranks, most));
    if session.speaks_to_people() {
        print!("{maps}");
    }
    session.print_json(&maps)
}

/// Shows and logs steps on rank 0.
struct Watcher<'a> {
    session: Session<'a>,
    folder: Option<PathBuf>,
    log: Option<Log>,
    bar: Option<StepBar>,
    resumed: u64,
    lines: Vec<StepLine>,
}

impl<'a> Watcher<'a> {
    fn new(session: Session<'a>, config: &TrainConfig) -> Result<Self> {
        let folder = config.output.as_ref().map(|output| output.folder.clone());
        let start = || match folder.as_ref().filter(|_| session.speaks()) {
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
                files::remove_manifest(&folder.join("summary.json"))
            }
            None => Ok(()),
        };
        session.communicator.agree(start()).map_err(whole_job)?;
        let bar = Some(StepBar::new(session, config.training.steps));
        Ok(Watcher { session, folder, log: None, bar, resumed: 0, lines: Vec::new() })
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<()> {
        if !self.session.speaks() {
            return Ok(());
        }
        let shows = self.session.speaks_to_people() && !self.session.output.quiet;
        let say = |print: &dyn Fn()| match &self.bar {
            Some(bar) if shows => bar.above(print),
            _ => {}
        };
        match seen {
            Seen::Resumed(step) => {
                self.resumed = step;
                say(&|| println!("going on after step {step}"));
            }
            Seen::Warning(text) => say(&|| println!("warning: {text}")),
            Seen::Passed(line) => self.advance(line),
            Seen::Step(line) => {
                say(&|| println!("{}", text_of(line)));
                self.advance(line);
                if let Some(folder) = &self.folder
                    && self.log.is_none()
                {
                    self.log = Some(Log::open(folder, self.resumed)?);
                }
                if let Some(log) = &mut self.log {
                    log.add(line)?;
                }
                self.lines.push(line.clone());
            }
        }
        Ok(())
    }

    fn advance(&self, line: &StepLine) {
        if let Some(bar) = &self.bar {
            bar.show(line.step, || numbers_of(line));
        }
    }

    /// Writes the page, the summary, and the manifest last.
    fn finish(&self, summary: &TrainSummary) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let page = crate::report::training::page(summary, &self.lines);
        let record =
            files::write_atomically(&folder.join("report.html"), |f| f.write_all(page.as_bytes()))?;
        let text = serde_json::to_string_pretty(summary)
            .map_err(|e| Error::internal(format!("a summary has no JSON form: {e}")))?;
        let path = folder.join("summary.json");
        let own = files::write_atomically(&path, |f| f.write_all(text.as_bytes()))?;
        let ranks = self.session.communicator.ranks();
        files::manifest(&path, "train", ranks, &[own, record], summary).map(|_| ())
    }
}

fn numbers_of(line: &StepLine) -> String {
    format!(
        "loss {:.4}  lr {:.2e}  gradient {:.3}  {:.0}/s",
        line.loss, line.lr, line.gradient_norm, line.units_per_second
    )
}

fn text_of(line: &StepLine) -> String {
    let mut text = format!("step {:>6}  {}", line.step, numbers_of(line));
    if !line.stepped {
        text += "  skipped: the gradient is not finite";
    }
    for measure in &line.evaluation {
        text += &format!("  {} {:.4}", measure.name, measure.value);
    }
    text
}

/// The first and the last of some names.
fn span(names: &[String]) -> String {
    match names {
        [first, .., last] => format!("{first} to {last}"),
        _ => names.concat(),
    }
}

fn say(summary: &TrainSummary) {
    println!(
        "{} parameters, {} steps, {:.0} tokens or samples a second, bits of the parameters {}",
        summary.parameters, summary.steps, summary.tokens_per_second, summary.parameters_hash
    );
    for measure in &summary.evaluation {
        println!("{} {:.4}", measure.name, measure.value);
    }
    for ready in &summary.ready {
        println!(
            "bucket {} ({} elements, {}): ready at {:.1} % of the backward pass",
            ready.bucket,
            ready.elements,
            span(&ready.parameters),
            ready.share * 100.0
        );
    }
    if let Some(hidden) = summary.communication_hidden {
        println!("{:.0} % of the communication was hidden behind computation", hidden * 100.0);
    }
    if let Some(sample) = &summary.sample {
        println!("---\n{sample}\n---");
    }
}
