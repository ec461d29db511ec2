//! Result tables as Parquet files with zstd: columns of node ids, then columns of numbers.
//!
//! Ids are unsigned 64-bit integers or text. Memory: a row group of 2²⁰ rows at a time.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{PrimitiveTypeBuilder, Type};

use super::ids::Numbering;

/// Rows of a row group: bounds the memory of the column writer.
const GROUP_ROWS: usize = 1 << 20;

/// Writes a table. A column of nodes has those at the given indices, or all of them in order.
pub(super) fn write(
    writer: &mut (impl Write + Send),
    numbering: &Numbering,
    nodes: &[(&str, Option<&[u64]>)],
    values: &[(&str, &[f64])],
) -> Result<()> {
    let ids = nodes.iter().map(|(name, _)| id_field(name, numbering));
    let doubles =
        values.iter().map(|(name, _)| Type::primitive_type_builder(name, PhysicalType::DOUBLE));
    let fields = ids
        .chain(doubles)
        .map(|field| Ok(Arc::new(field.with_repetition(Repetition::REQUIRED).build()?)))
        .collect::<Result<Vec<_>>>()?;
    let schema = Type::group_type_builder("ranks").with_fields(fields).build()?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut file = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties))?;
    let rows = nodes.iter().find_map(|(_, list)| list.map(<[u64]>::len));
    let rows = rows.unwrap_or(numbering.len());
    for start in (0..rows).step_by(GROUP_ROWS) {
        let rows = start..(start + GROUP_ROWS).min(rows);
        let mut group = file.next_row_group()?;
        for (_, list) in nodes {
            let index = |row: usize| list.map_or(row, |list| list[row] as usize);
            let indices = rows.clone().map(index);
            match numbering {
                // Parquet has no unsigned physical type: the bits of u64, read as such by its
                // logical type.
                Numbering::Integers(ids) => {
                    let ids: Vec<i64> = indices.map(|index| ids[index] as i64).collect();
                    write_column::<Int64Type>(&mut group, &ids)?;
                }
                Numbering::Dense { first, .. } => {
                    let ids: Vec<i64> = indices.map(|i| (first + i as u64) as i64).collect();
                    write_column::<Int64Type>(&mut group, &ids)?;
                }
                Numbering::Names(names) => {
                    let names: Vec<ByteArray> =
                        indices.map(|index| ByteArray::from(names.get(index).to_vec())).collect();
                    write_column::<ByteArrayType>(&mut group, &names)?;
                }
            }
        }
        for (_, values) in values {
            write_column::<DoubleType>(&mut group, &values[rows.clone()])?;
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}

fn id_field<'n>(name: &'n str, numbering: &Numbering) -> PrimitiveTypeBuilder<'n> {
    match numbering {
        Numbering::Integers(_) | Numbering::Dense { .. } => {
            Type::primitive_type_builder(name, PhysicalType::INT64)
                .with_converted_type(ConvertedType::UINT_64)
                .with_logical_type(Some(LogicalType::integer(64, false)))
        }
        Numbering::Names(_) => Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_converted_type(ConvertedType::UTF8)
            .with_logical_type(Some(LogicalType::String)),
    }
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
) -> Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, None, None)?;
        column.close()?;
    }
    Ok(())
}
