//! Ranks on different nodes that call different things: every rank of the communicator returns the
//! same error, which names all ranks, what they called and where, though they compare nothing
//! beforehand. Threads that pretend to live on several nodes; `failures` does the same by `mpirun`.
//!
//! A case waits half a second to find out, so cases run side by side.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rankwise::communicator::{Communicator, Settings};
use rankwise::element::Op;
use rankwise::error::{Error, ErrorKind, Result};
use rankwise::launch::threads_on_nodes;

/// Nodes of two to five ranks: one each, uneven, and not in order.
const LAYOUTS: [&[usize]; 13] = [
    &[0, 1],
    &[0, 1, 2],
    &[0, 0, 1],
    &[0, 1, 1],
    &[0, 1, 0],
    &[0, 1, 2, 3],
    &[0, 0, 0, 1],
    &[0, 1, 1, 1],
    &[0, 0, 1, 1],
    &[0, 1, 0, 1],
    &[0, 0, 0, 0, 1],
    &[0, 1, 1, 1, 2],
    &[0, 1, 0, 1, 0],
];
const N: usize = 1000;
const MARK: f32 = -7.0;
/// Cases that run at once: they mostly sleep.
const AT_ONCE: usize = 6;

/// What the odd rank does instead of the others' call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Odd {
    HalfTheCount,
    TwiceTheCount,
    TwiceTheBroadcast,
    AnotherType,
    AnotherOperator,
    AnotherRoot,
    Barrier,
    Broadcast,
    SkipsOne,
}

const ALL: [Odd; 9] = [
    Odd::HalfTheCount,
    Odd::TwiceTheCount,
    Odd::TwiceTheBroadcast,
    Odd::AnotherType,
    Odd::AnotherOperator,
    Odd::AnotherRoot,
    Odd::Barrier,
    Odd::Broadcast,
    Odd::SkipsOne,
];

impl Odd {
    /// The call of the others, and of the odd rank.
    fn calls(self, ranks: usize) -> [String; 2] {
        let sum = |n: usize| format!("all_reduce(f32, n = {n}, sum)");
        let broadcast = |n: usize, root| format!("broadcast(f32, n = {n}, root = {root})");
        match self {
            Odd::HalfTheCount => [sum(N), sum(N / 2)],
            Odd::TwiceTheCount => [sum(N), sum(2 * N)],
            Odd::TwiceTheBroadcast => [broadcast(N, 0), broadcast(2 * N, 0)],
            Odd::AnotherType => [sum(N), format!("all_reduce(i32, n = {N}, sum)")],
            Odd::AnotherOperator => [sum(N), format!("all_reduce(f32, n = {N}, max)")],
            Odd::AnotherRoot => [broadcast(N, 0), broadcast(N, ranks - 1)],
            Odd::Barrier => [sum(N), "barrier(u64, n = 0)".into()],
            Odd::Broadcast => [sum(N), broadcast(N, 0)],
            // The one it skips is that of the others; the next one is its own.
            Odd::SkipsOne => [sum(N), format!("reduce_scatter(f32, n = {N}, sum)")],
        }
    }
}

/// The call of the others; every line here is one call.
fn common(c: &Communicator, odd: Odd, input: &[f32], output: &mut [f32]) -> Result<()> {
    match odd {
        Odd::TwiceTheBroadcast | Odd::AnotherRoot => c.broadcast(&mut output[..N], 0),
        _ => c.all_reduce(&input[..N], &mut output[..N], Op::Sum),
    }
}

/// The call of the odd rank.
fn different(c: &Communicator, odd: Odd, input: &[f32], output: &mut [f32]) -> Result<()> {
    let shard = |ranks: usize| N.div_ceil(ranks);
    match odd {
        Odd::HalfTheCount => c.all_reduce(&input[..N / 2], &mut output[..N / 2], Op::Sum),
        Odd::TwiceTheCount => c.all_reduce(input, output, Op::Sum),
        Odd::TwiceTheBroadcast => c.broadcast(output, 0),
        Odd::AnotherType => {
            let (i, o) = (bytemuck::cast_slice::<_, i32>(input), bytemuck::cast_slice_mut(output));
            c.all_reduce(&i[..N], &mut o[..N], Op::Sum)
        }
        Odd::AnotherOperator => c.all_reduce(&input[..N], &mut output[..N], Op::Max),
        Odd::AnotherRoot => c.broadcast(&mut output[..N], c.ranks() - 1),
        Odd::Barrier => c.barrier(),
        Odd::Broadcast => c.broadcast(&mut output[..N], 0),
        Odd::SkipsOne => {
            let own = if c.rank() < N % c.ranks() { shard(c.ranks()) } else { N / c.ranks() };
            c.reduce_scatter(&input[..N], &mut output[..own], Op::Sum)
        }
    }
}

