//! The result as a file and as a list of the highest ranks.
//!
//! Ranks are gathered on rank 0, which writes `node,rank` for every node in the order of the ids:
//! CSV, or Parquet with zstd, by the name of the file. Both read back to the same bits. 8 bytes a
//! node travel, and rank 0 holds them; every rank has the ids already.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::csv_output;
use super::ids::{NodeId, Numbering};
use super::npy;
use super::order::Order;
use super::parquet_output;
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::files::{FileRecord, write_atomically};
use crate::sharding::Sharding;

/// The format of a result file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Text: a header, then `node,rank`.
    Csv,
    /// Columns `node` (unsigned 64-bit integer or text) and `rank` (double).
    Parquet,
    /// The ranks as a NumPy array, and the ids in a file beside it (see `npy`).
    Npy,
}

impl Format {
    /// The format that the name of a file asks for.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Ok(Format::Csv),
            "parquet" => Ok(Format::Parquet),
            "npy" => Ok(Format::Npy),
            _ => Err(Error::input(format!(
                "{}: the format of an output file follows from its name; expected a name that \
                 ends in .csv or .parquet or .npy",
                path.display()
            ))),
        }
    }
}

/// A node of the list of the highest ranks.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TopNode {
    /// Its id: a number in JSON if ids are integers, else text.
    pub node: serde_json::Value,
    /// Its rank.
    pub rank: f64,
}

/// The ranks that this rank owns, and where their nodes are.
#[derive(Clone, Copy, Debug)]
pub struct OwnRanks<'r> {
    /// The rank of each own node.
    pub ranks: &'r [f64],
    /// Who owns which places.
    pub sharding: &'r Sharding,
    /// Which node is at which place, if not the one with that index.
    pub order: Option<&'r Order>,
}

impl OwnRanks<'_> {
    fn node_at(&self, place: usize) -> usize {
        self.order.map_or(place, |order| order.node_at[place] as usize)
    }
}

/// The `count` highest ranks of all ranks; equal ranks in the order of the ids. Collective.
pub fn top(
    comm: &Communicator,
    own: OwnRanks<'_>,
    numbering: &Numbering,
    count: usize,
) -> Result<Vec<TopNode>> {
    let start = own.sharding.range(comm.rank()).start;
    let places = own.ranks.iter().enumerate();
    let mut best: Vec<(f64, u64)> =
        places.map(|(i, &rank)| (rank, own.node_at(start + i) as u64)).collect();
    keep_highest(&mut best, count);
    let (ranks, nodes): (Vec<f64>, Vec<u64>) = best.into_iter().unzip();
    let (ranks, _) = comm.all_gather_vec(&ranks)?;
    let (nodes, _) = comm.all_gather_vec(&nodes)?;
    let mut best: Vec<(f64, u64)> = ranks.into_iter().zip(nodes).collect();
    keep_highest(&mut best, count);
    let node = |index: u64| match numbering.id(index as usize) {
        NodeId::Integer(id) => id.into(),
        NodeId::Name(name) => name.into(),
    };
    Ok(best.into_iter().map(|(rank, index)| TopNode { node: node(index), rank }).collect())
}

/// Keeps the highest `count`, sorted: higher ranks first, equal ones by index.
fn keep_highest(best: &mut Vec<(f64, u64)>, count: usize) {
    let before = |a: &(f64, u64), b: &(f64, u64)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if count == 0 {
        best.clear();
    } else if count < best.len() {
        best.select_nth_unstable_by(count - 1, before);
        best.truncate(count);
    }
    best.sort_unstable_by(before);
}

/// Columns of numbers with their names, in the order of the ids.
pub type Columns<'c> = [(&'c str, &'c [f64])];

