//! Every row of the table for p = 1..=64, and planted bugs that must be found and named.

use super::*;
use crate::plan::{Collective, table};
use crate::sharding::Sharding;

/// Placements of `p` ranks: one node, no shared memory, regular, uneven, round-robin.
fn layouts(p: usize) -> Vec<Topology> {
    let uneven = |rank: usize| rank / 6 * 3 + [0, 0, 0, 1, 2, 2][rank % 6];
    let labels = |label: &dyn Fn(usize) -> usize| {
        Topology::from_labels(&(0..p).map(label).collect::<Vec<_>>())
    };
    vec![
        Topology::one_node(p),
        Topology::flat(p),
        Topology::blocks(p, 2),
        Topology::blocks(p, 3),
        Topology::blocks(p, 4),
        labels(&uneven),
        labels(&|rank| rank % 2),
        labels(&|rank| rank % 3),
    ]
}

/// Shardings of awkward sizes, even and strange.
fn shardings(p: usize) -> Vec<Sharding> {
    let sizes = [0, 1, p - 1, p, p + 1, 3 * p + 2];
    let mut all: Vec<Sharding> = sizes.iter().map(|&n| Sharding::even(n, p)).collect();
    let counts = |count: &dyn Fn(usize) -> usize| {
        Sharding::from_counts(&(0..p).map(count).collect::<Vec<_>>())
    };
    all.push(counts(&|rank| if rank == p / 2 { p + 3 } else { 0 }));
    all.push(counts(&|rank| if rank % 2 == 1 { 3 } else { 0 }));
    all.push(counts(&|rank| rank * 7 % 5));
    all
}

/// The collective of a row with all its roots.
fn with_roots(collective: Collective, p: usize) -> Vec<Collective> {
    let roots: std::collections::BTreeSet<usize> = [0, p / 2, p - 1].into();
    match collective {
        Collective::Broadcast { .. } => {
            roots.into_iter().map(|root| Collective::Broadcast { root }).collect()
        }
        Collective::Gather { .. } => {
            roots.into_iter().map(|root| Collective::Gather { root }).collect()
        }
        Collective::Scatter { .. } => {
            roots.into_iter().map(|root| Collective::Scatter { root }).collect()
        }
        other => vec![other],
    }
}

/// Problems of a collective on `p` ranks, all with large pieces and out of place.
fn problems(collective: Collective, p: usize) -> Vec<Problem> {
    if collective == Collective::AllToAll {
        let matrix = |count: &dyn Fn(usize, usize) -> usize| {
            let counts: Vec<usize> = (0..p * p).map(|at| count(at / p, at % p)).collect();
            Problem::all_to_all(p, counts.into())
        };
        return vec![
            matrix(&|_, _| 0),
            matrix(&|_, _| 1),
            matrix(&|_, _| 3),
            matrix(&|from, to| (from * 3 + to * 5) % 4),
            matrix(&|from, to| if from == p / 2 || to == p - 1 { 4 } else { 0 }),
        ];
    }
    if collective == Collective::Barrier {
        return vec![Problem::new(collective, Sharding::even(0, p))];
    }
    let collectives = with_roots(collective, p);
    let problem = |sharding: &Sharding, root: usize| {
        Problem::new(collectives[root % collectives.len()], sharding.clone())
    };
    let owners_matter = !matches!(collective, Collective::AllReduce | Collective::Broadcast { .. });
    let shardings = shardings(p).into_iter().enumerate();
    let shardings = shardings.filter(|(kind, _)| *kind < 6 || owners_matter);
    let all_roots = if p <= 16 { collectives.len() } else { 1 };
    shardings
        .flat_map(|(kind, sharding)| {
            (0..all_roots).map(move |root| (kind + root, sharding.clone()))
        })
        .map(|(root, sharding)| problem(&sharding, root))
        .collect()
}

/// Pieces and in place: all of them for small p, one after the other beyond.
fn variants(problem: Problem, p: usize, turn: usize) -> Vec<Problem> {
    let in_place = Problem { in_place: true, ..problem.clone() };
    let both = if in_place.overlap(0).is_some() { vec![problem, in_place] } else { vec![problem] };
    let piece = |piece: usize| both.iter().map(move |b| Problem { piece, ..b.clone() });
    let all: Vec<Problem> = [1, 3, 1 << 16].into_iter().flat_map(piece).collect();
    if p <= 5 { all } else { vec![all[turn % all.len()].clone()] }
}

/// Checks the rows of a collective on all its problems, and says how many there were.
fn check_rows(collective: Collective) -> usize {
    let mut cases = 0;
    for row in table::of(collective) {
        for p in 1..=64 {
            for (layout, topology) in layouts(p).iter().enumerate() {
                for (turn, problem) in problems(row.collective, p).into_iter().enumerate() {
                    // Beyond 16 ranks each layout gets a few of the sizes.
                    if p > 16 && collective != Collective::Barrier && (turn + layout + p) % 11 > 0 {
                        continue;
                    }
                    for problem in variants(problem, p, turn + layout + p) {
                        if row.fits(&problem, topology, true, true).is_err() {
                            continue;
                        }
                        cases += 1;
                        if let Err(error) = check_algorithm(row, &problem, topology) {
                            let (collective, name) = (row.collective.name(), row.name);
                            panic!("{collective}/{name}: {error}\n{problem:?}\n{topology:?}");
                        }
                    }
                }
            }
        }
    }
    cases
}

// One test a collective, so that they run side by side.
macro_rules! every_row_is_right {
    ($($name:ident: $collective:expr, $cases:expr;)*) => {$(
        #[test]
        fn $name() {
            let cases = check_rows($collective);
            assert!(cases >= $cases, "only {cases} cases were checked");
        }
    )*};
}

every_row_is_right! {
    every_reduce_scatter_is_right: Collective::ReduceScatter, 15000;
    every_all_gather_is_right: Collective::AllGather, 12000;
    every_all_reduce_is_right: Collective::AllReduce, 12000;
    every_broadcast_is_right: Collective::Broadcast { root: 0 }, 12000;
    every_gather_is_right: Collective::Gather { root: 0 }, 12000;
    every_scatter_is_right: Collective::Scatter { root: 0 }, 12000;
    every_all_to_all_is_right: Collective::AllToAll, 2500;
    every_barrier_is_right: Collective::Barrier, 1300;
}