/// Five hundred calls that agree, then one that does not, then calls that agree again, in which
/// ranks wait that have done their part already. The first error.
fn work(c: &Communicator, odd: Odd, is_odd: bool, pause: Duration) -> Result<()> {
    for i in 0..250u64 {
        let sum = c.all_reduce_vec(&[c.rank() as u64 + i], Op::Sum)?[0];
        let ranks = c.ranks() as u64;
        assert_eq!(sum, ranks * (ranks - 1) / 2 + ranks * i);
        let mut root = [if c.rank() as u64 == i % ranks { i } else { 0 }];
        c.broadcast(&mut root, (i % ranks) as usize)?;
        assert_eq!(root, [i]);
    }
    let input: Vec<f32> = (0..2 * N).map(|i| (10 * c.rank() + i) as f32).collect();
    let mut output = vec![MARK; 2 * N];
    let before = input.clone();
    let call = if is_odd { different } else { common };
    let mut result = call(c, odd, &input, &mut output);
    std::thread::sleep(pause);
    for _ in 0..2 {
        result = result.and_then(|()| c.barrier());
    }
    assert_eq!(input, before, "{odd:?}: a changed input");
    result
}

/// The errors of all ranks. No rank fails in the eyes of the others, so each finds out by itself.
fn errors(nodes: &[usize], odd: Odd, rank: usize, pause: Duration) -> Vec<Error> {
    let results = threads_on_nodes(nodes, Settings::default(), |c| {
        let is_odd = c.rank() == rank;
        let result = work(c, odd, is_odd, if is_odd { pause } else { Duration::ZERO });
        let error = result.expect_err("ranks disagree");
        assert_eq!(c.barrier().unwrap_err(), error, "a later call says the same");
        Ok(error)
    });
    results.unwrap()
}

/// `rank 1` or `ranks 0, 2`.
fn named(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    format!("{} {}", if ranks.len() == 1 { "rank" } else { "ranks" }, numbers.join(", "))
}

/// All ranks have the same error, and it names who called what, and where.
fn check(nodes: &[usize], odd: Odd, rank: usize, errors: &[Error]) {
    let what = format!("{odd:?} of rank {rank} on {nodes:?}: {}", errors[0]);
    assert_eq!(errors.len(), nodes.len());
    assert!(errors.iter().all(|error| error == &errors[0]), "{what}\nall: {errors:#?}");
    assert_eq!((errors[0].kind, errors[0].exit_code()), (ErrorKind::Disagreement, 3), "{what}");
    let others: Vec<usize> = (0..nodes.len()).filter(|&r| r != rank).collect();
    let [theirs, its] = odd.calls(nodes.len());
    let said = format!("{} called {theirs} at tests/disagreement.rs:", named(&others));
    assert!(errors[0].message.contains(&said), "{what}\nexpected: {said}");
    let said = format!("{} called {its} at tests/disagreement.rs:", named(&[rank]));
    assert!(errors[0].message.contains(&said), "{what}\nexpected: {said}");
    assert_eq!(errors[0].message.matches("disagreement.rs:").count(), 2, "{what}");
    assert!(errors[0].message.contains("collective no. 501: "), "{what}");
}

/// Runs `case` for every number below `many`, several at once.
fn side_by_side(many: usize, case: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= many {
                        break;
                    }
                    case(number);
                }
            });
        }
    });
}

#[test]
fn ranks_on_different_nodes_that_disagree_find_out() {
    let mut cases = Vec::new();
    for (l, nodes) in LAYOUTS.into_iter().enumerate() {
        for (k, odd) in ALL.into_iter().enumerate() {
            // All ranks of two and three; of more, the first, last and those between in turn.
            let few = [0, nodes.len() - 1, (l + k) % nodes.len()];
            let all = nodes.len() <= 3;
            let mut ranks: Vec<usize> =
                if all { (0..nodes.len()).collect() } else { few[(l + k) % 2..].to_vec() };
            ranks.dedup();
            cases.extend(ranks.into_iter().map(|rank| (nodes, odd, rank)));
        }
    }
    side_by_side(cases.len(), |number| {
        let (nodes, odd, rank) = cases[number];
        check(nodes, odd, rank, &errors(nodes, odd, rank, Duration::ZERO));
    });
}

