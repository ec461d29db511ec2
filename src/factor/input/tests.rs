//! Tests of panel input: the same panel from every format on any number of ranks, and errors that
//! name the place.

use std::io::Write;
use std::path::Path;

use super::*;
use crate::factor::config::Infinite;
use crate::factor::dates::format as day;
use crate::factor::panel_file::Codec;
use crate::launch;

const RANKS: [usize; 5] = [1, 2, 3, 4, 7];

mod types;

/// A panel as plain data, with bits for numbers.
#[derive(PartialEq, Debug)]
struct Whole {
    dates: Vec<i32>,
    assets: Vec<String>,
    industries: Vec<String>,
    industry: Vec<u16>,
    flagged: Vec<bool>,
    benchmark: Vec<u64>,
    columns: Vec<(String, Vec<u64>)>,
}

fn bits(xs: &[f64]) -> Vec<u64> {
    xs.iter().map(|x| x.to_bits()).collect()
}

fn join(parts: Vec<Panel>) -> Whole {
    let first = &parts[0];
    let mut whole = Whole {
        dates: first.dates.clone(),
        assets: first.assets.clone(),
        industries: first.industries.clone(),
        industry: Vec::new(),
        flagged: Vec::new(),
        benchmark: bits(&first.benchmark),
        columns: Vec::new(),
    };
    for (rank, part) in parts.iter().enumerate() {
        assert_eq!((part.rank, part.sharding.ranks()), (rank, parts.len()));
        assert_eq!((&part.dates, &part.assets), (&whole.dates, &whole.assets));
        assert_eq!(
            (&part.industries, bits(&part.benchmark)),
            (&whole.industries, whole.benchmark.clone())
        );
        let given =
            [("price", &part.price), ("cap", &part.capitalisation), ("volume", &part.volume)];
        let factors = part.factors.iter().map(|factor| (&factor.name[..], &factor.values));
        for (i, (name, values)) in given.into_iter().chain(factors).enumerate() {
            if rank == 0 {
                whole.columns.push((name.to_owned(), Vec::new()));
            }
            let cells = part.own_dates().len() * part.assets.len();
            assert!(values.is_empty() || values.len() == cells);
            whole.columns[i].1.extend(bits(values));
        }
        whole.industry.extend(&part.industry);
        whole.flagged.extend(&part.flagged);
    }
    whole
}

fn read(source: &str, config: &Config, ranks: usize) -> Result<Whole> {
    launch::threads(ranks, |comm| load(comm, source, config)).map(join)
}

/// The message of the error of a source, which is the same on any number of ranks.
fn message(source: &str, config: &Config) -> String {
    let messages = RANKS.map(|ranks| {
        let results = launch::threads(ranks, |comm| {
            Ok(load(comm, source, config).map(|_| ()).unwrap_err().message)
        })
        .unwrap();
        assert!(results.iter().all(|message| *message == results[0]));
        results[0].clone()
    });
    assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
    assert!(!messages[0].contains('\n'), "{}", messages[0]);
    messages[0].clone()
}

const SMALL: Synthetic = Synthetic { assets: 23, dates: 11, factors: 8, industries: 5, seed: 3 };

fn path_of(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// Rows of the small panel as CSV, without those before a listing.
fn csv_rows() -> (String, Vec<String>) {
    let panel = SMALL.panel(0, 1);
    let mut header = "date,asset,industry,flag,benchmark,mktcap,close,volume".to_owned();
    panel.factors.iter().for_each(|factor| header += &format!(",{}", factor.name));
    let number = |x: f64| if x.is_nan() { String::new() } else { format!("{x:?}") };
    let mut rows = Vec::new();
    for (i, &industry) in panel.industry.iter().enumerate().filter(|(_, g)| **g != u16::MAX) {
        let (date, asset) = (i / panel.assets.len(), i % panel.assets.len());
        let mut row = format!(
            "{},\"{}\",{},{},{}",
            day(panel.dates[date]),
            panel.assets[asset],
            panel.industries[usize::from(industry)],
            panel.flagged[i],
            number(panel.benchmark[date])
        );
        let given = [&panel.capitalisation, &panel.price, &panel.volume];
        for values in given.into_iter().chain(panel.factors.iter().map(|factor| &factor.values)) {
            row += &format!(",{}", number(values[i]));
        }
        rows.push(row);
    }
    (header, rows)
}

fn shuffled<T>(mut rows: Vec<T>) -> Vec<T> {
    let mut state = 5u64;
    for i in (1..rows.len()).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        rows.swap(i, (state >> 33) as usize % (i + 1));
    }
    rows
}

