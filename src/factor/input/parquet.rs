//! Long tables in Parquet, read without Arrow: row groups are shared among the ranks, each group
//! going whole to one rank, in order and with about the same number of rows for each. Files with
//! fewer row groups than ranks leave ranks without work.
//!
//! Columns are read one at a time, so a rank holds one decoded column besides its panel. The bytes
//! of a column chunk come with one positional read, which threads can do at once on one file, and
//! are decoded by batches straight to values; a group may be read from some row to another.

use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;

use super::columns::{Column, Kind};
use super::names::{MISSING, Names};
use crate::error::{Error, Result};
use crate::factor::config::Infinite;
use crate::factor::dates;
use crate::sharding::Sharding;

/// The row groups of one rank.
pub(super) struct Share {
    files: Arc<Vec<PathBuf>>,
    footers: Arc<Vec<ParquetMetaData>>,
    groups: Vec<Group>,
    infinite: Infinite,
}

/// A row group, or the rows of one that are wanted.
#[derive(Clone, Copy)]
pub(super) struct Group {
    file: usize,
    index: usize,
    /// Rows that are wanted, and those before and after them.
    pub(super) rows: usize,
    skip: usize,
    rest: usize,
    /// The place of the first wanted row in its file.
    first: u64,
}

impl Group {
    /// Some of its wanted rows.
    fn narrow(self, rows: Range<usize>) -> Group {
        Group {
            rows: rows.len(),
            skip: self.skip + rows.start,
            rest: self.rest + self.rows - rows.end,
            first: self.first + rows.start as u64,
            ..self
        }
    }
}

/// The bytes of a column chunk and where they start in the file.
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let length = self.len().saturating_sub(start) as usize;
        Ok(self.get_bytes(start, length)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let from = start.checked_sub(self.start).map(|from| from as usize);
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        match range.filter(|range| range.end <= self.bytes.len()) {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(parquet::errors::ParquetError::EOF("beyond the column chunk".into())),
        }
    }
}

impl Share {
    /// The share of `rank` in the row groups of `files`, and the columns of the first file.
    pub(super) fn open(
        files: Vec<PathBuf>,
        rank: usize,
        ranks: usize,
        infinite: Infinite,
    ) -> Result<(Share, Vec<Column>)> {
        let footers: Vec<Result<ParquetMetaData>> = files.par_iter().map(footer).collect();
        let footers = footers.into_iter().collect::<Result<Vec<_>>>()?;
        let mut groups = Vec::new();
        for (file, footer) in footers.iter().enumerate() {
            let mut first = 0;
            for (index, group) in footer.row_groups().iter().enumerate() {
                let rows = usize::try_from(group.num_rows()).unwrap_or(0);
                groups.push(Group { file, index, rows, skip: 0, rest: 0, first });
                first += rows as u64;
            }
        }
        let columns = footers.first().map(columns).unwrap_or_default();
        let (files, footers) = (Arc::new(files), Arc::new(footers));
        let all = Share { files, footers, groups, infinite };
        Ok((all.part(0..all.groups.len(), rank, ranks), columns))
    }

    /// The share of `rank` in some of the row groups of this share, counted in it.
    pub(super) fn part(
        &self,
        groups: impl Iterator<Item = usize>,
        rank: usize,
        ranks: usize,
    ) -> Share {
        let groups: Vec<Group> = groups.map(|group| self.groups[group]).collect();
        self.with(groups[shares(&groups, ranks).range(rank)].to_vec())
    }

    /// The same files with other groups.
    fn with(&self, groups: Vec<Group>) -> Share {
        let (files, footers) = (self.files.clone(), self.footers.clone());
        Share { files, footers, groups, infinite: self.infinite }
    }

    /// The share of `rank` in the rows of some groups of this share (counted in it) between the
    /// first and the last one whose date is in `dates`. Ranks share rows and not groups: every rank
    /// looks at the dates of all groups, and reads the other columns of its own rows.
    pub(super) fn between(
        &self,
        groups: impl Iterator<Item = usize>,
        (name, dates): (&str, RangeInclusive<i32>),
        rank: usize,
        ranks: usize,
    ) -> Result<Share> {
        let mut narrow = Vec::new();
        for group in groups.map(|group| self.groups[group]) {
            let found = self.with(vec![group]).dates(name)?;
            let wanted = |date: &i32| dates.contains(date);
            if let Some(first) = found.iter().position(wanted) {
                let end = found.iter().rposition(wanted).map_or(first, |last| last + 1);
                narrow.push(group.narrow(first..end));
            }
        }
        let own = Sharding::even(narrow.iter().map(|group| group.rows).sum(), ranks).range(rank);
        let mut before = 0;
        let mut parts = Vec::new();
        for group in narrow {
            let clip = |row: usize| row.saturating_sub(before).min(group.rows);
            let part = clip(own.start)..clip(own.end);
            before += group.rows;
            if !part.is_empty() {
                parts.push(group.narrow(part));
            }
        }
        Ok(self.with(parts))
    }

