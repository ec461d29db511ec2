//! PageRank from file to file on ranks that are threads: published values, the same bits at any
//! number of ranks and for any form of the same graph, and one error for all ranks.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};

use rankwise::communicator::Settings;
use rankwise::error::Result;
use rankwise::files::manifest_path;
use rankwise::graph::options::{Dangling, Number, PageRankOptions, Scale, Stop};
use rankwise::graph::order::Relabel;
use rankwise::graph::pagerank::check_residual;
use rankwise::graph::rows::Duplicates;
use rankwise::graph::{PageRankJob, PageRankSummary, run};
use rankwise::launch;

const RANKS: [usize; 5] = [1, 2, 3, 4, 7];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn run_on(ranks: usize, job: &PageRankJob) -> Result<PageRankSummary> {
    let summaries = launch::threads(ranks, |comm| run(comm, job))?;
    for summary in &summaries[1..] {
        assert_eq!(summary, &summaries[0], "the summary is the same on every rank");
    }
    Ok(summaries[0].clone())
}

/// The nodes and ranks that a run writes as CSV.
fn ranks_of(ranks: usize, job: &PageRankJob) -> Vec<(String, f64)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ranks.csv");
    let job = PageRankJob { output: Some(path.clone()), ..job.clone() };
    run_on(ranks, &job).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let (node, rank) = line.rsplit_once(',').unwrap();
        (node.to_owned(), rank.parse().unwrap())
    };
    text.lines().skip(1).map(row).collect()
}

/// A graph of `edges` random edges with hubs, sinks, self-loops and repeated edges.
fn random_graph(edges: u64, nodes: u64, name: impl Fn(u64) -> String) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut state = 99u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut text = String::new();
    for i in 0..edges {
        let from = name(random(nodes) / 3 * 3);
        let to = name(if i % 4 == 0 { random(5) } else { random(nodes) });
        text += &format!("{from}\t{to}\t{}\n", random(9) as f64 * 0.3);
    }
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn exact(job: PageRankJob) -> PageRankJob {
    let options = PageRankOptions { tolerance: 1e-13, max_iterations: 1000, ..job.options };
    PageRankJob { options, ..job }
}

#[test]
fn every_form_of_the_published_example_gives_its_values_on_any_ranks() {
    let expected = [
        0.051_704_745_757,
        0.073_679_262_704,
        0.057_412_412_496,
        0.348_703_685_215,
        0.199_903_811_973,
        0.268_596_081_855,
    ];
    let forms = [
        "langville-meyer.txt",
        "langville-meyer.txt.gz",
        "langville-meyer-crlf.csv",
        "langville-meyer-members.gz",
    ];
    let first = ranks_of(1, &PageRankJob::new(data(forms[0])));
    for (i, (node, rank)) in first.iter().enumerate() {
        assert_eq!(node, &(i + 1).to_string());
        assert!((rank - expected[i]).abs() < 1e-4, "{node} {rank}");
    }
    for form in forms {
        for ranks in RANKS {
            assert_eq!(ranks_of(ranks, &PageRankJob::new(data(form))), first, "{form} on {ranks}");
        }
    }
}

#[test]
fn the_same_bits_on_any_number_of_ranks_and_options() {
    let integers = random_graph(4000, 700, |i| (i * i).to_string());
    let names = random_graph(1500, 400, |i| format!("node-{}", i * 7919 % 1000));
    for graph in [integers.path(), names.path()] {
        for (weighted, undirected, duplicates) in [
            (false, false, Duplicates::Sum),
            (true, false, Duplicates::Sum),
            (true, true, Duplicates::Merge),
            (false, true, Duplicates::Merge),
        ] {
            let job = PageRankJob { weighted, undirected, duplicates, ..PageRankJob::new(graph) };
            let one = ranks_of(1, &job);
            let sum: f64 = one.iter().map(|row| row.1).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
            for ranks in &RANKS[1..] {
                assert_eq!(ranks_of(*ranks, &job), one, "{job:?} on {ranks} ranks");
            }
        }
    }
}

