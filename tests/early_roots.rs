//! The root of a broadcast on one node returns before the others have come; whatever is called
//! next, nobody reads what is not written yet or written over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rankwise::communicator::{Communicator, Settings};
use rankwise::element::Op;
use rankwise::error::{ErrorKind, Result};
use rankwise::launch::{threads, threads_on_nodes};

#[test]
fn the_root_of_a_small_broadcast_does_not_wait() {
    for n in [1, 8, 32, 1000] {
        let returned = AtomicBool::new(false);
        let settings = Settings { timeout: Duration::from_secs(20), ..Settings::default() };
        threads_on_nodes(&[0; 3], settings, |c| {
            let mut data = vec![7 + c.rank() as u32; n];
            c.broadcast(&mut data, 1)?; // workspace is made in the first one
            data.fill(7 + c.rank() as u32);
            returned.store(false, Ordering::SeqCst);
            c.barrier()?;
            if c.rank() == 1 {
                c.broadcast(&mut data, 1)?;
                returned.store(true, Ordering::SeqCst);
            } else {
                // A root that waits would never set it.
                while !returned.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                c.broadcast(&mut data, 1)?;
            }
            assert_eq!(data, vec![8; n]);
            Ok(())
        })
        .unwrap();
    }
}

/// Numbers that are the same on all ranks.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n) as usize
    }
}

fn broadcast(c: &Communicator, n: usize, root: usize, at: usize) -> Result<()> {
    let value = |i: usize| (1000 * at + 7 * root + i) as u32;
    let mut data: Vec<u32> =
        (0..n).map(|i| if c.rank() == root { value(i) } else { u32::MAX }).collect();
    if at % 5 == 4 {
        (_, data) = c.start_broadcast(data, root)?.wait()?;
    } else {
        c.broadcast(&mut data, root)?;
        // The root is free to change what it has sent.
        if c.rank() == root {
            let sent = data.clone();
            data.fill(0);
            data = sent;
        }
    }
    assert!(data.iter().enumerate().all(|(i, &x)| x == value(i)), "no. {at}, n = {n}, root {root}");
    Ok(())
}

#[test]
fn broadcasts_among_all_other_calls_bring_what_was_sent() {
    for ranks in [2, 3, 4] {
        threads(ranks, |c| {
            let mut random = Random(ranks as u64);
            for at in 0..4000 {
                let sizes = [0, 1, 7, 8, 9, 32, 33, 100, 5000, 300_000];
                let n = sizes[random.below(if at % 100 == 0 { 10 } else { 9 })];
                let root = random.below(ranks as u64);
                match random.below(12) {
                    0 => c.barrier()?,
                    1 => {
                        let own = [(c.rank() + at) as u64; 3];
                        let sum = (0..ranks).map(|r| (r + at) as u64).sum::<u64>();
                        assert_eq!(c.all_reduce_vec(&own, Op::Sum)?, [sum; 3]);
                    }
                    2 => {
                        let own = vec![(c.rank() * at) as u32; n];
                        let (all, _) = c.all_gather_vec(&own)?;
                        let right = |(i, &x): (usize, &u32)| x == (i / n * at) as u32;
                        assert!(all.iter().enumerate().all(right), "no. {at}");
                    }
                    3 if at % 10 == 0 => {
                        let mut shared = c.shared::<u32>(n.max(1))?;
                        shared.fill((c.rank() + at) as u32);
                        c.broadcast(&mut shared, root)?;
                        assert!(shared.iter().all(|&x| x == (root + at) as u32), "no. {at}");
                    }
                    _ => broadcast(c, n, root, at)?,
                }
            }
            Ok(())
        })
        .unwrap();
    }
}

/// The root has returned when the others see that they disagree, and hears of it in its next call.
#[test]
fn a_root_that_has_returned_hears_of_a_disagreement_in_its_next_call() {
    for ranks in [2, 3] {
        for n in [4, 1000] {
            let errors = threads_on_nodes(&vec![0; ranks], Settings::default(), |c| {
                for _ in 0..2 {
                    c.broadcast(&mut vec![1u32; n], 0)?;
                    c.broadcast(&mut vec![1u32; n + 1], 0)?;
                }
                let mut data = vec![c.rank() as u32; if c.rank() == 1 { n + 1 } else { n }];
                let before = data.clone();
                let result = c.broadcast(&mut data, 0);
                assert_eq!(data, before, "rank {}", c.rank());
                if c.rank() == 0 {
                    assert_eq!(result, Ok(()));
                }
                Ok(result.and_then(|()| c.barrier()).expect_err("ranks disagree"))
            })
            .unwrap();
            let same = errors.iter().all(|error| error.message == errors[0].message);
            assert!(same && errors[0].kind == ErrorKind::Disagreement, "{errors:#?}");
            let said = format!("rank 1 called broadcast(u32, n = {}, root = 0) at tests/", n + 1);
            assert!(errors[0].message.contains(&said), "{}", errors[0]);
        }
    }
}
