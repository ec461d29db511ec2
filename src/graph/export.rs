//! Graphs as files: text edge lists and Matrix Market, plain or packed, and `.rwg` (see `binary`).
//!
//! Edges are written by target, then source, in the order of the ids, so the bytes of a file do not
//! depend on the ranks that made the graph. Text is made in pieces of 2²⁰ edges by all threads of
//! rank 0, and each piece is a gzip member or a zstd frame of its own, for the same reason.
//! An edge list has only the nodes that some edge names; the other formats have all.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::binary;
use super::ids::{NodeId, Numbering};
use super::whole::Whole;
use crate::error::{Error, Result};
use crate::files::{FileRecord, write_atomically};

/// How a graph is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GraphFormat {
    /// The binary format of this project.
    Binary,
    /// Two ids a line, and the weight.
    EdgeList(Separator, Packed),
    /// A sparse matrix in text.
    MatrixMarket(Packed),
}

/// What stands between the columns of an edge list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Separator {
    /// As SNAP has it.
    Tab,
    /// For names that end in `.csv`.
    Comma,
}

/// How text is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packed {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl GraphFormat {
    /// The format that the name of a file asks for.
    pub fn of(path: &Path) -> Result<GraphFormat> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let packed = |ending: &str, packed| name.strip_suffix(ending).map(|rest| (rest, packed));
        let (rest, packed) = packed(".gz", Packed::Gzip)
            .or(packed(".zst", Packed::Zstd))
            .unwrap_or((&name, Packed::Plain));
        match rest.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "rwg" if packed == Packed::Plain => Ok(GraphFormat::Binary),
            "txt" | "tsv" | "el" | "wel" | "edges" => {
                Ok(GraphFormat::EdgeList(Separator::Tab, packed))
            }
            "csv" => Ok(GraphFormat::EdgeList(Separator::Comma, packed)),
            "mtx" => Ok(GraphFormat::MatrixMarket(packed)),
            _ => Err(Error::input(format!(
                "{}: the format of a graph file follows from its name; expected a name that ends \
                 in .rwg (binary), .txt, .tsv, .el, .csv (edge list) or .mtx, the last five also \
                 with .gz or .zst after it",
                path.display()
            ))),
        }
    }
}

/// Writes `graph` to `path` in the format that its name asks for.
pub fn write(path: &Path, graph: &Whole) -> Result<FileRecord> {
    let (separator, from_1, packed) = match GraphFormat::of(path)? {
        GraphFormat::Binary => return binary::write(path, graph),
        GraphFormat::MatrixMarket(packed) => (b' ', true, packed),
        GraphFormat::EdgeList(Separator::Comma, packed) => (b',', false, packed),
        GraphFormat::EdgeList(Separator::Tab, packed) => (b'\t', false, packed),
    };
    let text = Text { graph, separator, from_1 };
    text.check(path)?;
    write_atomically(path, |writer| text.write(writer, packed))
}

/// A graph as lines.
struct Text<'g> {
    graph: &'g Whole,
    separator: u8,
    /// Nodes are counted from 1 and have a header, as in Matrix Market.
    from_1: bool,
}

const PIECE_EDGES: u64 = 1 << 20;