#[test]
fn every_mode_gives_the_same_bits_on_any_number_of_ranks() {
    let graph = random_graph(4000, 700, |i| (i * i).to_string());
    let default = PageRankOptions::default();
    let exact = PageRankOptions { stop: Stop::Bound, tolerance: 1e-12, ..default };
    for weighted in [false, true] {
        let plain = PageRankJob { weighted, options: exact, ..PageRankJob::new(graph.path()) };
        let reference = ranks_of(1, &PageRankJob { relabel: Relabel::Never, ..plain.clone() });
        for relabel in [Relabel::Never, Relabel::Always] {
            for number in [Number::F64, Number::F32, Number::Mixed] {
                let single = number == Number::F32;
                let tolerance = [1e-12, 1e-5][usize::from(single)];
                let options = PageRankOptions { number, tolerance, ..exact };
                let job = PageRankJob { relabel, options, ..plain.clone() };
                let one = ranks_of(1, &job);
                let near = [1e-11, 1e-5, 1e-8][number as usize];
                for ((node, rank), (same, expected)) in one.iter().zip(&reference) {
                    assert!(node == same && (rank - expected).abs() < near, "{node}: {rank}");
                }
                for ranks in &RANKS[1..] {
                    assert_eq!(ranks_of(*ranks, &job), one, "{job:?} on {ranks} ranks");
                }
            }
        }
    }
}

#[test]
fn generated_graphs_are_ranked_without_a_file() {
    let job = PageRankJob {
        undirected: true,
        duplicates: Duplicates::Merge,
        ..PageRankJob::new("kron:9:8:2")
    };
    let one = ranks_of(1, &job);
    assert_eq!(one.len(), 512);
    for ranks in &RANKS[1..] {
        assert_eq!(ranks_of(*ranks, &job), one, "{ranks} ranks");
    }
    let error = run_on(2, &PageRankJob { weighted: true, ..job }).unwrap_err();
    assert!(error.message.contains("generated graphs have none"), "{error}");
}

/// A million nodes: their contributions are gathered by blocks of sources.
#[test]
fn a_graph_beyond_the_caches_has_the_same_bits_on_any_ranks() {
    let options = PageRankOptions { stop: Stop::L1, tolerance: 1e-4, ..Default::default() };
    let job = PageRankJob { options, undirected: true, top: 50, ..PageRankJob::new("kron:20:1") };
    let expected = run_on(1, &job).unwrap();
    assert_eq!(expected.vertices, 1 << 20);
    for ranks in [2, 3] {
        let found = run_on(ranks, &job).unwrap();
        assert_eq!((found.iterations, &found.top), (expected.iterations, &expected.top), "{ranks}");
        assert_eq!(found.residual.to_bits(), expected.residual.to_bits(), "{ranks} ranks");
    }
}

/// A file of node values.
fn values(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn dangling_rank_goes_where_the_file_says_as_published() {
    let file = values("1 2\n2 3\n");
    let expected = [
        0.108_445_183_513,
        0.186_186_007_839,
        0.071_089_202_993,
        0.268_366_803_297,
        0.159_197_832_249,
        0.206_714_970_107,
    ];
    for ranks in RANKS {
        let mut job = exact(PageRankJob::new(data("langville-meyer.txt")));
        job.options.dangling = Dangling::Given;
        job.dangling = Some(file.path().into());
        for ((node, rank), expected) in ranks_of(ranks, &job).iter().zip(expected) {
            assert!((rank - expected).abs() < 1e-4, "{node} {rank}");
        }
    }
}

#[test]
fn options_agree_with_the_oracle() {
    let oracle = std::fs::read_to_string(data("pagerank-oracle.txt")).unwrap();
    let (personalization, start) = (values("1 1\n4 3\n6 0.5\n"), values("4 1\n3 0.25\n"));
    let given = values("1 2\n2 3\n");
    let mut cases = 0;
    for line in oracle.lines().filter(|line| !line.starts_with('#')) {
        let (name, numbers) = line.split_once(':').unwrap();
        let expected: Vec<f64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let mut job = exact(PageRankJob::new(data("langville-meyer.txt")));
        for word in name.split('+') {
            match word {
                "plain" => {}
                "personalization" => job.personalization = Some(personalization.path().into()),
                "nstart" => job.start = Some(start.path().into()),
                "one-step-from-nstart" => {
                    job.start = Some(start.path().into());
                    job.options = PageRankOptions { tolerance: 1e9, ..job.options };
                }
                "dangling-given" => {
                    job.options.dangling = Dangling::Given;
                    job.dangling = Some(given.path().into());
                }
                "dangling-uniform" => job.options.dangling = Dangling::Uniform,
                "dangling-ignore" => job.options.dangling = Dangling::Ignore,
                "sumn" => job.options.scale = Scale::Nodes,
                other => panic!("no case {other}"),
            }
        }
        for ranks in [1, 3] {
            for ((node, rank), expected) in ranks_of(ranks, &job).iter().zip(&expected) {
                assert!((rank - expected).abs() < 1e-11, "{name}: {node} {rank} {expected}");
            }
        }
        cases += 1;
    }
    assert!(cases >= 8, "{cases} cases");
}

#[test]
fn stopping_rules_compare_what_they_say() {
    let graph = random_graph(3000, 500, |i| i.to_string());
    let job = PageRankJob { weighted: true, ..PageRankJob::new(graph.path()) };
    let with = |stop, tolerance| {
        let options = PageRankOptions { stop, tolerance, max_iterations: 1000, ..job.options };
        run_on(2, &PageRankJob { options, ..job.clone() }).unwrap()
    };
    let nodes = with(Stop::L1, 1e-6).vertices as f64;
    // The same limit written in three ways stops at the same step.
    let l1 = with(Stop::L1, 1e-6);
    assert_eq!(with(Stop::Networkx, 1e-6 / nodes).iterations, l1.iterations);
    assert_eq!(with(Stop::Bound, 0.85 / 0.15 * 1e-6).iterations, l1.iterations);
    let max = with(Stop::Max, 1e-6);
    assert!(max.iterations < l1.iterations && max.residual < 1e-6, "{max:?}");
    assert!(l1.residual < 1e-6);
}

#[test]
fn without_convergence_the_last_ranks_are_written_on_request_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ranks.csv");
    let mut job = PageRankJob::new(data("langville-meyer.txt"));
    job.options.max_iterations = 2;
    job.output = Some(path.clone());
    for (write_anyway, ranks) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
        let error = run_on(ranks, &PageRankJob { write_anyway, ..job.clone() }).unwrap_err();
        assert!(error.message.contains("within 2 iterations"), "{error}");
        assert_eq!((path.exists(), manifest_path(&path).exists()), (write_anyway, false));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 7);
}

