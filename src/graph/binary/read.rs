//! Reading a `.rwg` file: a rank maps it, checks what it needs, and takes its rows in place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytemuck::AnyBitPattern;
use rayon::prelude::*;

use super::{
    AGAIN, CHUNK, EXPECTED, HEADER_BYTES, Header, INTEGERS, Layout, MERGED, NAMES, ORDERED,
    UNDIRECTED, WEIGHTED, crc32, wrong,
};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::graph::column::Column;
use crate::graph::ids::Numbering;
use crate::graph::load::{node_count, same_everywhere};
use crate::graph::names::NameTable;
use crate::graph::open::Graph;
use crate::graph::order::{Order, Relabel};
use crate::graph::partition::{Partition, PartitionOptions, balance, out_weights};
use crate::graph::rows::{Duplicates, Rows};
use crate::transport::mapped::{Mapped, MappedSlice};

/// Reads the graph at `path` as the options ask for it. Collective.
pub fn load(comm: &Communicator, path: &Path, options: PartitionOptions) -> Result<Graph> {
    let file = comm.agree(Reader::open(path).and_then(|file| {
        file.refuse(options)?;
        Ok(file)
    }))?;
    let Header { flags, nodes, edges, checks, .. } = file.header;
    same_everywhere(comm, path, &[flags.into(), nodes, edges, checks.into()])?;
    let merge = options.duplicates == Duplicates::Merge && !file.header.has(MERGED);
    let read = file.share(comm.rank(), comm.ranks(), options.weighted);
    let (numbering, mut partition) = comm.agree(read)?;
    if merge {
        let Partition { rows, sharding, .. } = &mut partition;
        rows.merge();
        partition.out_weights = out_weights(comm, rows, sharding, options.weighted)?;
        let edges = partition.rows.edges() as u64;
        partition.edges = comm.all_reduce_vec(&[edges], Op::Sum)?[0];
    }
    let undirected = file.header.has(UNDIRECTED);
    Ok(Graph { numbering, partition, undirected, merged: merge || file.header.has(MERGED) })
}

struct Reader {
    path: PathBuf,
    file: Mapped,
    header: Header,
    layout: Layout,
    /// The number of nodes.
    n: usize,
}

impl Reader {
    fn open(path: &Path) -> Result<Reader> {
        if cfg!(target_endian = "big") {
            return Err(Error::input("a .rwg file cannot be read in place on this processor"));
        }
        let file = Mapped::open(path)?;
        let bytes = file.bytes();
        let header = Header::parse(path, bytes)?;
        let n = node_count(header.nodes).map_err(|what| wrong(path, 16, what))?;
        let size = |expected: Option<usize>| {
            let promised = expected.map_or("more than memory can be".into(), |e| e.to_string());
            format!(
                "{} nodes and {} edges take {promised} bytes, but the file has {}; {EXPECTED}, \
                 whole",
                header.nodes,
                header.edges,
                bytes.len()
            )
        };
        let Some(layout) = Layout::of(&header) else {
            return Err(wrong(path, 16, size(None)));
        };
        if layout.checks.end != bytes.len() {
            return Err(wrong(path, 16, size(Some(layout.checks.end))));
        }
        if crc32(&bytes[layout.checks.clone()]) != header.checks {
            let what = format!("the list of checksums does not fit its own; {AGAIN}");
            return Err(wrong(path, layout.checks.start, what));
        }
        Ok(Reader { path: path.to_path_buf(), file, header, layout, n })
    }

    fn wrong(&self, at: usize, what: impl std::fmt::Display) -> Error {
        wrong(&self.path, at, what)
    }

    /// Refuses what the file cannot give: it was decided when it was written.
    fn refuse(&self, options: PartitionOptions) -> Result<()> {
        let (has, path) = (|flag| self.header.has(flag), self.path.display());
        let again = |what: &str, option: &str| {
            Err(Error::input(format!("{path}: {what}; convert the graph with {option} first")))
        };
        if options.weighted && !has(WEIGHTED) {
            return again("weights: this graph has none", "--weights");
        }
        if options.undirected && !has(UNDIRECTED) {
            return again("undirected: this graph is directed", "--undirected");
        }
        match options.relabel {
            Relabel::Never if has(ORDERED) => again("ordered by degree", "--relabel never"),
            Relabel::Always if !has(ORDERED) => again("not ordered by degree", "--relabel always"),
            _ => Ok(()),
        }
    }

    /// The values in `range`, whose checksums fit.
    fn section<T: AnyBitPattern>(&self, range: Range<usize>) -> Result<MappedSlice<T>> {
        self.check(range.clone())?;
        let defect = || Error::internal(format!("bytes {range:?} are no section"));
        self.file.slice(range.clone()).ok_or_else(defect)
    }

    /// The values at `own` of a section.
    fn part<T: AnyBitPattern>(
        &self,
        section: &Range<usize>,
        own: &Range<usize>,
    ) -> Result<MappedSlice<T>> {
        let at = |index: usize| section.start + index * size_of::<T>();
        self.section(at(own.start)..at(own.end))
    }

