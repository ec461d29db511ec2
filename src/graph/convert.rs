//! `graph convert`, `graph generate` and `graph info`: a graph from any source, looked at as a
//! whole or written as a file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::columns::Columns;
use super::export::{self, GraphFormat};
use super::info::{GraphInfo, Parts, info};
use super::open::Opened;
use super::order::Relabel;
use super::partition::PartitionOptions;
use super::whole::Whole;
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::files;

/// What to read, and how.
#[derive(Clone, PartialEq, Debug)]
pub struct GraphInput {
    /// A file in any format that is read, or the name of a random graph.
    pub graph: PathBuf,
    /// What its lines mean.
    pub options: PartitionOptions,
    /// The columns of a table.
    pub columns: Columns,
}

/// What a conversion reports, the same on every rank. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ConvertSummary {
    /// Nodes that were written.
    pub vertices: u64,
    /// Directed edges that were written.
    pub edges: u64,
    /// Nodes without edges that the format of the file cannot hold.
    pub lost_vertices: u64,
    /// The length of the file.
    pub bytes: u64,
    /// `crc32:` and the CRC-32 of the file.
    pub checksum: String,
    /// From start to end.
    pub seconds: f64,
}

/// The whole graph on rank 0. Collective.
fn whole(comm: &Communicator, input: &GraphInput) -> Result<Option<Whole>> {
    let opened = Opened::open(comm, &input.graph, input.options, &input.columns)?;
    let graph = opened.partition(comm, input.options)?;
    let (undirected, merged) = (graph.undirected, graph.merged);
    let weighted = input.options.weighted;
    let whole = Whole::collect(comm, graph.numbering, graph.partition, weighted)?;
    Ok(whole.map(|whole| Whole { undirected, merged, ..whole }))
}

/// Looks at a graph; `None` but on rank 0. Collective.
pub fn describe(
    comm: &Communicator,
    input: &GraphInput,
    parts: &Parts<'_>,
) -> Result<Option<GraphInfo>> {
    comm.agree(parts.validate())?;
    Ok(whole(comm, input)?.map(|whole| info(&whole, parts)))
}

/// Writes a graph to `output`, in the format that its name asks for. Collective.
pub fn convert(comm: &Communicator, input: &GraphInput, output: &Path) -> Result<ConvertSummary> {
    let started = Instant::now();
    let format = comm.agree(check(input, output))?;
    let mut input = input.clone();
    if format != GraphFormat::Binary {
        // A file that is ordered by degree can be given back in the order of the ids.
        input.options.relabel = Relabel::Auto;
    }
    let whole = whole(comm, &input)?.map(|whole| match format {
        GraphFormat::Binary => whole,
        _ => whole.in_order_of_ids(),
    });
    let written = comm.agree(match &whole {
        Some(whole) => export::write(output, whole).map(Some),
        None => Ok(None),
    })?;
    let lost = |whole: &Whole| match format {
        GraphFormat::EdgeList(..) => (0..whole.nodes())
            .filter(|&place| whole.row(place).is_empty() && whole.out_degrees[place] == 0)
            .count() as u64,
        _ => 0,
    };
    let mut numbers = [0u64; 5];
    if let (Some(whole), Some(file)) = (&whole, &written) {
        let sum = file.checksum.strip_prefix("crc32:").unwrap_or_default();
        let sum = u64::from_str_radix(sum, 16)
            .map_err(|_| Error::internal(format!("'{}' is no checksum", file.checksum)))?;
        let lost = lost(whole);
        numbers = [whole.nodes() as u64 - lost, whole.edges() as u64, lost, file.bytes, sum];
    }
    comm.broadcast(&mut numbers, 0)?;
    let [vertices, edges, lost_vertices, bytes, sum] = numbers;
    let checksum = format!("crc32:{sum:08x}");
    let seconds = started.elapsed().as_secs_f64();
    Ok(ConvertSummary { vertices, edges, lost_vertices, bytes, checksum, seconds })
}

/// Refuses an output that cannot be written, before the graph is read.
fn check(input: &GraphInput, output: &Path) -> Result<GraphFormat> {
    let format = GraphFormat::of(output)?;
    files::check_folder(output)?;
    let real = |path: &Path| path.canonicalize().ok();
    if real(output).is_some_and(|output| Some(output) == real(&input.graph)) {
        return Err(Error::input(format!(
            "{}: is the graph itself; the output would replace it",
            output.display()
        )));
    }
    if format != GraphFormat::Binary && input.options.relabel == Relabel::Always {
        return Err(Error::input("text is written in the order of the ids; leave --relabel out"));
    }
    Ok(format)
}
