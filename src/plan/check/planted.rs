//! Planted bugs: the checker must find every one of them, and name the right place.

use super::*;
use crate::plan::table::{Algorithm, Canonical};
use crate::plan::{Collective, Operand, Plan, Slice, Step, table};
use crate::sharding::Sharding;

/// Plans of a row, a change to them, and what the checker says about it.
fn verdict(
    (collective, name): (Collective, &str),
    (n, topology): (usize, &Topology),
    piece: usize,
    change: impl Fn(&mut Vec<Plan>),
) -> String {
    let row = table::find(collective, name).unwrap();
    let sharding = Sharding::even(n, topology.ranks());
    let problem = Problem { piece, ..Problem::new(collective, sharding) };
    let mut plans = row.plans(&problem, topology);
    let needs = row.needs;
    let check = |plans: &[Plan]| {
        check_all(plans, &problem, topology, needs.shared_input, needs.shared_output)
    };
    check(&plans).unwrap();
    change(&mut plans);
    check(&plans).unwrap_err().to_string()
}

const RING: (Collective, &str) = (Collective::ReduceScatter, "ring");
const DIRECT: (Collective, &str) = (Collective::ReduceScatter, "direct");

fn flat(ranks: usize) -> (usize, Topology) {
    (2 * ranks, Topology::flat(ranks))
}

fn node(ranks: usize) -> (usize, Topology) {
    (2 * ranks, Topology::one_node(ranks))
}

fn operands(step: &mut Step) -> &mut Vec<Operand> {
    match step {
        Step::Reduce { sources, .. } => sources,
        other => panic!("{other:?} is not a reduction"),
    }
}

fn slices(step: &mut Step) -> Vec<&mut Slice> {
    match step {
        Step::Send { from, .. } => vec![from],
        Step::Receive { into, .. } => vec![into],
        Step::Pull { from, into, .. } | Step::Copy { from, into } => vec![from, into],
        Step::Reduce { sources, into, .. } => {
            sources.iter_mut().map(|operand| &mut operand.slice).chain([into]).collect()
        }
    }
}

#[test]
fn a_dropped_reduction_loses_a_contribution() {
    let (n, topology) = flat(4);
    let said = verdict(RING, (n, &topology), 1, |plans| {
        plans[2].rounds[1].steps.clear();
    });
    // Rank 2 adds to block 0 first, which ends on rank 0 after two more stops.
    assert_eq!(said, "rank 0, round 5, step 0: out[0] lacks the contribution of rank 2");
}

#[test]
fn a_message_to_the_wrong_peer_leaves_the_right_one_waiting() {
    let (n, topology) = flat(4);
    let said = verdict(RING, (n, &topology), 1, |plans| {
        let Step::Send { to, .. } = &mut plans[0].rounds[0].steps[0] else { panic!() };
        *to = 2;
    });
    let start = "rank 0, round 0, step 0: nobody can go on: rank 0 waits in round 0 for the \
                 message of rank 2; rank 1 waits in round 0 for the message of rank 0";
    assert!(said.starts_with(start), "{said}");
}

#[test]
fn a_shifted_operand_mixes_elements() {
    let (n, topology) = node(4);
    let said = verdict(DIRECT, (n, &topology), 1, |plans| {
        operands(&mut plans[1].rounds[0].steps[0])[3].slice.start += 1;
    });
    assert_eq!(said, "rank 1, round 0, step 0: out[0] mixes the elements 2 and 3 of the vector");
}

#[test]
fn a_slice_beyond_the_end_is_found_without_the_others() {
    let (n, topology) = node(4);
    let said = verdict(DIRECT, (n, &topology), 1, |plans| {
        operands(&mut plans[3].rounds[0].steps[0])[0].slice.start += 1;
    });
    let expected = "rank 3, round 0, step 0: in[7..9] of rank 0 reaches beyond its 8 elements";
    assert_eq!(said, expected);
}

#[test]
fn a_contribution_counted_twice_is_named() {
    let (n, topology) = node(3);
    let said = verdict(DIRECT, (n, &topology), 1, |plans| {
        let operands = operands(&mut plans[2].rounds[0].steps[0]);
        operands[0] = operands[1];
    });
    assert_eq!(said, "rank 2, round 0, step 0: out[0] gets the contribution of rank 1 twice");
}

