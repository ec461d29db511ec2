//! The calls that plan for themselves: splits, grids, agreement, unknown lengths, started calls,
//! shared vectors and sums that are handed out in blocks.

use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// Runs them. How many cases there were, and those that went wrong on this rank, in words.
pub(super) fn run(c: &Communicator, in_background: bool) -> Result<(u64, Vec<String>)> {
    let mut found = Found { rank: c.rank(), count: 0, wrong: Vec::new() };
    parts(c, &mut found)?;
    unknown_lengths(c, &mut found)?;
    agreement(c, &mut found)?;
    started(c, &mut found)?;
    shared_vector(c, &mut found)?;
    fused(c, &mut found)?;
    node_blocks(c, &mut found)?;
    if in_background {
        background(c, &mut found)?;
    }
    Ok((found.count, found.wrong))
}

struct Found {
    rank: usize,
    count: u64,
    wrong: Vec<String>,
}

impl Found {
    fn expect(&mut self, holds: bool, what: &str) {
        self.count += 1;
        if !holds {
            self.wrong.push(format!("rank {}: {what}", self.rank));
        }
    }
}

/// Collectives of both threads of a rank at once, large enough for every node's workspace to grow.
fn background(c: &Communicator, found: &mut Found) -> Result<()> {
    const N: usize = 300_000;
    let background = c.background()?;
    let ranks = c.ranks() as u64;
    let own = vec![c.rank() as u64 + 1; N];
    let tasks: Vec<_> = (0..3u64)
        .map(|k| {
            let scaled: Vec<u64> = own.iter().map(|x| x * (k + 1)).collect();
            background.run(move |c| c.all_reduce_vec(&scaled, Op::Sum))
        })
        .collect();
    let expected = ranks * (ranks + 1) / 2;
    for (k, task) in (1u64..).zip(tasks) {
        let here = c.all_reduce_vec(&own, Op::Sum)?;
        found.expect(here.iter().all(|&x| x == expected), "sum beside the background");
        let there = task.wait()?;
        let right = there.len() == N && there.iter().all(|&x| x == k * expected);
        found.expect(right, "sum in the background");
    }
    Ok(())
}

fn parts(c: &Communicator, found: &mut Found) -> Result<()> {
    let (rank, ranks) = (c.rank(), c.ranks());
    let odd = c.split(rank % 2, ranks - rank)?;
    let members = odd.all_gather_vec(&[rank as u64])?.0;
    let descending = (0..ranks as u64).rev().filter(|r| r % 2 == rank as u64 % 2);
    found.expect(members == descending.collect::<Vec<_>>(), "split by parity, descending");
    let node = c.split_by_node()?;
    let peers: Vec<u64> = c.topology().peers(rank).iter().map(|&r| r as u64).collect();
    found.expect(node.all_gather_vec(&[rank as u64])?.0 == peers, "split by node");
    let columns = (1..=ranks).rev().find(|k| ranks % k == 0 && k * k <= ranks).unwrap_or(1);
    let grid = c.grid(ranks / columns, columns)?;
    let sum = grid.row.all_reduce_vec(&[rank as u64], Op::Sum)?[0];
    let first = (rank / columns * columns) as u64;
    let row: u64 = (first..first + columns as u64).sum();
    found.expect(sum == row, "sum over a row of the grid");
    found.expect(grid.column.ranks() == ranks / columns, "column of the grid");
    Ok(())
}

fn unknown_lengths(c: &Communicator, found: &mut Found) -> Result<()> {
    let (rank, ranks) = (c.rank(), c.ranks());
    let part = |rank: usize| (0..rank as u32).collect::<Vec<_>>();
    let (all, sharding) = c.all_gather_vec(&part(rank))?;
    let right = (0..ranks).all(|r| all[sharding.range(r)] == part(r));
    found.expect(right, "all_gather of unknown lengths");
    let message = |from: usize, to: usize| vec![(100 * from + to) as u64; (from + 2 * to) % 4];
    let sent: Vec<u64> = (0..ranks).flat_map(|to| message(rank, to)).collect();
    let counts: Vec<usize> = (0..ranks).map(|to| message(rank, to).len()).collect();
    let (got, from) = c.all_to_all_vec(&sent, &counts)?;
    let right: Vec<u64> = (0..ranks).flat_map(|other| message(other, rank)).collect();
    let all_there = from.iter().sum::<usize>() == got.len();
    found.expect(got == right && all_there, "all_to_all of any lengths");
    Ok(())
}

