//! Plans as text: one block a round, one line a rank, or one for all ranks that do the same.
//!
//! ```text
//! round 1
//!   0  reduce scratch[0..2] + in[4..6] into scratch[0..2]
//!   1  …
//! ```
//!
//! A round of a rank is numbered in its own plan; ranks need not be in the same round at one time.
//! The pictures under `tests/data/plans` are kept by a test, so that a change of an algorithm is a
//! change of a file that can be read.

use std::fmt;

use super::{Plan, Slice, Step};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Send { to, from } => write!(f, "send {from} to {to}"),
            Step::Receive { from, into } => write!(f, "receive {into} from {from}"),
            Step::Pull { peer, from, into } => write!(f, "pull {from} of {peer} into {into}"),
            Step::Copy { from, into } => write!(f, "copy {from} to {into}"),
            Step::Reduce { sources, into, last } => {
                let last = if *last { " (last)" } else { "" };
                let mut operands: Vec<String> = Vec::new();
                let mut run: Option<(Slice, usize, usize)> = None;
                let name = |(slice, first, end): (Slice, usize, usize)| match end - first {
                    1 => format!("{slice} of {first}"),
                    _ => format!("{slice} of {first}-{}", end - 1),
                };
                // Consecutive ranks with equal slices are one word.
                for operand in sources {
                    run = match run {
                        Some((slice, first, end))
                            if (slice, end) == (operand.slice, operand.rank) =>
                        {
                            Some((slice, first, end + 1))
                        }
                        _ => {
                            operands.extend(run.map(name));
                            Some((operand.slice, operand.rank, operand.rank + 1))
                        }
                    };
                }
                operands.extend(run.map(name));
                write!(f, "reduce {} into {into}{last}", operands.join(" + "))
            }
        }
    }
}

/// What a rank does in a round, as one line.
fn line(plan: &Plan, round: usize) -> Option<String> {
    let round = plan.rounds.get(round)?;
    let meet = round.meet.then(|| "meet".to_string());
    let steps: Vec<String> =
        meet.into_iter().chain(round.steps.iter().map(Step::to_string)).collect();
    Some(steps.join(", "))
}

/// The plans of some ranks as readable text.
pub fn picture(plans: &[Plan]) -> String {
    let scratch = plans.iter().map(|plan| plan.scratch).max().unwrap_or(0);
    let rounds = plans.iter().map(|plan| plan.rounds.len()).max().unwrap_or(0);
    let mut text = format!("{} ranks, {rounds} rounds, scratch {scratch}\n", plans.len());
    for round in 0..rounds {
        text.push_str(&format!("round {round}\n"));
        let mut lines: Vec<(Vec<usize>, String)> = Vec::new();
        for plan in plans {
            let Some(line) = line(plan, round) else { continue };
            match lines.iter_mut().find(|(_, other)| *other == line) {
                Some((ranks, _)) => ranks.push(plan.rank),
                None => lines.push((vec![plan.rank], line)),
            }
        }
        for (ranks, line) in lines {
            let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
            text.push_str(&format!("  {}  {line}\n", ranks.join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::{Collective, Problem, table};
    use crate::sharding::Sharding;
    use crate::topology::Topology;

    /// Every row that fits, on the placement that it is for: `p` ranks and 2 p + 1 elements.
    fn pictures(p: usize) -> Vec<(String, String)> {
        let mut pictures = Vec::new();
        for row in table::all() {
            let topology = match row.name {
                name if row.needs.one_node || name == "meet" => Topology::one_node(p),
                name if name.starts_with("hierarchical") => Topology::blocks(p, 2),
                _ => Topology::flat(p),
            };
            let problem = match row.collective {
                Collective::AllToAll => Problem::all_to_all(p, vec![1; p * p].into()),
                other => Problem { piece: 8, ..Problem::new(other, Sharding::even(2 * p + 1, p)) },
            };
            if row.fits(&problem, &topology, true, true).is_ok() {
                let name = format!("{}-{}-{p}.txt", row.collective.name(), row.name);
                pictures.push((name, picture(&row.plans(&problem, &topology))));
            }
        }
        pictures
    }

    #[test]
    fn pictures_of_all_plans_for_4_and_5_ranks_are_as_stored() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plans");
        let bless = std::env::var_os("RANKWISE_BLESS").is_some();
        if bless {
            std::fs::create_dir_all(&folder).unwrap();
        }
        let mut names = Vec::new();
        for (name, picture) in pictures(4).into_iter().chain(pictures(5)) {
            let path = folder.join(&name);
            if bless {
                std::fs::write(&path, &picture).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                stored == picture,
                "{name} has changed; RANKWISE_BLESS=1 cargo test picture rewrites it\n{picture}"
            );
            names.push(name);
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(names.contains(&name), "{name} is a picture of no row; delete it");
        }
    }
}
