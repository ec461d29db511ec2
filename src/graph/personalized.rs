//! Personalized PageRank for many sources in one run.
//!
//! Each source has a vector of its own: teleports, and the rank of dangling nodes where that
//! follows them, go to the source alone. Eight vectors are iterated together, interleaved, so that
//! each edge is read once for eight and its gather is one cache line (see `reduce::gather`).
//! Vectors stop one by one, each by the rule of a single run, and each has the bits of a single run
//! with this source as personalization: rows, blocks of sums and their order are the same. (Not for
//! graphs so large that a single run sums by blocks of sources, see `reduce::blocked`: those differ
//! in the last bits.)
//!
//! # Cost
//! 128 bytes a node in contributions and 64 in ranks, whatever the number of sources. A block of
//! eight takes as many steps as its slowest vector.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use super::csv_output;
use super::frame::{Frame, Seconds};
use super::ids::{NodeId, Numbering};
use super::job::PageRankJob;
use super::node_values;
use super::open::Graph;
use super::options::{Dangling, Distributions, PageRankOptions, Scale, Stop};
use super::output::{self, Format, OwnRanks, TopNode};
use super::pagerank::not_converged;
use super::parquet_output;
use super::partition::{GRAIN, Partition};
use super::progress;
use super::step::{gather_rows, scale, tasks};
use super::traffic::Traffic;
use crate::communicator::Communicator;
use crate::element::{Element, Op};
use crate::error::{Error, Result};
use crate::files::{FileRecord, write_atomically};
use crate::measure::memory::peak_rss_bytes;
use crate::reduce::exact::{ExactSum, LIMBS};
use crate::reduce::gather::{Double, GatherRows, LANES, Mixed, Precision, Real, Single};
use crate::sharding::Sharding;

/// Vectors that are iterated together: a cache line of 64-bit numbers.
const COLUMNS: usize = 8;

/// The vector of a source. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SourceRanks {
    /// The id of the source.
    pub source: serde_json::Value,
    /// Steps until convergence.
    pub iterations: usize,
    /// The change of the last step.
    pub residual: f64,
    /// The highest ranks.
    pub top: Vec<TopNode>,
}

/// What a run reports, the same on every rank. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SourcesSummary {
    /// Nodes of the graph.
    pub vertices: u64,
    /// Directed edges of the graph.
    pub edges: u64,
    /// Time of the iteration ÷ steps of all sources ÷ directed edges; 0 without any.
    pub ns_per_edge: f64,
    /// The phases.
    pub seconds: Seconds,
    /// The largest resident memory of a process of the job.
    pub peak_rss_bytes: u64,
    /// What the contributions of all iterations took between ranks and nodes.
    pub bytes_moved: Traffic,
    /// One vector a source, in the order in which they were given.
    pub sources: Vec<SourceRanks>,
}

/// A column that has converged.
struct Done {
    iterations: usize,
    residual: f64,
    ranks: Vec<f64>,
}

/// Ranks the nodes of a graph once for each of `sources`, which are ids. Everything else is as in
/// `job`, except that it has no personalization and no start of its own. Collective.
pub fn run(comm: &Communicator, job: &PageRankJob, sources: &[String]) -> Result<SourcesSummary> {
    let allowed = job.options.validate().and_then(|()| refuse(job, sources));
    let mut frame = Frame::start(comm, &job.graph, job.output.as_deref(), allowed)?;
    let (graph, (indices, given)) = frame.load(&job.input(), |numbering| {
        let dangling = job.dangling.as_ref().map(|path| node_values::read(path, numbering));
        let given = Distributions { dangling: dangling.transpose()?, ..Distributions::default() };
        Ok((find(sources, numbering)?, given.normalised(numbering.len())?))
    })?;
    let Graph { numbering, partition: graph, .. } = graph;
    let mut work = Work { comm, graph: &graph, job, given: &given, seconds: 0.0, gathers: 0 };
    let all = work.all(&numbering, &indices)?;
    frame.computed(work.seconds);
    let written = comm.agree(match (&job.output, comm.rank()) {
        (Some(path), 0) => write(path, &numbering, &indices, &all).map(|file| vec![file]),
        _ => Ok(Vec::new()),
    })?;
    let seconds = frame.seconds()?;
    let steps: usize = all.iter().map(|source| source.iterations).sum();
    let wire = if job.options.number == super::options::Number::F64 { 8 } else { 4 };
    let summary = SourcesSummary {
        vertices: numbering.len() as u64,
        edges: graph.edges,
        ns_per_edge: seconds.ns_per_edge(steps, graph.edges),
        seconds,
        peak_rss_bytes: comm.all_reduce_vec(&[peak_rss_bytes()], Op::Max)?[0],
        bytes_moved: Traffic::of_gathers(comm, &graph.sharding, wire * COLUMNS, work.gathers),
        sources: all,
    };
    frame.finish(&job.command, &written, &summary)?;
    Ok(summary)
}

