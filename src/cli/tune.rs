//! `rankwise tune`: measures every algorithm that fits and the MPI library's own calls, and saves
//! the table by which calls choose.
//!
//! Six operations, plain and shared buffers apart, from 8 bytes to `--largest`. All candidates of a
//! size alternate in one process (see `measure`). One that is three times as slow as the best at
//! two sizes in a row is left out at larger ones, but never a call of the MPI library: the table
//! shows at every size that it loses nothing against it. `--json` has the times of all candidates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::Session;
use crate::communicator::{Communicator, Settings};
use crate::element::{DType, Element, Op};
use crate::error::{Error, Result};
use crate::files;
use crate::measure::{self, Case, Thing, machine};
use crate::plan::{Collective, Problem, table};
use crate::select::{self, Chosen, Header, Native, Order, Query, Row, Table};
use crate::with_element_type;

/// Measure this machine and save the table by which algorithms are chosen.
#[derive(Debug, clap::Args)]
pub(super) struct Tune {
    /// Where the table goes; use it with --table FILE or RANKWISE_TABLE=FILE
    #[arg(long, value_name = "FILE", default_value = "rankwise.toml")]
    output: PathBuf,
    /// Fewer iterations, sizes 16 times apart, f32 only
    #[arg(long)]
    quick: bool,
    /// The largest size of the whole vector in bytes
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = super::size::size)]
    largest: usize,
    /// The date to note in the table, as it should stand there
    #[arg(long, value_name = "TEXT", default_value = "")]
    date: String,
}

/// What is measured; gather and scatter have no candidates to choose from but by size.
const OPERATIONS: [Collective; 6] = [
    Collective::ReduceScatter,
    Collective::AllGather,
    Collective::AllReduce,
    Collective::Broadcast { root: 0 },
    Collective::AllToAll,
    Collective::Barrier,
];
const SMALLEST: usize = 8;
/// Each size is the one before times this.
const FACTOR: usize = 4;
/// The same with `--quick`.
const QUICK_FACTOR: usize = 16;
/// This much slower than the best, twice in a row, is left out.
const HOPELESS: f64 = 3.0;
/// A default that takes at most this much longer than the best is kept: that is noise.
const ALIKE: f64 = 1.05;

/// What the measured table changes against the built-in choice.
#[derive(Debug, Serialize)]
struct Change {
    op: String,
    bytes: usize,
    buffers: &'static str,
    dtype: &'static str,
    order: &'static str,
    default: &'static str,
    default_us: f64,
    algorithm: String,
    time_us: f64,
}

/// The times of all candidates at one size.
#[derive(Debug, Serialize)]
struct Figure {
    op: &'static str,
    bytes: usize,
    buffers: &'static str,
    dtype: &'static str,
    times_us: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    rows: usize,
    measurement: bool,
    reason: Option<String>,
    /// Everything that was measured, as `all_reduce/flat`.
    candidates: BTreeSet<String>,
    changes: Vec<Change>,
    figures: Vec<Figure>,
}

/// What is found while it measures.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    changes: Vec<Change>,
    candidates: BTreeSet<String>,
    figures: Vec<Figure>,
}

/// One series of sizes: an operation, a kind of buffers, an element type.
#[derive(Clone, Copy)]
struct Series {
    collective: Collective,
    shared: bool,
    dtype: DType,
}

