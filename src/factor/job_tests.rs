//! Whole studies by blocks of dates: the same bits whatever the blocks, the ranks and the source.

use std::path::Path;

use super::*;
use crate::factor::dates;
use crate::factor::generator::Synthetic;
use crate::factor::panel_file::Codec;
use crate::launch;

const SMALL: Synthetic = Synthetic { assets: 24, dates: 25, factors: 4, industries: 4, seed: 5 };
const SOURCE: &str = "synthetic:assets=24,dates=25,factors=4,industries=4,seed=5";

/// Everything that looks across the border of two dates.
fn configurations() -> [Config; 2] {
    let parse = |text: &str| Config::parse(text, Path::new("test.toml")).unwrap();
    let technical = "technical = [{ kind = \"momentum\", window = 9, skip = 2 }, \
                     { kind = \"illiquidity\", window = 5 }, \
                     { kind = \"volatility\", window = 3 }]\n";
    let first = parse(&format!(
        "[factors]\n{technical}\
         [universe]\nminimum_history = 6\n\
         [fill]\nmethod = \"industry_mean\"\n\
         [returns]\nhorizons = [1, 5, 11]\n\
         [composites]\nweights = [\"equal\", \"ic\", \"max_ir\"]\nwindows = [8]\n\
         [screening]\nenabled = true\nminimum_t = 0.1\n\
         [portfolio]\ntop = 4\nrebalance = 3\ncost = 0.001\n"
    ));
    let second = parse(
        "[factors]\nexclude = [\"f03\"]\n\
         [universe]\nexclude_flagged = true\n\
         [fill]\nmethod = \"drop\"\n\
         [returns]\nhorizons = [2, 7]\ndelay = 2\nfill_prices = true\n\
         missing = \"all_horizons\"\n\
         [quantiles]\nbinning = \"qcut\"\ndemean = \"industry\"\n\
         [portfolio]\nselect = \"quantile\"\nrebalance = 7\n",
    );
    [first, second]
}

/// All results as text that tells every bit, but for times and layout.
fn text(results: &Results) -> String {
    let studies: Vec<_> = std::iter::once(&results.study)
        .chain(&results.composites)
        .map(|study| {
            let bits = |xs: &[f64]| xs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let tables = (bits(&study.ic), bits(&study.rank_ic));
            format!("{:?} {:?} {tables:?} {:?}", study.dates, study.factors, study.summary)
        })
        .collect();
    format!(
        "{studies:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        results.evaluations,
        results.fama_macbeth,
        results.correlations,
        results.screening,
        results.portfolios
    )
}

fn study(source: &str, config: &Config, ranks: usize, block: Option<usize>) -> (String, Layout) {
    let cut = Cut { dates: block, memory: None };
    let all = launch::threads(ranks, |comm| {
        let results = run(comm, source, config, &cut)?;
        Ok((text(&results), results.layout))
    })
    .unwrap();
    assert!(all.iter().all(|one| one.0 == all[0].0), "ranks differ");
    all.into_iter().next().unwrap()
}

#[test]
fn blocks_change_no_bit_on_any_number_of_ranks() {
    let every: Vec<(usize, usize)> =
        (1..=4).flat_map(|ranks| [1, 2, 7, 25].map(|block| (ranks, block))).collect();
    let some = [(1, 1), (2, 7), (3, 2), (4, 11)];
    for (config, cases) in configurations().iter().zip([&every[..], &some]) {
        let (expected, whole) = study(SOURCE, config, 1, None);
        assert_eq!((whole.blocks, whole.block_dates), (1, 25));
        assert!(expected.matches("rebalancings").count() >= 3);
        for &(ranks, block) in cases {
            let (found, layout) = study(SOURCE, config, ranks, Some(block));
            assert!(found == expected, "blocks of {block} on {ranks} ranks");
            assert_eq!((layout.blocks, layout.block_dates), (25usize.div_ceil(block), block));
        }
    }
}

#[test]
fn what_is_not_asked_for_is_not_made_and_changes_nothing() {
    let bare = "[ic]\npearson = false\ncorrelations = false\n[quantiles]\nenabled = false\n\
                [fama_macbeth]\nenabled = false\n[portfolio]\nenabled = false\n";
    let parse = |text: &str| Config::parse(text, Path::new("test.toml")).unwrap();
    let run_with = |config: &Config| {
        let all = launch::threads(2, |comm| run(comm, SOURCE, config, &Cut::default())).unwrap();
        all.into_iter().next().unwrap()
    };
    let (found, whole) = (run_with(&parse(bare)), run_with(&parse("")));
    let ranks = |results: &Results| -> Vec<u64> {
        results.study.rank_ic.iter().map(|x| x.to_bits()).collect()
    };
    assert_eq!(ranks(&found), ranks(&whole));
    assert!(found.study.ic.iter().all(|x| x.is_nan()) && found.long_short().is_empty());
    assert!(found.fama_macbeth.is_empty() && found.portfolios.is_empty());
    assert!(found.correlations.factors.is_empty() && !whole.correlations.factors.is_empty());
}

#[test]
fn blocks_of_files_are_those_of_the_panel() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = &configurations()[0];
    let expected = study(SOURCE, config, 1, None).0;
    // Groups of one date, of some, and of all; and dates spread over files out of order.
    for dates in [1, 3, 100] {
        let file = path(&format!("groups-{dates}.parquet"));
        SMALL.write_groups(Path::new(&file), Codec::Snappy, dates).unwrap();
        for (ranks, block) in [(1, 7), (2, 1), (3, 7), (4, 16)] {
            let found = study(&file, config, ranks, Some(block)).0;
            assert!(found == expected, "groups of {dates}: blocks of {block} on {ranks} ranks");
        }
    }
}

