//! Edge tables in Parquet files: two columns of ids, and one of weights.
//!
//! The columns are named by the user (`source`, `target` and `weight` otherwise). Ids are integers
//! (8 to 64 bits, not negative) or text; both columns alike. Weights are integers or floats. A
//! value that is missing is an error with its row, counted from 1. Other columns are not read.
//!
//! # Cost
//! Row groups are shared out, whole, so that ranks have about equally many rows; a rank reads its
//! own groups by all of its threads. Memory for a group beside that of a text edge list.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, get_typed_column_reader};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;

use super::columns::Columns;
use super::edge_list::{IntegerEdges, NamedEdges};
use super::ids::{number_integers, number_names};
use super::load::{Listing, Loaded, same_everywhere};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// Reads the table at `path`. Collective.
pub(super) fn load(
    comm: &Communicator,
    path: &Path,
    weighted: bool,
    columns: &Columns,
) -> Result<Loaded> {
    let table = comm.agree(Table::open(path, weighted, columns))?;
    same_everywhere(comm, path, &[table.rows(), table.starts.len() as u64, table.named.into()])?;
    let groups = Sharding::balanced(&table.starts, comm.ranks(), 1).range(comm.rank());
    let (numbering, edges) = if table.named {
        let mut pieces = Vec::new();
        comm.agree(table.read(groups, Table::names, |piece| pieces.push(piece)))?;
        number_names(comm, pieces)?
    } else {
        let mut all = IntegerEdges::default();
        comm.agree(table.read(groups, Table::integers, |piece| all.append(&piece)))?;
        number_integers(comm, all)?
    };
    Ok(Loaded { numbering, edges, listing: Listing::Directed })
}

struct Table<'p> {
    path: &'p Path,
    /// Positions of the columns: source, target and weight.
    columns: [Option<usize>; 3],
    /// The rows before each row group, and all of them.
    starts: Vec<u64>,
    /// Ids are text.
    named: bool,
}

/// Integers as they are stored, or text.
enum Ids {
    Integers(Vec<u64>),
    Names(Vec<ByteArray>),
}

impl<'p> Table<'p> {
    fn open(path: &'p Path, weighted: bool, names: &Columns) -> Result<Table<'p>> {
        let reader = reader(path)?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let all: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let find = |name: &str, option: &str| {
            all.iter().position(|column| column == name).ok_or_else(|| {
                Error::input(format!(
                    "{}: no column '{name}'; choose one of {} with --{option}-column",
                    path.display(),
                    all.join(", ")
                ))
            })
        };
        let source = find(&names.source, "source")?;
        let target = find(&names.target, "target")?;
        let weight = if weighted { Some(find(&names.weight, "weight")?) } else { None };
        let named = [source, target].map(|column| kind(path, &schema.column(column)));
        let [source_named, target_named] = [named[0].clone()?, named[1].clone()?];
        if source_named != target_named {
            return Err(Error::input(format!(
                "{}: one of the columns '{}' and '{}' has integers and the other text; expected \
                 both alike",
                path.display(),
                names.source,
                names.target
            )));
        }
        let mut starts = vec![0u64];
        for group in reader.metadata().row_groups() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            starts.push(starts[starts.len() - 1].saturating_add(rows));
        }
        let columns = [Some(source), Some(target), weight];
        Ok(Table { path, columns, starts, named: source_named })
    }

    fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Reads row groups, each by `read`; `take` gets them in their order.
    fn read<T: Send>(
        &self,
        groups: Range<usize>,
        read: impl Fn(&Self, usize) -> Result<T> + Sync,
        mut take: impl FnMut(T),
    ) -> Result<()> {
        // As many at a time as there are threads: a group may be large.
        let threads = rayon::current_num_threads();
        for start in groups.clone().step_by(threads) {
            let some = start..(start + threads).min(groups.end);
            let read: Result<Vec<T>> =
                some.into_par_iter().map(|group| read(self, group)).collect();
            read?.into_iter().for_each(&mut take);
        }
        Ok(())
    }

    fn integers(&self, group: usize) -> Result<IntegerEdges> {
        let [source, target] = [0, 1].map(|column| self.ids(group, column));
        let (Ids::Integers(source), Ids::Integers(target)) = (source?, target?) else {
            return Err(Error::internal("a column of integers with text"));
        };
        let weights = self.weights(group)?;
        let mut piece = IntegerEdges::default();
        for (row, (from, to)) in source.into_iter().zip(target).enumerate() {
            piece.push(from, to, weights.get(row).copied());
        }
        Ok(piece)
    }