#[test]
fn parquet_gives_the_panel_that_was_written_on_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let expected = join(vec![SMALL.panel(0, 1)]);
    let config = Config::default();
    for (codec, dates) in
        [(Codec::Zstd, 1), (Codec::Snappy, 2), (Codec::Lz4, 4), (Codec::None, 100)]
    {
        let path = path_of(&folder, "panel.parquet");
        SMALL.write_groups(Path::new(&path), codec, dates).unwrap();
        for ranks in RANKS {
            assert!(read(&path, &config, ranks).unwrap() == expected, "{codec:?} {ranks}");
        }
    }
    for ranks in RANKS {
        let text = "synthetic:assets=23,dates=11,factors=8,industries=5,seed=3";
        assert!(read(text, &config, ranks).unwrap() == expected);
    }
}

#[test]
fn csv_gives_the_same_panel_in_any_order_of_rows_and_packing() {
    let folder = tempfile::tempdir().unwrap();
    let (header, rows) = csv_rows();
    let expected = join(vec![SMALL.panel(0, 1)]);
    let mixed = shuffled(rows.clone());
    let text =
        |rows: &[String], end: &str| [std::slice::from_ref(&header), rows].concat().join(end) + end;
    let third = rows.len() / 3;
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("sorted.csv", text(&rows, "\n").as_bytes());
    write("mixed.csv", format!("\u{feff}{}", text(&mixed, "\r\n")).as_bytes());
    write("part-1.csv", text(&mixed[..third], "\n").trim_end().as_bytes());
    let packed = zstd::encode_all(text(&mixed[third..2 * third], "\n").as_bytes(), 1).unwrap();
    write("part-2.csv.zst", &packed);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text(&mixed[2 * third..], "\n").as_bytes()).unwrap();
    write("part-3.csv.gz", &gzip.finish().unwrap());
    for name in ["sorted.csv", "mixed.csv", "part-*"] {
        for ranks in RANKS {
            let whole = read(&path_of(&folder, name), &Config::default(), ranks).unwrap();
            assert!(whole == expected, "{name} on {ranks} ranks");
        }
    }
}

#[test]
fn one_row_and_unknown_industries_are_a_panel() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_of(&folder, "one.csv");
    std::fs::write(&path, "code,day,f,sector\nb,20200103,1.5,\na,20200102,-3,x\nb,20200101,,y\n")
        .unwrap();
    for ranks in RANKS {
        let whole = read(&path, &Config::default(), ranks).unwrap();
        assert_eq!(whole.assets, ["a", "b"]);
        assert_eq!((whole.dates.len(), &whole.industries[..]), (3, &["x".into(), "y".into()][..]));
        let none = u16::MAX;
        assert_eq!(whole.industry, [none, 1, 0, none, none, none]);
        let (name, values) = &whole.columns[3];
        let nan = f64::NAN;
        assert_eq!((&name[..], values), ("f", &bits(&[nan, nan, -3.0, nan, nan, 1.5])));
    }
}

#[test]
fn the_panel_of_another_writer_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/factor");
    let path = folder.join("panel.parquet");
    let mut config = Config::default();
    config.factors.columns = vec!["f07".into(), "f05".into()];
    let panels = RANKS.map(|ranks| read(path.to_str().unwrap(), &config, ranks).unwrap());
    assert!(panels.iter().all(|panel| *panel == panels[0]));
    let whole = &panels[0];
    assert_eq!((whole.dates.len(), whole.assets.len(), whole.industries.len()), (40, 60, 5));
    assert_eq!(day(whole.dates[0]), "2015-01-05");
    assert_eq!((&whole.columns[3].0[..], &whole.columns[4].0[..]), ("f07", "f05"));
    let industry = npy::Array::open(&folder.join("industry.npy")).unwrap().row(0).unwrap();
    for (name, column) in [("close", 0), ("f05", 4)] {
        let array = npy::Array::open(&folder.join(format!("{name}.npy"))).unwrap();
        for date in 0..40 {
            let row = array.row(date).unwrap();
            for (place, asset) in whole.assets.iter().enumerate() {
                let asset: usize = asset.parse().unwrap();
                let x = f64::from_bits(whole.columns[column].1[date * 60 + place]);
                assert!(x == row[asset] || x.is_nan() && row[asset].is_nan());
                let group = whole.industry[date * 60 + place];
                assert!(group == u16::MAX || f64::from(group) == industry[asset]);
            }
        }
    }
    // Industries are contiguous.
    let last = &whole.industry[39 * 60..];
    assert!(last.is_sorted());
}

