//! Running a prepared collective allocates nothing after its first run, and chooses nothing.

use half::bf16;
use rankwise::communicator::Settings;
use rankwise::element::Op;
use rankwise::launch::{threads, threads_on_nodes};
use rankwise::select::Table;
use rankwise::sharding::Sharding;

fn allocations_of(mut work: impl FnMut() -> rankwise::error::Result<()>) -> u64 {
    let all =
        allocation_counter::measure(|| (0..50).for_each(|_| work().expect("the collective works")));
    all.count_total
}

#[test]
fn a_prepared_collective_allocates_nothing_after_its_first_runs() {
    for ranks in [1, 2, 3] {
        for n in [2usize, 1000, 700_000] {
            threads(ranks, |c| {
                let shards = Sharding::even(n, ranks);
                let own = shards.count(c.rank());
                let (input, mut part) = (vec![1f32; n], vec![0f32; own]);
                let mut whole = vec![0f32; n];
                let mut shared_input = c.shared::<f32>(n)?;
                let mut shared_whole = c.shared::<f32>(n)?;
                shared_input.fill(1.0);
                let scatter = c.prepare_reduce_scatter::<f32>(&shards, Op::Sum)?;
                let gather = c.prepare_all_gather::<f32>(&shards)?;
                let reduce = c.prepare_all_reduce::<f32>(n, Op::Average)?;
                let mut all = || {
                    scatter.run(&input, &mut part)?;
                    gather.run(&part, &mut whole)?;
                    reduce.run(&input, &mut whole)?;
                    scatter.run(&shared_input, &mut part)?;
                    gather.run(shared_input.part(0..own), &mut shared_whole)?;
                    reduce.run(&shared_input, &mut shared_whole)
                };
                for _ in 0..3 {
                    all()?; // plans are made and vectors grow
                }
                assert_eq!(allocations_of(&mut all), 0, "{ranks} ranks, n = {n}");
                assert!(whole.iter().all(|&x| x == 1.0));
                // The counter counts.
                assert!(allocations_of(|| c.all_reduce_vec(&input, Op::Sum).map(|_| ())) >= 50);
                Ok(())
            })
            .unwrap();
        }
    }
}

/// A choice by a table puts its reason into words, and so would be seen here.
#[test]
fn a_call_in_16_bits_chooses_its_algorithm_once() {
    const N: usize = 1000;
    let text = "version = 1\nrows = [{ op = \"all_reduce\", ranks = 2, ranks_per_node = 2, \
                buffers = \"plain\", dtype_bytes = 2, bytes = 2000, bytes_up_to = 4000, \
                algorithm = \"staged\", time_us = 1.0 }]\n[measured]\nlibrary = \"\"\n\
                ranks = 2\nnodes = 1\ncores = 2\ndate = \"\"\n";
    let table: &'static Table = Box::leak(Box::new(Table::parse(text, "t.toml").unwrap()));
    let settings = Settings { table: Some(table), ..Settings::default() };
    threads_on_nodes(&[0, 0], settings, |c| {
        let own = bf16::from_f32(c.rank() as f32 + 1.0);
        let (input, mut output) = (vec![own; N], vec![bf16::ZERO; N]);
        let prepared = c.prepare_all_reduce::<bf16>(N, Op::Sum)?;
        assert_eq!(prepared.algorithm(false, false)?, "staged");
        for _ in 0..3 {
            prepared.run(&input, &mut output)?;
        }
        assert_eq!(allocations_of(|| prepared.run(&input, &mut output)), 0);
        assert!(output.iter().all(|&x| x == bf16::from_f32(3.0)));
        Ok(())
    })
    .unwrap();
}