fn agreement(c: &Communicator, found: &mut Found) -> Result<()> {
    let (rank, last) = (c.rank(), c.ranks() - 1);
    let failed = c.agree(if rank == last { Err(Error::input("on purpose")) } else { Ok(()) });
    let alike = failed.is_err_and(|e| e.agreed && e.message == "on purpose");
    found.expect(alike, "an error of one rank becomes that of all");
    found.expect(c.agree(Ok(rank)).is_ok_and(|r| r == rank), "agreement on success");
    Ok(())
}

fn started(c: &Communicator, found: &mut Found) -> Result<()> {
    let (rank, last) = (c.rank(), c.ranks() - 1);
    let reduce = c.prepare_all_reduce::<f64>(3, Op::Max)?;
    let mut started = Vec::new();
    for k in 0..12 {
        let from = vec![rank as f64, f64::from(k), -(rank as f64)];
        started.push(reduce.start(from, vec![0.0; 3])?);
    }
    let among = c.all_reduce_vec(&[rank as u64], Op::Max)?[0] == last as u64;
    found.expect(among, "a blocking call among started ones");
    let mut fine = true;
    for (k, mut pending) in started.into_iter().enumerate().rev() {
        while k % 3 == 0 && !pending.test()? {
            std::thread::yield_now();
        }
        fine &= pending.wait()?.1 == [last as f64, k as f64, 0.0];
    }
    found.expect(fine, "twelve started calls, waited for from last to first");
    found.expect(started_once(c)?, "one started call of each kind");
    found.expect(borrowed(c)?, "started calls that borrow their buffers");
    Ok(())
}

/// What block `to` of rank `from` holds.
fn block(from: usize, to: usize) -> [u64; 2] {
    [(100 * from + to) as u64, (from * to) as u64]
}

fn started_once(c: &Communicator) -> Result<bool> {
    let (rank, ranks) = (c.rank(), c.ranks());
    let sharding = Sharding::even(ranks + 1, ranks);
    let own = sharding.range(rank);
    let whole: Vec<u64> = (0..=ranks as u64).collect();
    let all: Vec<u64> = whole.iter().map(|i| i * ranks as u64).collect();
    let blocks: Vec<u64> = (0..ranks).flat_map(|to| block(rank, to)).collect();
    let scatter = c.start_reduce_scatter(&sharding, whole.clone(), vec![0; own.len()], Op::Sum)?;
    let gather = c.start_all_gather(&sharding, whole[own.clone()].to_vec(), vec![0; ranks + 1])?;
    let reduce = c.start_all_reduce(whole.clone(), vec![0; ranks + 1], Op::Sum)?;
    let root = ranks - 1;
    let cast =
        c.start_broadcast(if rank == root { whole.clone() } else { vec![0; ranks + 1] }, root)?;
    let exchange = c.start_all_to_all(blocks, vec![0; 2 * ranks])?;
    let exchanged: Vec<u64> = (0..ranks).flat_map(|from| block(from, rank)).collect();
    let in_place = c.start_reduce_scatter_in_place(&sharding, whole.clone(), Op::Sum)?;
    let mut parts = vec![0; ranks + 1];
    parts[own.clone()].copy_from_slice(&whole[own.clone()]);
    let gathered = c.start_all_gather_in_place(&sharding, parts)?;
    Ok(exchange.wait()?.1 == exchanged
        && gathered.wait()?.1 == whole
        && in_place.wait()?.1[own.clone()] == all[own.clone()]
        && cast.wait()?.1 == whole
        && reduce.wait()?.1 == all
        && gather.wait()?.1 == whole
        && scatter.wait()?.1 == all[own])
}