impl Text<'_> {
    /// Refuses ids that the format cannot hold.
    fn check(&self, path: &Path) -> Result<()> {
        let path = path.display();
        match &self.graph.numbering {
            Numbering::Integers(_) | Numbering::Names(_) if self.from_1 => {
                Err(Error::input(format!(
                    "{path}: Matrix Market counts nodes from 1, so the ids of this graph would be \
                     lost; write an edge list or a .rwg file"
                )))
            }
            Numbering::Names(names) => {
                let bad = |name: &&[u8]| {
                    name.iter().any(|b| matches!(b, b' ' | b',' | b'\t' | b'\r'))
                        || name.starts_with(b"#")
                        || name.starts_with(b"%")
                };
                match names.iter().find(bad) {
                    Some(name) => Err(Error::input(format!(
                        "{path}: the id '{}' cannot stand in an edge list, where blanks and commas \
                         separate ids and # and % start comments; write a .rwg file",
                        String::from_utf8_lossy(name).escape_debug()
                    ))),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn write(&self, writer: &mut impl Write, packed: Packed) -> io::Result<()> {
        let pieces = self.pieces();
        let head = self.head();
        if !head.is_empty() || pieces.is_empty() {
            writer.write_all(&pack(head, packed)?)?;
        }
        // A few pieces at a time, so that memory stays bounded.
        for some in pieces.chunks(2 * rayon::current_num_threads()) {
            let texts: Vec<io::Result<Vec<u8>>> =
                some.par_iter().map(|piece| pack(self.lines(piece.clone()), packed)).collect();
            for text in texts {
                writer.write_all(&text?)?;
            }
        }
        Ok(())
    }

    /// What comes before the edges. A file without any edge is not empty: that would be an error.
    fn head(&self) -> Vec<u8> {
        let (n, m) = (self.graph.nodes(), self.graph.edges());
        match self.from_1 {
            true => {
                let field = if self.graph.weighted { "real" } else { "pattern" };
                format!("%%MatrixMarket matrix coordinate {field} general\n{n} {n} {m}\n").into()
            }
            false if m == 0 => b"# no edges\n".to_vec(),
            false => Vec::new(),
        }
    }

    /// The rows in pieces of about [`PIECE_EDGES`] edges.
    fn pieces(&self) -> Vec<Range<usize>> {
        let (offsets, mut pieces, mut start) = (&self.graph.offsets, Vec::new(), 0);
        for row in 0..self.graph.nodes() {
            if offsets[row + 1] - offsets[start] >= PIECE_EDGES {
                pieces.push(start..row + 1);
                start = row + 1;
            }
        }
        if offsets[self.graph.nodes()] > offsets[start] {
            pieces.push(start..self.graph.nodes());
        }
        pieces
    }

    fn lines(&self, rows: Range<usize>) -> Vec<u8> {
        let edges = self.graph.offsets[rows.end] - self.graph.offsets[rows.start];
        let mut text = Vec::with_capacity(edges as usize * 16);
        for row in rows {
            for edge in self.graph.row(row) {
                self.id(&mut text, self.graph.sources[edge] as usize);
                text.push(self.separator);
                self.id(&mut text, row);
                if let Some(weight) = self.graph.weights.get(edge) {
                    text.push(self.separator);
                    // The shortest digits that read back to the same bits.
                    text.extend_from_slice(weight.to_string().as_bytes());
                }
                text.push(b'\n');
            }
        }
        text
    }

    fn id(&self, text: &mut Vec<u8>, place: usize) {
        let index = self.graph.node_at(place);
        if self.from_1 {
            return push_number(text, index as u64 + 1);
        }
        match self.graph.numbering.id(index) {
            NodeId::Integer(id) => push_number(text, id),
            NodeId::Name(name) => text.extend_from_slice(name.as_bytes()),
        }
    }
}

fn push_number(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return text.extend_from_slice(&digits[at..]);
        }
    }
}

fn pack(text: Vec<u8>, packed: Packed) -> io::Result<Vec<u8>> {
    match packed {
        Packed::Plain => Ok(text),
        Packed::Gzip => {
            let level = flate2::Compression::new(6);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&text)?;
            encoder.finish()
        }
        Packed::Zstd => zstd::encode_all(&text[..], 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_choose_the_format_or_are_refused() {
        let of = |name: &str| GraphFormat::of(Path::new(name));
        assert_eq!(of("a/g.rwg"), Ok(GraphFormat::Binary));
        assert_eq!(of("g.TXT"), Ok(GraphFormat::EdgeList(Separator::Tab, Packed::Plain)));
        assert_eq!(of("g.csv.gz"), Ok(GraphFormat::EdgeList(Separator::Comma, Packed::Gzip)));
        assert_eq!(of("g.mtx.zst"), Ok(GraphFormat::MatrixMarket(Packed::Zstd)));
        for bad in ["g", "g.rwg.gz", "g.gz", "g.parquet", "txt"] {
            assert!(of(bad).unwrap_err().message.contains("ends in .rwg"), "{bad}");
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 99, 100, 12_345_678_901, u64::MAX] {
            let mut text = Vec::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string().as_bytes());
        }
    }
}
