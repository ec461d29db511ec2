//! A table of results as Parquet, made of its CSV text, so that both hold the same cells.
//!
//! `date` is a date; `factor` and `month` are text; counts and numbers of dates are integers; every
//! other column is a float, null where the cell is empty. A column that is named like an integer
//! but holds something else (a factor of that name) is a float too.

use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::dates;
use super::panel_file::{column, optional};
use crate::error::{Error, Result};

const TEXT: [&str; 2] = ["factor", "month"];
const INTEGERS: [&str; 8] =
    ["horizon", "lag", "lags", "period", "quantile", "dates", "few_assets", "collinear"];

/// The cells of a column.
enum Cells {
    Dates(Vec<i32>),
    Text(Vec<ByteArray>),
    Integers(Vec<i64>),
    Floats(Vec<Option<f64>>),
}

impl Cells {
    fn new(name: &str, cells: &[&str]) -> Result<Cells> {
        let wrong = |cell: &str| Error::internal(format!("column {name}: '{cell}' has no type"));
        if name == "date" {
            let date = |cell: &&str| dates::parse(cell.as_bytes()).ok_or_else(|| wrong(cell));
            return Ok(Cells::Dates(cells.iter().map(date).collect::<Result<_>>()?));
        }
        if TEXT.contains(&name) {
            return Ok(Cells::Text(cells.iter().map(|&cell| ByteArray::from(cell)).collect()));
        }
        if INTEGERS.contains(&name)
            && let Ok(integers) = cells.iter().map(|cell| cell.parse()).collect()
        {
            return Ok(Cells::Integers(integers));
        }
        let float = |cell: &&str| match *cell {
            "" => Ok(None),
            cell => cell.parse().map(Some).map_err(|_| wrong(cell)),
        };
        Ok(Cells::Floats(cells.iter().map(float).collect::<Result<_>>()?))
    }

    fn field(&self, name: &str) -> ParquetResult<Type> {
        let (optional, required) = (Repetition::OPTIONAL, Repetition::REQUIRED);
        let (physical, repetition, converted, logical) = match self {
            Cells::Dates(_) => {
                (Physical::INT32, required, ConvertedType::DATE, Some(LogicalType::Date))
            }
            Cells::Text(_) => {
                (Physical::BYTE_ARRAY, required, ConvertedType::UTF8, Some(LogicalType::String))
            }
            Cells::Integers(_) => (Physical::INT64, required, ConvertedType::NONE, None),
            Cells::Floats(_) => (Physical::DOUBLE, optional, ConvertedType::NONE, None),
        };
        Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_converted_type(converted)
            .with_logical_type(logical)
            .build()
    }
}

/// The bytes of a Parquet file with the cells of a CSV table.
pub fn parquet(text: &str) -> Result<Vec<u8>> {
    let failed = |e: csv::Error| Error::internal(format!("a table has no rows: {e}"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().map_err(failed)?.iter().map(str::to_string).collect();
    let rows: Vec<csv::StringRecord> =
        reader.records().collect::<std::result::Result<_, _>>().map_err(failed)?;
    let mut columns = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let cells: Vec<&str> = rows.iter().map(|row| row.get(place).unwrap_or("")).collect();
        columns.push((name.as_str(), Cells::new(name, &cells)?));
    }
    file(&columns)
        .map_err(|e: ParquetError| Error::internal(format!("a table has no Parquet form: {e}")))
}

fn file(columns: &[(&str, Cells)]) -> ParquetResult<Vec<u8>> {
    let fields = columns.iter().map(|(name, cells)| Ok(Arc::new(cells.field(name)?)));
    let fields = fields.collect::<ParquetResult<Vec<_>>>()?;
    let schema = Arc::new(Type::group_type_builder("table").with_fields(fields).build()?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (_, cells) in columns {
        match cells {
            Cells::Dates(dates) => column::<Int32Type>(&mut group, dates, None)?,
            Cells::Text(text) => column::<ByteArrayType>(&mut group, text, None)?,
            Cells::Integers(integers) => column::<Int64Type>(&mut group, integers, None)?,
            Cells::Floats(floats) => {
                optional::<DoubleType>(&mut group, floats.iter().copied())?;
            }
        }
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    fn rows(text: &str) -> Vec<String> {
        let bytes = bytes::Bytes::from(parquet(text).unwrap());
        let reader = SerializedFileReader::new(bytes).unwrap();
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect()
    }

    #[test]
    fn cells_keep_their_types_their_gaps_and_all_their_bits() {
        let text = "date,factor,horizon,ic\n2015-01-05,\"a,b\",5,0.1\n2015-01-06,c,20,\n";
        assert_eq!(
            rows(text),
            [
                "{date: 2015-01-05, factor: \"a,b\", horizon: 5, ic: 0.1}",
                "{date: 2015-01-06, factor: \"c\", horizon: 20, ic: null}"
            ]
        );
        // A factor may have the name of a count.
        assert_eq!(rows("factor,lag\na,0.5\n"), ["{factor: \"a\", lag: 0.5}"]);
        assert!(rows("date,factor,nav\n").is_empty());
        let third = 1.0f64 / 3.0;
        assert_eq!(rows(&format!("x\n{third}\n")), [format!("{{x: {third}}}")]);
    }
}
