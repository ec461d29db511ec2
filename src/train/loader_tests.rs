//! Tests of `loader`: the same batches for any workers, bounds, errors, and a clean end.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;

/// Samples that tell their index and their random number; some fail, and all count themselves.
#[derive(Default)]
struct Numbers {
    n: usize,
    fails: Option<usize>,
    panics: Option<usize>,
    alive: Arc<AtomicUsize>,
    most_alive: AtomicUsize,
    prepared: AtomicUsize,
    threads: Mutex<BTreeSet<String>>,
}

/// A sample that is counted while it lives.
struct Counted {
    value: (usize, u64),
    alive: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Dataset for Numbers {
    type Sample = Counted;

    fn len(&self) -> usize {
        self.n
    }

    fn get(&self, index: usize, random: &mut Random) -> Result<Counted> {
        assert!(Some(index) != self.panics, "broken frame {index}");
        if Some(index) == self.fails {
            return Err(Error::input("frame.npy: cannot read"));
        }
        // Uneven work, so that batches finish out of order.
        if index.is_multiple_of(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let name = std::thread::current().name().unwrap_or("none").to_string();
        self.threads.lock().unwrap().insert(name);
        self.prepared.fetch_add(1, Ordering::SeqCst);
        let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_alive.fetch_max(alive, Ordering::SeqCst);
        Ok(Counted { value: (index, random.next_u64()), alive: self.alive.clone() })
    }
}

fn numbers(n: usize) -> Numbers {
    Numbers { n, ..Numbers::default() }
}

fn loader(data: Numbers, workers: usize, prefetch: usize) -> Loader<Numbers> {
    Loader::new(Arc::new(data), LoaderOptions { workers, prefetch, seed: 9 }).unwrap()
}

/// Batches of three over `0..n` in a fixed order that is not sorted.
fn batches(n: usize) -> Vec<Vec<usize>> {
    let order: Vec<usize> = (0..n).rev().collect();
    order.chunks(3).map(<[usize]>::to_vec).collect()
}

type Values = Vec<(usize, u64)>;

fn values(loader: &mut Loader<Numbers>, epoch: u64) -> Vec<Values> {
    let n = loader.dataset().len();
    let batches = loader.epoch(epoch, batches(n)).map(Result::unwrap);
    batches.map(|batch| batch.iter().map(|s| s.value).collect()).collect()
}

#[test]
fn batches_are_the_same_for_any_workers_and_prefetch() {
    for n in [0, 1, 2, 3, 4, 20, 31] {
        let mut inline = loader(numbers(n), 0, 0);
        let wanted = [values(&mut inline, 0), values(&mut inline, 1)];
        let indices: Vec<Vec<usize>> =
            wanted[0].iter().map(|b| b.iter().map(|v| v.0).collect()).collect();
        assert_eq!(indices, batches(n));
        assert!(n == 0 || wanted[0] != wanted[1], "augmentation differs by epoch");
        for (workers, prefetch) in [(1, 1), (1, 4), (2, 1), (3, 2), (5, 3)] {
            let mut threaded = loader(numbers(n), workers, prefetch);
            for epoch in [0, 1, 0] {
                let found = values(&mut threaded, epoch);
                assert_eq!(found, wanted[epoch as usize], "{n}, {workers} workers");
            }
        }
    }
}

#[test]
fn workers_persist_over_epochs() {
    let mut two = loader(numbers(60), 2, 2);
    for epoch in 0..5 {
        values(&mut two, epoch);
    }
    let threads = two.dataset().threads.lock().unwrap().clone();
    let allowed = ["loader-0", "loader-1"];
    assert!(!threads.is_empty() && threads.iter().all(|t| allowed.contains(&t.as_str())));
    assert_eq!(two.workers.len(), 2);
}

#[test]
fn memory_is_bounded_with_a_slow_consumer() {
    for (workers, prefetch) in [(1, 1), (2, 2), (3, 1)] {
        let mut loader = loader(numbers(90), workers, prefetch);
        for batch in loader.epoch(0, batches(90)) {
            std::thread::sleep(Duration::from_micros(300));
            drop(batch.unwrap());
        }
        // What is prepared ahead, and the batch in the consumer's hands.
        let bound = 3 * (workers * prefetch + 1);
        let most = loader.dataset().most_alive.load(Ordering::SeqCst);
        assert!((3..=bound).contains(&most), "{most} of {bound}");
        assert_eq!(loader.dataset().alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn an_endless_list_of_batches_is_read_only_as_needed() {
    let mut loader = loader(numbers(10), 2, 2);
    let endless = (0..).map(|i| vec![i % 10]);
    assert_eq!(loader.epoch(0, endless).take(25).map(Result::unwrap).count(), 25);
    assert!(loader.dataset().prepared.load(Ordering::SeqCst) <= 25 + 4);
}

#[test]
fn errors_and_panics_name_the_sample_after_the_batches_before_it() {
    for workers in [0, 1, 3] {
        for (fails, panics) in [(Some(4), None), (None, Some(4))] {
            let mut loader = loader(Numbers { fails, panics, ..numbers(12) }, workers, 2);
            for epoch in [3, 4] {
                let mut run = loader.epoch(epoch, batches(12));
                // 11 10 9 | 8 7 6 | 5 4 3
                assert_eq!(run.next().unwrap().unwrap().len(), 3);
                assert_eq!(run.next().unwrap().unwrap().len(), 3);
                let error = run.next().unwrap().err().unwrap();
                let sample = format!("sample 4 of epoch {epoch}: ");
                assert!(error.message.starts_with(&sample), "{error}");
                let what = if fails.is_some() { "frame.npy" } else { "broken frame 4" };
                assert!(error.message.contains(what), "{error}");
                assert_eq!(error.exit_code(), if fails.is_some() { 2 } else { 1 });
                assert!(run.next().is_none() && run.next().is_none());
            }
        }
    }
}

#[test]
fn leaving_an_epoch_early_leaves_nothing_behind() {
    let mut early = loader(numbers(60), 2, 3);
    let wanted = values(&mut early, 7);
    for taken in 0..6 {
        let got = early.epoch(1, batches(60)).take(taken).map(Result::unwrap).count();
        assert_eq!(got, taken);
        assert_eq!(early.dataset().alive.load(Ordering::SeqCst), 0);
        assert_eq!(values(&mut early, 7), wanted, "after {taken} batches");
    }
}

#[test]
fn dropping_the_loader_ends_its_threads() {
    for workers in [0, 2] {
        let data = Arc::new(numbers(30));
        let left = Arc::downgrade(&data);
        let options = LoaderOptions { workers, prefetch: 2, seed: 0 };
        let mut loader = Loader::new(data, options).unwrap();
        loader.epoch(0, batches(30)).next().unwrap().unwrap();
        drop(loader);
        assert!(left.upgrade().is_none(), "a worker still holds the data set");
    }
}

#[test]
fn no_prefetch_with_workers_is_refused() {
    let options = LoaderOptions { workers: 1, prefetch: 0, seed: 0 };
    let error = Loader::new(Arc::new(numbers(1)), options).unwrap_err();
    assert!(error.message.contains("prefetch"), "{error}");
}
