//! Writing a `.rwg` file, on the rank that has the whole graph.
//!
//! The body is made twice: once for the checksums, which the header needs, and once for the disk.

use std::io::{self, Write};
use std::path::Path;

use super::{
    CHUNK, HEADER_BYTES, Header, INTEGERS, Layout, MERGED, NAMES, ORDERED, UNDIRECTED, WEIGHTED,
    crc32,
};
use crate::error::{Error, Result};
use crate::files::{FileRecord, write_atomically};
use crate::graph::ids::Numbering;
use crate::graph::whole::Whole;

/// Writes `graph` to `path`.
pub fn write(path: &Path, graph: &Whole) -> Result<FileRecord> {
    let mut header = header(graph);
    let layout = Layout::of(&header)
        .ok_or_else(|| Error::input(format!("{}: the graph is too large", path.display())))?;
    let mut sums = ChunkSums::default();
    body(graph, &layout, &mut sums)
        .map_err(|e| Error::internal(format!("cannot sum the graph: {e}")))?;
    let checks: Vec<u8> = sums.finish().iter().flat_map(|sum| sum.to_le_bytes()).collect();
    if checks.len() != layout.checks.len() {
        return Err(Error::internal("the sections of a graph do not fit their layout"));
    }
    header.checks = crc32(&checks);
    write_atomically(path, |writer| {
        writer.write_all(&header.to_bytes())?;
        body(graph, &layout, writer)?;
        writer.write_all(&checks)
    })
}

fn header(graph: &Whole) -> Header {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let (ids, first, text) = match &graph.numbering {
        Numbering::Integers(_) => (INTEGERS, 0, 0),
        Numbering::Names(names) => (NAMES, 0, names.text().len() as u64),
        Numbering::Dense { first, .. } => (0, *first, 0),
    };
    Header {
        flags: ids
            | flag(graph.weighted, WEIGHTED)
            | flag(graph.undirected, UNDIRECTED)
            | flag(graph.merged, MERGED)
            | flag(graph.order.is_some(), ORDERED),
        nodes: graph.numbering.len() as u64,
        edges: graph.sources.len() as u64,
        first,
        text,
        checks: 0,
    }
}

/// Everything between the header and the checksums.
fn body(graph: &Whole, layout: &Layout, out: &mut impl Write) -> io::Result<()> {
    let mut at = HEADER_BYTES;
    let mut section = |start: usize, bytes: &[u8]| {
        out.write_all(&[0; 64][..start - at])?;
        at = start + bytes.len();
        out.write_all(bytes)
    };
    section(layout.offsets.start, bytemuck::cast_slice(&graph.offsets))?;
    section(layout.sources.start, bytemuck::cast_slice(&graph.sources))?;
    section(layout.weights.start, bytemuck::cast_slice(&graph.weights))?;
    section(layout.out_degrees.start, bytemuck::cast_slice(&graph.out_degrees))?;
    let out_weights: &[f64] = if graph.weighted { &graph.out_weights } else { &[] };
    section(layout.out_weights.start, bytemuck::cast_slice(out_weights))?;
    let node_at = graph.order.as_ref().map_or(&[][..], |order| &order.node_at);
    section(layout.node_at.start, bytemuck::cast_slice(node_at))?;
    match &graph.numbering {
        Numbering::Integers(ids) => section(layout.ids.start, bytemuck::cast_slice(ids))?,
        Numbering::Names(names) => {
            let ends: Vec<u64> = names.ends().iter().map(|&end| end as u64).collect();
            section(layout.ids.start, bytemuck::cast_slice(&ends))?;
            section(layout.text.start, names.text())?;
        }
        Numbering::Dense { .. } => {}
    }
    section(layout.checks.start, &[])
}

/// The CRC-32 of each chunk of what is written to it.
#[derive(Default)]
struct ChunkSums {
    done: Vec<u32>,
    open: flate2::Crc,
    bytes: usize,
}

impl ChunkSums {
    fn finish(mut self) -> Vec<u32> {
        if self.bytes > 0 {
            self.done.push(self.open.sum());
        }
        self.done
    }
}

impl Write for ChunkSums {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(CHUNK - self.bytes);
        self.open.update(&data[..taken]);
        self.bytes += taken;
        if self.bytes == CHUNK {
            self.done.push(self.open.sum());
            self.open.reset();
            self.bytes = 0;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
