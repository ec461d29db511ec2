//! Formats of graph files: the same graph in each of them has the ranks of its edge list to the
//! last bit on any number of ranks; damaged files are refused with the place, and never crash.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rankwise::error::{ErrorKind, Result};
use rankwise::graph::{PageRankJob, PageRankSummary, run};
use rankwise::launch;

const RANKS: [usize; 3] = [1, 2, 3];

/// A graph whose nodes `0..n` all have edges; no edge is listed twice.
struct Graph {
    n: u64,
    edges: Vec<(u64, u64, u64)>,
}

impl Graph {
    /// With hubs, dangling nodes if directed, and self-loops if `loops`.
    fn random(n: u64, edges: u64, loops: bool) -> Graph {
        let mut state = n + edges;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut found = BTreeMap::new();
        for i in 0..edges + n {
            // Each node is a target once.
            // Low ones more often.
            let limit = 1 + random(n);
            let to = if i < n { i } else { random(limit) };
            let from = random(n) / 2 * 2;
            if (loops || from != to) && !found.contains_key(&(to, from)) {
                found.insert((from, to), 1 + random(9));
            }
        }
        let edges: Vec<_> = found.into_iter().map(|((a, b), w)| (a, b, w)).collect();
        assert!((0..n).all(|v| edges.iter().any(|e| e.0 == v || e.1 == v)), "no isolated nodes");
        Graph { n, edges }
    }

    /// Each edge both ways.
    fn both_ways(&self) -> Vec<(u64, u64, u64)> {
        let reverse = self.edges.iter().filter(|e| e.0 != e.1).map(|&(a, b, w)| (b, a, w));
        let mut both: Vec<_> = self.edges.iter().copied().chain(reverse).collect();
        both.sort_unstable();
        both
    }

    fn edge_list(&self, first: u64) -> Vec<u8> {
        let line = |&(a, b, w): &(u64, u64, u64)| format!("{} {} {w}\n", a + first, b + first);
        self.edges.iter().map(line).collect::<String>().into_bytes()
    }

    fn matrix_market(&self, field: &str, symmetric: bool) -> Vec<u8> {
        let symmetry = if symmetric { "symmetric" } else { "general" };
        let mut text = format!("%%MatrixMarket matrix coordinate {field} {symmetry}\n% made\n\n");
        text += &format!("{} {} {}\n", self.n, self.n, self.edges.len());
        for &(a, b, w) in &self.edges {
            let (row, column) = if symmetric { (a.max(b), a.min(b)) } else { (a, b) };
            text += &format!("{} {}", row + 1, column + 1);
            text += &match field {
                "pattern" => "\n".into(),
                "real" => format!(" {w}.0e0\r\n"),
                _ => format!(" {w}\n"),
            };
        }
        text.into_bytes()
    }

    /// With an FMT of `fmt`, and 3 weights a vertex if it says that there are some.
    fn metis(&self, fmt: &str) -> Vec<u8> {
        let mut text = format!("% made\n{} {} {fmt}", self.n, self.edges.len());
        let has = |place: usize| fmt.as_bytes().get(place) == Some(&b'1');
        text += if has(1) { " 3\n" } else { "\n" };
        let both = self.both_ways();
        for node in 0..self.n {
            if node % 7 == 3 {
                text += "% a comment between nodes\n";
            }
            text += if has(0) { "5 " } else { "" };
            text += if has(1) { "1 2 3" } else { "" };
            for (_, to, weight) in both.iter().filter(|e| e.0 == node) {
                text += &format!(" {}", to + 1);
                text += &if has(2) { format!("  {weight}") } else { String::new() };
            }
            text += "\n";
        }
        text.into_bytes()
    }

