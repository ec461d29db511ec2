//! Edge tables in Parquet files: the same graph as its edge list, on any ranks, for every type of
//! column; what is missing or wrong is named with its row; damaged files never crash.

#![allow(clippy::unwrap_used)]

#[path = "support/graphs.rs"]
mod graphs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graphs::{RANKS, Random, ranks_of, run_on};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rankwise::error::ErrorKind;
use rankwise::graph::PageRankJob;
use rankwise::graph::columns::Columns;

/// A column of a table, with `None` where a value is missing.
enum Column {
    I32(Vec<Option<i32>>),
    I64(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    F32(Vec<Option<f32>>),
    F64(Vec<Option<f64>>),
}

macro_rules! write {
    ($group:expr, $kind:ty, $values:expr, $rows:expr, $optional:expr, $into:expr) => {{
        let values = &$values[$rows.clone()];
        let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
        let there: Vec<_> = values.iter().flatten().map($into).collect();
        let mut column = $group.next_column().unwrap().unwrap();
        let levels = $optional.then_some(&levels[..]);
        column.typed::<$kind>().write_batch(&there, levels, None).unwrap();
        column.close().unwrap();
    }};
}

/// Writes a table in row groups of `group_rows`.
fn table(
    path: &Path,
    schema: &str,
    columns: &[Column],
    group_rows: usize,
    compression: Compression,
) {
    let optional = schema.contains("optional");
    let schema = Arc::new(parse_message_type(&format!("message t {{ {schema} }}")).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let rows = match &columns[0] {
        Column::I32(v) => v.len(),
        Column::I64(v) => v.len(),
        Column::Text(v) => v.len(),
        Column::F32(v) => v.len(),
        Column::F64(v) => v.len(),
    };
    for start in (0..rows).step_by(group_rows) {
        let rows = start..(start + group_rows).min(rows);
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            match column {
                Column::I32(v) => write!(group, Int32Type, v, rows, optional, |&v| v),
                Column::I64(v) => write!(group, Int64Type, v, rows, optional, |&v| v),
                Column::F32(v) => write!(group, FloatType, v, rows, optional, |&v| v),
                Column::F64(v) => write!(group, DoubleType, v, rows, optional, |&v| v),
                Column::Text(v) => {
                    write!(group, ByteArrayType, v, rows, optional, |v| ByteArray::from(
                        v.as_str()
                    ));
                }
            }
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn edges(count: u64, nodes: u64) -> Vec<(u64, u64, u64)> {
    let mut random = Random(count);
    (0..count).map(|_| (random.below(nodes), random.below(nodes) / 2, random.below(9))).collect()
}

fn list(path: &Path, edges: &[(u64, u64, u64)], name: impl Fn(u64) -> String) -> PathBuf {
    let line = |&(a, b, w): &(u64, u64, u64)| format!("{}\t{}\t{w}\n", name(a), name(b));
    std::fs::write(path, edges.iter().map(line).collect::<String>()).unwrap();
    path.into()
}

#[test]
fn every_type_of_column_gives_the_graph_of_the_edge_list() {
    let folder = tempfile::tempdir().unwrap();
    let (text, file) = (folder.path().join("list.txt"), folder.path().join("table.parquet"));
    let edges = edges(700, 90);
    let all = |f: fn(&(u64, u64, u64)) -> u64| edges.iter().map(f).collect::<Vec<u64>>();
    let [from, to, weight] = [all(|e| e.0), all(|e| e.1), all(|e| e.2)];
    let i32s = |v: &[u64]| Column::I32(v.iter().map(|&v| Some(v as i32)).collect());
    let i64s = |v: &[u64]| Column::I64(v.iter().map(|&v| Some(v as i64)).collect());
    let texts = |v: &[u64]| Column::Text(v.iter().map(|v| Some(format!("né{v}"))).collect());
    let f32s = |v: &[u64]| Column::F32(v.iter().map(|&v| Some(v as f32)).collect());
    let f64s = |v: &[u64]| Column::F64(v.iter().map(|&v| Some(v as f64)).collect());
    let columns = |ids: &dyn Fn(&[u64]) -> Column, weights: &dyn Fn(&[u64]) -> Column| {
        vec![ids(&from), ids(&to), weights(&weight)]
    };
    let three = |ids: &str, weights: &str| {
        let [id, end] = ids.split_once('(').map_or([ids, ""], |(a, _)| [a, &ids[a.len()..]]);
        format!(
            "required {id} source {end}; required {id} target {end}; required {weights} weight;"
        )
    };
    let level = parquet::basic::ZstdLevel::try_new(1).unwrap();
    for (schema, columns, named, codec) in [
        (three("int64", "double"), columns(&i64s, &f64s), false, Compression::ZSTD(level)),
        (three("int32", "float"), columns(&i32s, &f32s), false, Compression::SNAPPY),
        (three("int32(UINT_32)", "int32"), columns(&i32s, &i32s), false, Compression::LZ4_RAW),
        (three("int64(UINT_64)", "int64"), columns(&i64s, &i64s), false, Compression::UNCOMPRESSED),
        (three("int32(INT_16)", "double"), columns(&i32s, &f64s), false, Compression::SNAPPY),
        (three("binary(UTF8)", "double"), columns(&texts, &f64s), true, Compression::SNAPPY),
        (three("binary", "int64"), columns(&texts, &i64s), true, Compression::ZSTD(level)),
        (
            three("int64", "double").replace("required", "optional"),
            columns(&i64s, &f64s),
            false,
            Compression::GZIP(Default::default()),
        ),
    ] {
        let name = |id: u64| if named { format!("né{id}") } else { id.to_string() };
        let text = list(&text, &edges, name);
        for group_rows in [700, 64, 300] {
            table(&file, &schema, &columns, group_rows, codec);
            for weighted in [false, true] {
                let job = |graph: &Path| PageRankJob { weighted, ..PageRankJob::new(graph) };
                let expected = ranks_of(1, &job(&text));
                for ranks in RANKS {
                    assert_eq!(ranks_of(ranks, &job(&file)), expected, "{schema} on {ranks}");
                }
            }
        }
    }
}

#[test]
fn columns_are_chosen_by_name_and_others_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.parquet");
    let ids = |shift: i64| Column::I64((0..50).map(|i| Some((i * 7 + shift) % 13)).collect());
    let text = Column::Text((0..50).map(|_| Some("x".into())).collect());
    let schema = "required binary note (UTF8); required int64 dst; required int64 src; \
                  required int64 pay;";
    table(&file, schema, &[text, ids(1), ids(5), ids(0)], 20, Compression::SNAPPY);
    let columns = Columns { source: "src".into(), target: "dst".into(), weight: "pay".into() };
    let job = PageRankJob { columns, weighted: true, ..PageRankJob::new(&file) };
    let list = folder.path().join("list.txt");
    let line = |i: i64| format!("{} {} {}\n", (i * 7 + 5) % 13, (i * 7 + 1) % 13, i * 7 % 13);
    std::fs::write(&list, (0..50).map(line).collect::<String>()).unwrap();
    let expected = ranks_of(1, &PageRankJob { weighted: true, ..PageRankJob::new(&list) });
    assert_eq!(ranks_of(3, &job), expected);
    for (columns, what) in [
        (Columns::default(), "no column 'source'; choose one of note, dst, src, pay with --source"),
        (
            Columns { source: "note".into(), ..job.columns.clone() },
            "one of the columns 'note' and 'dst' has integers and the other text",
        ),
        (Columns { weight: "note".into(), ..job.columns.clone() }, "neither integers nor floats"),
    ] {
        let error = run_on(2, &PageRankJob { columns, ..job.clone() }).unwrap_err();
        assert!(error.message.contains(what), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn what_is_missing_or_wrong_is_named_by_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.parquet");
    let ids = |at: usize, id: Option<i64>| {
        let mut ids: Vec<Option<i64>> = (0..30).map(Some).collect();
        ids[at] = id;
        Column::I64(ids)
    };
    let names = |at: usize, name: Option<&str>| {
        let mut names: Vec<Option<String>> = (0..30).map(|i| Some(format!("n{i}"))).collect();
        names[at] = name.map(str::to_string);
        Column::Text(names)
    };
    let weights = |at: usize, weight: f64| {
        let mut weights = vec![Some(0.5); 30];
        weights[at] = Some(weight);
        Column::F64(weights)
    };
    let integers = "optional int64 source; optional int64 target; optional double weight;";
    let text = "optional binary source (UTF8); optional binary target (UTF8); \
                optional double weight;";
    let fine = || weights(0, 1.0);
    let cases: [(&str, Vec<Column>, &str); 7] = [
        (integers, vec![ids(17, None), ids(0, Some(1)), fine()], "row 18: a value is missing"),
        (integers, vec![ids(0, Some(1)), ids(29, None), fine()], "row 30: a value is missing"),
        (integers, vec![ids(9, Some(-4)), ids(0, Some(1)), fine()], "row 10: the id -4; expected"),
        (text, vec![names(8, Some("")), names(0, Some("a")), fine()], "row 9: an id without"),
        (text, vec![names(0, Some("a")), names(8, Some("a\nb")), fine()], "has a line end in it"),
        (
            integers,
            vec![ids(0, Some(1)), ids(0, Some(1)), weights(12, -1.0)],
            "row 13: the weight -1; expected a finite number",
        ),
        (
            integers,
            vec![ids(0, Some(1)), ids(0, Some(1)), weights(3, f64::NAN)],
            "row 4: the weight NaN",
        ),
    ];
    for (schema, columns, what) in cases {
        table(&file, schema, &columns, 7, Compression::SNAPPY);
        for ranks in [1, 2, 3] {
            let job = PageRankJob { weighted: true, ..PageRankJob::new(&file) };
            let error = run_on(ranks, &job).unwrap_err();
            assert!(error.message.contains(what), "{what}: {error}");
            assert_eq!(error.kind, ErrorKind::Input);
        }
    }
    let times = "required int64 source (TIMESTAMP_MILLIS); required int64 target;";
    let columns = [ids(0, Some(1)), ids(0, Some(1))];
    table(&file, times, &columns, 7, Compression::SNAPPY);
    let error = run_on(2, &PageRankJob::new(&file)).unwrap_err();
    assert!(error.message.contains("INT64 with another meaning; expected integers"), "{error}");
    let floats = "required double source; required int64 target;";
    table(&file, floats, &[fine(), ids(0, Some(1))], 7, Compression::SNAPPY);
    let error = run_on(2, &PageRankJob::new(&file)).unwrap_err();
    assert!(error.message.contains("values of the type DOUBLE; expected"), "{error}");
}

#[test]
fn names_with_commas_and_blanks_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.parquet");
    let names =
        |names: &[&str]| Column::Text(names.iter().map(|name| Some(name.to_string())).collect());
    let schema = "required binary source (UTF8); required binary target (UTF8);";
    let columns = [names(&["Doe, Jane", "a b"]), names(&["a b", "say \"x\""])];
    table(&file, schema, &columns, 9, Compression::SNAPPY);
    let nodes: Vec<String> =
        ranks_of(2, &PageRankJob::new(&file)).into_iter().map(|row| row.0).collect();
    assert_eq!(nodes, ["\"Doe, Jane\"", "a b", "\"say \"\"x\"\"\""]);
}

#[test]
fn damaged_tables_never_crash() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("table.parquet");
    let edges = edges(60, 20);
    let ids = |f: fn(&(u64, u64, u64)) -> u64| {
        Column::I64(edges.iter().map(|e| Some(f(e) as i64)).collect())
    };
    let schema = "required int64 source; required int64 target;";
    table(&file, schema, &[ids(|e| e.0), ids(|e| e.1)], 25, Compression::SNAPPY);
    let whole = std::fs::read(&file).unwrap();
    let mut random = Random(5);
    let mut refused = 0;
    let mut check = |bytes: &[u8], ranks: usize| {
        std::fs::write(&file, bytes).unwrap();
        if let Err(error) = run_on(ranks, &PageRankJob::new(&file)) {
            assert_eq!(error.kind, ErrorKind::Input, "{error}");
            assert!(!error.message.contains('\n'), "{error}");
            refused += 1;
        }
    };
    for length in 0..whole.len() {
        check(&whole[..length], 1 + length % 2);
    }
    for case in 0..800 {
        let mut changed = whole.clone();
        for _ in 0..1 + case % 3 {
            changed[random.below(whole.len() as u64) as usize] = random.below(256) as u8;
        }
        check(&changed, 1 + case % 2);
    }
    assert!(refused > whole.len(), "{refused}");
}