/// The root of a broadcast has done its part and computes; then it comes to its next call. Beyond
/// the grace the others do not wait for it, and it still returns what they have returned.
#[test]
fn a_rank_in_other_code_returns_the_same_error_at_its_next_call() {
    let cases = [(1200, true), (4000, false)];
    side_by_side(cases.len(), |number| {
        let (pause_ms, agreed) = cases[number];
        let nodes = [0, 1, 1, 2];
        let pause = Duration::from_millis(pause_ms);
        let results = threads_on_nodes(&nodes, Settings::default(), |c| {
            let mut data = vec![c.rank() as f32; if c.rank() == 3 { 2 * N } else { N }];
            let mut result = c.broadcast(&mut data, 0);
            if c.rank() == 0 {
                assert_eq!(result, Ok(()), "the root has sent to whoever takes it");
                std::thread::sleep(pause);
            }
            result = result.and_then(|()| c.barrier());
            Ok(result.expect_err("ranks disagree"))
        });
        let errors = results.unwrap();
        assert!(errors.iter().all(|error| error == &errors[0]), "{errors:#?}");
        assert_eq!((errors[0].kind, errors[0].agreed), (ErrorKind::Disagreement, agreed));
        let [one, other] = [N, 2 * N].map(|n| format!("broadcast(f32, n = {n}, root = 0)"));
        let who = if agreed { "ranks 0, 1, 2" } else { "ranks 1, 2" };
        assert!(errors[0].message.contains(&format!("{who} called {one}")), "{}", errors[0]);
        assert!(errors[0].message.contains(&format!("rank 3 called {other}")), "{}", errors[0]);
    });
}

/// Ranks of one node that disagree see it at once; those of the other nodes must hear of it. On two
/// nodes at the same time there are two reporters, and still one error.
#[test]
fn a_disagreement_within_nodes_reaches_all_nodes() {
    for odd in [&[1][..], &[2, 5], &[0, 4]] {
        let nodes = [0, 0, 0, 1, 1, 1];
        let results = threads_on_nodes(&nodes, Settings::default(), |c| {
            let n = if odd.contains(&c.rank()) { N + 1 } else { N };
            let shared = c.shared::<f32>(1)?;
            c.barrier()?;
            drop(shared);
            let result = c.all_reduce_vec(&vec![1u64; n], Op::Sum);
            Ok(result.expect_err("ranks disagree"))
        });
        let errors = results.unwrap();
        assert!(errors.iter().all(|error| error == &errors[0]), "{odd:?}: {errors:#?}");
        let message = &errors[0].message;
        let even: Vec<usize> = (0..6).filter(|r| !odd.contains(r)).collect();
        for (ranks, n) in [(&even[..], N), (odd, N + 1)] {
            let said = format!("{} called all_reduce(u64, n = {n}, sum)", named(ranks));
            assert!(message.contains(&said), "{odd:?}: {message}");
        }
    }
}

/// A split moves nothing that could be compared, so ranks come together before it.
#[test]
fn a_rank_that_splits_while_others_call_something_else_is_named() {
    for nodes in [&[0, 0, 0][..], &[0, 1, 1]] {
        let results = threads_on_nodes(nodes, Settings::default(), |c| {
            let error = match c.rank() {
                2 => c.split(0, 0).map(|_| ()),
                _ => c.all_reduce_vec(&[1.0f64; 3], Op::Sum).map(|_| ()),
            };
            Ok(error.expect_err("ranks disagree"))
        });
        let errors = results.unwrap();
        assert!(errors.iter().all(|error| error.message == errors[0].message), "{errors:#?}");
        let message = &errors[0].message;
        assert!(message.contains("ranks 0, 1 called all_reduce(f64, n = 3, sum)"), "{message}");
        assert!(message.contains("rank 2 called a split of the communicator"), "{message}");
    }
}

/// The root has done its part and waits in another communicator, whose other ranks are not there.
#[test]
fn a_rank_that_waits_in_another_communicator_returns_the_same_error() {
    for nodes in [&[0, 1][..], &[0, 1, 1, 2], &[0, 0, 0, 1]] {
        let results = threads_on_nodes(nodes, Settings::default(), |c| {
            let other = c.with_settings(*c.settings())?;
            let last = c.ranks() - 1;
            let mut data = vec![c.rank() as f32; if c.rank() == last { 2 * N } else { N }];
            let mut result = c.broadcast(&mut data, 0);
            if c.rank() == 0 && result.is_ok() {
                result = other.barrier();
            }
            result = result.and_then(|()| c.barrier());
            Ok(result.expect_err("ranks disagree"))
        });
        let errors = results.unwrap();
        assert!(errors.iter().all(|error| error == &errors[0]), "{nodes:?}: {errors:#?}");
        let last = nodes.len() - 1;
        let said = format!("rank {last} called broadcast(f32, n = {}, root = 0)", 2 * N);
        assert!(errors[0].message.contains(&said), "{}", errors[0]);
        assert!(errors[0].agreed, "{}", errors[0]);
    }
}
