//! Panels written as long Parquet tables: `date, asset, industry, mktcap, close, volume, flag,
//! benchmark` and the factors, sorted by date and asset; missing values are nulls. One row group
//! for each part that is handed over, so memory is that of a part.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::errors::Result as ParquetResult;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::panel::Panel;
use crate::error::{Error, Result};
use crate::files::{AtomicWriter, FileRecord, write_atomically};

/// How the pages of a file are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Codec {
    /// Not at all: the fastest to read.
    None,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// zstd, level 3: the smallest.
    #[default]
    Zstd,
}

impl Codec {
    fn compression(self) -> ParquetResult<Compression> {
        Ok(match self {
            Codec::None => Compression::UNCOMPRESSED,
            Codec::Snappy => Compression::SNAPPY,
            Codec::Lz4 => Compression::LZ4_RAW,
            Codec::Zstd => Compression::ZSTD(parquet::basic::ZstdLevel::try_new(3)?),
        })
    }
}

/// Writes parts of a panel, each the own dates of its `rank`. `exists` tells which (date, asset),
/// both counted in the whole panel, have a row.
pub(super) fn write(
    path: &Path,
    codec: Codec,
    mut parts: impl Iterator<Item = Panel>,
    exists: impl Fn(usize, usize) -> bool,
) -> Result<FileRecord> {
    let Some(first) = parts.next() else {
        return Err(Error::internal("a panel without dates is written"));
    };
    write_atomically(path, |writer| {
        write_all(writer, codec, first, parts, exists).map_err(io::Error::other)
    })
}

fn write_all(
    writer: &mut AtomicWriter,
    codec: Codec,
    first: Panel,
    parts: impl Iterator<Item = Panel>,
    exists: impl Fn(usize, usize) -> bool,
) -> ParquetResult<()> {
    // Dictionaries of floating-point numbers cost time and save nothing.
    let mut properties = WriterProperties::builder()
        .set_compression(codec.compression()?)
        .set_dictionary_enabled(false);
    for name in ["date", "asset", "industry"] {
        properties = properties.set_column_dictionary_enabled(name.into(), true);
    }
    let schema = Arc::new(schema(&first)?);
    let mut file = SerializedFileWriter::new(writer, schema, Arc::new(properties.build()))?;
    for part in std::iter::once(first).chain(parts) {
        let mut group = file.next_row_group()?;
        write_part(&mut group, &part, &exists)?;
        group.close()?;
    }
    file.close()?;
    Ok(())
}

/// The columns of numbers that a panel has.
fn numbers(panel: &Panel) -> impl Iterator<Item = (&str, &[f64])> {
    let given = [
        ("mktcap", &panel.capitalisation[..]),
        ("close", &panel.price[..]),
        ("volume", &panel.volume[..]),
    ];
    let factors = panel.factors.iter().map(|factor| (&factor.name[..], &factor.values[..]));
    given.into_iter().filter(|pair| !pair.1.is_empty()).chain(factors)
}

fn schema(panel: &Panel) -> ParquetResult<Type> {
    let field = |name: &str, physical, repetition, converted, logical| -> ParquetResult<TypePtr> {
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_converted_type(converted)
            .with_logical_type(logical);
        Ok(Arc::new(field.build()?))
    };
    use ConvertedType::{DATE, NONE, UTF8};
    let (text, required) = (Some(LogicalType::String), Repetition::REQUIRED);
    let mut fields = vec![
        field("date", Physical::INT32, required, DATE, Some(LogicalType::Date))?,
        field("asset", Physical::BYTE_ARRAY, required, UTF8, text.clone())?,
    ];
    if !panel.industry.is_empty() {
        fields.push(field("industry", Physical::BYTE_ARRAY, Repetition::OPTIONAL, UTF8, text)?);
    }
    if !panel.flagged.is_empty() {
        fields.push(field("flag", Physical::BOOLEAN, required, NONE, None)?);
    }
    if !panel.benchmark.is_empty() {
        fields.push(field("benchmark", Physical::DOUBLE, Repetition::OPTIONAL, NONE, None)?);
    }
    for (name, _) in numbers(panel) {
        fields.push(field(name, Physical::DOUBLE, Repetition::OPTIONAL, NONE, None)?);
    }
    Type::group_type_builder("panel").with_fields(fields).build()
}

fn write_part(
    group: &mut SerializedRowGroupWriter<'_, impl io::Write + Send>,
    panel: &Panel,
    exists: &impl Fn(usize, usize) -> bool,
) -> ParquetResult<()> {
    let width = panel.assets.len();
    let own = panel.own_dates();
    // Names in order give rows in order of (date, asset).
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by_key(|&asset| &panel.assets[asset]);
    let cells: Vec<usize> = own
        .clone()
        .flat_map(|date| order.iter().map(move |&asset| (date, asset)))
        .filter(|&(date, asset)| exists(date, asset))
        .map(|(date, asset)| (date - own.start) * width + asset)
        .collect();
    let names: Vec<ByteArray> =
        panel.assets.iter().map(|name| ByteArray::from(&name[..])).collect();
    let dates: Vec<i32> = cells.iter().map(|&cell| panel.dates[own.start + cell / width]).collect();
    column::<Int32Type>(group, &dates, None)?;
    let assets: Vec<ByteArray> = cells.iter().map(|&cell| names[cell % width].clone()).collect();
    column::<ByteArrayType>(group, &assets, None)?;
    if !panel.industry.is_empty() {
        let names: Vec<ByteArray> =
            panel.industries.iter().map(|name| ByteArray::from(&name[..])).collect();
        let name = |&cell: &usize| names.get(usize::from(panel.industry[cell])).cloned();
        optional::<ByteArrayType>(group, cells.iter().map(name))?;
    }
    if !panel.flagged.is_empty() {
        let flags: Vec<bool> = cells.iter().map(|&cell| panel.flagged[cell]).collect();
        column::<BoolType>(group, &flags, None)?;
    }
    let known = |x: f64| (!x.is_nan()).then_some(x);
    if !panel.benchmark.is_empty() {
        let value = |&cell: &usize| known(panel.benchmark[own.start + cell / width]);
        optional::<DoubleType>(group, cells.iter().map(value))?;
    }
    for (_, values) in numbers(panel) {
        optional::<DoubleType>(group, cells.iter().map(|&cell| known(values[cell])))?;
    }
    Ok(())
}

/// Writes a column with gaps.
pub(super) fn optional<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl io::Write + Send>,
    rows: impl Iterator<Item = Option<T::T>>,
) -> ParquetResult<()> {
    let mut values = Vec::new();
    let mut levels = Vec::new();
    for row in rows {
        levels.push(i16::from(row.is_some()));
        values.extend(row);
    }
    column::<T>(group, &values, Some(&levels))
}

/// Writes a column; `levels` are 0 where it has a gap.
pub(super) fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl io::Write + Send>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> ParquetResult<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, levels, None)?;
        column.close()?;
    }
    Ok(())
}
