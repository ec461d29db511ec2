//! PageRank for many sources in one run: each vector has the bits of a single run with this source
//! as personalization, on any number of ranks.

#![allow(clippy::unwrap_used)]

#[path = "support/graphs.rs"]
mod graphs;

use std::path::Path;

use graphs::{Random, data, run_on};
use rankwise::error::Result;
use rankwise::files::manifest_path;
use rankwise::graph::PageRankJob;
use rankwise::graph::options::{Dangling, Number, Scale, Stop};
use rankwise::graph::order::Relabel;
use rankwise::graph::personalized::{SourcesSummary, run};
use rankwise::launch;

fn sources_on(ranks: usize, job: &PageRankJob, sources: &[String]) -> Result<SourcesSummary> {
    let all = launch::threads(ranks, |comm| run(comm, job, sources))?;
    assert!(all.iter().all(|summary| *summary == all[0]));
    Ok(all[0].clone())
}

fn graph(folder: &Path) -> std::path::PathBuf {
    let mut random = Random(21);
    let line = |_: u64| {
        let (from, limit) = (random.below(300) / 3 * 3, 1 + random.below(300));
        format!("{from} {} {}\n", random.below(limit), random.below(9) as f64 * 0.3)
    };
    let text: String = (0..2500).map(line).collect();
    let path = folder.join("graph.txt");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_source_has_the_bits_of_a_run_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path());
    let (one, given) = (folder.path().join("one"), folder.path().join("given"));
    std::fs::write(&given, "3 1\n7 2\n").unwrap();
    // More than a block of eight, one of them alone in the last.
    let sources: Vec<String> = (0..17).map(|i| (i * 3).to_string()).collect();
    let numbers = [Number::F64, Number::F32, Number::Mixed];
    let rules = [Dangling::Follow, Dangling::Uniform, Dangling::Ignore, Dangling::Given];
    let stops = [Stop::L1, Stop::Max, Stop::Bound, Stop::Networkx];
    for case in 0..12 {
        let mut job = PageRankJob { top: 400, weighted: case % 2 == 1, ..PageRankJob::new(&graph) };
        job.relabel = [Relabel::Always, Relabel::Never][case % 2];
        job.options.number = numbers[case % 3];
        job.options.dangling = rules[case % 4];
        job.dangling = (job.options.dangling == Dangling::Given).then(|| given.clone());
        job.options.stop = stops[(case / 3) % 4];
        job.options.tolerance = 1e-5;
        job.options.scale = if case > 8 { Scale::Nodes } else { Scale::One };
        let first = sources_on(1, &job, &sources).unwrap();
        for ranks in [2, 3, 4, 7] {
            assert_eq!(sources_on(ranks, &job, &sources).unwrap().sources, first.sources);
        }
        assert_eq!(first.sources.len(), 17);
        for (source, vector) in sources.iter().zip(&first.sources) {
            std::fs::write(&one, format!("{source} 1\n")).unwrap();
            let single = PageRankJob { personalization: Some(one.clone()), ..job.clone() };
            let single = run_on(2, &single).unwrap();
            assert_eq!(vector.source.to_string(), *source);
            assert_eq!((vector.iterations, vector.residual), (single.iterations, single.residual));
            assert_eq!(vector.top, single.top, "source {source}, {job:?}");
        }
    }
}

#[test]
fn tables_have_the_highest_of_each_source() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let folder = tempfile::tempdir().unwrap();
    let sources: Vec<String> = ["libc6", "libgcc-s1"].map(str::to_string).to_vec();
    let path = folder.path().join("ranks.csv");
    let job = PageRankJob {
        top: 3,
        output: Some(path.clone()),
        ..PageRankJob::new(data("debian-core.txt"))
    };
    let summary = sources_on(3, &job, &sources).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines.len()), ("source,node,rank", 7));
    assert!(manifest_path(&path).exists());
    let rows = summary.sources.iter().flat_map(|s| s.top.iter().map(move |top| (s, top)));
    for (line, (source, top)) in lines[1..].iter().zip(rows) {
        let name = |value: &serde_json::Value| value.as_str().unwrap().to_string();
        let expected = format!("{},{},{:?}", name(&source.source), name(&top.node), top.rank);
        assert_eq!(*line, expected);
    }
    let path = folder.path().join("ranks.parquet");
    sources_on(2, &PageRankJob { output: Some(path.clone()), ..job }, &sources).unwrap();
    let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let rows: Vec<String> = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            let fields: Vec<String> = row
                .get_column_iter()
                .map(|(_, field)| match field {
                    parquet::record::Field::Str(text) => text.clone(),
                    parquet::record::Field::Double(number) => format!("{number:?}"),
                    other => panic!("{other:?}"),
                })
                .collect();
            fields.join(",")
        })
        .collect();
    assert_eq!(rows, lines[1..]);
}

#[test]
fn wrong_sources_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = PageRankJob::new(data("langville-meyer.txt"));
    let npy = PageRankJob { output: Some(folder.path().join("a.npy")), ..job.clone() };
    let start = PageRankJob { start: Some("x".into()), ..job.clone() };
    let mut short = job.clone();
    short.options.max_iterations = 2;
    for (job, sources, code, what) in [
        (&job, &["1", "9"][..], 2, "sources: node '9' is not in the graph"),
        (&job, &["1", "2", "1"], 2, "node '1' is named a second time"),
        (&job, &[], 2, "sources: none is named"),
        (&npy, &["1"], 2, "is .csv or .parquet"),
        (&start, &["1"], 2, "there is no other, and no start"),
        (&short, &["1"], 1, "pagerank of a source did not converge within 2 iterations"),
    ] {
        let sources: Vec<String> = sources.iter().map(|s| s.to_string()).collect();
        for ranks in [1, 3] {
            let error = sources_on(ranks, job, &sources).unwrap_err();
            assert!(error.message.contains(what), "{error}");
            assert_eq!(error.exit_code(), code);
        }
    }
}