#[test]
fn a_missing_meet_is_a_race_or_a_deadlock() {
    let staged = (Collective::AllGather, "staged");
    let (n, topology) = node(2);
    // The first meet: the peer is not in the call yet.
    let said = verdict(staged, (n, &topology), 2, |plans| {
        plans.iter_mut().for_each(|plan| plan.rounds[2].meet = false);
    });
    assert_eq!(
        said,
        "rank 0, round 2, step 1: reads scratch[1..2] of rank 1 before the first meet"
    );
    // The second: slots are read while they are filled.
    let said = verdict(staged, (8, &topology), 2, |plans| {
        plans.iter_mut().for_each(|plan| plan.rounds[3].meet = false);
    });
    let race = "is written and read by a peer with no meet in between";
    assert_eq!(said, format!("rank 1, round 3, step 0: scratch[1] of rank 1 {race}"));
    // On one rank only: the others wait for it.
    let said = verdict(staged, (8, &topology), 2, |plans| {
        plans[1].rounds[4].meet = false;
    });
    assert!(said.contains("waits in round 4") || said.contains(race), "{said}");
    let said = verdict((Collective::Barrier, "meet"), (0, &topology), 1, |plans| {
        plans[1].rounds.clear();
    });
    let expected = "rank 0, round 0, step 0: nobody can go on: rank 0 waits in round 0 for the \
                    meet with rank 1";
    assert_eq!(said, expected);
    // The last meet keeps the inputs valid while peers read them.
    let said = verdict(DIRECT, (n, &topology), 1, |plans| {
        plans.iter_mut().for_each(|plan| drop(plan.rounds.pop()));
    });
    assert_eq!(said, "rank 0, round 0, step 0: reads in[0..2] of rank 1 after the last meet");
}

#[test]
fn messages_of_a_pair_may_not_overtake_each_other() {
    // Rank 4 of 5 sends its shard and that of rank 0 to rank 2: two messages.
    let bruck = (Collective::AllGather, "bruck");
    let topology = Topology::flat(5);
    let said = verdict(bruck, (9, &topology), 1, |plans| plans[4].rounds[1].steps.swap(0, 1));
    assert_eq!(said, "rank 2, round 1, step 1: expects 1 elements of rank 4, which sends 2");
    let said = verdict(bruck, (10, &topology), 1, |plans| plans[4].rounds[1].steps.swap(0, 1));
    let expected = "rank 2, round 1, step 2: out[0] should hold element 0 of rank 0 and \
                    holds element 8 of rank 4";
    assert_eq!(said, expected);
}

#[test]
fn the_mark_of_the_last_reduction_is_checked_both_ways() {
    let (n, topology) = flat(3);
    let mark = |rank: usize, round: usize, value: bool| {
        let topology = topology.clone();
        verdict(RING, (n, &topology), 1, move |plans| {
            let Step::Reduce { last, .. } = &mut plans[rank].rounds[round].steps[0] else {
                panic!()
            };
            *last = value;
        })
    };
    let expected =
        "rank 1, round 3, step 0: out[0] is complete, but the reduction is not marked last";
    assert_eq!(mark(1, 3, false), expected);
    assert_eq!(
        mark(1, 1, true),
        "rank 1, round 1, step 0: scratch[2] lacks the contribution of rank 2"
    );
}

#[test]
fn steps_of_a_round_may_not_disturb_each_other() {
    let (n, topology) = flat(3);
    let said = verdict(RING, (n, &topology), 1, |plans| {
        let moved = plans[0].rounds.remove(1);
        plans[0].rounds[0].steps.extend(moved.steps);
    });
    let expected = "rank 0, round 0, step 2: writes scratch[2..4], but step 1 of the round \
                    touches scratch[2..4]";
    assert_eq!(said, expected);
    let said = verdict(RING, (n, &topology), 1, |plans| {
        let Step::Reduce { into, .. } = &mut plans[2].rounds[1].steps[0] else { panic!() };
        *into = Slice::input(0..2);
    });
    assert_eq!(said, "rank 2, round 1, step 0: writes in[0..2], which is only to be read");
}

#[test]
fn different_bits_on_different_ranks_are_found() {
    let topology = Topology::flat(2);
    let said = verdict((Collective::AllReduce, "doubling"), (3, &topology), 1, |plans| {
        operands(&mut plans[1].rounds[1].steps[0]).reverse();
    });
    assert_eq!(said, "rank 1, round 1, step 0: out[0] is folded in another order than on rank 0");
}

#[test]
fn private_memory_and_other_nodes_are_not_read() {
    let row = table::find(Collective::ReduceScatter, "direct").unwrap();
    let problem = Problem::new(Collective::ReduceScatter, Sharding::even(4, 2));
    let plans = row.plans(&problem, &Topology::one_node(2));
    let said = check_all(&plans, &problem, &Topology::one_node(2), false, true).unwrap_err();
    let expected = "rank 0, round 0, step 0: reads in[0..2] of rank 1, which is private memory";
    assert_eq!(said.to_string(), expected);
    let said = check_local(plans[1].clone(), &problem, &Topology::flat(2)).unwrap_err();
    let expected = "rank 1, round 0, step 0: reads memory of rank 0 on another node";
    assert_eq!(said.to_string(), expected);
}