#[test]
fn nodes_change_no_bit() {
    let graph = random_graph(2000, 300, |i| i.to_string());
    let job = PageRankJob { top: 300, weighted: true, ..PageRankJob::new(graph.path()) };
    let one = run_on(1, &job).unwrap().top;
    for nodes in [vec![0, 1], vec![0, 0, 1], vec![0, 1, 0, 1, 2]] {
        let summaries =
            launch::threads_on_nodes(&nodes, Settings::default(), |comm| run(comm, &job)).unwrap();
        assert!(summaries.iter().all(|summary| summary.top == one), "{nodes:?}");
    }
}

#[test]
fn the_result_is_a_fixed_point() {
    let graph = random_graph(3000, 500, |i| (i + 10).to_string());
    for weighted in [false, true] {
        let job = exact(PageRankJob { weighted, ..PageRankJob::new(graph.path()) });
        let (nodes, ranks): (Vec<String>, Vec<f64>) = ranks_of(3, &job).into_iter().unzip();
        let index = |id: &str| nodes.iter().position(|node| node == id).unwrap() as u32;
        let text = std::fs::read_to_string(graph.path()).unwrap();
        let edge = |line: &str| {
            let columns: Vec<&str> = line.split('\t').collect();
            let weight = if weighted { columns[2].parse().unwrap() } else { 1.0 };
            (index(columns[0]), index(columns[1]), weight)
        };
        let edges: Vec<(u32, u32, f64)> = text.lines().map(edge).collect();
        let residual = check_residual(&edges, &ranks, 0.85);
        assert!(residual < 1e-10, "{residual}");
    }
}

#[test]
fn the_trap_of_debian_tops_its_graph() {
    let job = exact(PageRankJob { top: 3, ..PageRankJob::new(data("debian-core.txt")) });
    for ranks in RANKS {
        let summary = run_on(ranks, &job).unwrap();
        let top: Vec<&str> = summary.top.iter().map(|t| t.node.as_str().unwrap()).collect();
        assert_eq!(top, ["libc6", "libgcc-s1", "gcc-12-base"]);
        assert_eq!((summary.vertices, summary.edges), (21, 28));
        assert!(summary.top[0].rank > summary.top[1].rank && summary.residual < 21.0 * 1e-13);
        assert!(summary.ns_per_edge > 0.0 && summary.seconds.iterate > 0.0);
    }
}

