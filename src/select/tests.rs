//! Every call finds an algorithm that may serve it, whatever a table says; tables survive being
//! written and read; malformed ones are refused with file and line.

use super::*;
use crate::plan::table as algorithms;
use crate::sharding::Sharding;

const HEAD: &str = "version = 1\nrows = [\n";
const TAIL: &str = "]\n[measured]\nlibrary = \"x\"\nranks = 2\nnodes = 1\ncores = 2\ndate = \"\"\n";

fn row(op: &str, ranks: usize, locals: usize, buffers: &str, name: &str) -> Row {
    Row {
        op: op.into(),
        ranks,
        ranks_per_node: locals,
        buffers: buffers.into(),
        dtype_bytes: 4,
        order: None,
        bytes: 1024,
        bytes_up_to: 2048,
        algorithm: name.into(),
        time_us: 3.1,
        runner_up: None,
        runner_up_us: None,
    }
}

fn header() -> Header {
    let (library, date) = ("Open \"MPI\" \\ v4".to_string(), "a day\n".to_string());
    Header { version: 1, library, ranks: 2, nodes: 1, cores: 2, date, noise: String::new() }
}

fn table(rows: Vec<Row>) -> Table {
    Table::new("t.toml", header(), rows).unwrap()
}

fn query<'a>(problem: &'a Problem, topology: &'a Topology) -> Query<'a> {
    Query {
        problem,
        dtype: DType::F32,
        op: problem.collective.reduces().then_some(Op::Sum),
        topology,
        shared: [false; 2],
        order: Order::Canonical,
        native: true,
    }
}

#[test]
fn a_table_reads_back_as_it_was_written() {
    let mut second = row("reduce_scatter", 2, 2, "shared", "direct");
    second.order = Some("canonical".into());
    second.runner_up = Some("native_counts".into());
    second.runner_up_us = Some(0.1 + 0.2);
    let rows = vec![row("all_gather", 4, 2, "plain", "native"), second];
    let text = table(rows.clone()).to_text().unwrap();
    let again = Table::parse(&text, "t.toml").unwrap();
    assert_eq!(again.rows().cloned().collect::<Vec<_>>(), rows);
    assert_eq!(again.header(), &header());
    assert_eq!(again.to_text().unwrap(), text);
    assert!(text.lines().all(|line| line.matches("op =").count() <= 1), "one row a line");
}

#[test]
fn malformed_tables_are_refused_with_file_and_line() {
    let good = "{ op = \"barrier\", ranks = 2, ranks_per_node = 2, buffers = \"plain\", \
                dtype_bytes = 4, bytes = 0, bytes_up_to = 0, algorithm = \"meet\", time_us = 0.1 }";
    Table::parse(&format!("{HEAD}{good},\n{TAIL}"), "t").unwrap();
    for (from, to, said) in [
        ("barrier", "barier", "op = 'barier': expected one of reduce_scatter"),
        ("meet", "met", "barrier has no algorithm 'met'; choose one of"),
        ("meet", "native_counts", "has no algorithm 'native_counts'"),
        ("plain", "private", "expected plain or shared"),
        ("ranks_per_node = 2", "ranks_per_node = 3", "ranks_per_node = 3: expected 1 to 2"),
        ("ranks_per_node = 2", "ranks_per_node = 0", "ranks_per_node = 0: expected 1 to 2"),
        ("dtype_bytes = 4", "dtype_bytes = 3", "expected 2, 4 or 8"),
        ("time_us = 0.1", "time_us = nan", "finite"),
        ("time_us = 0.1", "time_us = -1.0", "not negative"),
        ("time_us = 0.1", "time_us = 0.1, runner_up = \"meet\"", "belong together"),
        ("time_us = 0.1", "time_us = 0.1, order = \"any\"", "expected canonical or fastest"),
        ("time_us = 0.1", "tim_us = 0.1", "unknown field `tim_us`"),
        ("time_us = 0.1", "time_us = 'fast'", "invalid type"),
        ("bytes = 0,", "bytes = -1,", "invalid value"),
        ("bytes = 0,", "", "missing field `bytes`"),
        ("{", "{{", "key"),
    ] {
        assert!(good.contains(from), "{from}");
        let text = format!("{HEAD}{good},\n{},\n{TAIL}", good.replacen(from, to, 1));
        let error = Table::parse(&text, "t.toml").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message.starts_with("t.toml line 4: "), "{to}: {error}");
        assert!(error.message.contains(said), "{to}: {error}");
        assert!(!error.message.contains('\n'), "{error}");
    }
    let newer = format!("version = 2\nrows = []\n{}", TAIL.trim_start_matches("]\n"));
    let error = Table::parse(&newer, "t.toml").unwrap_err();
    assert!(error.message.contains("version = 2: this program reads version 1"), "{error}");
    for text in ["", "version = 1", "rows = 3", "\u{0}"] {
        assert!(Table::parse(text, "t.toml").unwrap_err().message.starts_with("t.toml line "));
    }
}

