//! The table of measurements: what `rankwise tune` saves and [`super::choose`] reads.
//!
//! A TOML file with a version, what was measured where, and one line a row, so that people can
//! read, compare and edit it. A row holds for the operation, the number of ranks and of ranks a
//! node, the kind of buffers and the element width it names, up to a number of bytes; the nearest
//! one is used. Names are checked when the file is read, so a row can always be looked up; whether
//! its algorithm fits a call is checked when it is chosen.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{Chosen, Native, Query, bytes_of, order_matters};
use crate::error::{Error, Result};
use crate::files::{self, FileRecord};
use crate::plan::{Collective, table};

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// What was measured, where and when. Only `version` is read by programs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format, 1.
    pub version: u32,
    /// The MPI library, or that there was none.
    pub library: String,
    /// Ranks of the job that measured.
    pub ranks: usize,
    /// Their nodes.
    pub nodes: usize,
    /// Cores of the first node.
    pub cores: usize,
    /// As given; rankwise reads no calendar.
    pub date: String,
    /// Why the figures are no measurement of the machine; empty when they are.
    pub noise: String,
}

/// One line of the file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The operation, such as `reduce_scatter`.
    pub op: String,
    /// Ranks of the communicator.
    pub ranks: usize,
    /// The most of them on one node.
    pub ranks_per_node: usize,
    /// `plain` or `shared`.
    pub buffers: String,
    /// Bytes of an element.
    pub dtype_bytes: usize,
    /// `canonical` where the order of combining matters to the bits, `fastest` where it does not
    /// or is free; absent for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Bytes of the whole vector that were measured.
    pub bytes: usize,
    /// The row holds up to this many.
    pub bytes_up_to: usize,
    /// The fastest algorithm.
    pub algorithm: String,
    /// Its time.
    pub time_us: f64,
    /// The next best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<String>,
    /// Its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up_us: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    measured: Measured,
    rows: Vec<Spanned<Row>>,
}

/// [`Header`] without its version, which comes first in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    library: String,
    ranks: usize,
    nodes: usize,
    cores: usize,
    date: String,
    #[serde(default)]
    noise: String,
}

#[derive(Clone, Debug)]
struct Entry {
    row: Row,
    collective: Collective,
    algorithm: Chosen,
    runner_up: Option<Chosen>,
    shared: bool,
    /// Whether it is for calls whose order matters; `None` for all.
    ordered: Option<bool>,
}

/// A checked table.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    header: Header,
    entries: Vec<Entry>,
}

/// The row that a query found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nearest<'a> {
    entry: &'a Entry,
    /// From 1.
    pub(super) number: usize,
}

impl Nearest<'_> {
    /// What it names, best first: each with its time, and what comes next with its time.
    pub(super) fn candidates(
        &self,
    ) -> impl Iterator<Item = (Chosen, f64, Option<(String, f64)>)> + use<> {
        let row = &self.entry.row;
        let runner_up = self.entry.runner_up.zip(row.runner_up_us);
        let next = runner_up.map(|(chosen, time)| (chosen.name().to_string(), time));
        let second = runner_up.map(|(chosen, time)| (chosen, time, None));
        std::iter::once((self.entry.algorithm, row.time_us, next)).chain(second)
    }
}

