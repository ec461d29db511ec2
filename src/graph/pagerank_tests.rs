//! Tests of the PageRank kernel without communication: one partition, or several stepped in turn.

use super::*;
use crate::graph::rows::{Duplicates, Rows, key};
use crate::graph::step::StepSums;
use crate::sharding::Sharding;

/// Weighted edges; the number of nodes is given apart, since some may have no edge.
type Graph = (usize, Vec<(u32, u32, f64)>);

/// Partitions cut at `bounds`, made serially.
fn partitions(graph: &Graph, bounds: &[usize], weighted: bool) -> Vec<Partition> {
    let (n, edges) = graph;
    let sharding = Sharding::from_bounds(bounds.to_vec()).unwrap();
    assert_eq!(sharding.n(), *n);
    let mut out_weights = vec![0.0; *n];
    edges.iter().for_each(|&(from, _, weight)| out_weights[from as usize] += weight);
    (0..sharding.ranks())
        .map(|rank| {
            let range = sharding.range(rank);
            let own = || edges.iter().filter(|edge| range.contains(&(edge.1 as usize)));
            let keys: Vec<u64> = own().map(|&(from, to, _)| key(from, to)).collect();
            let weights: Vec<f64> = own().filter(|_| weighted).map(|edge| edge.2).collect();
            Partition {
                order: None,
                sharding: sharding.clone(),
                rows: Rows::build(range.clone(), &keys, &weights, Duplicates::Sum),
                out_weights: out_weights[range.clone()].to_vec(),
                edges: edges.len() as u64,
            }
        })
        .collect()
}

/// The ranks after `steps` steps, or fewer if the residual falls below `limit`.
fn run(partitions: &[Partition], alpha: f64, steps: usize, limit: f64) -> (Vec<f64>, f64) {
    let options = PageRankOptions { alpha, ..PageRankOptions::default() };
    let given = Distributions::default();
    let mut states: Vec<State<Double>> =
        partitions.iter().map(|p| State::new(p, &options, &given, false).unwrap()).collect();
    let total = |sums: Vec<ExactSum>| {
        let mut all = ExactSum::new();
        sums.iter().for_each(|sum| all.merge(sum));
        all.value()
    };
    let mut dangling = total(states.iter().map(State::dangling).collect());
    let mut residual = f64::INFINITY;
    let mut c = vec![0.0; partitions[0].sharding.n()];
    for (state, partition) in states.iter().zip(partitions) {
        state.contribute(&mut c[partition.rows.range.clone()]);
    }
    for _ in 0..steps {
        let before = c.clone();
        let sums: Vec<StepSums> = states
            .iter_mut()
            .zip(partitions)
            .map(|(state, partition)| {
                let next = &mut c[partition.rows.range.clone()];
                state.step(&before, dangling, next)
            })
            .collect();
        dangling = total(sums.iter().map(|s| s.dangling.clone()).collect());
        residual = total(sums.into_iter().map(|s| s.residual).collect());
        if residual < limit {
            break;
        }
    }
    (states.iter().flat_map(State::ranks).collect(), residual)
}

fn solve(graph: &Graph, alpha: f64, weighted: bool) -> Vec<f64> {
    let (ranks, residual) = run(&partitions(graph, &[0, graph.0], weighted), alpha, 2000, 1e-14);
    assert!(residual < 1e-14, "{residual}");
    let check = check_residual(&graph.1, &ranks, alpha);
    assert!(check < 1e-13, "{check}");
    ranks
}

/// The solution of (I − G)x = 0, Σx = 1 by Gaussian elimination on the dense Google matrix.
fn dense_reference(graph: &Graph, alpha: f64) -> Vec<f64> {
    let (n, edges) = (graph.0, &graph.1);
    let mut out = vec![0.0; n];
    edges.iter().for_each(|e| out[e.0 as usize] += e.2);
    let mut google = vec![vec![(1.0 - alpha) / n as f64; n]; n];
    for row in google.iter_mut() {
        (0..n).filter(|&u| out[u] == 0.0).for_each(|u| row[u] += alpha / n as f64);
    }
    edges.iter().filter(|e| e.2 > 0.0).for_each(|&(from, to, weight)| {
        google[to as usize][from as usize] += alpha * weight / out[from as usize];
    });
    let mut system: Vec<Vec<f64>> = (0..n)
        .map(|v| (0..n).map(|u| f64::from(u8::from(u == v)) - google[v][u]).chain([0.0]).collect())
        .collect();
    // The rows add up to zero: one of them makes room for the sum.
    system[n - 1] = vec![1.0; n + 1];
    for column in 0..n {
        let largest =
            |a: &usize, b: &usize| system[*a][column].abs().total_cmp(&system[*b][column].abs());
        let pivot = (column..n).max_by(largest).unwrap();
        system.swap(column, pivot);
        let pivot_row = system[column].clone();
        for (_, row) in system.iter_mut().enumerate().filter(|(v, _)| *v != column) {
            let factor = row[column] / pivot_row[column];
            row.iter_mut().zip(&pivot_row).for_each(|(a, b)| *a -= factor * b);
        }
    }
    (0..n).map(|v| system[v][n] / system[v][v]).collect()
}

fn close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (node, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() < tolerance, "node {node}: {got} is not {expected}");
    }
}

fn plain(n: usize, edges: &[(u32, u32)]) -> Graph {
    (n, edges.iter().map(|&(from, to)| (from, to, 1.0)).collect())
}

/// The example of Langville and Meyer, with its nodes 1..6 as 0..5.
fn langville_meyer() -> Graph {
    let edges = [(1, 2), (1, 3), (3, 1), (3, 2), (3, 5), (4, 5), (4, 6), (5, 4), (5, 6), (6, 4)];
    plain(6, &edges.map(|(from, to)| (from - 1, to - 1)))
}