/// For every collective, a table whose rows name this algorithm for all ranks and sizes.
fn adversary(name_at: usize) -> Table {
    let mut rows = Vec::new();
    for collective in Collective::ALL {
        let names: Vec<&str> = algorithms::of(collective).map(|row| row.name).collect();
        let natives = Native::ALL.into_iter().filter(|n| n.serves(collective));
        let names: Vec<&str> = names.into_iter().chain(natives.map(Native::name)).collect();
        let (name, other) = (names[name_at % names.len()], names[(name_at + 1) % names.len()]);
        for ranks in 1..=9 {
            for locals in [1, 2, ranks] {
                for buffers in ["plain", "shared"] {
                    let next = name_at.is_multiple_of(2).then(|| other.to_string());
                    let mut row = row(collective.name(), ranks, locals.min(ranks), buffers, name);
                    row.runner_up_us = next.as_ref().map(|_| 4.0);
                    row.runner_up = next;
                    rows.push(row);
                }
            }
        }
    }
    table(rows)
}

fn problems(collective: Collective, ranks: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    for n in [0, 1, ranks, 1 << 12, 1 << 24] {
        if collective == Collective::AllToAll {
            for uneven in [1, 3] {
                let counts = (0..ranks * ranks).map(|i| (i % uneven + 1) * n).collect();
                problems.push(Problem::all_to_all(ranks, counts));
            }
            continue;
        }
        let problem = Problem::new(collective, Sharding::even(n, ranks));
        problems.push(Problem { in_place: true, ..problem.clone() });
        problems.push(problem);
    }
    problems
}

