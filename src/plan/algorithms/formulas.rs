//! The formulas in the headers of the algorithms, checked against their plans.

use crate::plan::check::{Report, check_algorithm};
use crate::plan::{Collective, Problem, table};
use crate::sharding::Sharding;
use crate::topology::Topology;

const REDUCE_SCATTER: Collective = Collective::ReduceScatter;
const ALL_GATHER: Collective = Collective::AllGather;
const ALL_REDUCE: Collective = Collective::AllReduce;

/// Elements a shard.
const C: usize = 6;

fn report(collective: Collective, name: &str, topology: &Topology, piece: usize) -> Report {
    let (row, p) = (table::find(collective, name).unwrap(), topology.ranks());
    let problem = match collective {
        Collective::AllToAll => Problem::all_to_all(p, vec![C; p * p].into()),
        other => Problem::new(other, Sharding::even(C * p, p)),
    };
    check_algorithm(row, &Problem { piece, ..problem }, topology).unwrap()
}

/// The most messages and elements that a rank sends, and the most that it folds.
fn sent(collective: Collective, name: &str, p: usize) -> (usize, usize, usize) {
    let report = report(collective, name, &Topology::flat(p), 1 << 16);
    (report.max(|t| t.messages), report.max(|t| t.sent), report.max(|t| t.reduced))
}

#[test]
fn messages_and_elements_for_any_number_of_ranks() {
    for p in 1..=20 {
        let (m, others, log) = (p - 1, (p - 1) * C, p.next_power_of_two().ilog2() as usize);
        assert_eq!(sent(REDUCE_SCATTER, "ring", p), (m, others, others));
        assert_eq!(sent(ALL_GATHER, "ring", p), (m, others, 0));
        assert_eq!(sent(ALL_REDUCE, "ring", p), (2 * m, 2 * others, others));
        assert_eq!(sent(REDUCE_SCATTER, "pairwise", p), (m, others, others));
        assert_eq!(sent(ALL_REDUCE, "pairwise", p), (2 * m, 2 * others, others));
        assert_eq!(sent(Collective::AllToAll, "pairwise", p), (m, others, 0));
        let (messages, elements, _) = sent(ALL_GATHER, "bruck", p);
        assert!((log..=2 * log).contains(&messages) && elements == others);
        let (messages, elements, folded) = sent(REDUCE_SCATTER, "circulant", p);
        assert!((log..=log + 1).contains(&messages));
        assert_eq!((elements, folded), (others, others));
        let (messages, elements, folded) = sent(ALL_REDUCE, "circulant", p);
        assert!((2 * log..=3 * log + 1).contains(&messages));
        assert_eq!((elements, folded), (2 * others, others));
        let (messages, elements, folded) = sent(ALL_REDUCE, "bruck", p);
        assert!((log..=2 * log).contains(&messages));
        assert_eq!((elements, folded), (m * p * C, m * p * C));
        let (messages, elements, _) = sent(Collective::AllToAll, "bruck", p);
        assert_eq!(messages, log);
        assert!(elements <= log * (p / 2) * C);
        assert_eq!(sent(Collective::Barrier, "dissemination", p), (log, log, 0));
        let root = 0;
        assert_eq!(sent(Collective::Broadcast { root }, "binomial", p), (log, log * p * C, 0));
        assert_eq!(sent(Collective::Scatter { root }, "binomial", p), (log, others, 0));
        assert_eq!(sent(Collective::Scatter { root }, "linear", p), (m, others, 0));
    }
}

#[test]
fn messages_and_elements_for_powers_of_two() {
    for log in 0..=5 {
        let p = 1 << log;
        let (n, others) = (p * C, (p - 1) * C);
        assert_eq!(sent(REDUCE_SCATTER, "halving", p), (log, others, others));
        assert_eq!(sent(ALL_GATHER, "doubling", p), (log, others, 0));
        assert_eq!(sent(ALL_REDUCE, "rabenseifner", p), (2 * log, 2 * others, others));
        assert_eq!(sent(ALL_REDUCE, "doubling", p), (log, log * n, log * n));
    }
}

#[test]
fn a_node_reads_and_meets_as_little_as_promised() {
    for p in 2..=9 {
        let (node, n, others) = (Topology::one_node(p), p * C, (p - 1) * C);
        let counts = |collective, name, piece| {
            let report = report(collective, name, &node, piece);
            assert_eq!(report.max(|t| t.messages), 0);
            (report.max(|t| t.meets), report.max(|t| t.pulled), report.max(|t| t.copied))
        };
        assert_eq!(counts(REDUCE_SCATTER, "direct", 1), (2, others, 0));
        assert_eq!(counts(ALL_GATHER, "direct", 1), (2, others, C));
        assert_eq!(counts(ALL_REDUCE, "direct", 1), (2, 2 * others, C));
        assert_eq!(counts(ALL_REDUCE, "flat", n), (1, (p - 1) * n, n));
        // One meet a piece, here pieces of one element a shard; all_reduce one more.
        for pieces in [1, 2, 3, 6] {
            let piece = n / pieces;
            assert_eq!(counts(REDUCE_SCATTER, "staged", piece), (pieces, others, others));
            assert_eq!(counts(ALL_GATHER, "staged", piece), (pieces, others, 2 * C));
            assert_eq!(counts(ALL_REDUCE, "staged", piece), (pieces + 1, 2 * others, n));
            let broadcast = Collective::Broadcast { root: p - 1 };
            assert_eq!(counts(broadcast, "staged", piece), (pieces, n, n));
        }
    }
}

#[test]
fn each_element_crosses_the_network_once_a_node() {
    for (nodes, per_node) in [(2, 1), (2, 3), (3, 2), (4, 4), (5, 3), (1, 4)] {
        let p = nodes * per_node;
        let round_robin: Vec<usize> = (0..p).map(|rank| rank % nodes).collect();
        for topology in [Topology::blocks(p, per_node), Topology::from_labels(&round_robin)] {
            let once = (nodes - 1) * (p * C) / nodes;
            for (collective, name, expected) in [
                (REDUCE_SCATTER, "hierarchical", once),
                (REDUCE_SCATTER, "hierarchical_direct", once),
                (ALL_GATHER, "hierarchical", once),
                (ALL_REDUCE, "hierarchical", 2 * once),
                (ALL_REDUCE, "hierarchical_direct", 2 * once),
            ] {
                let report = report(collective, name, &topology, 1 << 16);
                let sent = report.sent_by_nodes(&topology);
                // An all_reduce splits lanes evenly over the nodes, to one element or less.
                let slack = if collective == ALL_REDUCE { 2 * per_node } else { 0 };
                for sent in sent {
                    assert!(sent.abs_diff(expected) <= slack, "{name}: {sent} is not {expected}");
                }
            }
        }
    }
}

#[test]
fn workspace_stays_small_for_staged_plans_of_any_length() {
    for p in [1, 2, 5, 8] {
        for n in [1000, 100_000] {
            for row in table::all().iter().filter(|row| matches!(row.name, "staged" | "flat")) {
                let problem = match row.collective {
                    Collective::AllToAll => Problem::all_to_all(p, vec![n / p; p * p].into()),
                    other => Problem::new(other, Sharding::even(n, p)),
                };
                let problem = Problem { piece: 4096, ..problem };
                let plan = row.plan(&problem, &Topology::one_node(p), 0);
                assert!(plan.scratch <= 4 * 4096, "{}: {}", row.name, plan.scratch);
            }
        }
    }
}