    /// Compares the chunks that `range` touches with their checksums.
    fn check(&self, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let bytes = self.file.bytes();
        let (start, end) = (range.start - HEADER_BYTES, range.end - HEADER_BYTES);
        let bad = (start / CHUNK..end.div_ceil(CHUNK)).into_par_iter().find_first(|&chunk| {
            let first = HEADER_BYTES + chunk * CHUNK;
            let body = &bytes[first..(first + CHUNK).min(self.layout.checks.start)];
            let at = self.layout.checks.start + chunk * 4;
            crc32(body).to_le_bytes() != bytes[at..at + 4]
        });
        match bad {
            Some(chunk) => {
                let first = HEADER_BYTES + chunk * CHUNK;
                Err(self.wrong(first, format!("the data from here do not fit their sum; {AGAIN}")))
            }
            None => Ok(()),
        }
    }

    /// All nodes and the rows of `rank`.
    fn share(&self, rank: usize, ranks: usize, weighted: bool) -> Result<(Numbering, Partition)> {
        let layout = &self.layout;
        let offsets = self.section::<u64>(layout.offsets.clone())?;
        let ascend = offsets.par_windows(2).all(|pair| pair[0] <= pair[1]);
        let degree = |pair: &[u64]| pair[1] - pair[0] <= u64::from(u32::MAX);
        let ends = (offsets.first().copied(), offsets.last().copied());
        if !ascend
            || ends != (Some(0), Some(self.header.edges))
            || !offsets.par_windows(2).all(degree)
        {
            return Err(self.wrong(layout.offsets.start, "the offsets of the rows do not ascend"));
        }
        let in_degrees = offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u32);
        let sharding = balance(in_degrees, ranks);
        let own = sharding.range(rank);
        let edges = offsets[own.start] as usize..offsets[own.end] as usize;
        let local = offsets[own.start..=own.end].iter().map(|&at| at as usize - edges.start);
        let sources = self.part::<u32>(&layout.sources, &edges)?;
        if !sources.par_iter().all(|&source| (source as usize) < self.n) {
            return Err(self.wrong(layout.sources.start, "a source that is no node"));
        }
        let mut rows = Rows {
            range: own.clone(),
            offsets: local.collect(),
            sources: Column::Mapped(sources),
            weights: Vec::new().into(),
        };
        let out_weights = if weighted {
            let weights = self.part::<f64>(&layout.weights, &edges)?;
            let sums = self.part::<f64>(&layout.out_weights, &own)?;
            let fine = |w: &f64| *w >= 0.0 && w.is_finite();
            let normal = |w: &f64| *w == 0.0 || (*w > 0.0 && w.is_normal());
            if !weights.par_iter().all(fine) || !sums.iter().all(normal) {
                let what = "a weight that is not a finite number >= 0";
                return Err(self.wrong(layout.weights.start, what));
            }
            rows.weights = Column::Mapped(weights);
            sums.to_vec()
        } else {
            let degrees = self.part::<u32>(&layout.out_degrees, &own)?;
            degrees.iter().map(|&degree| f64::from(degree)).collect()
        };
        let (numbering, order) = (self.numbering()?, self.order()?);
        let edges = self.header.edges;
        Ok((numbering, Partition { order, sharding, rows, out_weights, edges }))
    }

    fn order(&self) -> Result<Option<Order>> {
        if !self.header.has(ORDERED) {
            return Ok(None);
        }
        let node_at = self.section::<u32>(self.layout.node_at.clone())?;
        // A place of its own for every node: any other value stays where a node is missing.
        let mut place_of = vec![u32::MAX; self.n];
        for (place, &node) in node_at.iter().enumerate() {
            if let Some(at) = place_of.get_mut(node as usize) {
                *at = place as u32;
            }
        }
        if place_of.contains(&u32::MAX) {
            let what = "the order of the nodes does not name each of them once";
            return Err(self.wrong(self.layout.node_at.start, what));
        }
        Ok(Some(Order { place_of, node_at: node_at.to_vec() }))
    }

    fn numbering(&self) -> Result<Numbering> {
        let layout = &self.layout;
        let fault = |what: &str| self.wrong(layout.ids.start, what);
        if self.header.has(NAMES) {
            let ends = self.section::<u64>(layout.ids.clone())?;
            let text = self.section::<u8>(layout.text.clone())?;
            let ends = ends.iter().map(|&end| end as usize).collect();
            let names = NameTable::from_parts(text.to_vec(), ends);
            return names.map(Numbering::Names).ok_or_else(|| fault("names that are out of order"));
        }
        if self.header.has(INTEGERS) {
            let ids = self.section::<u64>(layout.ids.clone())?;
            if !ids.par_windows(2).all(|pair| pair[0] < pair[1]) {
                return Err(fault("ids that are out of order"));
            }
            return Ok(Numbering::Integers(ids.to_vec()));
        }
        if self.header.first.checked_add(self.header.nodes).is_none() {
            return Err(self.wrong(32, "a first id that is too large"));
        }
        Ok(Numbering::Dense { first: self.header.first, n: self.n })
    }
}
