//! Web graphs in the BVGraph format of the WebGraph framework (Boldi, Vigna 2004), about 3 bits an
//! edge: `NAME.graph` (the lists), `NAME.properties` (sizes and codes) and, if it is there,
//! `NAME.offsets` (the length of each list in bits).
//!
//! Ids count from 0. Named by any of its files or by NAME alone. All instantaneous codes that the
//! Java framework writes are read; the bits are in big-endian order.
//!
//! # Cost
//! The file is mapped. With offsets a rank decodes its share, cut by bits, on all of its threads:
//! 5 ns an edge; without them it first reads all lists to find where they start. 8 bytes an edge
//! and a node.
//!
//! # Why not the crate
//! `webgraph` has 230 crates under it, and takes 85 s of processor time to build; this folder is
//! all of it that reading needs. `tests/data/web*` were written by that crate.

mod bits;
mod lists;
mod properties;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::ids::{Edges, Numbering};
use super::load::{Listing, Loaded, same_everywhere};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::sharding::Sharding;
use crate::transport::mapped::Mapped;
use bits::Bits;
use lists::{Fault, Lists, positions};
use properties::Properties;

/// `path` without the ending of a file of a BVGraph.
fn basename(path: &Path) -> PathBuf {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending {
        Some("graph" | "properties" | "offsets") => path.with_extension(""),
        _ => path.to_path_buf(),
    }
}

fn file(path: &Path, ending: &str) -> PathBuf {
    let mut name = basename(path).into_os_string();
    name.push(ending);
    name.into()
}

/// Whether `path` names a BVGraph: METIS files end in `.graph` too, but have no properties.
pub(super) fn is_bvgraph(path: &Path) -> bool {
    let named = basename(path) != path || !path.exists();
    named && file(path, ".properties").is_file() && file(path, ".graph").is_file()
}

/// Reads the graph at `path`. Collective.
pub(super) fn load(comm: &Communicator, path: &Path, weighted: bool) -> Result<Loaded> {
    let properties = comm.agree(match weighted {
        true => Err(Error::input(format!("{}: weights: a BVGraph has none", path.display()))),
        false => Properties::read(&file(path, ".properties")),
    })?;
    let (n, arcs) = (properties.nodes, properties.arcs);
    same_everywhere(comm, path, &[n as u64, arcs])?;
    let edges = comm.agree(share(path, &properties, comm.rank(), comm.ranks()))?;
    let found = comm.all_reduce_vec(&[edges.edges.len() as u64], Op::Sum)?[0];
    comm.agree(match found == arcs {
        true => Ok(()),
        false => Err(Error::input(format!(
            "{}: the properties promise {arcs} edges, but the graph has {found}; fetch it again",
            path.display()
        ))),
    })?;
    Ok(Loaded { numbering: Numbering::Dense { first: 0, n }, edges, listing: Listing::Directed })
}

/// The edges out of the nodes of `rank`.
fn share(path: &Path, properties: &Properties, rank: usize, ranks: usize) -> Result<Edges> {
    let graph = file(path, ".graph");
    let mapped = Mapped::open(&graph)?;
    let bytes = mapped.bytes();
    let wrong = |fault: Fault| {
        Error::input(format!(
            "{} bit {}: {}; the graph is damaged, or has other codes than its properties say",
            graph.display(),
            fault.bit,
            fault.what
        ))
    };
    // A list takes a bit or more.
    if properties.nodes as u64 > bytes.len() as u64 * 8 {
        let what = "fewer bits than the properties promise nodes";
        return Err(wrong(Fault { bit: bytes.len() as u64 * 8, what }));
    }
    let offsets = file(path, ".offsets");
    let positions = match offsets.is_file() {
        true => read_offsets(&offsets, properties, bytes.len() as u64 * 8)?,
        false => positions(properties, bytes).map_err(wrong)?,
    };
    let own = Sharding::balanced(&positions, ranks, 1).range(rank);
    let own_bits = &positions[own.start..=own.end];
    const TASK_BITS: u64 = 1 << 20;
    let bits = own_bits[own.len()] - own_bits[0];
    let tasks = Sharding::balanced(own_bits, (bits / TASK_BITS) as usize + 1, 1);
    let lists = Lists { properties, bytes, positions: &positions };
    let read = |task: usize| {
        let nodes = tasks.range(task);
        let mut edges = Vec::new();
        lists.for_each(own.start + nodes.start..own.start + nodes.end, |node, list| {
            edges.extend(list.iter().map(|&to| (node as u32, to)));
        })?;
        Ok(edges)
    };
    // A few tasks at a time, so that their lists take little besides that of all.
    let mut all = Edges::default();
    let wave = 4 * rayon::current_num_threads();
    for start in (0..tasks.ranks()).step_by(wave) {
        let some = (start..(start + wave).min(tasks.ranks())).into_par_iter();
        let some: std::result::Result<Vec<_>, Fault> = some.map(read).collect();
        some.map_err(wrong)?.iter().for_each(|edges| all.edges.extend_from_slice(edges));
    }
    Ok(all)
}

/// The first bit of each list, and the end of the last: the file has the differences.
fn read_offsets(path: &Path, properties: &Properties, end: u64) -> Result<Vec<u64>> {
    let mapped = Mapped::open(path)?;
    let mut bits = Bits::new(mapped.bytes(), 0);
    let mut positions = Vec::with_capacity(properties.nodes + 1);
    let mut at = 0u64;
    for _ in 0..=properties.nodes {
        let next = bits.code(properties.offsets).and_then(|gap| at.checked_add(gap));
        let Some(next) = next.filter(|&next| next <= end) else {
            return Err(Error::input(format!(
                "{} bit {}: no list of {} offsets within the graph; remove the file, and the graph \
                 is read without it",
                path.display(),
                bits.position(),
                properties.nodes + 1
            )));
        };
        at = next;
        positions.push(at);
    }
    Ok(positions)
}