    /// Which row groups of this share each rank would read.
    pub(super) fn sharding(&self, ranks: usize) -> Sharding {
        shares(&self.groups, ranks)
    }

    /// The rows of this rank.
    pub(super) fn rows(&self) -> usize {
        self.groups.iter().map(|group| group.rows).sum()
    }

    /// The file of a row and its number in it, from 1.
    pub(super) fn locate(&self, mut row: usize) -> (usize, u64) {
        for group in &self.groups {
            if row < group.rows {
                return (group.file, group.first + row as u64 + 1);
            }
            row -= group.rows;
        }
        (0, 0)
    }

    /// Calls `take` with the numbers of each row group, NaN where missing, in order.
    pub(super) fn numbers(&self, name: &str, mut take: impl FnMut(Vec<f64>)) -> Result<()> {
        for group in &self.groups {
            let values = self.group_numbers(*group, name)?;
            if let Some(row) = values.iter().position(|x| x.is_infinite()) {
                if self.infinite == Infinite::Error {
                    let what =
                        format!("{} (write it as missing, or set input.infinite)", values[row]);
                    return Err(self.row_error(group, row, name, &what));
                }
                take(values.iter().map(|&x| if x.is_infinite() { f64::NAN } else { x }).collect());
            } else {
                take(values);
            }
        }
        Ok(())
    }

    /// The numbers of one row group as they stand there.
    pub(super) fn group_numbers(&self, group: Group, name: &str) -> Result<Vec<f64>> {
        let (column, descr) = self.column(&group, name)?;
        let unsigned = matches!(descr.logical_type_ref(),
            Some(LogicalType::Integer(kind)) if !kind.is_signed);
        if !matches!(kind(&descr), Kind::Number | Kind::Boolean) {
            return Err(self.type_error(&group, name, "numbers"));
        }
        match descr.physical_type() {
            Physical::DOUBLE => self.spread::<DoubleType>(&group, column, |x| x),
            Physical::FLOAT => self.spread::<FloatType>(&group, column, f64::from),
            Physical::INT32 if unsigned => {
                self.spread::<Int32Type>(&group, column, |x| f64::from(x as u32))
            }
            Physical::INT32 => self.spread::<Int32Type>(&group, column, f64::from),
            Physical::INT64 if unsigned => {
                self.spread::<Int64Type>(&group, column, |x| x as u64 as f64)
            }
            Physical::INT64 => self.spread::<Int64Type>(&group, column, |x| x as f64),
            _ => self.spread::<BoolType>(&group, column, |x| f64::from(u8::from(x))),
        }
    }

    /// The dates of all rows.
    pub(super) fn dates(&self, name: &str) -> Result<Vec<i32>> {
        let mut all = Vec::with_capacity(self.rows());
        for group in &self.groups {
            let (column, descr) = self.column(group, name)?;
            let day = |x: i64, per_day: i64| i32::try_from(x.div_euclid(per_day)).ok();
            let per_day = ticks_of_a_day(&descr);
            let dates: Vec<Option<i32>> = match (kind(&descr), descr.physical_type()) {
                (Kind::Date, Physical::INT32) => self.map::<Int32Type, _>(group, column, Some)?,
                (Kind::Date, _) => self.map::<Int64Type, _>(group, column, |x| day(x, per_day))?,
                (Kind::Number, Physical::INT32) => {
                    self.map::<Int32Type, _>(group, column, |x| dates::from_number(x.into()))?
                }
                (Kind::Number, Physical::INT64) => {
                    self.map::<Int64Type, _>(group, column, dates::from_number)?
                }
                (Kind::Text, _) => {
                    // Dates repeat: one is parsed when it changes.
                    let mut last: (Vec<u8>, Option<i32>) = Default::default();
                    self.map::<ByteArrayType, _>(group, column, move |text| {
                        if last.0 != text.data() {
                            last = (text.data().to_vec(), dates::parse(text.data()));
                        }
                        last.1
                    })?
                }
                _ => return Err(self.type_error(group, name, DATES)),
            };
            if let Some(row) = dates.iter().position(Option::is_none) {
                let what = format!("missing or no date; expected {DATES}");
                return Err(self.row_error(group, row, name, &what));
            }
            all.extend(dates.into_iter().flatten());
        }
        Ok(all)
    }