#[test]
fn errors_name_the_file_and_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let (header, rows) = csv_rows();
    let text = |rows: &[String]| [std::slice::from_ref(&header), rows].concat().join("\n");
    let path = path_of(&folder, "p.csv");
    let config = Config::default();
    let check = |text: &str, config: &Config, what: &str| {
        std::fs::write(&path, text).unwrap();
        let message = message(&path, config);
        let after = message.strip_prefix(&path).unwrap_or(&message).trim_start();
        assert!(after.starts_with(what), "{message}");
    };
    let mut twice = rows.clone();
    twice.insert(150, rows[20].clone());
    check(&text(&twice), &config, &format!("line 22 and {path} line 152: both are asset "));
    let mut bad = rows.clone();
    bad[170] = bad[170].replacen("20", "2x", 1);
    check(&text(&bad), &config, "line 172: '2x15-");
    let infinite = |text: &str| text.rsplit_once(',').unwrap().0.to_owned() + ",inf";
    bad = rows.clone();
    bad[100] = infinite(&bad[100]);
    check(&text(&bad), &config, "line 102: f07: 'inf' (write it");
    let mut lenient = config.clone();
    lenient.input.infinite = Infinite::Missing;
    assert!(read(&path, &lenient, 3).is_ok());
    bad[100] = rows[100].rsplit_once(',').unwrap().0.to_owned();
    check(&text(&bad), &config, "line 102: 15 fields; expected 16");
    bad[100] = rows[100].clone() + "x";
    check(&text(&bad), &config, "line 102: f07: '");
    check("", &config, "line 1: empty");
    check("date,asset,f\n", &config, ": no rows");
    check("date,x,f\n2020-01-01,a,1\n", &config, ": no column of assets");
    check("date,asset,f\n2020-01-01,,1\n", &config, "line 2: no asset");
    // A second file without a column, and with text in one of numbers.
    let second = path_of(&folder, "q.csv");
    std::fs::write(&path, text(&rows)).unwrap();
    for (changed, what) in [
        (text(&rows).replacen(",f03,", ",f3,", 1), "line 1: no column 'f03'; there are date, "),
        (format!("{header}\n{}x\n", rows[0]), "line 2: f07: '"),
    ] {
        std::fs::write(&second, changed).unwrap();
        let found = message(folder.path().to_str().unwrap(), &config);
        assert!(found.starts_with(&format!("{second} {what}")), "{found}");
    }
    std::fs::remove_file(&second).unwrap();
    let mut asked = config.clone();
    asked.factors.columns = vec!["mktcpa".into()];
    check(&text(&rows), &asked, ": no column 'mktcpa' (factors.columns); did you mean 'mktcap'?");
    asked.factors.columns = vec!["industry".into()];
    check(&text(&rows), &asked, ": the factor 'industry' holds text");
    assert!(message("/nowhere/p.parquet", &config).starts_with("/nowhere/p.parquet: cannot open"));
}

#[test]
fn parquet_errors_name_the_row_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, change: &dyn Fn(&mut Panel)| {
        let mut panel = SMALL.panel(0, 1);
        change(&mut panel);
        let parts = std::iter::once(panel);
        let path = folder.path().join(name);
        crate::factor::panel_file::write(&path, Codec::None, parts, |_, _| true).unwrap();
    };
    write("a.parquet", &|_| ());
    write("b.parquet", &|panel| panel.dates.iter_mut().for_each(|date| *date += 100));
    let all = path_of(&folder, "*.parquet");
    let config = Config::default();
    let expected = read(&all, &config, 1).unwrap();
    assert_eq!(expected.dates.len(), 22);
    RANKS.iter().for_each(|&ranks| assert!(read(&all, &config, ranks).unwrap() == expected));

    // Row 30 of a file sorted by names is asset 30 - 23 = 7 of the second date.
    write("b.parquet", &|panel| {
        panel.dates.iter_mut().for_each(|date| *date += 100);
        let asset = panel.assets.iter().position(|name| name == "A06").unwrap();
        panel.factors[1].values[23 + asset] = f64::NEG_INFINITY;
    });
    let b = path_of(&folder, "b.parquet");
    let found = message(&all, &config);
    assert!(found.starts_with(&format!("{b} row 30: f01: -inf")), "{found}");

    write("b.parquet", &|panel| panel.dates.iter_mut().for_each(|date| *date += 14));
    let a = path_of(&folder, "a.parquet");
    let found = message(&all, &config);
    // Date 10 of the first file is date 0 of the second.
    assert!(found.contains(&format!("{a} row 231 and {b} row 1: both are asset A")), "{found}");

    write("b.parquet", &|panel| {
        panel.dates.iter_mut().for_each(|date| *date += 100);
        panel.factors.truncate(3);
    });
    let found = message(&all, &config);
    assert_eq!(found, format!("{b}: no column 'f03', which {a} has"));
    std::fs::write(&b, "PAR1 and nothing more").unwrap();
    assert!(message(&all, &config).starts_with(&format!("{b}: not a Parquet file")));
}