#[test]
fn every_call_finds_an_algorithm_that_may_serve_it_whatever_the_table_says() {
    let kinds = [(DType::F32, Op::Sum), (DType::Bf16, Op::Sum), (DType::I64, Op::Max)];
    let kinds = [kinds.as_slice(), &[(DType::F64, Op::Min), (DType::U32, Op::Average)]].concat();
    let tables: Vec<Option<Table>> =
        (0..10).map(adversary).map(Some).chain([None, Some(table(Vec::new()))]).collect();
    let mut measured = 0;
    for collective in Collective::ALL {
        for ranks in 1..=9 {
            let placements =
                [Topology::one_node(ranks), Topology::flat(ranks), Topology::blocks(ranks, 2)];
            for problem in problems(collective, ranks) {
                for topology in &placements {
                    for bits in 0..16 {
                        let bit = |i: usize| bits >> i & 1 == 1;
                        let order = if bit(2) { Order::Fastest } else { Order::Canonical };
                        for &(dtype, op) in &kinds {
                            let query = Query {
                                dtype,
                                op: collective.reduces().then_some(op),
                                shared: [bit(0), bit(1)],
                                order,
                                native: bit(3),
                                ..query(&problem, topology)
                            };
                            for table in &tables {
                                let choice = choose(&query, table.as_ref()).unwrap();
                                usable(choice.chosen, &query).unwrap();
                                let from_table = matches!(choice.reason, Reason::Measured { .. });
                                measured += usize::from(from_table);
                                assert!(!from_table || table.is_some());
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(measured > 10_000, "the tables were hardly used: {measured}");
}

#[test]
fn the_library_is_taken_where_it_changes_no_promise() {
    let topology = Topology::one_node(4);
    let problem = Problem::new(Collective::AllReduce, Sharding::even(256, 4));
    let table = table(vec![row("all_reduce", 4, 4, "plain", "native")]);
    let native = |query: &Query<'_>| {
        matches!(choose(query, Some(&table)).unwrap().chosen, Chosen::Native(Native::Plain))
    };
    let plain = query(&problem, &topology);
    let fastest = Query { order: Order::Fastest, ..plain };
    assert!(!native(&plain), "its order of floats is its own");
    assert!(native(&fastest));
    assert!(native(&Query { dtype: DType::I32, ..plain }), "integers wrap in any order");
    assert!(native(&Query { dtype: DType::I32, op: Some(Op::Min), ..plain }));
    assert!(!native(&Query { op: Some(Op::Max), ..fastest }), "NaN would be lost");
    assert!(!native(&Query { op: Some(Op::Average), ..fastest }));
    assert!(!native(&Query { dtype: DType::Bf16, ..fastest }));
    assert!(!native(&Query { native: false, ..fastest }));
    let in_place = Problem { in_place: true, ..problem.clone() };
    assert!(!native(&Query { problem: &in_place, ..fastest }));
    let uneven = Problem::new(Collective::ReduceScatter, Sharding::even(257, 4));
    let uneven = Query { order: Order::Fastest, op: Some(Op::Sum), ..query(&uneven, &topology) };
    assert!(native_fits(Native::Plain, &uneven).is_err());
    native_fits(Native::Counts, &uneven).unwrap();
    let pair = (Problem::new(Collective::AllReduce, Sharding::even(8, 2)), Topology::one_node(2));
    native_fits(Native::Plain, &query(&pair.0, &pair.1)).unwrap(); // a + b = b + a
}

#[test]
fn the_nearest_row_is_found_and_named() {
    let topology = Topology::one_node(2);
    let mut rows = Vec::new();
    for (up_to, name) in [(64, "flat"), (4096, "staged"), (1 << 20, "pairwise")] {
        rows.push(Row { bytes_up_to: up_to, ..row("all_reduce", 2, 2, "plain", name) });
    }
    rows.push(Row { dtype_bytes: 2, ..row("all_reduce", 2, 2, "plain", "pairwise") });
    rows[1].runner_up = Some("flat".into());
    rows[1].runner_up_us = Some(4.0);
    let table = table(rows);
    let at = |n: usize, dtype: DType| {
        let problem = Problem::new(Collective::AllReduce, Sharding::even(n, 2));
        let choice = choose(&Query { dtype, ..query(&problem, &topology) }, Some(&table)).unwrap();
        (choice.chosen.name(), choice.reason.to_string())
    };
    assert_eq!(at(0, DType::F32), ("flat", "table t.toml row 1: measured 3.1 us".into()));
    assert_eq!(at(16, DType::F32).0, "flat");
    let told = "table t.toml row 2: measured 3.1 us, next flat 4 us";
    assert_eq!(at(17, DType::F32), ("staged", told.into()));
    assert_eq!(at(1025, DType::F32).0, "pairwise");
    assert_eq!(at(1 << 24, DType::F32).0, "pairwise", "beyond the last size, the last one");
    assert!(at(16, DType::F16).1.contains("row 4"));
    assert!(at(8, DType::I64).1.contains("row 1"), "8 bytes are nearer to 4 than to 2");
    let four = Topology::one_node(4);
    let problem = Problem::new(Collective::AllReduce, Sharding::even(4, 4));
    let choice = choose(&query(&problem, &four), Some(&table)).unwrap();
    let told = "default: t.toml has no row for all_reduce, 4 ranks, 4 a node";
    assert_eq!(choice.reason.to_string(), told);
    let none = choose(&query(&problem, &four), None).unwrap();
    assert_eq!(none.reason.to_string(), "default: no table");
}
