//! How a job starts and ends.
//!
//! Under a launcher (`mpirun`, `srun`) each process is a rank. Without one, `--ranks P` makes P
//! threads of one process: the same code, the same results. The body gets a communicator over all
//! ranks; what it returns decides how the job ends:
//!
//! * all ranks return without error: MPI is finalised once, exit code 0;
//! * all ranks agree on an error (`Communicator::agree`): one of them reports it, MPI is finalised,
//!   and every process exits with the code of the error;
//! * one rank fails or panics alone: it reports, and ends the whole job at once, because the
//!   others may wait for it for ever. MPI is not finalised then: that would wait for them too.
//!
//! Only this module reads the environment and starts or ends MPI:
//!
//! | variable | set by | meaning here |
//! | --- | --- | --- |
//! | `OMPI_COMM_WORLD_SIZE`, `OMPI_COMM_WORLD_RANK` | Open MPI's mpirun | ranks are processes |
//! | `PMI_SIZE`, `PMI_RANK` | MPICH's and Intel's mpiexec, Slurm's PMI-2 | the same |
//! | `PMIX_RANK` | launchers with PMIx (`srun --mpi=pmix`, prrte) | the same |
//! | `RANKWISE_TABLE` | the user | the table of measurements, where `--table` names none |

#[cfg(feature = "mpi")]
mod processes;
mod report;
mod threads;

use std::path::PathBuf;
use std::process::ExitCode;

pub use threads::{threads, threads_on_nodes};

use crate::communicator::{Communicator, Settings};
use crate::error::{Error, Result};

pub use report::Output;

/// The ways to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Launch {
    /// This process is one rank of an MPI job. The number is known before MPI is initialised
    /// where the launcher says it.
    Processes {
        /// The rank of this process.
        rank: Option<usize>,
        /// The number of processes.
        ranks: Option<usize>,
    },
    /// All ranks are threads of this process.
    Threads {
        /// How many.
        ranks: usize,
    },
}

impl Launch {
    /// Looks at the environment: a launcher decides, otherwise `ranks` threads (1 if not given).
    pub fn detect(ranks: Option<usize>) -> Result<Launch> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
        let rank = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"].iter().find_map(|n| number(n));
        let size = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].iter().find_map(|n| number(n));
        if rank.is_none() && size.is_none() {
            return match ranks {
                Some(0) => Err(Error::input("--ranks 0: a job has at least 1 rank")),
                Some(many) if many > MOST_THREADS => Err(Error::input(format!(
                    "--ranks {many}: at most {MOST_THREADS} ranks as threads; use mpirun for more"
                ))),
                ranks => Ok(Launch::Threads { ranks: ranks.unwrap_or(1) }),
            };
        }
        if !cfg!(feature = "mpi") {
            return Err(Error::input(
                "started by an MPI launcher, but built without MPI; build with the default \
                 features, or run without the launcher and with --ranks N",
            ));
        }
        match (ranks, size) {
            (Some(asked), Some(size)) if asked != size => Err(Error::input(format!(
                "--ranks {asked} under a launcher with {size} processes: leave --ranks out, the \
                 launcher decides"
            ))),
            _ => Ok(Launch::Processes { rank, ranks: size }),
        }
    }

    /// Whether this process speaks before communication works.
    pub fn is_first(&self) -> bool {
        match self {
            Launch::Processes { rank, .. } => rank.is_none_or(|rank| rank == 0),
            Launch::Threads { .. } => true,
        }
    }
}

/// More threads than this are a typing error.
const MOST_THREADS: usize = 1024;

/// What a job is started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads or processes.
    pub launch: Launch,
    /// For all collectives.
    pub settings: Settings,
    /// Worker threads inside a rank; `None` shares the cores of the node evenly.
    pub threads: Option<usize>,
    /// How failures are reported.
    pub output: Output,
    /// Whether the job may have background communicators; MPI must then allow calls from several
    /// threads, which makes its own calls a little slower.
    pub background: bool,
}

impl Options {
    /// What the environment says ([`Launch::detect`]), and defaults for the rest.
    pub fn detect(ranks: Option<usize>) -> Result<Options> {
        let (settings, threads, output) = (Settings::default(), None, Output::default());
        Ok(Options { launch: Launch::detect(ranks)?, settings, threads, output, background: false })
    }
}

/// Runs `body` on every rank and reports how it ended.
pub fn run<F>(options: &Options, body: F) -> ExitCode
where
    F: Fn(&Communicator) -> Result<()> + Send + Sync,
{
    match options.launch {
        Launch::Threads { ranks } => threads::run(options, ranks, &body),
        #[cfg(feature = "mpi")]
        Launch::Processes { rank, .. } => processes::run(options, rank, &body),
        #[cfg(not(feature = "mpi"))]
        Launch::Processes { .. } => {
            report::failure(&Error::internal("built without MPI"), options.output)
        }
    }
}

/// The file of the table of measurements: the one named by the option, else by `RANKWISE_TABLE`,
/// else none.
pub fn table(option: Option<PathBuf>) -> Option<PathBuf> {
    let named = || std::env::var_os("RANKWISE_TABLE").filter(|name| !name.is_empty());
    option.or_else(|| named().map(PathBuf::from))
}

/// Reports a failure that came before the ranks existed, once for the job.
pub fn refuse(error: &Error, launch: Option<&Launch>, output: Output) -> ExitCode {
    if launch.is_none_or(Launch::is_first) {
        report::failure(error, output);
    } else {
        // A launcher ends all processes with the first that fails: let the one that speaks finish.
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    ExitCode::from(error.exit_code())
}

/// Sets up the worker threads of this process: `threads` a rank for `ranks_here` ranks, of which
/// `sharing` (on this node) share the cores.
fn start_workers(threads: Option<usize>, ranks_here: usize, sharing: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let each = threads.unwrap_or_else(|| (cores / sharing.max(1)).max(1));
    // Fails only if the pool exists already, in tests that run several jobs in one process.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(each * ranks_here).build_global();
}