impl Tune {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let c = session.communicator;
        c.agree(if session.speaks() { files::check_folder(&self.output) } else { Ok(()) })?;
        let noise = machine::noise(c)?;
        let mut found = Found::default();
        for series in self.series() {
            with_element_type!(series.dtype, T => {
                self.sweep::<T>(c, series, &mut found)?;
            });
            if session.speaks_to_people() && !session.output.quiet {
                let Series { collective, shared, dtype } = series;
                println!("{} {dtype} {}: measured", collective.name(), kind(shared));
            }
        }
        let Found { rows, changes, candidates, figures } = found;
        let library = c.native().map_or("none: ranks are threads".into(), |n| n.version());
        let header = Header {
            version: 1,
            library,
            ranks: c.ranks(),
            nodes: c.topology().nodes(),
            cores: machine::cores(),
            date: self.date.clone(),
            noise: noise.clone().unwrap_or_default(),
        };
        let table = Table::new(&self.output.display().to_string(), header, rows)?;
        let saved = if session.speaks() { table.save(&self.output).map(|_| ()) } else { Ok(()) };
        c.agree(saved).map_err(|error| Error { rank: None, ..error })?;
        let rows = table.rows().count();
        if session.speaks_to_people() {
            self.print(&changes, rows, noise.as_deref());
        }
        let output = self.output.clone();
        let measurement = noise.is_none();
        session.print_json(&Report {
            output,
            rows,
            measurement,
            reason: noise,
            candidates,
            changes,
            figures,
        })
    }

    fn print(&self, changes: &[Change], rows: usize, noise: Option<&str>) {
        println!("{rows} rows in {}; other than by default:", self.output.display());
        for change in changes {
            let Change { op, bytes, buffers, dtype, order, .. } = change;
            println!(
                "  {op:<15}{bytes:>10} {buffers:<7}{dtype:<5}{order:<10}{:<21}{:>10.2} us  instead \
                 of {:<14}{:>10.2} us",
                change.algorithm, change.time_us, change.default, change.default_us
            );
        }
        if let Some(noise) = noise {
            println!("no measurement of this machine: {noise}");
        }
    }

    fn series(&self) -> Vec<Series> {
        let mut all = Vec::new();
        for collective in OPERATIONS {
            for shared in [true, false] {
                for dtype in [DType::F32, DType::Bf16] {
                    let barrier = collective.same_kind(Collective::Barrier) && !shared;
                    let half = dtype.is_half() && (!collective.reduces() || self.quick);
                    if !barrier && !half {
                        all.push(Series { collective, shared, dtype });
                    }
                }
            }
        }
        all
    }

    fn sizes(&self, collective: Collective) -> Vec<usize> {
        if collective.same_kind(Collective::Barrier) {
            return vec![0];
        }
        let factor = if self.quick { QUICK_FACTOR } else { FACTOR };
        let largest = self.largest.max(SMALLEST);
        let sizes = std::iter::successors(Some(SMALLEST), |size| size.checked_mul(factor));
        sizes.take_while(|&size| size < largest).chain([largest]).collect()
    }

    fn sweep<T: Element>(&self, c: &Communicator, series: Series, found: &mut Found) -> Result<()> {
        let Series { collective, shared, .. } = series;
        let mut slow: BTreeMap<&'static str, usize> = BTreeMap::new();
        let sizes = self.sizes(collective);
        for (i, &bytes) in sizes.iter().enumerate() {
            let piece = Settings::default().piece_bytes;
            let problem = measure::problem::<T>(collective, bytes, c.ranks(), piece);
            let candidates: Vec<Chosen> = candidates(c, &problem, T::DTYPE, shared)
                .into_iter()
                .filter(|one| {
                    let hopeful = slow.get(one.name()).is_none_or(|&times| times < 2);
                    hopeful || matches!(one, Chosen::Native(_))
                })
                .collect();
            let op = collective.name();
            found.candidates.extend(candidates.iter().map(|one| format!("{op}/{}", one.name())));
            let names: Vec<_> = candidates.iter().map(|one| Some(one.name())).collect();
            let mut case = Case::<T>::new(c, problem.clone(), &names, shared)?;
            let things: Vec<Thing> = (0..names.len()).map(Thing::Call).collect();
            let usual = case.usual_iterations();
            let iterations = if self.quick { (usual / 5).max(5) } else { (usual / 2).max(10) };
            let times = case.measure(&things, iterations)?;
            let mut ranked: Vec<(Chosen, f64)> =
                candidates.into_iter().zip(times.iter().map(|t| t.median)).collect();
            ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
            prefer_default(&mut ranked, &query::<T>(c, &problem, shared))?;
            let best = ranked.iter().map(|one| one.1).fold(f64::INFINITY, f64::min);
            for &(one, time) in &ranked {
                let times = slow.entry(one.name()).or_default();
                *times = if time > HOPELESS * best { *times + 1 } else { 0 };
            }
            let times_us = ranked.iter().map(|(one, time)| (one.name(), rounded(*time))).collect();
            let (bytes, dtype) = (case.bytes(), T::DTYPE.name());
            found.figures.push(Figure { op, bytes, buffers: kind(shared), dtype, times_us });
            let bytes_up_to = match sizes.get(i + 1) {
                Some(&next) => half_way(bytes, next),
                None => bytes,
            };
            note(&ranked, &query::<T>(c, &problem, shared), [bytes, bytes_up_to], found)?;
        }
        Ok(())
    }
}

