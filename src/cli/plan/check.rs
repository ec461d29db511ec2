//! `rankwise plan check`: the symbolic replay of all ranks, for every row of the table.
//!
//! Each row is replayed on 1 to `--max-ranks` ranks, on six placements, with even and lopsided
//! shards of awkward lengths, all roots that differ, small and large pieces, in place and not.
//! Beyond 16 ranks each placement gets a part of the sizes in turn, since a replay of a ring costs
//! O(p²). Up to 64 ranks that takes some seconds.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Imagined, collective, print_json, with_root};
use crate::error::{Error, Result};
use crate::launch::Output;
use crate::plan::check::check_algorithm;
use crate::plan::table::{self, Algorithm};
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;
use crate::topology::Topology;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    /// The collective, such as all-reduce [default: all]
    #[arg(value_parser = collective)]
    collective: Option<Collective>,
    /// One algorithm only
    #[arg(long, value_name = "NAME", requires = "collective")]
    algorithm: Option<String>,
    /// Prove it for 1 to P ranks
    #[arg(long, default_value = "64", value_name = "P")]
    max_ranks: usize,
}

#[derive(Debug, Serialize)]
struct Proved {
    collective: &'static str,
    algorithm: &'static str,
    cases: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    max_ranks: usize,
    proved: Vec<Proved>,
}

impl Check {
    #[allow(clippy::print_stdout)] // the result
    pub(super) fn run(&self, imagined: &Imagined, output: Output) -> Result<()> {
        const MOST: usize = 512;
        if imagined.ranks.is_some() {
            return Err(Error::input("plan check takes --max-ranks P, not --ranks"));
        }
        if !(1..=MOST).contains(&self.max_ranks) {
            return Err(Error::input(format!(
                "--max-ranks {}: allowed is 1 to {MOST}",
                self.max_ranks
            )));
        }
        let rows: Vec<&Algorithm> = match (self.collective, &self.algorithm) {
            (Some(collective), Some(name)) => vec![table::find(collective, name)?],
            (Some(collective), None) => table::of(collective).collect(),
            (None, _) => table::all().iter().collect(),
        };
        let mut proved = Vec::new();
        for row in rows {
            let cases = prove(row, self.max_ranks)?;
            if !output.json {
                println!("{}/{}: {cases} cases proved", row.collective.name(), row.name);
            }
            let collective = row.collective.name();
            proved.push(Proved { collective, algorithm: row.name, cases });
        }
        if output.json {
            print_json(&Report { max_ranks: self.max_ranks, proved })?;
        }
        Ok(())
    }
}

/// Replays a row on all its cases and counts them; the first fault is the error.
fn prove(row: &Algorithm, max_ranks: usize) -> Result<usize> {
    let mut cases = 0;
    for ranks in 1..=max_ranks {
        for (layout, topology) in layouts(ranks).iter().enumerate() {
            for (turn, problem) in problems(row.collective, ranks)?.into_iter().enumerate() {
                let spared = ranks > 16 && (turn + layout + ranks) % 11 > 0;
                let skipped = spared && row.collective != Collective::Barrier;
                if skipped || row.fits(&problem, topology, true, true).is_err() {
                    continue;
                }
                check_algorithm(row, &problem, topology).map_err(|fault| {
                    Error::internal(format!(
                        "{}/{} is wrong on {ranks} ranks, {} nodes, {} elements{}: {fault}",
                        row.collective.name(),
                        row.name,
                        topology.nodes(),
                        problem.sharding.n(),
                        if problem.in_place { " in place" } else { "" },
                    ))
                })?;
                cases += 1;
            }
        }
    }
    Ok(cases)
}

/// Placements: one node, nothing shared, regular, round robin.
fn layouts(ranks: usize) -> [Topology; 6] {
    let labels = |nodes: usize| (0..ranks).map(|rank| rank % nodes).collect::<Vec<_>>();
    [
        Topology::one_node(ranks),
        Topology::flat(ranks),
        Topology::blocks(ranks, 2),
        Topology::blocks(ranks, 3),
        Topology::blocks(ranks, 8),
        Topology::from_labels(&labels(3)),
    ]
}

/// Problems of awkward sizes.
fn problems(collective: Collective, ranks: usize) -> Result<Vec<Problem>> {
    if collective == Collective::Barrier {
        return Ok(vec![Problem::new(collective, Sharding::even(0, ranks))]);
    }
    if collective == Collective::AllToAll {
        let matrix = |count: &dyn Fn(usize, usize) -> usize| {
            let counts: Vec<usize> =
                (0..ranks * ranks).map(|at| count(at / ranks, at % ranks)).collect();
            Problem::all_to_all(ranks, counts.into())
        };
        return Ok(vec![
            matrix(&|_, _| 0),
            matrix(&|_, _| 1),
            matrix(&|_, _| 3),
            matrix(&|from, to| (from * 3 + to * 5) % 4),
        ]);
    }
    let sizes: BTreeSet<usize> = [0, 1, ranks - 1, ranks, ranks + 1, 3 * ranks + 2].into();
    let mut shardings: Vec<Sharding> =
        sizes.into_iter().map(|n| Sharding::even(n, ranks)).collect();
    if !matches!(collective, Collective::AllReduce | Collective::Broadcast { .. }) {
        let counts: Vec<usize> = (0..ranks).map(|rank| rank * 7 % 5).collect();
        shardings.push(Sharding::from_counts(&counts));
    }
    let roots: BTreeSet<usize> = match collective.root() {
        Some(_) => [0, ranks / 2, ranks - 1].into(),
        None => [0].into(),
    };
    let mut problems = Vec::new();
    for sharding in shardings {
        for &root in &roots {
            let collective = with_root(collective, root, ranks)?;
            let plain = Problem::new(collective, sharding.clone());
            for problem in [Problem { piece: 3, ..plain.clone() }, plain] {
                let in_place = Problem { in_place: true, ..problem.clone() };
                problems.extend(in_place.overlap(0).is_some().then_some(in_place));
                problems.push(problem);
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn every_row_is_proved_and_a_wrong_row_is_named() {
        for row in table::all() {
            let cases = prove(row, 5).unwrap();
            assert!(cases >= 5, "{}/{}: {cases} cases", row.collective.name(), row.name);
        }
        let ring = table::find(Collective::AllGather, "ring").unwrap();
        // A plan that does nothing leaves the output unwritten as soon as there is an element.
        let idle = Algorithm { build: |_, _, rank| Plan::new(rank), ..*ring };
        let error = prove(&idle, 3).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert_eq!(
            error.message,
            "all_gather/ring is wrong on 1 ranks, 1 nodes, 1 elements: rank 0: out[0] is never \
             written"
        );
    }
}
