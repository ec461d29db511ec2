//! The result as a file and as a list of the highest ranks.
//!
//! Ranks are gathered on rank 0, which writes `node,rank` for every node in the order of the ids:
//! CSV, or Parquet with zstd, by the name of the file. Both read back to the same bits. 8 bytes a
//! node travel, and rank 0 holds them; every rank has the ids already.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde::Serialize;

use super::ids::{NodeId, Numbering};
use super::order::Order;
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
}

impl Format {
    /// The format that the name of a file asks for.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Ok(Format::Csv),
            "parquet" => Ok(Format::Parquet),
            _ => Err(Error::input(format!(
                "{}: the format of an output file follows from its name; expected a name that \
                 ends in .csv or .parquet",
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

/// Writes the ranks of all nodes to `path`. Collective; the record is on rank 0 only.
pub fn write(
    comm: &Communicator,
    own: OwnRanks<'_>,
    numbering: &Numbering,
    path: &Path,
) -> Result<Option<FileRecord>> {
    let mut ranks = vec![0.0; if comm.rank() == 0 { own.sharding.n() } else { 0 }];
    comm.gather(own.sharding, own.ranks, &mut ranks, 0)?;
    if let (Some(order), true) = (own.order, comm.rank() == 0) {
        ranks = order.place_of.iter().map(|&place| ranks[place as usize]).collect();
    }
    let write = || write_file(path, numbering, &ranks);
    comm.agree((comm.rank() == 0).then(write).transpose())
}

/// Writes the ranks of all nodes, in the format that the name of the file asks for.
pub fn write_file(path: &Path, numbering: &Numbering, ranks: &[f64]) -> Result<FileRecord> {
    let format = Format::of(path)?;
    write_atomically(path, |writer| match format {
        Format::Csv => write_csv(writer, numbering, ranks),
        Format::Parquet => write_parquet(writer, numbering, ranks).map_err(io::Error::other),
    })
}

fn write_csv(writer: &mut impl Write, numbering: &Numbering, ranks: &[f64]) -> io::Result<()> {
    writer.write_all(b"node,rank\n")?;
    for (index, rank) in ranks.iter().enumerate() {
        match numbering.id(index) {
            NodeId::Name(name) if name.contains('"') => {
                write!(writer, "\"{}\"", name.replace('"', "\"\""))?;
            }
            // Spaces, commas and line ends separate ids, so no name has them.
            id => write!(writer, "{id}")?,
        }
        // The shortest digits that read back to the same bits.
        writeln!(writer, ",{rank:?}")?;
    }
    Ok(())
}

/// Rows of a row group: bounds the memory of the column writer.
const GROUP_ROWS: usize = 1 << 20;

fn write_parquet(
    writer: &mut (impl Write + Send),
    numbering: &Numbering,
    ranks: &[f64],
) -> parquet::errors::Result<()> {
    let node = match numbering {
        Numbering::Integers(_) | Numbering::Dense { .. } => {
            Type::primitive_type_builder("node", PhysicalType::INT64)
                .with_converted_type(ConvertedType::UINT_64)
                .with_logical_type(Some(LogicalType::integer(64, false)))
        }
        Numbering::Names(_) => Type::primitive_type_builder("node", PhysicalType::BYTE_ARRAY)
            .with_converted_type(ConvertedType::UTF8)
            .with_logical_type(Some(LogicalType::String)),
    };
    let rank = Type::primitive_type_builder("rank", PhysicalType::DOUBLE);
    let fields = [node, rank]
        .into_iter()
        .map(|field| Ok(Arc::new(field.with_repetition(Repetition::REQUIRED).build()?)))
        .collect::<parquet::errors::Result<Vec<_>>>()?;
    let schema = Type::group_type_builder("ranks").with_fields(fields).build()?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut file = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties))?;
    for start in (0..ranks.len()).step_by(GROUP_ROWS) {
        let rows = start..(start + GROUP_ROWS).min(ranks.len());
        let mut group = file.next_row_group()?;
        match numbering {
            Numbering::Integers(ids) => {
                // Parquet has no unsigned physical type: the bits of u64, read as such by its
                // logical type.
                let ids: Vec<i64> = ids[rows.clone()].iter().map(|&id| id as i64).collect();
                write_column::<Int64Type>(&mut group, &ids)?;
            }
            Numbering::Dense { first, .. } => {
                let ids: Vec<i64> = rows.clone().map(|i| (first + i as u64) as i64).collect();
                write_column::<Int64Type>(&mut group, &ids)?;
            }
            Numbering::Names(names) => {
                let names: Vec<ByteArray> =
                    rows.clone().map(|index| ByteArray::from(names.get(index).to_vec())).collect();
                write_column::<ByteArrayType>(&mut group, &names)?;
            }
        }
        write_column::<DoubleType>(&mut group, &ranks[rows])?;
        group.close()?;
    }
    file.close()?;
    Ok(())
}

fn write_column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
) -> parquet::errors::Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, None, None)?;
        column.close()?;
    }
    Ok(())
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

    const RANKS: [f64; 4] = [0.1, 1.0 / 3.0, 5e-324, 1.0];

    #[test]
    fn csv_reads_back_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranks.csv");
        write_file(&path, &names(&["a", "b\"c", "é", "z'"]), &RANKS).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "node,rank");
        assert_eq!(lines[2], "\"b\"\"c\",0.3333333333333333");
        for (line, rank) in lines[1..].iter().zip(RANKS) {
            let number: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
            assert_eq!(number.to_bits(), rank.to_bits());
        }
        write_file(&path, &Numbering::Integers(vec![0, 7, 8, u64::MAX]), &RANKS).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\n18446744073709551615,1.0\n"), "{text}");
    }

    #[test]
    fn parquet_reads_back_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranks.PARQUET");
        let ids = [0, 7, 8, u64::MAX];
        for numbering in [Numbering::Integers(ids.to_vec()), names(&["a", "b\"c", "é", "z'"])] {
            let record = write_file(&path, &numbering, &RANKS).unwrap();
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
        write_file(&path, &Numbering::Integers(vec![]), &[]).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }

    #[test]
    fn other_names_are_refused_with_the_list() {
        for name in ["ranks", "ranks.txt", "csv", "ranks.csv.gz"] {
            let error = Format::of(Path::new(name)).unwrap_err();
            assert!(error.message.contains(".csv or .parquet"), "{error}");
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