    /// The texts of all rows as numbers; whole numbers are texts of digits. Missing ones are an
    /// error if they are `required`.
    pub(super) fn texts(&self, name: &str, required: bool) -> Result<(Names, Vec<u32>)> {
        let mut names = Names::default();
        let mut all: Vec<u32> = Vec::with_capacity(self.rows());
        for group in &self.groups {
            let (column, descr) = self.column(group, name)?;
            let start = all.len();
            match (kind(&descr), descr.physical_type()) {
                (Kind::Text, _) => {
                    let numbers = self.map::<ByteArrayType, _>(group, column, |text| {
                        let text = text.data().trim_ascii();
                        (!text.is_empty()).then(|| names.number(text))
                    })?;
                    all.extend(numbers.iter().map(|number| number.unwrap_or(MISSING)));
                }
                (Kind::Number, _) => {
                    // Whole numbers up to 2^53, also where gaps made them floating-point ones.
                    for (row, x) in self.group_numbers(*group, name)?.into_iter().enumerate() {
                        if x.is_finite() && x.fract() != 0.0 {
                            let what = format!("{x} is neither text nor a whole number");
                            return Err(self.row_error(group, row, name, &what));
                        }
                        all.push(match x.is_finite() {
                            true => names.number((x as i64).to_string().as_bytes()),
                            false => MISSING,
                        });
                    }
                }
                _ => return Err(self.type_error(group, name, "text or whole numbers")),
            }
            let missing = all[start..].iter().position(|&number| number == MISSING);
            if let Some(row) = missing.filter(|_| required) {
                return Err(self.row_error(group, row, name, "missing"));
            }
        }
        Ok((names, all))
    }

    /// The values of a number column of a group, NaN where missing.
    fn spread<T: DataType>(
        &self,
        group: &Group,
        column: usize,
        value: impl Fn(T::T) -> f64,
    ) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(group.rows);
        self.read::<T>(group, column, |values, levels| {
            let whole = levels.is_empty() || levels.len() == values.len();
            let mut values = values.drain(..).map(&value);
            if whole {
                all.extend(values);
            } else {
                let mut next = || values.next().unwrap_or(f64::NAN);
                all.extend(levels.iter().map(|&level| if level > 0 { next() } else { f64::NAN }));
            }
        })?;
        Ok(all)
    }

    /// `value` of what is there; `None` where it is missing.
    fn map<T: DataType, V>(
        &self,
        group: &Group,
        column: usize,
        mut value: impl FnMut(T::T) -> Option<V>,
    ) -> Result<Vec<Option<V>>> {
        let mut all = Vec::with_capacity(group.rows);
        self.read::<T>(group, column, |values, levels| {
            let whole = levels.is_empty() || levels.len() == values.len();
            let mut values = values.drain(..).map(&mut value);
            if whole {
                all.extend(values);
            } else {
                let mut next = || values.next().flatten();
                all.extend(levels.iter().map(|&level| if level > 0 { next() } else { None }));
            }
        })?;
        Ok(all)
    }

    /// Calls `take` with batches of the values of a column chunk, without the missing ones, and
    /// the level of each row: 0 where it is missing. There are no levels if the column has no gaps
    /// by its type. Batches keep the memory of texts, which are 32 bytes each, small.
    fn read<T: DataType>(
        &self,
        group: &Group,
        column: usize,
        mut take: impl FnMut(&mut Vec<T::T>, &[i16]),
    ) -> Result<()> {
        let mut read = || -> parquet::errors::Result<usize> {
            let meta = self.footers[group.file].row_group(group.index).column(column);
            let (start, length) = meta.byte_range();
            let mut bytes = vec![0; length as usize];
            let file = File::open(&self.files[group.file])?;
            file.read_exact_at(&mut bytes, start)?;
            let chunk = Arc::new(Chunk { start, bytes: bytes.into() });
            let total = group.skip + group.rows + group.rest;
            let pages = Box::new(SerializedPageReader::new(chunk, meta, total, None)?);
            let mut reader: ColumnReaderImpl<T> =
                get_typed_column_reader(get_column_reader(meta.column_descr_ptr(), pages));
            if group.skip > 0 {
                reader.skip_records(group.skip)?;
            }
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let gaps = meta.column_descr().max_def_level() > 0;
            let mut rows = 0;
            while rows < group.rows {
                levels.clear();
                values.clear();
                let of_rows = gaps.then_some(&mut levels);
                let most = (group.rows - rows).min(BATCH);
                match reader.read_records(most, of_rows, None, &mut values)?.0 {
                    0 => break,
                    read => rows += read,
                }
                take(&mut values, &levels);
            }
            Ok(rows)
        };
        let path = self.files[group.file].display();
        match read() {
            Ok(rows) if rows == group.rows => Ok(()),
            Ok(rows) => Err(Error::input(format!(
                "{path}: row group {} has {} of its {} rows; the file is damaged",
                group.index,
                group.skip + rows,
                group.skip + group.rows + group.rest
            ))),
            Err(e) => Err(Error::input(format!(
                "{path}: cannot read column {} of row group {}: {e}",
                column + 1,
                group.index
            ))),
        }
    }

    /// The place and the type of the column `name` in the file of a group.
    fn column(&self, group: &Group, name: &str) -> Result<(usize, Arc<ColumnDescriptor>)> {
        let schema = self.footers[group.file].file_metadata().schema_descr();
        let column = schema.columns().iter().position(|column| column.path().string() == name);
        match column {
            Some(column) => Ok((column, schema.column(column))),
            None => Err(Error::input(format!(
                "{}: no column '{name}', which {} has",
                self.files[group.file].display(),
                self.files[0].display()
            ))),
        }
    }

    fn row_error(&self, group: &Group, row: usize, name: &str, what: &str) -> Error {
        let path = self.files[group.file].display();
        Error::input(format!("{path} row {}: {name}: {what}", group.first + row as u64 + 1))
    }

    fn type_error(&self, group: &Group, name: &str, expected: &str) -> Error {
        let path = self.files[group.file].display();
        Error::input(format!("{path}: column '{name}' has another type; expected {expected}"))
    }

    /// All groups of all ranks lie between these of one; for tables that ranks read by themselves.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// Row groups for each rank, in order, with about the same number of rows.