fn refuse(job: &PageRankJob, sources: &[String]) -> Result<()> {
    let what = if sources.is_empty() {
        "sources: none is named"
    } else if job.personalization.is_some() || job.start.is_some() {
        "sources: each is a personalization, so there is no other, and no start"
    } else if job.write_anyway {
        "sources: nothing is written without convergence"
    } else if (job.options.dangling == Dangling::Given) != job.dangling.is_some() {
        "dangling: a file goes with the rule that reads it"
    } else if job.output.as_deref().map(Format::of).transpose()? == Some(Format::Npy) {
        "sources: the table of several vectors is .csv or .parquet"
    } else {
        return Ok(());
    };
    Err(Error::input(what))
}

fn find(sources: &[String], numbering: &Numbering) -> Result<Vec<usize>> {
    let mut seen = std::collections::HashSet::new();
    let index = |source: &String| match numbering.find(source) {
        Some(index) if seen.insert(index) => Ok(index),
        Some(_) => Err(Error::input(format!("sources: node '{source}' is named a second time"))),
        None => Err(Error::input(format!("sources: node '{source}' is not in the graph"))),
    };
    sources.iter().map(index).collect()
}

/// What all blocks of sources share.
struct Work<'w> {
    comm: &'w Communicator,
    graph: &'w Partition,
    job: &'w PageRankJob,
    given: &'w Distributions,
    seconds: f64,
    gathers: usize,
}

impl Work<'_> {
    fn all(&mut self, numbering: &Numbering, indices: &[usize]) -> Result<Vec<SourceRanks>> {
        use super::options::Number;
        match self.job.options.number {
            Number::F64 => self.all_in::<Double>(numbering, indices),
            Number::F32 => self.all_in::<Single>(numbering, indices),
            Number::Mixed => self.all_in::<Mixed>(numbering, indices),
        }
    }

    fn all_in<P: Precision>(
        &mut self,
        numbering: &Numbering,
        indices: &[usize],
    ) -> Result<Vec<SourceRanks>> {
        let (graph, options) = (self.graph, &self.job.options);
        let n = graph.sharding.n();
        let rows = self.comm.agree(gather_rows::<P>(&graph.rows, n))?;
        let scale = self.comm.agree(scale::<P>(graph, options.alpha))?;
        let block = Block { graph, options, given: self.given, tasks: tasks(&rows), rows, scale };
        let mut all = Vec::with_capacity(indices.len());
        for sources in indices.chunks(COLUMNS) {
            let place = |&index: &usize| {
                graph.order.as_ref().map_or(index, |order| order.place_of[index] as usize)
            };
            let places: Vec<usize> = sources.iter().map(place).collect();
            let started = Instant::now();
            let done = self.iterate(&block, &places)?;
            self.seconds += started.elapsed().as_secs_f64();
            for (&index, done) in sources.iter().zip(done) {
                let Some(mut done) = done else {
                    return Err(Error::internal("a vector was lost"));
                };
                if options.scale == Scale::Nodes {
                    done.ranks.iter_mut().for_each(|rank| *rank *= n as f64);
                }
                let order = graph.order.as_ref();
                let own = OwnRanks { ranks: &done.ranks, sharding: &graph.sharding, order };
                let top = output::top(self.comm, own, numbering, self.job.top)?;
                let source = match numbering.id(index) {
                    NodeId::Integer(id) => id.into(),
                    NodeId::Name(name) => name.into(),
                };
                let Done { iterations, residual, .. } = done;
                all.push(SourceRanks { source, iterations, residual, top });
            }
        }
        Ok(all)
    }

    /// The vectors of up to [`COLUMNS`] sources, given by their places. Collective.
    fn iterate<P: Precision>(
        &mut self,
        block: &Block<'_, P>,
        sources: &[usize],
    ) -> Result<Vec<Option<Done>>> {
        let (comm, options, n) = (self.comm, &self.job.options, self.graph.sharding.n());
        let counts = (0..comm.ranks()).map(|rank| self.graph.sharding.count(rank) * COLUMNS);
        let sharding = Sharding::from_counts(&counts.collect::<Vec<_>>());
        let mut contributions = comm.shared_vector::<P::Wire>(&sharding)?;
        let mut x = block.start();
        block.contribute(&x, contributions.own_mut().as_chunks_mut().0);
        contributions.gather()?;
        self.gathers += 1;
        let mut sums = Sums::new();
        sums.dangling = block.dangling(&x);
        let mut dangling = self.reduce(&sums)?.0;
        let limit = options.limit(n);
        let mut done: Vec<Option<Done>> = sources.iter().map(|_| None).collect();
        let mut residual = [f64::INFINITY; COLUMNS];
        progress::stage("iterate", None);
        for iteration in 1..=options.max_iterations {
            let (whole, next) = contributions.split();
            let (whole, next) = (whole.as_chunks().0, next.as_chunks_mut().0);
            let sums = block.step(&mut x, whole, dangling, next, sources);
            (dangling, residual) = self.reduce(&sums)?;
            if options.stop == Stop::Max {
                residual.copy_from_slice(&comm.all_reduce_vec(&sums.largest, Op::Max)?);
            }
            for (column, done) in done.iter_mut().enumerate() {
                if done.is_none() && residual[column] < limit {
                    let ranks = x.iter().map(|x| x[column].to_f64()).collect();
                    *done = Some(Done { iterations: iteration, residual: residual[column], ranks });
                }
            }
            progress::advance(1);
            if done.iter().all(Option::is_some) {
                return Ok(done);
            }
            contributions.gather()?;
            self.gathers += 1;
        }
        let open = done.iter().position(Option::is_none).unwrap_or(0);
        let (what, most) = ("pagerank of a source", options.max_iterations);
        Err(not_converged(what, most, residual[open], limit, n))
    }

    /// The dangling mass and the change of every column over all ranks.
    fn reduce(&self, sums: &Sums) -> Result<([f64; COLUMNS], [f64; COLUMNS])> {
        let both = sums.dangling.iter().chain(&sums.residual);
        let limbs: Vec<i64> = both.flat_map(|sum| sum.limbs()).collect();
        let limbs = self.comm.all_reduce_vec(&limbs, Op::Sum)?;
        let value = |i: usize| ExactSum::from_limbs(&limbs[i * LIMBS..(i + 1) * LIMBS]).value();
        Ok((std::array::from_fn(value), std::array::from_fn(|i| value(COLUMNS + i))))
    }
}