fn borrowed(c: &Communicator) -> Result<bool> {
    let (rank, ranks) = (c.rank(), c.ranks());
    let sharding = Sharding::even(ranks + 1, ranks);
    let own = sharding.range(rank);
    let whole: Vec<u64> = (0..=ranks as u64).collect();
    let all: Vec<u64> = whole.iter().map(|i| i * ranks as u64).collect();
    let blocks: Vec<u64> = (0..ranks).flat_map(|to| block(rank, to)).collect();
    let exchanged: Vec<u64> = (0..ranks).flat_map(|from| block(from, rank)).collect();
    let (mut shard, mut gathered) = (vec![0; own.len()], vec![0; ranks + 1]);
    let (mut reduced, mut received) = (vec![0; ranks + 1], vec![0; 2 * ranks]);
    let mut cast = if rank == 0 { whole.clone() } else { vec![0; ranks + 1] };
    let fine = c.overlap(|scope| {
        let gather = scope.start_all_gather(&sharding, &whole[own.clone()], &mut gathered)?;
        // The scope ends these.
        let _scatter = scope.start_reduce_scatter(&sharding, &whole, &mut shard, Op::Sum)?;
        let _reduce = scope.start_all_reduce(&whole, &mut reduced, Op::Sum)?;
        let _cast = scope.start_broadcast(&mut cast, 0)?;
        let mut exchange = scope.start_all_to_all(&blocks, &mut received)?;
        while !exchange.test()? {
            std::thread::yield_now();
        }
        Ok(exchange.wait()? == exchanged && gather.wait()? == whole)
    })?;
    Ok(fine && shard == all[own] && gathered == whole && reduced == all && cast == whole)
}

fn shared_vector(c: &Communicator, found: &mut Found) -> Result<()> {
    let weights: Vec<u64> = (0..c.ranks() as u64).map(|r| r % 3).collect();
    let sharding = Sharding::weighted(5 * c.ranks() + 3, &weights);
    let mut vector = c.shared_vector::<u64>(&sharding)?;
    let mut fresh = true;
    for turn in 0..4u64 {
        let own = sharding.range(c.rank());
        vector.own_mut().iter_mut().zip(own).for_each(|(x, i)| *x = 1000 * turn + i as u64);
        vector.gather()?;
        fresh &= vector.whole().iter().enumerate().all(|(i, &x)| x == 1000 * turn + i as u64);
    }
    found.expect(fresh, "a shared vector after each of four gathers");
    Ok(())
}

fn fused(c: &Communicator, found: &mut Found) -> Result<()> {
    let (rank, last) = (c.rank() as u64, c.ranks() as u64 - 1);
    let (mut one, mut none, mut three) = ([rank], [0u64; 0], [1, rank, 7]);
    c.all_reduce_many(&mut [&mut one, &mut none, &mut three], Op::Max)?;
    found.expect(one == [last] && three == [1, last, 7], "three sums as one call");
    let (mut first, mut second) = ([rank; 2], [10 * rank]);
    c.broadcast_many(&mut [&mut first, &mut second], last as usize)?;
    found.expect(first == [last; 2] && second == [10 * last], "two broadcasts as one call");
    Ok(())
}

fn node_blocks(c: &Communicator, found: &mut Found) -> Result<()> {
    let node = c.split_by_node()?;
    let (rank, ranks) = (node.rank(), node.ranks());
    let sharding = Sharding::even(5000 * ranks + 3, ranks);
    let own = sharding.range(rank);
    let mut buffer = node.shared::<u64>(sharding.n())?;
    let held = Sharding::even(ranks, ranks);
    let mut fine = true;
    for keep in [false, true] {
        buffer.iter_mut().enumerate().for_each(|(i, x)| *x = (i * ranks + rank) as u64);
        let sum = |i: usize| (i * ranks * ranks + ranks * (ranks - 1) / 2) as u64;
        let mut next = own.start;
        node.reduce_scatter_blocks(
            &sharding,
            &held,
            &mut [&mut buffer],
            (keep, 3),
            |block, parts| {
                let added = |i: usize| parts.iter().map(|part| part[i]).sum::<u64>();
                fine &= (0..block.len()).all(|i| added(i) == sum(next + i));
                next += block.len();
            },
        )?;
        let kept = |i: usize| if keep { sum(i) } else { (i * ranks + rank) as u64 };
        fine &= next == own.end && own.clone().all(|i| buffer[i] == kept(i));
    }
    found.expect(fine, "sums in blocks from the buffers of the node");
    Ok(())
}
