//! Ranks as threads: the embedded default.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Options, report, start_workers};
use crate::communicator::{Communicator, Settings};
use crate::error::{Error, Result};
use crate::transport::Transport;
use crate::transport::threads::{Failure, ThreadTransport};

/// How long the other ranks of a failed job may take to notice, before the process ends anyway.
const GRACE: Duration = Duration::from_secs(1);
/// How often the process looks whether the job has failed.
const LOOK: Duration = Duration::from_millis(50);

thread_local! {
    /// Where and why this thread panicked, as the hook saw it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body` on `ranks` ranks, each a thread, and returns their results in rank order.
///
/// The first failure of a rank is the result: the others stop waiting for it. A panic becomes an
/// error that names the rank.
pub fn threads<T, F>(ranks: usize, body: F) -> Result<Vec<T>>
where
    T: Send,
    F: Fn(&Communicator) -> Result<T> + Send + Sync,
{
    threads_on_nodes(&vec![0; ranks], Settings::default(), body)
}

/// [`threads`] where rank `r` pretends to live on node `nodes[r]`, with given settings.
pub fn threads_on_nodes<T, F>(nodes: &[usize], settings: Settings, body: F) -> Result<Vec<T>>
where
    T: Send,
    F: Fn(&Communicator) -> Result<T> + Send + Sync,
{
    watched(nodes, settings, body, |_| {})
}

/// `watch` gets the place where the ranks report a failure, before they start.
fn watched<T, F>(
    nodes: &[usize],
    settings: Settings,
    body: F,
    watch: impl FnOnce(Arc<Failure>),
) -> Result<Vec<T>>
where
    T: Send,
    F: Fn(&Communicator) -> Result<T> + Send + Sync,
{
    if nodes.is_empty() {
        return Err(Error::input("a job has at least 1 rank"));
    }
    let endpoints = ThreadTransport::group(nodes.to_vec(), settings.timeout);
    let failure = Arc::clone(endpoints[0].failure());
    watch(Arc::clone(&failure));
    let results: Vec<Result<T>> = std::thread::scope(|scope| {
        let body = &body;
        let handles: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| scope.spawn(move || rank_main(endpoint, settings, body)))
            .collect();
        let lost = |panic: Box<dyn Any + Send>| Err(Error::internal(panic_text(&*panic)));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(lost)).collect()
    });
    let results: Result<Vec<T>> = results.into_iter().collect();
    results.map_err(|error| failure.first().unwrap_or(error))
}

fn rank_main<T, F>(endpoint: ThreadTransport, settings: Settings, body: &F) -> Result<T>
where
    F: Fn(&Communicator) -> Result<T>,
{
    let (rank, failure) = (endpoint.rank(), Arc::clone(endpoint.failure()));
    // The closure owns all it touches except the body, whose results are discarded on a panic.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let communicator = Communicator::new(Box::new(endpoint), settings)?;
        body(&communicator)
    }));
    let result = result.unwrap_or_else(|panic| {
        let text = PANIC.take().unwrap_or_else(|| panic_text(&*panic));
        Err(Error::internal(format!("panicked {text}")).on_rank(rank))
    });
    if let Err(error) = &result {
        failure.report(error);
    }
    result
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_string())
}

/// Runs a job of the command line.
pub(super) fn run<F>(options: &Options, ranks: usize, body: &F) -> ExitCode
where
    F: Fn(&Communicator) -> Result<()> + Send + Sync,
{
    // A panic is reported once, as the failure of its rank, not by each thread.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), |at| format!("at {at}: "));
        PANIC.set(Some(format!("{place}{}", panic_text(info.payload()))));
    }));
    let nodes: Vec<usize> = match options.settings.ranks_per_node {
        Some(most) => (0..ranks).map(|rank| rank / most.max(1)).collect(),
        None => vec![0; ranks],
    };
    start_workers(options.threads, ranks, ranks);
    let (reported, output) = (Arc::new(AtomicBool::new(false)), options.output);
    let theirs = Arc::clone(&reported);
    let watch = |failure: Arc<Failure>| {
        std::thread::spawn(move || end_stuck(&failure, &theirs, output));
    };
    let body = |c: &Communicator| body(c).and_then(|()| c.end());
    match watched(&nodes, options.settings, body, watch) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) if reported.swap(true, Ordering::Relaxed) => ExitCode::from(error.exit_code()),
        Err(error) => report::failure(&error, output),
    }
}

/// A rank that computes, sleeps or hangs never learns that another one has failed, and a thread
/// cannot be stopped from outside: then the process ends with the failure of the other one.
fn end_stuck(failure: &Failure, reported: &AtomicBool, output: report::Output) {
    let error = loop {
        std::thread::sleep(LOOK);
        if let Some(error) = failure.first() {
            break error;
        }
    };
    std::thread::sleep(GRACE);
    if !reported.swap(true, Ordering::Relaxed) {
        report::failure(&error, output);
        std::process::exit(i32::from(error.exit_code()));
    }
}