/// Sums over the own nodes after a step, for each column.
struct Sums {
    dangling: [ExactSum; COLUMNS],
    residual: [ExactSum; COLUMNS],
    largest: [f64; COLUMNS],
}

impl Sums {
    fn new() -> Self {
        let zeros = || std::array::from_fn(|_| ExactSum::new());
        Sums { dangling: zeros(), residual: zeros(), largest: [0.0; COLUMNS] }
    }

    fn merge(mut self, other: Self) -> Self {
        for column in 0..COLUMNS {
            self.dangling[column].merge(&other.dangling[column]);
            self.residual[column].merge(&other.residual[column]);
            self.largest[column] = self.largest[column].max(other.largest[column]);
        }
        self
    }
}

/// What a step of several columns needs; see `step` for one.
struct Block<'b, P: Precision> {
    graph: &'b Partition,
    options: &'b PageRankOptions,
    given: &'b Distributions,
    rows: GatherRows<P>,
    scale: Vec<P::Sum>,
    tasks: Sharding,
}

impl<P: Precision> Block<'_, P> {
    /// All nodes alike, as in a single run.
    fn start(&self) -> Vec<[P::Sum; COLUMNS]> {
        let value = P::Sum::from_f64(1.0 / self.graph.sharding.n() as f64);
        vec![[value; COLUMNS]; self.scale.len()]
    }

    fn contribute(&self, x: &[[P::Sum; COLUMNS]], own: &mut [[P::Wire; COLUMNS]]) {
        for ((own, x), &scale) in own.iter_mut().zip(x).zip(&self.scale) {
            *own = x.map(|x| P::narrow(x * scale));
        }
    }

    fn dangling(&self, x: &[[P::Sum; COLUMNS]]) -> [ExactSum; COLUMNS] {
        let mut sums = std::array::from_fn(|_| ExactSum::new());
        for (x, scale) in x.chunks(GRAIN).zip(self.scale.chunks(GRAIN)) {
            for (column, sum) in sums.iter_mut().enumerate() {
                let x = x.iter().map(|x| x[column]).zip(scale);
                let rank = |(x, s): (P::Sum, &P::Sum)| match *s == P::Sum::default() {
                    true => x.to_f64(),
                    false => 0.0,
                };
                sum.add(x.map(rank).sum());
            }
        }
        sums
    }

    fn step(
        &self,
        x: &mut [[P::Sum; COLUMNS]],
        contributions: &[[P::Wire; COLUMNS]],
        dangling: [f64; COLUMNS],
        next: &mut [[P::Wire; COLUMNS]],
        sources: &[usize],
    ) -> Sums {
        let mut work = Vec::with_capacity(self.tasks.ranks());
        let (mut x, mut next) = (x, next);
        for task in 0..self.tasks.ranks() {
            let nodes = self.tasks.range(task);
            let (own_x, own_next);
            (own_x, x) = x.split_at_mut(nodes.len());
            (own_next, next) = next.split_at_mut(nodes.len());
            work.push((nodes.start, own_x, own_next));
        }
        let run = |(first, x, next): (usize, &mut [_], &mut [_])| {
            self.run(first, x, contributions, dangling, next, sources)
        };
        work.into_par_iter().map(run).reduce(Sums::new, Sums::merge)
    }

    /// What a node gets beside the contributions of its sources, in one column.
    #[inline]
    fn base(&self, place: usize, source: Option<usize>, dangling: f64) -> P::Sum {
        let p = if source == Some(place) { 1.0 } else { 0.0 };
        let d = match self.options.dangling {
            Dangling::Follow => p,
            Dangling::Ignore => 0.0,
            Dangling::Uniform => 1.0 / self.graph.sharding.n() as f64,
            Dangling::Given => {
                let order = self.graph.order.as_ref();
                let node = order.map_or(place, |order| order.node_at[place] as usize);
                self.given.dangling.as_ref().map_or(0.0, |given| given[node])
            }
        };
        let alpha = self.options.alpha;
        P::Sum::from_f64(alpha * dangling * d + (1.0 - alpha) * p)
    }

    fn run(
        &self,
        first: usize,
        x: &mut [[P::Sum; COLUMNS]],
        contributions: &[[P::Wire; COLUMNS]],
        dangling: [f64; COLUMNS],
        next: &mut [[P::Wire; COLUMNS]],
        sources: &[usize],
    ) -> Sums {
        let mut sums = Sums::new();
        let mut row_sums = [[P::Sum::default(); COLUMNS]; LANES];
        let start = self.graph.rows.range.start;
        for (i, (x, next)) in x.chunks_mut(GRAIN).zip(next.chunks_mut(GRAIN)).enumerate() {
            let at = first + i * GRAIN;
            self.rows.sums_of_columns(at / GRAIN, contributions, &mut row_sums);
            let (mut mass, mut residual) = ([0.0; COLUMNS], [0.0; COLUMNS]);
            for i in 0..x.len() {
                let scale = self.scale[at + i];
                for column in 0..COLUMNS {
                    let source = sources.get(column).copied();
                    let base = self.base(start + at + i, source, dangling[column]);
                    let new = row_sums[i][column] + base;
                    let change = (new - x[i][column]).to_f64().abs();
                    residual[column] += change;
                    sums.largest[column] = sums.largest[column].max(change);
                    let lost = scale == P::Sum::default();
                    mass[column] += if lost { new.to_f64() } else { 0.0 };
                    x[i][column] = new;
                    next[i][column] = P::narrow(new * scale);
                }
            }
            for column in 0..COLUMNS {
                if mass[column] != 0.0 {
                    sums.dangling[column].add(mass[column]);
                }
                sums.residual[column].add(residual[column]);
            }
        }
        sums
    }
}

