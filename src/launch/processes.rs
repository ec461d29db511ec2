//! Ranks as MPI processes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::{Options, report, start_workers};
use crate::communicator::Communicator;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::mpi::{self, Job};

/// How long a rank that failed after another one waits to be ended by it.
const GRACE: Duration = Duration::from_secs(1);
/// How long a job in which ranks disagreed goes on, so that all of them hear of it: many times the
/// time between two looks of a rank that waits.
const TO_HEAR: Duration = Duration::from_millis(300);

/// Runs a job of the command line. `rank` is for messages before MPI says it.
pub(super) fn run<F>(options: &Options, rank: Option<usize>, body: &F) -> ExitCode
where
    F: Fn(&Communicator) -> Result<()>,
{
    let job = match Job::start(options.background) {
        Ok(job) => job,
        Err(error) => return report::failure(&error, options.output),
    };
    end_job_on_panic(rank, options);
    let (job, communicator) = match connect(&job, options) {
        Ok(communicator) => (job, communicator),
        Err(error) => {
            // Mostly all ranks fail alike here: the first one speaks and ends the others.
            if rank.unwrap_or(0) != 0 {
                std::thread::sleep(GRACE);
            }
            report::failure(&error, options.output);
            mpi::abort(error.exit_code());
        }
    };
    let locals = communicator.topology().peers(communicator.rank()).len();
    start_workers(options.threads, 1, locals);
    let result = body(&communicator).and_then(|()| communicator.end());
    if let Err(error) = &result {
        if error.kind == ErrorKind::Disagreement && error.agreed {
            fail_together(error, &communicator, options);
        }
        if !error.agreed {
            fail_alone(error, &communicator, options);
        }
        if communicator.rank() == 0 {
            report::failure(error, options.output);
        }
    }
    drop(communicator);
    if let Err(error) = job.finish() {
        report::failure(&error, options.output);
        mpi::abort(error.exit_code());
    }
    result.map_or_else(|error| ExitCode::from(error.exit_code()), |()| ExitCode::SUCCESS)
}

fn connect(job: &Arc<Job>, options: &Options) -> Result<Communicator> {
    Communicator::new(Box::new(job.world()?), options.settings)
}

/// Ends all processes after ranks called different things, which all of them know or will know at
/// their next wait. Messages may be under way that nobody takes, so MPI is not finalised.
fn fail_together(error: &Error, communicator: &Communicator, options: &Options) -> ! {
    if communicator.rank() == 0 {
        report::failure(error, options.output);
        std::thread::sleep(TO_HEAR);
    } else {
        std::thread::sleep(GRACE);
    }
    mpi::abort(error.exit_code())
}

/// Ends all processes. The first rank of a node to come here reports; the others give it time to
/// end them, so that the job says one thing.
fn fail_alone(error: &Error, communicator: &Communicator, options: &Options) -> ! {
    let topology = communicator.topology();
    let disagree = error.kind == ErrorKind::Disagreement && topology.nodes() > 1;
    if disagree {
        // Ranks of all nodes have this error: the first node that has it speaks.
        let node = u32::try_from(topology.node(communicator.rank())).unwrap_or(u32::MAX);
        std::thread::sleep(TO_HEAR.saturating_mul(2).saturating_mul(node));
    }
    if communicator.claim_report() {
        report::failure(error, options.output);
        if disagree {
            std::thread::sleep(TO_HEAR);
        }
    } else {
        std::thread::sleep(GRACE);
    }
    mpi::abort(error.exit_code())
}

/// Unwinding would end in MPI_Finalize, which waits for ranks that wait for this one.
fn end_job_on_panic(rank: Option<usize>, options: &Options) {
    let output = options.output;
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map_or(String::new(), |at| format!(" at {at}"));
        let mut error = Error::internal(format!("panicked{place}: {text}"));
        error.rank = rank;
        report::failure(&error, output);
        mpi::abort(error.exit_code());
    }));
}