#[test]
fn weights_options_and_duplicates_count_the_right_edges() {
    let graph = data("weighted.tsv");
    let counts = |job: PageRankJob| {
        let summary = run_on(2, &job).unwrap();
        (summary.vertices, summary.edges)
    };
    let plain = PageRankJob::new(&graph);
    let merge = PageRankJob { duplicates: Duplicates::Merge, ..plain.clone() };
    assert_eq!(counts(plain.clone()), (3, 6));
    assert_eq!(counts(merge.clone()), (3, 5));
    assert_eq!(counts(PageRankJob { undirected: true, ..plain.clone() }), (3, 11));
    assert_eq!(counts(PageRankJob { undirected: true, ..merge }), (3, 5));

    // 10 -> 20 weighs 0.75 of 2.25, 30 keeps everything it gets.
    let ranks = ranks_of(2, &exact(PageRankJob { weighted: true, ..plain }));
    let (ten, twenty, thirty) = (ranks[0].1, ranks[1].1, ranks[2].1);
    assert!((twenty - (0.05 + 0.85 * ten / 3.0)).abs() < 1e-12);
    assert!((thirty - (0.05 + 0.85 * (ten * 2.0 / 3.0 + thirty))).abs() < 1e-12);
}

#[test]
fn a_graph_without_edges_has_no_ranks() {
    for ranks in RANKS {
        let summary = run_on(ranks, &PageRankJob::new(data("edgeless.txt"))).unwrap();
        assert_eq!((summary.vertices, summary.edges, summary.iterations), (0, 0, 0));
        assert!(summary.top.is_empty());
        assert_eq!(ranks_of(ranks, &PageRankJob::new(data("edgeless.txt"))), []);
    }
}

#[test]
fn top_is_sorted_and_ties_follow_the_ids() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // Leaves of one star tie with each other.
    (0..40).for_each(|i| writeln!(file, "{} 7", 100 - i).unwrap());
    for ranks in RANKS {
        let job = PageRankJob { top: 4, ..PageRankJob::new(file.path()) };
        let top = run_on(ranks, &job).unwrap().top;
        let nodes: Vec<u64> = top.iter().map(|t| t.node.as_u64().unwrap()).collect();
        assert_eq!(nodes, [7, 61, 62, 63]);
    }
}

#[test]
fn outputs_come_with_a_manifest_and_parquet_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ranks.csv", "ranks.parquet"] {
        let path = folder.path().join(name);
        let job = PageRankJob {
            output: Some(path.clone()),
            command: "pagerank graph".into(),
            ..PageRankJob::new(data("langville-meyer.txt"))
        };
        run_on(3, &job).unwrap();
        let text = std::fs::read_to_string(manifest_path(&path)).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["files"][0]["bytes"], std::fs::metadata(&path).unwrap().len());
        assert_eq!(manifest["ranks"], 3);
        assert_eq!(manifest["command"], "pagerank graph");
        assert_eq!(manifest["summary"]["vertices"], 6);
        // A run that fails later takes the old manifest away first.
        let options = PageRankOptions { max_iterations: 1, ..job.options };
        run_on(2, &PageRankJob { options, ..job }).unwrap_err();
        assert!(path.exists() && !manifest_path(&path).exists());
    }
}

#[test]
fn errors_are_the_same_on_every_rank_and_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.txt");
    let mut text: String = (0..300).map(|i| format!("{i} {}\n", i + 1)).collect();
    text += "301\n302 303\n";
    std::fs::write(&graph, &text).unwrap();
    let job = PageRankJob::new(&graph);
    let missing = PageRankJob::new(folder.path().join("missing.txt"));
    let with = |options| PageRankJob { options, ..PageRankJob::new(data("langville-meyer.txt")) };
    let default = PageRankOptions::default();
    let output = |name: &str| PageRankJob {
        output: Some(folder.path().join(name)),
        ..with(PageRankOptions::default())
    };
    let replaced = folder.path().join("graph.csv");
    std::fs::write(&replaced, "1,2\n").unwrap();
    for ranks in RANKS {
        for (job, exit_code, what) in [
            (&job, 2, "graph.txt line 301: '301' is not an edge; expected"),
            (&missing, 2, "missing.txt: cannot open"),
            (&with(PageRankOptions { alpha: 1.0, ..default }), 2, "0 <= alpha < 1"),
            (&with(PageRankOptions { max_iterations: 3, ..default }), 1, "within 3 iterations"),
            (&output("ranks.txt"), 2, ".csv or .parquet"),
            (&output("no/ranks.csv"), 2, "does not exist"),
            (&PageRankJob { graph: replaced.clone(), ..output("graph.csv") }, 2, "graph itself"),
        ] {
            let error = run_on(ranks, job).unwrap_err();
            assert!(error.message.contains(what), "{error} on {ranks} ranks");
            assert_eq!(error.exit_code(), exit_code, "{error}");
        }
    }
}