    fn gap(&self, directed: bool, weights: bool) -> Vec<u8> {
        let out = if directed { self.edges.clone() } else { self.both_ways() };
        let mut bytes = vec![u8::from(directed)];
        bytes.extend((out.len() as i64).to_le_bytes());
        bytes.extend((self.n as i64).to_le_bytes());
        let mut side = |mut edges: Vec<(u64, u64, u64)>| {
            edges.sort_unstable();
            for node in 0..=self.n {
                let before = edges.iter().filter(|e| e.0 < node).count();
                bytes.extend((before as i64).to_le_bytes());
            }
            for (_, to, weight) in edges {
                bytes.extend((to as i32).to_le_bytes());
                bytes.extend((weight as i32).to_le_bytes().iter().take(4 * usize::from(weights)));
            }
        };
        side(out);
        if directed {
            side(self.edges.iter().map(|&(a, b, w)| (b, a, w)).collect());
        }
        bytes
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn run_on(ranks: usize, job: &PageRankJob) -> Result<PageRankSummary> {
    Ok(launch::threads(ranks, |comm| run(comm, job))?.swap_remove(0))
}

/// The nodes and the bits of their ranks that a run writes.
fn ranks_of(ranks: usize, job: &PageRankJob) -> Vec<(u64, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ranks.csv");
    run_on(ranks, &PageRankJob { output: Some(path.clone()), ..job.clone() }).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let (node, rank) = line.split_once(',').unwrap();
        (node.parse().unwrap(), rank.parse::<f64>().unwrap().to_bits())
    };
    text.lines().skip(1).map(row).collect()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn message(name: &str, bytes: &[u8], weighted: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), name, bytes);
    let job = PageRankJob { weighted, ..PageRankJob::new(path) };
    let messages = RANKS.map(|ranks| {
        let error = run_on(ranks, &job).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Input, "{error}");
        error.message
    });
    assert!(messages.iter().all(|m| *m == messages[0]), "on any ranks: {messages:?}");
    messages[0].clone()
}

#[test]
fn the_same_directed_graph_in_any_format_has_the_same_bits() {
    for (n, edges) in [(1, 3), (2, 4), (61, 300), (500, 6000)] {
        let graph = Graph::random(n, edges, true);
        let folder = tempfile::tempdir().unwrap();
        let lists = [0, 1].map(|first| {
            write(folder.path(), &format!("list{first}.txt"), &graph.edge_list(first))
        });
        let files: Vec<(u64, &str, Vec<u8>)> = vec![
            (1, "list.zst", zstd(&graph.edge_list(1))),
            (0, "list.gz", gzip(&graph.edge_list(0))),
            (1, "a.mtx", graph.matrix_market("real", false)),
            (1, "named-otherwise", graph.matrix_market("integer", false)),
            (1, "c.mtx.gz", gzip(&graph.matrix_market("integer", false))),
            (1, "d.mtx.zst", zstd(&graph.matrix_market("real", false))),
            (0, "e.wsg", graph.gap(true, true)),
            (1, "f.mtx", graph.matrix_market("pattern", false)),
            (0, "g.sg", graph.gap(true, false)),
        ];
        for (first, name, bytes) in files {
            let path = write(folder.path(), name, &bytes);
            for weighted in [false, true] {
                if weighted && (name == "f.mtx" || name == "g.sg") {
                    continue;
                }
                let job = PageRankJob { weighted, ..PageRankJob::new(&lists[first as usize]) };
                let expected = ranks_of(1, &job);
                assert_eq!(expected.len() as u64, n);
                for ranks in RANKS {
                    let job = PageRankJob { graph: path.clone(), ..job.clone() };
                    assert_eq!(ranks_of(ranks, &job), expected, "{name} on {ranks}, {weighted}");
                }
            }
        }
    }
}

#[test]
fn the_same_undirected_graph_in_any_format_has_the_same_bits() {
    for (n, edges, loops) in [(2, 4, false), (61, 300, false), (61, 300, true), (400, 5000, true)] {
        let graph = Graph::random(n, edges, loops);
        let folder = tempfile::tempdir().unwrap();
        let lists = [0, 1].map(|first| {
            write(folder.path(), &format!("list{first}.txt"), &graph.edge_list(first))
        });
        let files: Vec<(u64, &str, bool, Vec<u8>)> = vec![
            (1, "a.mtx", true, graph.matrix_market("real", true)),
            (1, "b.mtx", false, graph.matrix_market("pattern", true)),
            (1, "c.graph", false, graph.metis("")),
            (1, "d.metis", true, graph.metis("001")),
            (1, "e.graph", true, graph.metis("111")),
            (1, "f.graph.gz", true, gzip(&graph.metis("011"))),
            (1, "g.graph.zst", false, zstd(&graph.metis("100"))),
            (0, "h.sg", false, graph.gap(false, false)),
            (0, "i.wsg", true, graph.gap(false, true)),
        ];
        for (first, name, has_weights, bytes) in files {
            let path = write(folder.path(), name, &bytes);
            for weighted in [false, true] {
                if weighted && !has_weights {
                    continue;
                }
                let list = PageRankJob::new(&lists[first as usize]);
                let expected = ranks_of(1, &PageRankJob { weighted, undirected: true, ..list });
                for (ranks, undirected) in [(1, false), (2, false), (3, false), (2, true)] {
                    let job = PageRankJob { weighted, undirected, ..PageRankJob::new(&path) };
                    assert_eq!(ranks_of(ranks, &job), expected, "{name} on {ranks}, {weighted}");
                }
            }
        }
    }
}

