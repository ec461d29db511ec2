//! Which algorithm for this call.
//!
//! [`choose`] is a pure and total function of the problem, the placement, the kinds of buffers, the
//! wanted order and a [`Table`] of measurements, if there is one: the nearest measured row whose
//! algorithm may be used here wins, else the built-in lists of `defaults`. It says why.
//!
//! In canonical order only algorithms whose results are the canonical tree over the contributions
//! (`table::Canonical`) may reduce floats: the same bits on every placement. Of integers, which
//! wrap, and of two contributions every order gives the same bits, so that those may take any
//! algorithm.
//!
//! The MPI library's own collectives are candidates too ([`Native`]), with the limits that
//! [`native_fits`] states.

mod defaults;
mod table;

use std::fmt;

pub use defaults::weigh;
pub use table::{Header, Row, Table};

use crate::element::{DType, Op};
use crate::error::{Error, Result};
use crate::plan::table::Algorithm;
use crate::plan::{Collective, Problem};
use crate::topology::Topology;

/// In which order contributions are combined.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Order {
    /// By the canonical tree over the ranks: the same bits whatever the algorithm, placement and
    /// transport.
    #[default]
    Canonical,
    /// Whatever is fastest.
    Fastest,
}

/// A collective of the MPI library itself, as an algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Native {
    /// The call of the same name; for reduce_scatter `MPI_Reduce_scatter_block`.
    Plain,
    /// `MPI_Reduce_scatter` with one count a rank, which some libraries implement far better.
    Counts,
    /// The nonblocking call and a wait, which libraries implement by code of its own; for
    /// reduce_scatter `MPI_Ireduce_scatter`.
    Immediate,
}

impl Native {
    /// All of them.
    pub const ALL: [Native; 3] = [Native::Plain, Native::Counts, Native::Immediate];

    /// Its name among the algorithms.
    pub fn name(self) -> &'static str {
        match self {
            Native::Plain => "native",
            Native::Counts => "native_counts",
            Native::Immediate => "native_immediate",
        }
    }

    /// The one with this name.
    pub fn find(name: &str) -> Option<Native> {
        Native::ALL.into_iter().find(|native| native.name() == name)
    }

    /// Whether a collective has it.
    pub fn serves(self, collective: Collective) -> bool {
        match collective {
            Collective::ReduceScatter => true,
            Collective::Gather { .. } | Collective::Scatter { .. } => false,
            Collective::Barrier => self == Native::Plain,
            _ => self != Native::Counts,
        }
    }
}

/// What runs.
#[derive(Clone, Copy, Debug)]
pub enum Chosen {
    /// A row of the table of algorithms.
    Planned(&'static Algorithm),
    /// The MPI library's own collective.
    Native(Native),
}

impl Chosen {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Chosen::Planned(row) => row.name,
            Chosen::Native(native) => native.name(),
        }
    }

    /// What it is good for, in a line.
    pub fn summary(self) -> &'static str {
        match self {
            Chosen::Planned(row) => row.summary,
            Chosen::Native(Native::Plain) => "the collective of the MPI library",
            Chosen::Native(Native::Counts) => "MPI_Reduce_scatter with one count a rank",
            Chosen::Native(Native::Immediate) => "the nonblocking MPI collective, and a wait",
        }
    }
}

/// An algorithm, and why it was taken.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What runs.
    pub chosen: Chosen,
    /// In words.
    pub reason: Reason,
}