#[test]
fn blocks_of_csv_are_those_of_the_panel_in_any_order_and_packing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = &configurations()[0];
    let expected = study(SOURCE, config, 1, None).0;
    let (header, mut rows) = csv_rows();
    let text = |rows: &[String]| [std::slice::from_ref(&header), rows].concat().join("\n");
    std::fs::write(path("sorted.csv"), text(&rows)).unwrap();
    rows.reverse();
    std::fs::write(path("reversed.csv"), text(&rows)).unwrap();
    // One asset after the other: every part of the file has all dates.
    rows.sort_by_key(|row| row.split(',').nth(1).map(str::to_owned));
    std::fs::write(path("assets.csv"), text(&rows)).unwrap();
    let third = rows.len() / 3;
    std::fs::write(path("part-1.csv"), text(&rows[..third])).unwrap();
    let packed = zstd::encode_all(text(&rows[third..2 * third]).as_bytes(), 1).unwrap();
    std::fs::write(path("part-2.csv.zst"), packed).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text(&rows[2 * third..]).as_bytes()).unwrap();
    std::fs::write(path("part-3.csv.gz"), gzip.finish().unwrap()).unwrap();
    for name in ["sorted.csv", "reversed.csv", "assets.csv", "part-*"] {
        for (ranks, block) in [(1, 9), (3, 16)] {
            let found = study(&path(name), config, ranks, Some(block)).0;
            assert!(found == expected, "{name}: blocks of {block} on {ranks} ranks");
        }
    }
}

#[test]
fn errors_in_blocks_of_csv_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.csv").to_str().unwrap().to_owned();
    let (header, rows) = csv_rows();
    let message = |rows: &[String], ranks: usize| {
        let text = [std::slice::from_ref(&header), rows].concat().join("\n");
        std::fs::write(&path, text).unwrap();
        let cut = Cut { dates: Some(4), memory: None };
        launch::threads(ranks, |comm| run(comm, &path, &Config::default(), &cut).map(|_| ()))
            .unwrap_err()
            .message
    };
    for ranks in [1, 3] {
        let mut bad = rows.clone();
        bad.insert(400, rows[420].clone());
        let found = message(&bad, ranks);
        assert!(
            found.starts_with(&format!("{path} line 402 and {path} line 423: both")),
            "{found}"
        );
        // Far from its date, so that rows of other dates come before it.
        bad = rows.clone();
        bad.push(rows[3].clone());
        let found = message(&bad, ranks);
        let last = rows.len() + 2;
        assert!(
            found.starts_with(&format!("{path} line 5 and {path} line {last}: both")),
            "{found}"
        );
        bad = rows.clone();
        bad[300] += "x";
        let found = message(&bad, ranks);
        assert!(found.starts_with(&format!("{path} line 302: f03: '")), "{found}");
        bad = rows.clone();
        bad[500].truncate(12);
        let found = message(&bad, ranks);
        assert!(found.starts_with(&format!("{path} line 502: ")), "{found}");
    }
}

/// The panel as CSV: the first line, and rows in the order of dates.
fn csv_rows() -> (String, Vec<String>) {
    let panel = SMALL.panel(0, 1);
    let mut rows = Vec::new();
    let number = |x: f64| if x.is_nan() { String::new() } else { format!("{x:?}") };
    for (cell, &industry) in panel.industry.iter().enumerate().filter(|(_, g)| **g != u16::MAX) {
        let (date, asset) = (cell / panel.assets.len(), cell % panel.assets.len());
        let mut row = format!(
            "{},{},{},{},{}",
            dates::format(panel.dates[date]),
            panel.assets[asset],
            panel.industries[usize::from(industry)],
            panel.flagged[cell],
            number(panel.benchmark[date])
        );
        let given = [&panel.capitalisation, &panel.price, &panel.volume];
        for values in given.into_iter().chain(panel.factors.iter().map(|f| &f.values)) {
            row += &format!(",{}", number(values[cell]));
        }
        rows.push(row);
    }
    ("date,asset,industry,flag,benchmark,mktcap,close,volume,f00,f01,f02,f03".into(), rows)
}

#[test]
fn rows_that_two_blocks_need_come_from_files_out_of_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = &configurations()[0];
    let expected = study(SOURCE, config, 1, None).0;
    // The file with the later dates comes first by its name.
    let whole = SMALL.panel(0, 1);
    for (name, dates) in [("a.parquet", 11..25), ("b.parquet", 0..11)] {
        let n = whole.assets.len();
        let cells = dates.start * n..dates.end * n;
        let cut = |values: &[f64]| values[cells.clone()].to_vec();
        let part = Panel {
            dates: whole.dates[dates.clone()].to_vec(),
            sharding: crate::sharding::Sharding::even(dates.len(), 1),
            price: cut(&whole.price),
            capitalisation: cut(&whole.capitalisation),
            volume: cut(&whole.volume),
            industry: whole.industry[cells.clone()].to_vec(),
            flagged: whole.flagged[cells.clone()].to_vec(),
            benchmark: whole.benchmark[dates].to_vec(),
            factors: whole
                .factors
                .iter()
                .map(|f| Factor { name: f.name.clone(), values: cut(&f.values) })
                .collect(),
            ..whole.clone()
        };
        let listed = |date: usize, asset: usize| part.industry[date * n + asset] != u16::MAX;
        let path = folder.path().join(name);
        let parts = std::iter::once(part.clone());
        crate::factor::panel_file::write(&path, Codec::None, parts, listed).unwrap();
    }
    let source = folder.path().to_str().unwrap();
    for (ranks, block) in [(1, 7), (2, 2), (3, 25), (4, 11)] {
        let found = study(source, config, ranks, Some(block)).0;
        assert!(found == expected, "blocks of {block} on {ranks} ranks");
    }
}
