//! Canonical order: the bits of a reduction are those of the canonical tree over the ranks, on
//! every algorithm that claims it, every placement and every number of ranks, and so they are for
//! contributions that ranks hold several of.

use half::bf16;
use rankwise::communicator::Settings;
use rankwise::element::Op;
use rankwise::launch::threads_on_nodes;
use rankwise::plan::{Collective, Problem, table};
use rankwise::sharding::Sharding;
use rankwise::topology::Topology;

const N: usize = 37;

/// Numbers of very different sizes: every order of additions has bits of its own.
fn value(rank: usize, index: usize) -> f32 {
    let mixed = (rank * 7919 + index * 104_729 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sign = if mixed.is_multiple_of(2) { 1.0 } else { -1.0 };
    sign * (mixed >> 40) as f32 * 2f32.powi((mixed % 41) as i32 - 20)
}

/// The plain reference.
fn tree(values: &[f32]) -> f32 {
    if let [one] = *values {
        return one;
    }
    let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
    tree(left) + tree(right)
}

fn reference(leaves: usize, index: usize) -> f32 {
    tree(&(0..leaves).map(|leaf| value(leaf, index)).collect::<Vec<_>>())
}

fn placements(ranks: usize) -> Vec<Vec<usize>> {
    let blocks = |each: usize| (0..ranks).map(|r| r / each).collect();
    let round_robin = (0..ranks).map(|r| r % 3).collect();
    vec![vec![0; ranks], (0..ranks).collect(), blocks(2), blocks(4), blocks(3), round_robin]
}

#[test]
fn every_canonical_algorithm_has_the_bits_of_the_plain_tree() {
    for ranks in 1..=16 {
        for nodes in placements(ranks) {
            let settings = Settings::default();
            let ran = threads_on_nodes(&nodes, settings, |c| {
                let (rank, mut ran) = (c.rank(), 0);
                let input: Vec<f32> = (0..N).map(|i| value(rank, i)).collect();
                for collective in [Collective::ReduceScatter, Collective::AllReduce] {
                    let problem = Problem::new(collective, Sharding::even(N, ranks));
                    let start = match collective {
                        Collective::ReduceScatter => problem.sharding.range(rank).start,
                        _ => 0,
                    };
                    let fitting = table::of(collective).filter(|row| {
                        row.is_canonical(c.topology())
                            && row.fits(&problem, c.topology(), false, false).is_ok()
                    });
                    for name in fitting.map(|row| Some(row.name)).chain([None]) {
                        let mut output = vec![0f32; problem.output_len(rank)];
                        c.run_algorithm(&problem, name, Some(Op::Sum), &input, &mut output)?;
                        for (i, x) in output.iter().enumerate() {
                            let right = reference(ranks, start + i);
                            assert_eq!(x.to_bits(), right.to_bits(), "{name:?} p={ranks} {i}");
                        }
                        ran += 1;
                    }
                }
                Ok(ran)
            })
            .unwrap();
            assert!(ran[0] >= 4, "{nodes:?}");
        }
    }
}

#[test]
fn sixteen_bit_sums_are_rounded_once_on_every_placement() {
    for ranks in [2, 5, 8] {
        for nodes in placements(ranks) {
            threads_on_nodes(&nodes, Settings::default(), |c| {
                let value = |rank: usize, i: usize| bf16::from_f32(value(rank, i));
                let input: Vec<bf16> = (0..N).map(|i| value(c.rank(), i)).collect();
                let output = c.all_reduce_vec(&input, Op::Sum)?;
                for (i, x) in output.iter().enumerate() {
                    let wide: Vec<f32> = (0..ranks).map(|r| value(r, i).to_f32()).collect();
                    assert_eq!(x.to_bits(), bf16::from_f32(tree(&wide)).to_bits());
                }
                Ok(())
            })
            .unwrap();
        }
    }
}

#[test]
fn contributions_have_the_same_bits_however_ranks_hold_them() {
    for leaves in [1, 5, 8, 13] {
        for ranks in 1..=6 {
            let even = Sharding::even(leaves, ranks);
            let uneven = Sharding::weighted(leaves, &(0..ranks as u64).collect::<Vec<_>>());
            for held in [even, uneven] {
                let nodes: Vec<usize> = (0..ranks).map(|r| r / 2).collect();
                threads_on_nodes(&nodes, Settings::default(), |c| {
                    let own: Vec<Vec<f32>> = held
                        .range(c.rank())
                        .map(|leaf| (0..N).map(|i| value(leaf, i)).collect())
                        .collect();
                    let own: Vec<&[f32]> = own.iter().map(Vec::as_slice).collect();
                    let shards = Sharding::even(N, ranks);
                    let shard = c.reduce_scatter_contributions(&shards, &own, Op::Sum)?;
                    for (x, i) in shard.iter().zip(shards.range(c.rank())) {
                        assert_eq!(x.to_bits(), reference(leaves, i).to_bits(), "{leaves} {ranks}");
                    }
                    assert_eq!(shard.len(), shards.count(c.rank()));
                    Ok(())
                })
                .unwrap();
            }
        }
    }
}

#[test]
fn aligned_nodes_are_used_in_canonical_order() {
    let aligned = Topology::blocks(8, 4);
    let row = table::find(Collective::AllReduce, "hierarchical_ordered").unwrap();
    assert!(row.is_canonical(&aligned) && !row.is_canonical(&Topology::blocks(9, 3)));
}