impl Table {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|e| Error::file(path, "read the table", &e))?;
        Table::parse(&text, &path.display().to_string())
    }

    /// Reads a text; `name` is the file for messages.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() as u64 + 1;
        let fail = |at: usize, what: &dyn std::fmt::Display| {
            Error::line(Path::new(name), line_of(at), what)
        };
        let file: File = toml::from_str(text).map_err(|e| {
            let what = e.message().replace('\n', "; ");
            fail(e.span().map_or(0, |span| span.start), &what)
        })?;
        if file.version != VERSION {
            let what = format!(
                "version = {}: this program reads version {VERSION}; measure again with \
                 rankwise tune",
                file.version
            );
            return Err(fail(0, &what));
        }
        let Measured { library, ranks, nodes, cores, date, noise } = file.measured;
        let header = Header { version: VERSION, library, ranks, nodes, cores, date, noise };
        let entries = file.rows.into_iter().map(|row| {
            let at = row.span().start;
            Entry::new(row.into_inner()).map_err(|what| fail(at, &what))
        });
        Ok(Table { name: name.to_string(), header, entries: entries.collect::<Result<_>>()? })
    }

    /// From rows that were just measured.
    pub fn new(name: &str, header: Header, rows: Vec<Row>) -> Result<Self> {
        let entries = rows.into_iter().map(|row| Entry::new(row).map_err(Error::internal));
        Ok(Table { name: name.to_string(), header, entries: entries.collect::<Result<_>>()? })
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<String> {
        let quote = |text: &str| {
            // The escapes of a JSON string are those of a TOML one.
            serde_json::to_string(text)
                .map_err(|e| Error::internal(format!("cannot write a table: {e}")))
        };
        let Header { version, library, ranks, nodes, cores, date, noise } = &self.header;
        let mut text = format!(
            "# Measured by `rankwise tune`. Use it with --table FILE or RANKWISE_TABLE=FILE.\n\
             version = {version}\n\nrows = [\n"
        );
        for Entry { row, .. } in &self.entries {
            let order = match &row.order {
                Some(order) => format!("order = {}, ", quote(order)?),
                None => String::new(),
            };
            let next = match (&row.runner_up, row.runner_up_us) {
                (Some(name), Some(time)) => {
                    format!(", runner_up = {}, runner_up_us = {time:?}", quote(name)?)
                }
                _ => String::new(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  {{ op = {}, ranks = {}, ranks_per_node = {}, buffers = {}, dtype_bytes = {}, \
                 {order}bytes = {}, bytes_up_to = {}, algorithm = {}, time_us = {:?}{next} }},",
                quote(&row.op)?,
                row.ranks,
                row.ranks_per_node,
                quote(&row.buffers)?,
                row.dtype_bytes,
                row.bytes,
                row.bytes_up_to,
                quote(&row.algorithm)?,
                row.time_us,
            );
        }
        text += "]\n\n[measured]\n";
        let (library, date, noise) = (quote(library)?, quote(date)?, quote(noise)?);
        let _ = write!(
            text,
            "library = {library}\nranks = {ranks}\nnodes = {nodes}\ncores = {cores}\n\
             date = {date}\nnoise = {noise}\n"
        );
        Ok(text)
    }

    /// Writes the file.
    pub fn save(&self, path: &Path) -> Result<FileRecord> {
        let text = self.to_text()?;
        files::write_atomically(path, |writer| std::io::Write::write_all(writer, text.as_bytes()))
    }

    /// The file it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was measured.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.entries.iter().map(|entry| &entry.row)
    }

    /// The row for a call: of the same operation, ranks, ranks a node and kind of buffers, the one
    /// of the nearest element width and then of the smallest size that covers it.
    pub(super) fn nearest(&self, query: &Query<'_>) -> Option<Nearest<'_>> {
        let Query { problem, dtype, topology, shared, order, .. } = *query;
        let collective = problem.collective;
        let rank_shared = match collective {
            Collective::Broadcast { .. } => shared[1],
            Collective::Barrier => true,
            _ => shared == [true; 2],
        };
        let ordered = order_matters(problem, dtype, order);
        let (bytes, locals) = (bytes_of(problem, dtype), topology.max_locals());
        let numbered = self.entries.iter().enumerate().filter(|(_, entry)| {
            entry.collective.same_kind(collective)
                && entry.row.ranks == topology.ranks()
                && entry.row.ranks_per_node == locals
                && (entry.shared == rank_shared || collective.same_kind(Collective::Barrier))
                && entry.ordered.is_none_or(|only| only == ordered)
        });
        let distance = |width: usize| width.abs_diff(dtype.bytes());
        let (index, entry) = numbered.min_by_key(|(_, entry)| {
            let covers = bytes <= entry.row.bytes_up_to;
            // Beyond the last size that was measured, the last one.
            let size = if covers { entry.row.bytes_up_to } else { !entry.row.bytes_up_to };
            (distance(entry.row.dtype_bytes), !covers, size)
        })?;
        Some(Nearest { entry, number: index + 1 })
    }
}

impl Entry {
    fn new(row: Row) -> std::result::Result<Self, String> {
        let found = Collective::ALL.into_iter().find(|c| c.name() == row.op);
        let collective = found.ok_or_else(|| {
            let names = Collective::ALL.map(Collective::name).join(", ");
            format!("op = '{}': expected one of {names}", row.op)
        })?;
        let algorithm = |name: &str| match Native::find(name) {
            Some(native) if native.serves(collective) => Ok(Chosen::Native(native)),
            _ => table::find(collective, name).map(Chosen::Planned).map_err(|e| e.message),
        };
        let shared = match row.buffers.as_str() {
            "shared" => true,
            "plain" => false,
            other => return Err(format!("buffers = '{other}': expected plain or shared")),
        };
        let ordered = match row.order.as_deref() {
            None => None,
            Some("canonical") => Some(true),
            Some("fastest") => Some(false),
            Some(other) => {
                return Err(format!("order = '{other}': expected canonical or fastest"));
            }
        };
        if row.ranks_per_node == 0 || row.ranks_per_node > row.ranks {
            let (ranks, locals) = (row.ranks, row.ranks_per_node);
            return Err(format!("ranks_per_node = {locals}: expected 1 to {ranks}, the ranks"));
        }
        if ![2, 4, 8].contains(&row.dtype_bytes) {
            return Err(format!("dtype_bytes = {}: expected 2, 4 or 8", row.dtype_bytes));
        }
        let sane = |time: f64| time.is_finite() && time >= 0.0;
        if !sane(row.time_us) || !row.runner_up_us.is_none_or(sane) {
            return Err("a time must be a finite number of microseconds, not negative".into());
        }
        if row.runner_up.is_some() != row.runner_up_us.is_some() {
            return Err("runner_up and runner_up_us belong together".into());
        }
        let chosen = algorithm(&row.algorithm)?;
        let runner_up = row.runner_up.as_deref().map(algorithm).transpose()?;
        Ok(Entry { row, collective, algorithm: chosen, runner_up, shared, ordered })
    }
}
