//! Proves plans right: every rank checks its own before it runs it, and tests and `plan check`
//! replay the plans of all ranks together, symbolically.
//!
//! The replay knows no data. Each element is a symbol that remembers which contributions it is made
//! of and in which order they were folded, so that one replay proves the result for all values: no
//! contribution is lost or counted twice, all ranks get the same bits, nothing deadlocks, races or
//! reads garbage. Messages have rendezvous semantics, the strictest that a transport may have: a
//! send is done when its receive is there.

#[cfg(test)]
mod exhaustive;
mod fault;
mod forms;
mod local;
#[cfg(test)]
mod planted;
mod replay;
mod results;
mod traffic;

pub use fault::{Element, Fault, PlanError, Wait};
pub use local::{Checked, check_local};
pub use replay::{Report, check_all};
pub use traffic::{Traffic, traffic};

use super::Problem;
use super::table::Algorithm;
use crate::topology::Topology;

/// Checks all that a row of the table says about itself, for one problem that it fits.
pub fn check_algorithm(
    algorithm: &Algorithm,
    problem: &Problem,
    topology: &Topology,
) -> Result<Report, PlanError> {
    let plans = algorithm.plans(problem, topology);
    let needs = algorithm.needs;
    let report = check_all(&plans, problem, topology, needs.shared_input, needs.shared_output)?;
    match report.rounded_again {
        Some((rank, element)) if algorithm.single_rounding => {
            Err(PlanError { rank, place: None, fault: Fault::RoundedAgain(element) })
        }
        _ => match report.other_tree {
            Some((rank, element)) if algorithm.is_canonical(topology) => {
                Err(PlanError { rank, place: None, fault: Fault::OtherTree(element) })
            }
            _ => Ok(report),
        },
    }
}
