//! A graph in any format as edges between node indices.
//!
//! | format | recognised by | a rank reads | ids |
//! | --- | --- | --- | --- |
//! | random graph | `kron:…`, `uniform:…` | makes its share | from 0 |
//! | Matrix Market | first line `%%MatrixMarket`, or `.mtx` | its share | from 1 |
//! | METIS | `.graph`, `.metis` | its share | from 1 |
//! | GAP | `.sg`, `.wsg` | its share | from 0 |
//! | BVGraph | `.graph` with `.properties` beside it | its share | from 0 |
//! | Parquet | `.parquet` | its row groups | as written |
//! | `.rwg` | first bytes `rwgraph` | its rows, in place (`binary`) | as they were |
//! | text edge list | anything else | its share | as written |
//!
//! Text may be packed with gzip or zstd (then `.gz` or `.zst` follows the name, and every rank
//! reads all of it). Formats with a header have all nodes that it promises: nodes without edges
//! count as nodes and get ranks. An edge list has only the nodes that some edge names.

use std::path::Path;

use super::columns::Columns;
use super::edge_list::{read_integers, read_names};
use super::generator::Generator;
use super::ids::{Edges, MAX_NODES, Numbering, number_integers, number_names};
use super::source::HeadLines;
use super::{binary, bvgraph, gap, matrix_market, metis, parquet_table};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

/// The edges that a rank read, and the nodes of the whole graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// All nodes.
    pub numbering: Numbering,
    /// The share of this rank.
    pub edges: Edges,
    /// What one of these edges stands for.
    pub listing: Listing,
}

/// What a listed edge stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// Itself, unless the user says otherwise.
    Directed,
    /// An edge both ways.
    Halves,
    /// Itself, in an undirected graph whose edges are listed both ways already.
    BothWays,
}

impl Listing {
    /// Whether each listed edge has to be turned round too, given what the user asks for.
    pub fn undirected(self, asked: bool) -> bool {
        match self {
            Listing::Directed => asked,
            Listing::Halves => true,
            Listing::BothWays => false,
        }
    }
}

/// A format of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    EdgeList,
    MatrixMarket,
    Metis,
    Gap { weights: bool },
    Parquet,
    BvGraph,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let unpacked = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
        let ending = unpacked.rsplit_once('.').map_or("", |(_, ending)| ending);
        if bvgraph::is_bvgraph(path) {
            return Ok(Format::BvGraph);
        }
        Ok(match ending {
            "parquet" => Format::Parquet,
            "sg" => Format::Gap { weights: false },
            "wsg" => Format::Gap { weights: true },
            _ if is_matrix_market(path)? || ending == "mtx" => Format::MatrixMarket,
            "graph" | "metis" => Format::Metis,
            _ => Format::EdgeList,
        })
    }
}

/// Whether `path` is a file in the binary format of this project. Collective.
pub(super) fn is_binary(comm: &Communicator, path: &Path) -> Result<bool> {
    if path.to_str().and_then(Generator::parse).is_some() || bvgraph::is_bvgraph(path) {
        return Ok(false);
    }
    let magic = binary::MAGIC;
    let first = HeadLines::first_bytes_if_any(path, magic.len() as u64);
    let is = comm.agree(first)? == magic;
    let named = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("rwg"));
    same_everywhere(comm, path, &[is.into()])?;
    Ok(is || named)
}

fn is_matrix_market(path: &Path) -> Result<bool> {
    let banner = matrix_market::BANNER;
    let first = HeadLines::first_bytes(path, banner.len() as u64)?;
    Ok(first.eq_ignore_ascii_case(banner.as_bytes()))
}

/// Reads or makes a graph. Collective.
pub fn load(comm: &Communicator, path: &Path, weighted: bool, columns: &Columns) -> Result<Loaded> {
    if let Some(generator) = path.to_str().and_then(Generator::parse) {
        let generator = comm.agree(generator)?;
        if weighted {
            return Err(Error::input("weights: generated graphs have none"));
        }
        let edges = generator.edges(comm.rank(), comm.ranks());
        let numbering = Numbering::Dense { first: 0, n: generator.nodes() };
        return Ok(Loaded { numbering, edges, listing: Listing::Directed });
    }
    let format = comm.agree(Format::of(path))?;
    // Names are the same everywhere, but the contents of a file that each host has might not be.
    let number = match format {
        Format::EdgeList => 0,
        Format::MatrixMarket => 1,
        Format::Metis => 2,
        Format::Gap { .. } => 3,
        Format::Parquet => 4,
        Format::BvGraph => 5,
    };
    same_everywhere(comm, path, &[number])?;
    match format {
        Format::EdgeList => load_edge_list(comm, path, weighted),
        Format::MatrixMarket => matrix_market::load(comm, path, weighted),
        Format::Metis => metis::load(comm, path, weighted),
        Format::Gap { weights } => gap::load(comm, path, weights, weighted),
        Format::Parquet => parquet_table::load(comm, path, weighted, columns),
        Format::BvGraph => bvgraph::load(comm, path, weighted),
    }
}

/// Integers first; names if some rank meets one.
fn load_edge_list(comm: &Communicator, path: &Path, weighted: bool) -> Result<Loaded> {
    let (rank, ranks) = (comm.rank(), comm.ranks());
    let integers = comm.agree(read_integers(path, rank, ranks, weighted))?;
    let names_met = comm.all_reduce_vec(&[u64::from(integers.is_none())], Op::Max)?[0] > 0;
    let (numbering, edges) = match integers {
        Some(edges) if !names_met => number_integers(comm, edges)?,
        integers => {
            drop(integers);
            number_names(comm, comm.agree(read_names(path, rank, ranks, weighted))?)?
        }
    };
    Ok(Loaded { numbering, edges, listing: Listing::Directed })
}

/// Refuses a file whose header is not the same on all ranks. Collective.
pub(super) fn same_everywhere(comm: &Communicator, path: &Path, header: &[u64]) -> Result<()> {
    // The maximum of the complement is the complement of the minimum.
    let both: Vec<u64> = header.iter().flat_map(|&number| [number, !number]).collect();
    let both = comm.all_reduce_vec(&both, Op::Max)?;
    if both.chunks(2).all(|pair| pair[0] == !pair[1]) {
        return Ok(());
    }
    comm.agree(Err(Error::input(format!(
        "{}: ranks read different headers; expected the same file on every node",
        path.display()
    ))))
}

/// The number of nodes in a header as a size, if indices can hold it.
pub(super) fn node_count(nodes: u64) -> std::result::Result<usize, String> {
    usize::try_from(nodes).ok().filter(|&n| n <= MAX_NODES).ok_or_else(|| {
        format!("the header promises {nodes} nodes; at most {MAX_NODES} are supported")
    })
}

/// An id counted from 1 as an index.
pub(super) fn index_from_1(id: &[u8], n: usize) -> Option<u32> {
    let index = super::edge_list::integer(id)?.checked_sub(1)?;
    u32::try_from(index).ok().filter(|&index| (index as usize) < n)
}
