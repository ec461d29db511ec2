//! `rankwise selftest`: the conformance suite on the given ranks.

use super::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::selftest::{self, Extent};

/// Run every collective × algorithm × type × awkward size on the ranks this job has.
#[derive(Debug, clap::Args)]
pub(super) struct Selftest {
    /// Three element types and the smaller sizes only
    #[arg(long)]
    quick: bool,
    /// Also the background communicator, which needs an MPI library for several threads
    #[arg(long)]
    pub(super) background: bool,
}

impl Selftest {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let outcome = selftest::run(
            session.communicator,
            Extent { quick: self.quick, background: self.background },
        )?;
        if session.speaks_to_people() {
            println!(
                "{} ranks on {} nodes: {} cases of {} algorithms right, {} wrong",
                outcome.ranks,
                outcome.nodes,
                outcome.passed,
                outcome.algorithms.len(),
                outcome.failed
            );
            for failure in &outcome.failures {
                println!("  {failure}");
            }
        }
        session.print_json(&outcome)?;
        if outcome.failed == 0 {
            return Ok(());
        }
        let what =
            format!("{} of {} cases are wrong", outcome.failed, outcome.passed + outcome.failed);
        Err(Error { agreed: true, ..Error::new(ErrorKind::Internal, what) })
    }
}