#[test]
fn the_line_of_a_hub_may_be_long() {
    let leaves = 700_000;
    let mut text = format!("{} {leaves}\n", leaves + 1);
    (2..=leaves + 1).for_each(|leaf| text += &format!("{leaf} "));
    text += &"\n1".repeat(leaves);
    assert!(text.lines().nth(1).unwrap().len() > 4 << 20);
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a.graph", text.clone().into()), ("b.graph.zst", zstd(text.as_bytes()))]
    {
        let job = PageRankJob::new(write(folder.path(), name, &bytes));
        for ranks in RANKS {
            let summary = run_on(ranks, &job).unwrap();
            assert_eq!(summary.vertices, leaves as u64 + 1);
            assert_eq!(summary.edges, 2 * leaves as u64);
        }
    }
}

#[test]
fn nodes_without_edges_count_where_a_header_promises_them() {
    // 1 and 2 point at each other; 3, 4 and 5 are alone. Dangling rank is spread over all, so by
    // symmetry x = 0.15/5 + 0.85 (y + 3z/5) with y = x, and z = 0.15/5 + 0.85 * 3z/5.
    let z = 0.03 / (1.0 - 0.51);
    let x = (0.03 + 0.51 * z) / 0.15;
    let files: [(&str, u64, Vec<u8>); 4] = [
        ("a.mtx", 1, b"%%MatrixMarket matrix coordinate pattern symmetric\n5 5 1\n2 1\n".into()),
        (
            "b.mtx",
            1,
            b"%%MatrixMarket matrix coordinate integer general\n5 5 2\n2 1 3\n1 2 3".into(),
        ),
        ("c.graph", 1, b"5 1\n2\n1\n\n\n\n".into()),
        ("d.sg", 0, Graph { n: 5, edges: vec![(0, 1, 1)] }.gap(false, false)),
    ];
    for (name, first, bytes) in files {
        let folder = tempfile::tempdir().unwrap();
        let mut job = PageRankJob::new(write(folder.path(), name, &bytes));
        job.options.tolerance = 1e-14;
        job.options.max_iterations = 1000;
        let expected = ranks_of(1, &job);
        let nodes: Vec<u64> = expected.iter().map(|row| row.0).collect();
        assert_eq!(nodes, (first..first + 5).collect::<Vec<_>>(), "{name}");
        for (&(node, bits), value) in expected.iter().zip([x, x, z, z, z]) {
            assert!((f64::from_bits(bits) - value).abs() < 1e-12, "{name}: {node}");
        }
        for ranks in [2, 3] {
            assert_eq!(ranks_of(ranks, &job), expected, "{name} on {ranks} ranks");
        }
        // Files of node values name the nodes in the same way.
        let values = write(folder.path(), "values", format!("{} 1\n", first + 4).as_bytes());
        job.personalization = Some(values);
        let rows = ranks_of(2, &job);
        assert!(rows[..4].iter().all(|row| f64::from_bits(row.1) < 1e-12), "{name}: {rows:?}");
    }
}