/// Writes `source,node,rank`: the highest ranks of each source.
fn write(
    path: &Path,
    numbering: &Numbering,
    indices: &[usize],
    all: &[SourceRanks],
) -> Result<FileRecord> {
    let (mut sources, mut nodes, mut ranks) = (Vec::new(), Vec::new(), Vec::new());
    for (&index, source) in indices.iter().zip(all) {
        for top in &source.top {
            let name = match &top.node {
                serde_json::Value::String(name) => name.clone(),
                number => number.to_string(),
            };
            let node = numbering.find(&name).ok_or_else(|| Error::internal("a node was lost"))?;
            sources.push(index as u64);
            nodes.push(node as u64);
            ranks.push(top.rank);
        }
    }
    let format = Format::of(path)?;
    write_atomically(path, |writer| {
        use std::io::Write;
        if format == Format::Parquet {
            let ids = [("source", Some(&sources[..])), ("node", Some(&nodes[..]))];
            let ranks = [("rank", &ranks[..])];
            let written = parquet_output::write(writer, numbering, &ids, &ranks);
            return written.map_err(std::io::Error::other);
        }
        writer.write_all(b"source,node,rank\n")?;
        for ((&source, &node), rank) in sources.iter().zip(&nodes).zip(&ranks) {
            csv_output::write_id(writer, numbering.id(source as usize))?;
            writer.write_all(b",")?;
            csv_output::write_id(writer, numbering.id(node as usize))?;
            writeln!(writer, ",{rank:?}")?;
        }
        Ok(())
    })
}

/// The sources that text names: the lines of a file, or ids between commas.
pub fn parse_sources(text: &str) -> Result<Vec<String>> {
    let path = PathBuf::from(text);
    if !path.is_file() {
        return Ok(text.split(',').map(|id| id.trim().to_string()).collect());
    }
    let contents = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, "read", &e))?;
    let lines = contents.lines().map(str::trim);
    Ok(lines.filter(|l| !l.is_empty() && !l.starts_with(['#', '%'])).map(str::to_string).collect())
}