/// Writes columns of the own nodes of all ranks to `path`, in the format that its name asks for.
/// Collective; the records are on rank 0 only.
pub fn write(
    comm: &Communicator,
    own: &[(&str, OwnRanks<'_>)],
    numbering: &Numbering,
    path: &Path,
    single: bool,
) -> Result<Vec<FileRecord>> {
    let first = comm.rank() == 0;
    let mut columns: Vec<(&str, Vec<f64>)> = Vec::new();
    for &(name, own) in own {
        let mut all = vec![0.0; if first { own.sharding.n() } else { 0 }];
        comm.gather(own.sharding, own.ranks, &mut all, 0)?;
        if let (Some(order), true) = (own.order, first) {
            all = order.place_of.iter().map(|&place| all[place as usize]).collect();
        }
        columns.push((name, all));
    }
    let columns: Vec<(&str, &[f64])> =
        columns.iter().map(|(name, all)| (*name, &all[..])).collect();
    comm.agree(match first {
        true => write_file(path, numbering, &columns, single),
        false => Ok(Vec::new()),
    })
}

/// Writes columns of all nodes, in the format that the name of the file asks for; an array has
/// 32 bits a number if `single`.
pub fn write_file(
    path: &Path,
    numbering: &Numbering,
    columns: &Columns<'_>,
    single: bool,
) -> Result<Vec<FileRecord>> {
    let format = Format::of(path)?;
    let file = write_atomically(path, |writer| match format {
        Format::Csv => csv_output::write(writer, numbering, columns),
        Format::Parquet => {
            let nodes = [("node", None)];
            parquet_output::write(writer, numbering, &nodes, columns).map_err(io::Error::other)
        }
        Format::Npy => npy::write(writer, columns, single),
    })?;
    let from_0 = matches!(numbering, Numbering::Dense { first: 0, .. });
    if format != Format::Npy || from_0 {
        return Ok(vec![file]);
    }
    let ids = |writer: &mut _| csv_output::write(writer, numbering, &[]);
    Ok(vec![file, write_atomically(&npy::nodes_path(path), ids)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::names::NameTable;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    fn names(names: &[&str]) -> Numbering {
        let mut table = NameTable::default();
        names.iter().for_each(|name| table.push(name.as_bytes()));
        Numbering::Names(table)
    }

    fn write_ranks(path: &Path, nodes: &Numbering, ranks: &[f64]) -> Result<Vec<FileRecord>> {
        write_file(path, nodes, &[("rank", ranks)], false)
    }

    const RANKS: [f64; 4] = [0.1, 1.0 / 3.0, 5e-324, 1.0];

    #[test]
    fn csv_reads_back_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranks.csv");
        write_ranks(&path, &names(&["a", "b\"c", "é", "z'"]), &RANKS).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "node,rank");
        assert_eq!(lines[2], "\"b\"\"c\",0.3333333333333333");
        for (line, rank) in lines[1..].iter().zip(RANKS) {
            let number: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
            assert_eq!(number.to_bits(), rank.to_bits());
        }
        write_ranks(&path, &Numbering::Integers(vec![0, 7, 8, u64::MAX]), &RANKS).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\n18446744073709551615,1.0\n"), "{text}");
    }

    #[test]
    fn parquet_reads_back_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranks.PARQUET");
        let ids = [0, 7, 8, u64::MAX];
        for numbering in [Numbering::Integers(ids.to_vec()), names(&["a", "b\"c", "é", "z'"])] {
            let record = write_ranks(&path, &numbering, &RANKS).unwrap().remove(0);
            assert_eq!(record.bytes, std::fs::metadata(&path).unwrap().len());
            let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
            let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
            assert_eq!(rows.len(), 4);
            for (index, row) in rows.iter().enumerate() {
                let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
                let node = match numbering.id(index) {
                    NodeId::Integer(id) => Field::ULong(id),
                    NodeId::Name(name) => Field::Str(name.to_owned()),
                };
                assert_eq!(fields, [&node, &Field::Double(RANKS[index])]);
            }
        }
        // A graph without nodes is a file without rows, not an error.
        write_ranks(&path, &Numbering::Integers(vec![]), &[]).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }

    #[test]
    fn ids_stand_beside_an_array_unless_they_count_from_0() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranks.npy");
        let from_0 = Numbering::Dense { first: 0, n: 4 };
        assert_eq!(write_ranks(&path, &from_0, &RANKS).unwrap().len(), 1);
        let records = write_ranks(&path, &names(&["a", "b,c", "é", "z"]), &RANKS).unwrap();
        assert_eq!(records[1].path, folder.path().join("ranks.nodes.csv"));
        let text = std::fs::read_to_string(&records[1].path).unwrap();
        assert_eq!(text, "node\na\n\"b,c\"\né\nz\n");
    }

    #[test]
    fn other_names_are_refused_with_the_list() {
        for name in ["ranks", "ranks.txt", "csv", "ranks.csv.gz"] {
            let error = Format::of(Path::new(name)).unwrap_err();
            assert!(error.message.contains(".csv or .parquet or .npy"), "{error}");
        }
    }

    #[test]
    fn the_highest_come_first_and_ties_in_order() {
        let all: Vec<(f64, u64)> =
            (0..50u64).map(|i| ([0.1, 0.5, 0.3][i as usize * i as usize % 3], i)).collect();
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for count in 0..=51 {
            let mut best = all.clone();
            best.reverse();
            keep_highest(&mut best, count);
            assert_eq!(best, sorted[..count.min(50)]);
        }
    }
}
