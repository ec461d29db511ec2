//! The same panel in all types that dates, assets and numbers may have, and as wide matrices.

use std::sync::Arc;

use ::parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::Type;

use super::*;
use crate::factor::dates::{from_civil, to_civil};

/// Values of a column; `None` is missing.
enum Values {
    I32(Vec<Option<i32>>),
    I64(Vec<Option<i64>>),
    F32(Vec<Option<f32>>),
    F64(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
    Truth(Vec<Option<bool>>),
}

struct Field {
    name: String,
    values: Values,
    converted: ConvertedType,
    logical: Option<LogicalType>,
}

fn field(name: &str, values: Values) -> Field {
    let text = matches!(values, Values::Text(_));
    let converted = if text { ConvertedType::UTF8 } else { ConvertedType::NONE };
    Field { name: name.into(), values, converted, logical: text.then_some(LogicalType::String) }
}

/// Writes row groups of `rows` rows.
fn write(path: &str, fields: &[Field], rows: usize) {
    let types = fields.iter().map(|field| {
        let physical = match field.values {
            Values::I32(_) => Physical::INT32,
            Values::I64(_) => Physical::INT64,
            Values::F32(_) => Physical::FLOAT,
            Values::F64(_) => Physical::DOUBLE,
            Values::Text(_) => Physical::BYTE_ARRAY,
            Values::Truth(_) => Physical::BOOLEAN,
        };
        let builder = Type::primitive_type_builder(&field.name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_converted_type(field.converted)
            .with_logical_type(field.logical.clone());
        Arc::new(builder.build().unwrap())
    });
    let schema = Type::group_type_builder("t").with_fields(types.collect()).build().unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let file = std::fs::File::create(path).unwrap();
    let mut file = SerializedFileWriter::new(file, Arc::new(schema), properties).unwrap();
    let total = match &fields[0].values {
        Values::I32(values) => values.len(),
        Values::I64(values) => values.len(),
        Values::Text(values) => values.len(),
        _ => panic!("the first column is one of dates"),
    };
    for start in (0..total).step_by(rows) {
        let range = start..(start + rows).min(total);
        let mut group = file.next_row_group().unwrap();
        for field in fields {
            let mut column = group.next_column().unwrap().unwrap();
            fn put<T: DataType>(
                column: &mut ::parquet::file::writer::SerializedColumnWriter<'_>,
                rows: impl Iterator<Item = Option<T::T>>,
            ) {
                let rows: Vec<Option<T::T>> = rows.collect();
                let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
                let values: Vec<T::T> = rows.into_iter().flatten().collect();
                column.typed::<T>().write_batch(&values, Some(&levels), None).unwrap();
            }
            let range = range.clone();
            match &field.values {
                Values::I32(v) => put::<Int32Type>(&mut column, v[range].iter().copied()),
                Values::I64(v) => put::<Int64Type>(&mut column, v[range].iter().copied()),
                Values::F32(v) => put::<FloatType>(&mut column, v[range].iter().copied()),
                Values::F64(v) => put::<DoubleType>(&mut column, v[range].iter().copied()),
                Values::Truth(v) => put::<BoolType>(&mut column, v[range].iter().copied()),
                Values::Text(v) => {
                    let text = |text: &Option<String>| text.as_deref().map(ByteArray::from);
                    put::<ByteArrayType>(&mut column, v[range].iter().map(text));
                }
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

/// (date, asset, value) in no order; some values are missing.
fn rows() -> Vec<(i32, u32, Option<f32>)> {
    let first = from_civil(2019, 12, 30).unwrap();
    let cell = |i: u32| {
        let value = (i % 7 != 3).then_some(i as f32 / 8.0 - 2.0);
        (first + (i / 5) as i32, 100_000 + i % 5 * 37, value)
    };
    shuffled((0..45).map(cell).collect())
}

fn dates(kind: &str) -> Field {
    let rows = rows();
    let days = || rows.iter().map(|row| row.0);
    let ticks = |per_day: i64, time: i64| {
        Values::I64(days().map(|day| Some(i64::from(day) * per_day + time)).collect())
    };
    let stamp = |values, unit| Field {
        logical: Some(LogicalType::timestamp(true, unit)),
        ..field("date", values)
    };
    let number = |day| {
        let (y, m, d) = to_civil(day);
        y * 10_000 + (m * 100 + d) as i32
    };
    match kind {
        "date" => Field {
            converted: ConvertedType::DATE,
            logical: Some(LogicalType::Date),
            ..field("date", Values::I32(days().map(Some).collect()))
        },
        "ms" => stamp(ticks(86_400_000, 0), TimeUnit::MILLIS),
        "us" => stamp(ticks(86_400_000_000, 54_000_000_000), TimeUnit::MICROS),
        "ns" => stamp(ticks(86_400_000_000_000, 1), TimeUnit::NANOS),
        "i32" => field("date", Values::I32(days().map(|day| Some(number(day))).collect())),
        "i64" => field("date", Values::I64(days().map(|day| Some(number(day).into())).collect())),
        _ => field("date", Values::Text(days().map(|day| Some(super::day(day))).collect())),
    }
}

#[test]
fn every_type_of_date_asset_and_number_means_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_of(&folder, "t.parquet");
    let mut config = Config::default();
    config.input.price = Some("x".into());
    let rows = rows();
    let text = |row: &(i32, u32, Option<f32>)| Some(row.1.to_string());
    let mut panels = Vec::new();
    let kinds = ["date", "ms", "us", "ns", "i32", "i64", "text"];
    for (i, kind) in kinds.into_iter().enumerate() {
        let asset = match i % 4 {
            0 => Values::Text(rows.iter().map(text).collect()),
            1 => Values::I32(rows.iter().map(|row| Some(row.1 as i32)).collect()),
            2 => Values::I64(rows.iter().map(|row| Some(row.1.into())).collect()),
            _ => Values::F64(rows.iter().map(|row| Some(row.1.into())).collect()),
        };
        let x = match i % 2 {
            0 => Values::F32(rows.iter().map(|row| row.2).collect()),
            _ => Values::F64(rows.iter().map(|row| row.2.map(f64::from)).collect()),
        };
        // Integers that are missing and unsigned ones beyond the signed range.
        let small = Values::I32(rows.iter().map(|row| row.2.map(|x| x as i32)).collect());
        let big = Field {
            converted: ConvertedType::UINT_64,
            logical: Some(LogicalType::integer(64, false)),
            ..field("big", Values::I64(rows.iter().map(|row| Some(-i64::from(row.1))).collect()))
        };
        let flag = match i % 2 {
            0 => Values::Truth(rows.iter().map(|row| row.2.map(|x| x > 1.0)).collect()),
            _ => Values::I32(rows.iter().map(|row| row.2.map(|x| i32::from(x > 1.0))).collect()),
        };
        let fields = [
            dates(kind),
            field("asset", asset),
            field("x", x),
            field("small", small),
            big,
            field("flag", flag),
        ];
        write(&path, &fields, [4, 45, 7][i % 3]);
        panels.extend(RANKS.map(|ranks| read(&path, &config, ranks).unwrap()));
    }
    let first = &panels[0];
    assert!(panels.iter().all(|panel| panel == first));
    assert_eq!((first.dates.len(), first.assets.len()), (9, 5));
    for &(date, asset, x) in &rows {
        let date = first.dates.iter().position(|&d| d == date).unwrap();
        let place = first.assets.iter().position(|name| *name == asset.to_string()).unwrap();
        let cell = date * 5 + place;
        let number = |column: usize| f64::from_bits(first.columns[column].1[cell]);
        let expected = x.map_or(f64::NAN, f64::from);
        assert_eq!(number(0).to_bits(), expected.to_bits());
        assert_eq!(number(3).to_bits(), expected.trunc().to_bits() & expected_mask(expected));
        assert_eq!(number(4), (-i64::from(asset)) as u64 as f64);
        assert_eq!(first.flagged[cell], x.is_some_and(|x| x > 1.0));
    }
}

/// Truncation of a small negative number gives -0, which integers do not have.
fn expected_mask(x: f64) -> u64 {
    if x.trunc() == 0.0 { 0 } else { u64::MAX }
}

#[test]
fn wrong_types_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_of(&folder, "t.parquet");
    let rows = rows();
    let base = || {
        let assets = rows.iter().map(|row| Some(row.1.to_string())).collect();
        let x = rows.iter().map(|row| row.2).collect();
        vec![dates("date"), field("asset", Values::Text(assets)), field("x", Values::F32(x))]
    };
    let mut config = Config::default();
    config.input.price = Some("asset".into());
    write(&path, &base(), 10);
    assert!(message(&path, &config).ends_with("the column 'asset' (price) holds text"));
    let config = Config::default();
    let mut fields = base();
    let Values::I32(days) = &mut fields[0].values else { panic!() };
    days[23] = None;
    write(&path, &fields, 10);
    assert!(message(&path, &config).starts_with(&format!("{path} row 24: date: missing or no")));
    fields = base();
    fields[0] = dates("i32");
    let Values::I32(days) = &mut fields[0].values else { panic!() };
    days[11] = Some(20_191_301);
    write(&path, &fields, 10);
    assert!(message(&path, &config).starts_with(&format!("{path} row 12: date: missing or no")));
    fields = base();
    let Values::Text(names) = &mut fields[1].values else { panic!() };
    names[44] = None;
    write(&path, &fields, 10);
    assert_eq!(message(&path, &config), format!("{path} row 45: asset: missing"));
    fields = base();
    fields[1] = field("asset", Values::F64(vec![Some(0.5); 45]));
    write(&path, &fields, 10);
    let found = message(&path, &config);
    assert_eq!(found, format!("{path} row 1: asset: 0.5 is neither text nor a whole number"));
    // A column whose type is another one in a second file.
    write(&path, &base(), 10);
    let second = path_of(&folder, "u.parquet");
    for (column, values, expected) in [
        (
            2,
            Values::Text(vec![Some("1".into()); 45]),
            "column 'x' has another type; expected numbers",
        ),
        (0, Values::F64(vec![Some(1.0); 45]), "column 'date' has another type; expected a date"),
        (1, Values::Truth(vec![Some(true); 45]), "column 'asset' has another type; expected text"),
    ] {
        fields = base();
        fields[column] = field(["date", "asset", "x"][column], values);
        if column == 0 {
            fields.swap(0, 1);
        } else {
            let Values::I32(days) = &mut fields[0].values else { panic!() };
            days.iter_mut().flatten().for_each(|day| *day += 1000);
        }
        write(&second, &fields, 10);
        let found = message(folder.path().to_str().unwrap(), &config);
        assert!(found.starts_with(&format!("{second}: {expected}")), "{found}");
    }
}

/// Bytes of a .npy file.
fn npy_file(shape: &str, data: Vec<f64>) -> Vec<u8> {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(data.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

#[test]
fn wide_matrices_give_the_panel_of_the_long_table() {
    let folder = tempfile::tempdir().unwrap();
    let long = SMALL.panel(0, 1);
    let (t, n) = (long.dates.len(), long.assets.len());
    // The files have dates and assets in other orders.
    let dates = shuffled((0..t).collect());
    let assets = shuffled((0..n).collect());
    let matrix = |values: &[f64]| -> Vec<f64> {
        dates.iter().flat_map(|&d| assets.iter().map(move |&a| values[d * n + a])).collect()
    };
    let number = |&g: &u16| if g == u16::MAX { f64::NAN } else { f64::from(g) };
    let industry: Vec<f64> = long.industry.iter().map(number).collect();
    let flag: Vec<f64> = long.flagged.iter().map(|&flag| f64::from(u8::from(flag))).collect();
    let mut fields = vec![
        ("close".to_owned(), matrix(&long.price)),
        ("mktcap".to_owned(), matrix(&long.capitalisation)),
        ("volume".to_owned(), matrix(&long.volume)),
        ("industry".to_owned(), matrix(&industry)),
        ("flag".to_owned(), matrix(&flag)),
    ];
    fields.extend(long.factors.iter().map(|f| (f.name.clone(), matrix(&f.values))));
    let file = |name: &str| folder.path().join(name);
    let shape = format!("({t}, {n})");
    for (name, values) in &fields {
        std::fs::write(file(&format!("{name}.npy")), npy_file(&shape, values.clone())).unwrap();
    }
    let lines = |texts: Vec<String>| texts.join("\n") + "\n";
    let dates_text = lines(dates.iter().map(|&d| day(long.dates[d])).collect());
    std::fs::write(file("dates.txt"), &dates_text).unwrap();
    let names: Vec<String> = assets.iter().map(|&a| long.assets[a].clone()).collect();
    std::fs::write(file("assets.txt"), lines(names.clone())).unwrap();
    let mut expected = join(vec![long.clone()]);
    expected.benchmark.clear();
    expected.industries = (0..5).map(|g| g.to_string()).collect();
    let config = Config::default();
    let source = folder.path().to_str().unwrap();
    RANKS
        .iter()
        .for_each(|&ranks| assert!(read(source, &config, ranks).unwrap() == expected, "{ranks}"));

    // The same as Parquet, in another folder.
    let other = tempfile::tempdir().unwrap();
    for (name, values) in &fields {
        let date = Values::Text(dates.iter().map(|&d| Some(day(long.dates[d]))).collect());
        let mut columns = vec![field("date", date)];
        columns.extend(names.iter().enumerate().map(|(a, asset)| {
            let column = (0..t).map(|row| values[row * n + a]);
            let column = column.map(|x| (!x.is_nan()).then_some(x)).collect();
            field(asset, Values::F64(column))
        }));
        write(&path_of(&other, &format!("{name}.parquet")), &columns, 4);
    }
    let mut wide = config.clone();
    wide.input.layout = Layout::Wide;
    let parquet = other.path().to_str().unwrap();
    RANKS
        .iter()
        .for_each(|&ranks| assert!(read(parquet, &wide, ranks).unwrap() == expected, "{ranks}"));

    // Industries by name, one for each asset.
    std::fs::remove_file(file("industry.npy")).unwrap();
    let last = |a: &usize| long.industries[usize::from(long.industry[(t - 1) * n + a])].clone();
    std::fs::write(file("industry.txt"), lines(assets.iter().map(last).collect())).unwrap();
    let whole = read(source, &config, 3).unwrap();
    assert_eq!((&whole.assets, &whole.industries), (&expected.assets, &long.industries));
    assert_eq!(whole.industry[..n], long.industry[(t - 1) * n..]);

    // Errors.
    let close = file("close.npy");
    let mut values = fields[0].1.clone();
    values[2 * n + 4] = f64::INFINITY;
    std::fs::write(&close, npy_file(&shape, values)).unwrap();
    let found = message(source, &config);
    let place = format!("{} row 3, asset {}: inf", close.display(), names[4]);
    assert!(found.starts_with(&place), "{found}");
    let mut groups = industry.clone();
    groups[3 * n + 5] = 1.5;
    std::fs::write(&close, npy_file(&shape, fields[0].1.clone())).unwrap();
    std::fs::write(file("industry.npy"), npy_file(&shape, groups)).unwrap();
    let place = format!("{} row 4, asset {}: 1.5 is no", file("industry.npy").display(), names[5]);
    assert!(message(source, &config).starts_with(&place));
    std::fs::remove_file(file("industry.npy")).unwrap();
    let mut twice = names.clone();
    twice[9] = names[2].clone();
    std::fs::write(file("assets.txt"), lines(twice)).unwrap();
    let place = format!("assets.txt: lines 3 and 10 are both {}", names[2]);
    assert!(message(source, &config).ends_with(&place));
    std::fs::write(file("assets.txt"), lines(names.clone())).unwrap();
    let again = dates_text.lines().nth(1).unwrap();
    let first = dates_text.lines().next().unwrap();
    std::fs::write(file("dates.txt"), dates_text.replacen(first, again, 1)).unwrap();
    let place = format!("dates.txt: lines 1 and 2 are both {again}");
    assert!(message(source, &config).ends_with(&place));
    std::fs::write(file("dates.txt"), &dates_text).unwrap();
    std::fs::write(&close, npy_file("(2, 3)", vec![0.0; 6])).unwrap();
    assert!(message(source, &config).contains("2 × 3; expected 11 dates × 23 assets"));
    std::fs::write(file("dates.txt"), dates_text.replacen("2015", "20x5", 1)).unwrap();
    assert!(message(source, &config).contains("dates.txt line 1: '20x5-"));
    std::fs::remove_file(file("dates.txt")).unwrap();
    assert!(message(source, &config).contains("dates.txt: cannot read"));
}