/// Why an algorithm was taken. Its text is made only when somebody asks.
#[derive(Clone, PartialEq, Debug)]
pub enum Reason {
    /// There is no table, or it has nothing for this call.
    Default(Option<String>),
    /// A measured row.
    Measured {
        /// The file of the table.
        table: String,
        /// The number of the row, from 1.
        row: usize,
        /// The time of the chosen algorithm.
        time_us: f64,
        /// The next best, with its time.
        next: Option<(String, f64)>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Default(None) => f.write_str("default: no table"),
            Reason::Default(Some(why)) => write!(f, "default: {why}"),
            Reason::Measured { table, row, time_us, next } => {
                write!(f, "table {table} row {row}: measured {time_us} us")?;
                match next {
                    Some((name, time_us)) => write!(f, ", next {name} {time_us} us"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Everything that a choice depends on, beside the table. The same on all ranks.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// What is to be done.
    pub problem: &'a Problem,
    /// The type of the elements.
    pub dtype: DType,
    /// How they are combined, where they are.
    pub op: Option<Op>,
    /// Where the ranks live.
    pub topology: &'a Topology,
    /// Whether input and output are in node-shared memory.
    pub shared: [bool; 2],
    /// How contributions may be combined.
    pub order: Order,
    /// Whether there is an MPI library, and the call may block in it.
    pub native: bool,
}

/// Bytes of the whole vector; of an all_to_all, as if all messages were as long as the longest.
pub fn bytes_of(problem: &Problem, dtype: DType) -> usize {
    let n = match &problem.counts {
        Some(counts) => counts.iter().max().copied().unwrap_or(0).saturating_mul(problem.ranks()),
        None => problem.sharding.n(),
    };
    n.saturating_mul(dtype.bytes())
}

/// Whether the bits of the result depend on the order of combining, and must not.
pub fn order_matters(problem: &Problem, dtype: DType, order: Order) -> bool {
    let canonical = problem.collective.reduces() && order == Order::Canonical;
    canonical && is_float(dtype) && problem.ranks() > 2
}

fn is_float(dtype: DType) -> bool {
    dtype.is_half() || matches!(dtype, DType::F32 | DType::F64)
}

/// Whether the MPI library's own collective may serve a call, and if not, why not.
///
/// It combines floats in an order of its own, so not in canonical order; its minimum and maximum
/// of floats lose NaN; it lacks 16-bit floats and the average; its counts are 32-bit.
pub fn native_fits(native: Native, query: &Query<'_>) -> Result<()> {
    let (problem, dtype) = (query.problem, query.dtype);
    let collective = problem.collective;
    let extreme = matches!(query.op, Some(Op::Min | Op::Max));
    let lack = if !native.serves(collective) {
        "does not exist"
    } else if !query.native {
        "needs ranks started with mpirun, and a call that may block"
    } else if collective.reduces() && dtype.is_half() {
        "has no 16-bit floats"
    } else if order_matters(problem, dtype, query.order) {
        "combines floats in an order of its own; --order fastest allows that for f32 and f64"
    } else if collective.reduces() && query.op == Some(Op::Average) {
        "has no average"
    } else if collective.reduces() && is_float(dtype) && extreme {
        "loses NaN in a minimum or maximum"
    } else if problem.overlap(0).is_some() {
        "cannot work in place"
    } else if needs_equal_counts(native, collective) && !problem.is_uniform() {
        "needs equal counts"
    } else if bytes_of(problem, dtype) / dtype.bytes() > i32::MAX as usize {
        "has 32-bit counts"
    } else {
        return Ok(());
    };
    Err(Error::input(format!(
        "{}/{} {lack}; leave the algorithm out",
        collective.name(),
        native.name()
    )))
}

fn needs_equal_counts(native: Native, collective: Collective) -> bool {
    match collective {
        Collective::ReduceScatter => native == Native::Plain,
        Collective::AllGather | Collective::AllToAll => true,
        _ => false,
    }
}

/// Whether an algorithm may be used for a call, and if not, why not.
pub fn usable(chosen: Chosen, query: &Query<'_>) -> Result<()> {
    let Query { problem, dtype, topology, shared, order, .. } = *query;
    match chosen {
        Chosen::Native(native) => native_fits(native, query),
        Chosen::Planned(row) => defaults::usable(row, problem, dtype, topology, shared, order),
    }
}

/// The algorithm for a call.
pub fn choose(query: &Query<'_>, table: Option<&Table>) -> Result<Choice> {
    let Query { problem, dtype, topology, shared, order, .. } = *query;
    let why = match table.map(|table| (table, table.nearest(query))) {
        None => None,
        Some((table, None)) => Some(format!(
            "{} has no row for {}, {} ranks, {} a node",
            table.name(),
            problem.collective.name(),
            topology.ranks(),
            topology.max_locals(),
        )),
        Some((table, Some(nearest))) => {
            let mut why = None;
            for (chosen, time_us, next) in nearest.candidates() {
                let Err(error) = usable(chosen, query) else {
                    let (table, row) = (table.name().to_string(), nearest.number);
                    let reason = Reason::Measured { table, row, time_us, next };
                    return Ok(Choice { chosen, reason });
                };
                let told = format!("{} row {}: {}", table.name(), nearest.number, error.message);
                why = Some(why.unwrap_or(told));
            }
            why
        }
    };
    let row = defaults::first(problem, dtype, topology, shared, order)?;
    Ok(Choice { chosen: Chosen::Planned(row), reason: Reason::Default(why) })
}

#[cfg(test)]
mod tests;