#[test]
fn text_that_is_wrong_is_named_by_its_line() {
    let mm = |rest: &str| format!("%%MatrixMarket matrix coordinate {rest}");
    let mtx = [
        (
            "%%MatrixMarket matrix array real general\n1 1\n1".into(),
            "line 1: a matrix of the kind 'array'",
        ),
        (mm("complex general\n1 1 0\n"), "line 1: a matrix of the kind 'complex'"),
        (mm("real skew-symmetric\n1 1 0\n"), "line 1: a matrix of the kind 'skew-symmetric'"),
        (mm("pattern\n1 1 0\n"), "line 1: '%%MatrixMarket matrix"),
        ("2 2 1\n1 2\n".into(), "line 1: '2 2 1' is no header"),
        (mm("pattern general\n% c\n"), "line 2: the file ends here; expected a line with the"),
        (mm("pattern general\n2 2\n1 2\n"), "line 2: '2 2'; expected a line with the numbers"),
        (mm("pattern general\n2 3 1\n1 2\n"), "line 2: a matrix of 2 x 3"),
        (
            mm("pattern general\n9999999999 9999999999 0\n"),
            "line 2: the header promises 9999999999",
        ),
        (
            mm("pattern general\n3999999999 3999999999 1\n1 2"),
            "line 2: the header promises 3999999999",
        ),
        (mm("pattern general\n2 2 99999999999\n1 2\n"), "more than the 4 bytes after it"),
        (
            mm("pattern general\n2 2 1\n1 2\n2 1\n"),
            "line 2: the header promises 1 entries, but the file has 2",
        ),
        (
            mm("real general\n2 2 2\n1 2 0.5\n"),
            "line 2: the header promises 2 entries, but the file has 1",
        ),
        (
            mm("pattern general\n2 2 2\n1 2\n% c\n0 1\n"),
            "line 5: '0' is not a node; expected 1 to 2",
        ),
        (mm("pattern general\n2 2 1\n1 3\n"), "line 3: '3' is not a node; expected 1 to 2"),
        (mm("pattern general\n2 2 1\n1 -2\n"), "line 3: '-2' is not a node"),
        (mm("pattern general\n2 2 1\n1     \n"), "line 3: '1' is not an edge; expected an entry"),
        (mm("pattern symmetric\n2 2 1\n1 2\n"), "line 3: an entry above the diagonal"),
    ];
    for (text, expected) in mtx {
        for (name, bytes) in
            [("g.mtx", text.clone().into_bytes()), ("g.mtx.zst", zstd(text.as_bytes()))]
        {
            if name.ends_with("zst") && expected.starts_with("more than") {
                continue;
            }
            let message = message(name, &bytes, false);
            assert!(message.contains(expected), "{message}\n{expected}");
        }
    }
    let metis = [
        ("a b\n", "line 1: 'a b'; expected the header of a METIS graph"),
        ("% only\n", "line 1: the file ends here"),
        ("2 1 2\n2\n1\n", "line 1: the FMT 2 is unknown"),
        ("9999999 1\n2\n1\n", "line 1: the header promises 9999999 nodes and 1 edges, more than"),
        ("2 9999999\n2\n1\n", "more than the 4 bytes"),
        ("2 1\n2\n1\n3\n", "line 4: '3' is not a neighbour; expected 1 to 2"),
        ("2 1\n2\n1\n2\n", "line 4: neighbours of node 3, but the header promises 2 nodes"),
        ("4 1\n2\n1\n", "line 1: the header promises 4 nodes, but the file has lines for 2"),
        ("2 1\n2\n\n", "line 1: the header promises 1 edges, each listed at both ends"),
        ("2 1\n2\n%\n0\n", "line 4: '0' is not a neighbour"),
        ("2 1 001\n2 5\n1\n", "line 3: no weight after the neighbour 1"),
        ("2 1 011 2\n1 2 2 5\n7\n", "line 3: '' where the sizes and weights"),
        ("2 1\nx\n1\n", "line 2: 'x' is not a neighbour"),
    ];
    for (text, expected) in metis {
        for (name, bytes) in [("g.graph", text.into()), ("g.graph.gz", gzip(text.as_bytes()))] {
            if name.ends_with("gz") && expected.contains("more than") {
                continue;
            }
            let message = message(name, &bytes, false);
            assert!(message.contains(expected), "{message}\n{expected}");
        }
    }
    let weights = message("g.graph", b"2 1\n2\n1\n", true);
    assert!(weights.contains("line 1: weights: this graph has none"), "{weights}");
    let weights = message("g", mm("pattern general\n1 1 0\n").as_bytes(), true);
    assert!(weights.contains("line 1: weights: a pattern matrix has none"), "{weights}");
    let weights = message("g", mm("real general\n1 1 1\n1 1 -2\n").as_bytes(), true);
    assert!(weights.contains("line 3: the weight '-2' is not a finite number >= 0"), "{weights}");
}