/// A graph with hubs, dangling nodes, nodes without in-edges, self-loops and parallel edges.
fn tangled(n: u32) -> Graph {
    let mut state = 12345u64;
    let mut random = |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % u64::from(below)) as u32
    };
    let edge = |i: u32| {
        let from = random(n) / 2 * 2;
        let to = if i.is_multiple_of(3) { random(3.min(n)) } else { random(n) };
        (from, to, f64::from(random(5)) * 0.37)
    };
    (n as usize, (0..8 * n).map(edge).collect())
}

#[test]
fn the_published_example() {
    let graph = langville_meyer();
    let at_90 = [
        0.037_211_965_078,
        0.053_957_349_363,
        0.041_505_653_356,
        0.375_080_815_110,
        0.205_998_331_877,
        0.286_245_885_215,
    ];
    let at_85 = [
        0.051_704_745_757,
        0.073_679_262_704,
        0.057_412_412_496,
        0.348_703_685_215,
        0.199_903_811_973,
        0.268_596_081_855,
    ];
    for (alpha, expected) in [(0.9, at_90), (0.85, at_85)] {
        let ranks = solve(&graph, alpha, false);
        // These figures were printed from a run with a loose tolerance.
        close(&ranks, &expected, 1e-4);
        close(&ranks, &dense_reference(&graph, alpha), 1e-12);
    }
}

#[test]
fn small_graphs_match_the_dense_solution() {
    let cycle = plain(5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]);
    let star = plain(4, &[(1, 0), (2, 0), (3, 0)]);
    let trap = plain(4, &[(0, 1), (1, 2), (2, 1), (3, 1), (2, 3), (3, 3)]);
    let parallel = plain(3, &[(0, 1), (0, 1), (0, 2), (1, 0), (2, 0)]);
    let all_dangling = plain(3, &[]);
    let one = plain(1, &[(0, 0)]);
    for graph in [&cycle, &star, &trap, &parallel, &all_dangling, &one] {
        for alpha in [0.0, 0.3, 0.85, 0.95] {
            let ranks = solve(graph, alpha, false);
            close(&ranks, &dense_reference(graph, alpha), 1e-12);
            assert!((ranks.iter().sum::<f64>() - 1.0).abs() < 1e-14);
            assert_eq!(ranks, solve(graph, alpha, true), "weights of 1 change nothing");
        }
    }
    assert_eq!(solve(&cycle, 0.85, false), [0.2; 5]);
    assert_eq!(solve(&all_dangling, 0.85, false), [1.0 / 3.0; 3]);
    assert_eq!(solve(&one, 0.85, false), [1.0]);
}

#[test]
fn teleport_only_gives_exactly_the_uniform_distribution() {
    for n in [1, 7, 48, 49] {
        assert_eq!(solve(&tangled(n), 0.0, true), vec![1.0 / f64::from(n); n as usize]);
    }
}

#[test]
fn a_parallel_edge_is_one_edge_of_twice_the_weight() {
    let parallel = plain(3, &[(0, 1), (0, 1), (0, 2), (1, 0), (2, 0)]);
    let weighted = (3, vec![(0, 1, 2.0), (0, 2, 1.0), (1, 0, 0.7), (2, 0, 3.0)]);
    close(&solve(&parallel, 0.85, false), &solve(&weighted, 0.85, true), 1e-15);
}

#[test]
fn a_trap_holds_what_enters_it() {
    // 2 and 3 cite each other; 0 and 1 feed them and get only teleports.
    let ranks = solve(&plain(4, &[(0, 2), (1, 2), (2, 3), (3, 2)]), 0.85, false);
    let outside = 0.15 / 4.0;
    close(&ranks[..2], &[outside; 2], 1e-15);
    // x₂ = 2·outside·α + outside + α·x₃ and x₃ = outside + α·x₂.
    let two = outside * (1.0 + 0.85 * 2.0 + 0.85) / (1.0 - 0.85 * 0.85);
    close(&ranks[2..], &[two, outside + 0.85 * two], 1e-12);
}

#[test]
fn weighted_random_graphs_match_the_dense_solution() {
    for n in [2, 15, 16, 17, 60, 90] {
        let graph = tangled(n);
        close(&solve(&graph, 0.85, true), &dense_reference(&graph, 0.85), 1e-12);
    }
}

#[test]
fn any_cuts_and_any_threads_give_the_same_bits() {
    let graph = tangled(3000);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for weighted in [false, true] {
        // Out-weights must be those that the rows have.
        let graph = if weighted {
            graph.clone()
        } else {
            (graph.0, graph.1.iter().map(|e| (e.0, e.1, 1.0)).collect())
        };
        let bits = |bounds: &[usize], threads| {
            let parts = partitions(&graph, bounds, weighted);
            let (ranks, residual) = pool(threads).install(|| run(&parts, 0.85, 20, 0.0));
            let ranks: Vec<u64> = ranks.iter().map(|r| r.to_bits()).collect();
            (ranks, residual.to_bits())
        };
        let one = bits(&[0, 3000], 1);
        for threads in [1, 2, 5] {
            for bounds in [
                vec![0, 3000],
                vec![0, 16, 3000],
                vec![0, 1600, 3000, 3000],
                vec![0, 0, 480, 496, 2000, 2000, 2992, 3000],
            ] {
                assert_eq!(bits(&bounds, threads), one, "{bounds:?} on {threads} threads");
            }
        }
    }
}

#[test]
fn the_verifier_sees_a_wrong_rank() {
    let graph = langville_meyer();
    let mut ranks = solve(&graph, 0.85, false);
    ranks[0] += 1e-6;
    assert!(check_residual(&graph.1, &ranks, 0.85) > 1e-7);
}