#[test]
fn a_false_claim_of_single_rounding_is_found() {
    let row = table::find(Collective::ReduceScatter, "ring").unwrap();
    let claims = Algorithm { single_rounding: true, ..*row };
    let problem = Problem::new(Collective::ReduceScatter, Sharding::even(4, 3));
    let said = check_algorithm(&claims, &problem, &Topology::flat(3)).unwrap_err();
    let expected = "rank 0: out[0] is not the fold of all contributions in one step, in order";
    assert_eq!(said.to_string(), expected);
}

#[test]
fn a_false_claim_of_the_canonical_tree_is_found() {
    let row = table::find(Collective::AllReduce, "hierarchical_ordered").unwrap();
    let claims = Algorithm { canonical: Canonical::Always, ..*row };
    let problem = Problem::new(Collective::AllReduce, Sharding::even(4, 6));
    check_algorithm(&claims, &problem, &Topology::blocks(6, 4)).unwrap();
    let said = check_algorithm(&claims, &problem, &Topology::blocks(6, 3)).unwrap_err();
    let expected = "rank 0: out[0] is not the canonical tree over all contributions";
    assert_eq!(said.to_string(), expected);
}

/// All ways to break one step that no plan can survive.
fn broken(step: &Step, p: usize) -> Vec<Option<Step>> {
    let mut all = vec![None];
    let mut with = |change: &dyn Fn(&mut Step)| {
        let mut step = step.clone();
        change(&mut step);
        all.push(Some(step));
    };
    let turn = |rank: &mut usize| *rank = (*rank + 1) % p;
    match step {
        Step::Send { .. } | Step::Receive { .. } | Step::Pull { .. } => with(&|step| match step {
            Step::Send { to: peer, .. }
            | Step::Receive { from: peer, .. }
            | Step::Pull { peer, .. } => turn(peer),
            Step::Reduce { .. } | Step::Copy { .. } => {}
        }),
        Step::Reduce { sources, .. } => {
            with(&|step| {
                let Step::Reduce { last, .. } = step else { return };
                *last = !*last;
            });
            for at in 0..sources.len() {
                with(&|step| {
                    let _ = operands(step).remove(at);
                });
                with(&|step| {
                    let again = operands(step)[at];
                    operands(step).push(again);
                });
            }
        }
        Step::Copy { .. } => {}
    }
    let count = slices(&mut step.clone()).len();
    for at in 0..count {
        with(&|step| slices(step)[at].start += 1);
        with(&|step| slices(step)[at].len -= 1);
    }
    all
}

#[test]
fn no_step_of_any_plan_can_be_dropped_or_changed_unseen() {
    let mut mutants = 0;
    let topologies = [
        Topology::one_node(4),
        Topology::flat(4),
        Topology::blocks(4, 2),
        Topology::from_labels(&[0, 1, 0, 0, 1]),
    ];
    for (row, topology) in table::all().iter().flat_map(|r| topologies.iter().map(move |t| (r, t)))
    {
        let p = topology.ranks();
        let problem = match row.collective {
            Collective::AllToAll => Problem::all_to_all(p, vec![2; p * p].into()),
            // A signal may be any element of the workspace.
            Collective::Barrier => continue,
            other => Problem { piece: 8, ..Problem::new(other, Sharding::even(3 * p + 1, p)) },
        };
        if row.fits(&problem, topology, true, true).is_err() {
            continue;
        }
        let good = row.plans(&problem, topology);
        let places = good.iter().flat_map(|plan| {
            let rounds = plan.rounds.iter().enumerate();
            rounds.flat_map(move |(round, r)| {
                (0..r.steps.len()).map(move |step| (plan.rank, round, step))
            })
        });
        for (rank, round, step) in places {
            for broken in broken(&good[rank].rounds[round].steps[step], p) {
                let mut plans = good.clone();
                let steps = &mut plans[rank].rounds[round].steps;
                match broken.clone() {
                    Some(other) => steps[step] = other,
                    None => drop(steps.remove(step)),
                }
                let shared = (row.needs.shared_input, row.needs.shared_output);
                let verdict = check_all(&plans, &problem, topology, shared.0, shared.1);
                let name = (row.collective.name(), row.name);
                let place = (rank, round, step);
                assert!(verdict.is_err(), "{name:?} {topology:?} {place:?} {broken:?} {good:?}");
                mutants += 1;
            }
        }
    }
    assert!(mutants > 5_000, "only {mutants} mutants");
}