/// Rows for both orders, or one for both where they agree.
fn note(
    ranked: &[(Chosen, f64)],
    query: &Query<'_>,
    [bytes, bytes_up_to]: [usize; 2],
    into: &mut Found,
) -> Result<()> {
    let (collective, shared) = (query.problem.collective, query.shared[0]);
    let of = |order: Order| {
        let query = Query { order, ..*query };
        let usable = |one: &&(Chosen, f64)| select::usable(one.0, &query).is_ok();
        let mut usable = ranked.iter().filter(usable);
        (usable.next().copied(), usable.next().copied())
    };
    let orders = [(Order::Fastest, "fastest"), (Order::Canonical, "canonical")];
    let found = orders.map(|(order, _)| of(order));
    let name = |one: Option<(Chosen, f64)>| one.map(|(chosen, _)| chosen.name());
    let alike = name(found[0].0) == name(found[1].0) && name(found[0].1) == name(found[1].1);
    for ((order, label), (first, second)) in orders.into_iter().zip(found) {
        let Some((chosen, time_us)) = first else { continue };
        if alike && order == Order::Canonical {
            continue;
        }
        let algorithm = chosen.name().to_string();
        let default = select::choose(&Query { order, ..*query }, None)?.chosen.name();
        let default_us = ranked.iter().find(|(one, _)| one.name() == default);
        if default != algorithm
            && let Some(&(_, default_us)) = default_us
        {
            into.changes.push(Change {
                op: collective.name().into(),
                bytes,
                buffers: kind(shared),
                dtype: query.dtype.name(),
                order: if alike { "any" } else { label },
                default,
                default_us,
                algorithm: algorithm.clone(),
                time_us,
            });
        }
        into.rows.push(Row {
            op: collective.name().into(),
            ranks: query.topology.ranks(),
            ranks_per_node: query.topology.max_locals(),
            buffers: kind(shared).into(),
            dtype_bytes: query.dtype.bytes(),
            order: (!alike).then(|| label.to_string()),
            bytes,
            bytes_up_to,
            algorithm,
            time_us: rounded(time_us),
            runner_up: second.map(|(chosen, _)| chosen.name().to_string()),
            runner_up_us: second.map(|(_, time)| rounded(time)),
        });
    }
    Ok(())
}

/// Half way to the next size, on the scale on which sizes are apart.
fn half_way(bytes: usize, next: usize) -> usize {
    (bytes as u128 * next as u128).isqrt() as usize
}

/// Moves the defaults of both orders to the front if they are as fast as the best.
fn prefer_default(ranked: &mut [(Chosen, f64)], query: &Query<'_>) -> Result<()> {
    for order in [Order::Canonical, Order::Fastest] {
        let query = Query { order, ..*query };
        let default = select::choose(&query, None)?.chosen.name();
        let usable = |one: &&(Chosen, f64)| select::usable(one.0, &query).is_ok();
        let best = ranked.iter().filter(usable).map(|one| one.1).fold(f64::INFINITY, f64::min);
        let found = ranked.iter().position(|one| one.0.name() == default);
        if let Some(at) = found.filter(|&at| ranked[at].1 <= ALIKE * best) {
            ranked[..=at].rotate_right(1);
        }
    }
    Ok(())
}

fn kind(shared: bool) -> &'static str {
    if shared { "shared" } else { "plain" }
}

/// To the nanosecond: more digits are noise.
fn rounded(time_us: f64) -> f64 {
    (time_us * 1000.0).round() / 1000.0
}

fn query<'a, T: Element>(c: &'a Communicator, problem: &'a Problem, shared: bool) -> Query<'a> {
    Query {
        problem,
        dtype: T::DTYPE,
        op: problem.collective.reduces().then_some(Op::Sum),
        topology: c.topology(),
        shared: [shared; 2],
        order: Order::Fastest,
        native: c.native().is_some(),
    }
}

/// Everything that may serve a problem in some order.
fn candidates(c: &Communicator, problem: &Problem, dtype: DType, shared: bool) -> Vec<Chosen> {
    let collective = problem.collective;
    let query = with_element_type!(dtype, T => query::<T>(c, problem, shared));
    let planned = table::of(collective).map(Chosen::Planned);
    let natives = Native::ALL.map(Chosen::Native);
    planned.chain(natives).filter(|&one| select::usable(one, &query).is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_reach_the_largest_and_rows_meet_half_way() {
        let mut tune =
            Tune { output: PathBuf::new(), quick: false, largest: 64 << 20, date: String::new() };
        let collective = Collective::AllGather;
        let sizes = tune.sizes(collective);
        assert_eq!((sizes[0], sizes[1], sizes[11], sizes[12]), (8, 32, 32 << 20, 64 << 20));
        assert_eq!(sizes.len(), 13);
        assert_eq!(half_way(sizes[1], sizes[2]), 64);
        assert!((32 << 20..64 << 20).contains(&half_way(sizes[11], sizes[12])));
        tune.largest = 512;
        assert_eq!(tune.sizes(collective), [8, 32, 128, 512]);
        (tune.quick, tune.largest) = (true, 0);
        assert_eq!(tune.sizes(collective), [8]);
        assert_eq!(tune.sizes(Collective::Barrier), [0]);
        assert_eq!(half_way(usize::MAX / 2, usize::MAX / 2), usize::MAX / 2);
    }
}