#[test]
fn bytes_that_are_wrong_are_named_by_their_offset() {
    let graph = Graph { n: 3, edges: vec![(0, 1, 4), (1, 2, 5), (2, 0, 6)] };
    let whole = graph.gap(true, true);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let cases = [
        (with(0, &[2]), "byte 0: 2 for 'directed'"),
        (with(1, &(-1i64).to_le_bytes()), "byte 1: a negative number of edges"),
        (with(1, &i64::MAX.to_le_bytes()), "byte 1: 9223372036854775807 edges and 3 nodes take"),
        (with(9, &i64::MIN.to_le_bytes()), "byte 9: a negative number of nodes"),
        (with(9, &4i64.to_le_bytes()), "byte 1: 3 edges and 4 nodes take"),
        (with(17, &1i64.to_le_bytes()), "byte 17: the offset 1 of node 0"),
        (with(25, &4i64.to_le_bytes()), "byte 25: the offset 4 of node 1"),
        (with(33, &(-7i64).to_le_bytes()), "byte 33: the offset -7 of node 2"),
        (with(41, &2i64.to_le_bytes()), "byte 41: the offset 2 of node 3"),
        (with(49, &3i32.to_le_bytes()), "byte 49: the neighbour 3; expected 0 to 2"),
        (with(65, &(-1i32).to_le_bytes()), "byte 65: the neighbour -1; expected 0 to 2"),
        (with(53, &(-1i32).to_le_bytes()), "byte 53: the weight -1"),
        (gzip(&whole), "byte 0: packed; unpack it"),
        (vec![], "byte 0: the file is empty"),
        (whole[..9].to_vec(), "byte 9: the file ends inside the header"),
    ];
    for (bytes, expected) in cases {
        let message = message("g.wsg", &bytes, true);
        assert!(message.contains(expected), "{message}\n{expected}");
    }
    let message = message("g.sg", &graph.gap(true, false), true);
    assert!(message.contains("a .sg file has none"), "{message}");
}

/// Truncated, changed and random files are refused as input or ranked, without a crash.
#[test]
fn damaged_files_never_crash() {
    let (directed, undirected) = (Graph::random(9, 30, true), Graph::random(9, 30, false));
    let files: [(&str, bool, Vec<u8>); 8] = [
        ("a.zst", true, zstd(&directed.edge_list(1))),
        ("b.mtx", true, directed.matrix_market("integer", false)),
        ("c.mtx", false, directed.matrix_market("pattern", true)),
        ("d.graph", true, undirected.metis("111")),
        ("e.graph", false, undirected.metis("")),
        ("f.sg", false, undirected.gap(false, false)),
        ("g.wsg", true, directed.gap(true, true)),
        ("h.graph.zst", false, zstd(&undirected.metis(""))),
    ];
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let folder = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for (name, weighted, whole) in files {
        let mut check = |bytes: &[u8], ranks| {
            let path = write(folder.path(), name, bytes);
            let job = PageRankJob { weighted, ..PageRankJob::new(path) };
            if let Err(error) = run_on(ranks, &job) {
                let expected = [ErrorKind::Input, ErrorKind::Failed];
                assert!(expected.contains(&error.kind), "{name}: {error}");
                refused += 1;
            }
        };
        for length in 0..whole.len() {
            check(&whole[..length], 1 + length % 3);
        }
        for case in 0..100 {
            let mut changed = whole.clone();
            for _ in 0..1 + case % 3 {
                let at = random(changed.len());
                changed[at] =
                    if case % 2 == 0 { random(256) as u8 } else { b"0 1\n9%-"[random(7)] };
            }
            check(&changed, 1 + case % 3);
        }
        for case in 0..60 {
            // Past the header, so that more than its check sees random bytes.
            let kept = random(60).min(whole.len());
            let noise = (0..random(200)).map(|_| random(256) as u8);
            let bytes: Vec<u8> = whole[..kept].iter().copied().chain(noise).collect();
            check(&bytes, 1 + case % 3);
        }
    }
    assert!(refused > 1000, "{refused} refused");
}