    fn names(&self, group: usize) -> Result<NamedEdges> {
        let [source, target] = [0, 1].map(|column| self.ids(group, column));
        let (Ids::Names(source), Ids::Names(target)) = (source?, target?) else {
            return Err(Error::internal("a column of text with integers"));
        };
        let mut piece = NamedEdges { weights: self.weights(group)?, ..NamedEdges::default() };
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        for (row, (source, target)) in source.iter().zip(&target).enumerate() {
            let mut edge = [0, 0];
            for (end, name) in edge.iter_mut().zip([source.data(), target.data()]) {
                // A row group has far fewer than 2³² names.
                let next = piece.names.len() as u32;
                *end = *known.entry(name).or_insert(next);
                if *end == next {
                    check_name(name).map_err(|what| self.wrong(group, row, what))?;
                    piece.names.push(name);
                }
            }
            piece.edges.push((edge[0], edge[1]));
        }
        Ok(piece)
    }

    fn ids(&self, group: usize, column: usize) -> Result<Ids> {
        let reader = reader(self.path)?;
        let index = self.columns[column].unwrap_or(0);
        let descriptor = reader.metadata().file_metadata().schema_descr().column(index);
        let unsigned = is_unsigned(&descriptor);
        let negative = |row: usize, id: i64| {
            self.wrong(group, row, format!("the id {id}; expected a number >= 0"))
        };
        match self.column(group, &reader, index)? {
            ColumnReader::Int32ColumnReader(_) if unsigned => {
                let ids = self.values::<Int32Type>(group, &reader, index)?;
                Ok(Ids::Integers(ids.into_iter().map(|id| u64::from(id as u32)).collect()))
            }
            ColumnReader::Int64ColumnReader(_) if unsigned => {
                let ids = self.values::<Int64Type>(group, &reader, index)?;
                Ok(Ids::Integers(ids.into_iter().map(|id| id as u64).collect()))
            }
            ColumnReader::Int32ColumnReader(_) => {
                let ids = self.values::<Int32Type>(group, &reader, index)?.into_iter().enumerate();
                let id = |(row, id): (usize, i32)| {
                    u64::try_from(id).map_err(|_| negative(row, id.into()))
                };
                Ok(Ids::Integers(ids.map(id).collect::<Result<_>>()?))
            }
            ColumnReader::Int64ColumnReader(_) => {
                let ids = self.values::<Int64Type>(group, &reader, index)?.into_iter().enumerate();
                let id = |(row, id)| u64::try_from(id).map_err(|_| negative(row, id));
                Ok(Ids::Integers(ids.map(id).collect::<Result<_>>()?))
            }
            _ => Ok(Ids::Names(self.values::<ByteArrayType>(group, &reader, index)?)),
        }
    }

    fn weights(&self, group: usize) -> Result<Vec<f64>> {
        let Some(index) = self.columns[2] else {
            return Ok(Vec::new());
        };
        let reader = reader(self.path)?;
        let weights: Vec<f64> = match self.column(group, &reader, index)? {
            ColumnReader::DoubleColumnReader(_) => {
                self.values::<DoubleType>(group, &reader, index)?
            }
            ColumnReader::FloatColumnReader(_) => {
                let values = self.values::<FloatType>(group, &reader, index)?;
                values.into_iter().map(f64::from).collect()
            }
            ColumnReader::Int32ColumnReader(_) => {
                let values = self.values::<Int32Type>(group, &reader, index)?;
                values.into_iter().map(f64::from).collect()
            }
            ColumnReader::Int64ColumnReader(_) => {
                let values = self.values::<Int64Type>(group, &reader, index)?;
                values.into_iter().map(|weight| weight as f64).collect()
            }
            _ => {
                return Err(Error::input(format!(
                    "{}: the column of weights has neither integers nor floats",
                    self.path.display()
                )));
            }
        };
        match weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            Some(row) => {
                let what = format!("the weight {}; expected a finite number >= 0", weights[row]);
                Err(self.wrong(group, row, what))
            }
            // Adding 0 turns -0 into 0.
            None => Ok(weights.into_iter().map(|weight| weight + 0.0).collect()),
        }
    }

    fn column(
        &self,
        group: usize,
        reader: &SerializedFileReader<File>,
        index: usize,
    ) -> Result<ColumnReader> {
        let column = reader.get_row_group(group).and_then(|group| group.get_column_reader(index));
        column.map_err(|error| damaged(self.path, &error))
    }

    /// All values of a column of a row group, none of them missing. `T` is the type of the column.
    fn values<T: DataType>(
        &self,
        group: usize,
        reader: &SerializedFileReader<File>,
        index: usize,
    ) -> Result<Vec<T::T>> {
        let optional =
            reader.metadata().file_metadata().schema_descr().column(index).max_def_level();
        let mut column = get_typed_column_reader::<T>(self.column(group, reader, index)?);
        let rows = (self.starts[group + 1] - self.starts[group]) as usize;
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let mut read = 0;
        while read < rows {
            let wanted = (rows - read).min(1 << 20);
            let levels = (optional > 0).then_some(&mut levels);
            let records = column.read_records(wanted, levels, None, &mut values);
            let (records, _, _) = records.map_err(|error| damaged(self.path, &error))?;
            if records == 0 {
                let what = format!("a row group of {rows} rows ends after {read}");
                return Err(damaged(self.path, &ParquetError::General(what)));
            }
            read += records;
        }
        if let Some(row) = levels.iter().position(|&level: &i16| level < optional) {
            return Err(self.wrong(group, row, "a value is missing; expected one in every row"));
        }
        if values.len() != rows {
            let what = format!("{} values in {rows} rows", values.len());
            return Err(damaged(self.path, &ParquetError::General(what)));
        }
        Ok(values)
    }

    /// What is wrong in a row of a row group.
    fn wrong(&self, group: usize, row: usize, what: impl std::fmt::Display) -> Error {
        let row = self.starts[group] + row as u64 + 1;
        Error::input(format!("{} row {row}: {what}", self.path.display()))
    }
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
    let bytes = file.metadata().map_err(|e| Error::file(path, "read", &e))?.len();
    let reader = SerializedFileReader::new(file).map_err(|error| damaged(path, &error))?;
    check_places(path, &reader, bytes)?;
    Ok(reader)
}