fn shares(groups: &[Group], ranks: usize) -> Sharding {
    let mut prefix = vec![0];
    groups.iter().for_each(|g| prefix.push(prefix[prefix.len() - 1] + g.rows as u64));
    Sharding::balanced(&prefix, ranks, 1)
}

/// Rows that are decoded at once.
const BATCH: usize = 1 << 14;
const DATES: &str = "a date, a timestamp, text YYYY-MM-DD or a whole number yyyymmdd";

fn footer(path: &PathBuf) -> Result<ParquetMetaData> {
    let file = File::open(path).map_err(|e| Error::file(path, "open", &e))?;
    ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|e| {
        Error::input(format!("{}: not a Parquet file, or a damaged one: {e}", path.display()))
    })
}

fn columns(footer: &ParquetMetaData) -> Vec<Column> {
    let columns = footer.file_metadata().schema_descr().columns();
    columns.iter().map(|descr| Column { name: descr.path().string(), kind: kind(descr) }).collect()
}

fn kind(descr: &ColumnDescriptor) -> Kind {
    use ConvertedType::{
        DATE, DECIMAL, TIME_MICROS, TIME_MILLIS, TIMESTAMP_MICROS, TIMESTAMP_MILLIS,
    };
    if descr.max_rep_level() > 0 {
        return Kind::Other;
    }
    let logical = descr.logical_type_ref();
    let date = matches!(descr.converted_type(), DATE | TIMESTAMP_MICROS | TIMESTAMP_MILLIS)
        || matches!(logical, Some(LogicalType::Date | LogicalType::Timestamp(_)));
    let other = matches!(descr.converted_type(), DECIMAL | TIME_MICROS | TIME_MILLIS)
        || matches!(logical, Some(LogicalType::Decimal(_) | LogicalType::Time(_)));
    match descr.physical_type() {
        _ if other => Kind::Other,
        Physical::INT32 | Physical::INT64 if date => Kind::Date,
        Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE => Kind::Number,
        Physical::BOOLEAN => Kind::Boolean,
        Physical::BYTE_ARRAY => Kind::Text,
        _ => Kind::Other,
    }
}

/// The unit of a column of timestamps.
fn ticks_of_a_day(descr: &ColumnDescriptor) -> i64 {
    const SECONDS: i64 = 86_400;
    match (descr.logical_type_ref(), descr.converted_type()) {
        (Some(LogicalType::Timestamp(kind)), _) => match kind.unit {
            TimeUnit::MILLIS => SECONDS * 1_000,
            TimeUnit::MICROS => SECONDS * 1_000_000,
            TimeUnit::NANOS => SECONDS * 1_000_000_000,
        },
        (_, ConvertedType::TIMESTAMP_MILLIS) => SECONDS * 1_000,
        _ => SECONDS * 1_000_000,
    }
}
