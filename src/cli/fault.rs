//! `rankwise fault`: one rank misbehaves on purpose, after twenty collectives that work.
//!
//! Hidden, and for `tests/failures.rs`: it shows how a job ends when a rank panics, fails, leaves,
//! hangs, or calls something else than the others. Every call that differs stands on a line of its
//! own, because messages name lines. Where the ranks disagree, the buffers of the caller must be
//! as they were, but for outputs where there are several nodes; that is looked at before the error
//! goes on.

use std::time::Duration;

use clap::ValueEnum;

use super::Session;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;

/// Fails on purpose.
#[derive(Debug, clap::Args)]
pub(super) struct Fault {
    /// What goes wrong
    #[arg(long, value_enum)]
    kind: Kind,
    /// On which rank
    #[arg(long, value_name = "RANK", default_value = "0")]
    rank: usize,
    /// Compare the errors of all ranks, by a communicator that has not failed
    #[arg(long)]
    compare: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// It panics
    Panic,
    /// It returns an error that the others do not know
    Error,
    /// Its process ends with exit code 0
    Exit,
    /// It never comes to the next collective
    Hang,
    /// It passes one element more
    MismatchCount,
    /// It passes another type of the same size
    MismatchType,
    /// It asks for another operator
    MismatchOp,
    /// It names another root
    MismatchRoot,
    /// It calls another collective
    MismatchCollective,
    /// It wants another algorithm
    MismatchAlgorithm,
    /// It leaves the last collective out
    Skip,
    /// Its error becomes the error of all ranks
    Agree,
}

/// Elements of the calls that disagree.
const N: usize = 8;
/// What outputs hold before.
const MARK: i32 = 77;
/// How long a rank that hangs sleeps; far beyond the time limit of any test.
const FOREVER: Duration = Duration::from_secs(600);

impl Fault {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let c = session.communicator;
        if self.rank >= c.ranks() {
            let what = format!("--rank {}: below {}, the number of ranks", self.rank, c.ranks());
            return Err(Error { agreed: true, ..Error::input(what) });
        }
        let other = if self.compare { Some(c.with_settings(*c.settings())?) } else { None };
        warm_up(c)?;
        let odd = c.rank() == self.rank;
        match self.kind {
            Kind::Panic if odd => panic!("on purpose"),
            Kind::Error if odd => return Err(trouble().on_rank(c.rank())),
            Kind::Exit if odd => std::process::exit(0),
            Kind::Hang if odd => std::thread::sleep(FOREVER),
            Kind::Panic | Kind::Error | Kind::Exit | Kind::Hang => {}
            Kind::Agree => return c.agree(if odd { Err(trouble()) } else { Ok(()) }),
            Kind::Skip if odd => return Ok(()),
            kind => {
                // Ranks that have done their part of the call wait in the next one.
                let result = mismatch(c, kind, odd).and_then(|()| c.barrier());
                return other.map_or(result.clone(), |other| other.agree(result));
            }
        }
        c.barrier()
    }
}

/// A local error; its exit code is none that a failure of the runtime ends with.
fn trouble() -> Error {
    Error::input("trouble on purpose")
}

/// Twenty collectives that every rank calls alike.
fn warm_up(c: &Communicator) -> Result<()> {
    for i in 0..10 {
        let sum = c.all_reduce_vec(&[(c.rank() + i) as u64; 3], Op::Sum)?;
        let ranks = c.ranks() as u64;
        if sum != [ranks * (ranks - 1) / 2 + ranks * i as u64; 3] {
            return Err(Error::internal(format!("the sum before the fault is {sum:?}")));
        }
        c.barrier()?;
    }
    Ok(())
}

/// A call in which one rank differs; an error that says so if the call changed a buffer.
fn mismatch(c: &Communicator, kind: Kind, odd: bool) -> Result<()> {
    let input: Vec<i32> = (0..=N as i32).map(|i| 10 * c.rank() as i32 + i).collect();
    let mut output = vec![MARK; N + 1];
    let before = input.clone();
    let result = call(c, kind, odd, &input, &mut output);
    let written = output.iter().any(|&x| x != MARK) && c.topology().nodes() == 1;
    if input != before || written {
        return Err(Error::internal(format!("{kind:?} changed a buffer of the caller")));
    }
    result
}

fn call(c: &Communicator, kind: Kind, odd: bool, input: &[i32], output: &mut [i32]) -> Result<()> {
    let (i, o) = (&input[..N], &mut output[..N]);
    match (kind, odd) {
        (Kind::MismatchCount, true) => c.all_reduce(input, output, Op::Sum),
        (Kind::MismatchType, true) => {
            let (i, o) = (bytemuck::cast_slice::<_, f32>(i), bytemuck::cast_slice_mut::<_, f32>(o));
            c.all_reduce(i, o, Op::Sum)
        }
        (Kind::MismatchOp, true) => c.all_reduce(i, o, Op::Max),
        (Kind::MismatchRoot, true) => c.broadcast(o, c.ranks() - 1),
        (Kind::MismatchRoot, false) => c.broadcast(o, 0),
        (Kind::MismatchCollective, true) => c.broadcast(o, 0),
        (Kind::MismatchAlgorithm, true) => run_by(c, "staged", i, o),
        (Kind::MismatchAlgorithm, false) => run_by(c, "flat", i, o),
        (
            Kind::MismatchCount
            | Kind::MismatchType
            | Kind::MismatchOp
            | Kind::MismatchCollective
            | Kind::Skip,
            _,
        ) => c.all_reduce(i, o, Op::Sum),
        (Kind::Panic | Kind::Error | Kind::Exit | Kind::Hang | Kind::Agree, _) => {
            Err(Error::new(ErrorKind::Internal, "no mismatch"))
        }
    }
}

#[track_caller]
fn run_by(c: &Communicator, algorithm: &'static str, i: &[i32], o: &mut [i32]) -> Result<()> {
    let problem = Problem::new(Collective::AllReduce, Sharding::even(N, c.ranks()));
    c.run_algorithm(&problem, Some(algorithm), Some(Op::Sum), i, o)
}