/// The crate panics on places that cannot be, and allocates what a damaged footer promises.
fn check_places(path: &Path, reader: &SerializedFileReader<File>, bytes: u64) -> Result<()> {
    for group in reader.metadata().row_groups() {
        let inside = |chunk: &ColumnChunkMetaData| {
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let place = (u64::try_from(start), u64::try_from(chunk.compressed_size()));
            let (Ok(start), Ok(size)) = place else { return false };
            let counts = chunk.uncompressed_size() >= 0 && chunk.num_values() >= 0;
            counts
                && chunk.data_page_offset() >= 0
                && start.checked_add(size).is_some_and(|end| end <= bytes)
        };
        let rows = u64::try_from(group.num_rows()).is_ok_and(|rows| rows >> 32 == 0);
        if !rows || !group.columns().iter().all(inside) {
            let what = "a row group lies outside the file".to_string();
            return Err(damaged(path, &ParquetError::General(what)));
        }
    }
    Ok(())
}

fn damaged(path: &Path, error: &ParquetError) -> Error {
    let text = error.to_string().replace('\n', " ");
    Error::input(format!("{}: not a whole Parquet file ({text})", path.display()))
}

/// Whether a column of ids has text; it may have nothing but integers otherwise.
fn kind(path: &Path, column: &ColumnDescriptor) -> Result<bool> {
    use ConvertedType::{
        ENUM, INT_8, INT_16, INT_32, INT_64, NONE, UINT_8, UINT_16, UINT_32, UINT_64, UTF8,
    };
    let plain = matches!(
        column.logical_type_ref(),
        None | Some(LogicalType::Integer { .. } | LogicalType::String | LogicalType::Enum)
    ) && matches!(
        column.converted_type(),
        NONE | UTF8
            | ENUM
            | INT_8
            | INT_16
            | INT_32
            | INT_64
            | UINT_8
            | UINT_16
            | UINT_32
            | UINT_64
    );
    let flat = column.max_rep_level() == 0 && column.path().parts().len() == 1;
    match column.physical_type() {
        PhysicalType::INT32 | PhysicalType::INT64 if plain && flat => Ok(false),
        PhysicalType::BYTE_ARRAY if plain && flat => Ok(true),
        other => Err(Error::input(format!(
            "{}: the column '{}' has values of the type {other}{}; expected integers or text",
            path.display(),
            column.path().string(),
            if plain { "" } else { " with another meaning" }
        ))),
    }
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    use ConvertedType::{UINT_8, UINT_16, UINT_32, UINT_64};
    matches!(column.converted_type(), UINT_8 | UINT_16 | UINT_32 | UINT_64)
        || matches!(
            column.logical_type_ref(),
            Some(LogicalType::Integer(kind)) if !kind.is_signed
        )
}

/// Ids in a table may hold blanks and commas, but no line ends, which separate them elsewhere.
fn check_name(name: &[u8]) -> std::result::Result<(), String> {
    let shown = || String::from_utf8_lossy(name).escape_debug().take(80).collect::<String>();
    if name.is_empty() {
        return Err("an id without characters".into());
    }
    if name.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(format!("the id '{}' has a line end in it", shown()));
    }
    match std::str::from_utf8(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("the id '{}' is not UTF-8", shown())),
    }
}
