//! How a job ends when a rank misbehaves: soon, with one line that says what happened, and with
//! the right exit code. On threads and under `mpirun`, by the hidden command `rankwise fault`.
//!
//! Times are printed; the limits are those of the promise (two seconds) doubled, because this
//! machine may be busy, and for `mpirun` its own start is in them.
#![allow(clippy::print_stdout)] // measured times, and why a test is skipped

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use support::{Ended, ended, no_mpi, rankwise};

/// Jobs run one after another, so that their times mean something.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const LIMIT: Duration = Duration::from_secs(4);
const RANKS: usize = 3;

/// Threads, and processes where there is MPI.
fn ways() -> Vec<bool> {
    match no_mpi() {
        Some(reason) => {
            println!("under mpirun: skipped: {reason}");
            vec![false]
        }
        None => vec![false, true],
    }
}

fn fault(processes: bool, kind: &str, rank: usize, more: &[&str]) -> Ended {
    let rank = rank.to_string();
    let arguments = [&["fault", "--kind", kind, "--rank", &rank], more].concat();
    let end = ended(&mut rankwise(processes, RANKS, &arguments));
    let way = if processes { "processes" } else { "threads" };
    println!(
        "{kind} on rank {rank}, {way}: {:.2} s, exit code {}",
        end.time.as_secs_f64(),
        end.code
    );
    end
}

/// The one line of a job that must have failed in time.
fn only_line(end: &Ended, code: i32) -> &str {
    only_line_within(end, code, LIMIT)
}

fn only_line_within(end: &Ended, code: i32, limit: Duration) -> &str {
    assert_eq!(end.code, code, "{end:#?}");
    assert_eq!(end.lines.len(), 1, "one message for the job: {end:#?}");
    assert!(end.time < limit, "{end:#?}");
    &end.lines[0]
}

/// The number of the line of `src/cli/fault.rs` that holds `code`.
fn line_of(code: &str) -> usize {
    let source = include_str!("../src/cli/fault.rs");
    let found: Vec<usize> =
        source.lines().enumerate().filter(|(_, l)| l.contains(code)).map(|(i, _)| i + 1).collect();
    assert_eq!(found.len(), 1, "`{code}` is on lines {found:?}");
    found[0]
}

#[test]
fn a_panic_on_one_rank_ends_the_job_with_one_line() {
    let _alone = alone();
    let place = format!("src/cli/fault.rs:{}:", line_of("panic!(\"on purpose\")"));
    for processes in ways() {
        for rank in [0, RANKS - 1] {
            let end = fault(processes, "panic", rank, &[]);
            let line = only_line(&end, 1);
            assert!(line.starts_with(&format!("rankwise: rank {rank}: panicked at {place}")));
            assert!(line.ends_with("on purpose"), "{line}");
            assert_eq!(end.stdout, "");
        }
    }
}

#[test]
fn an_error_on_one_rank_ends_the_job_with_its_exit_code() {
    let _alone = alone();
    for processes in ways() {
        for rank in [0, RANKS - 1] {
            let end = fault(processes, "error", rank, &[]);
            let wanted = format!("rankwise: rank {rank}: trouble on purpose");
            assert_eq!(only_line(&end, 2), wanted);
        }
    }
}

#[test]
fn an_agreed_error_is_said_once() {
    let _alone = alone();
    for processes in ways() {
        for rank in [0, 1] {
            let end = fault(processes, "agree", rank, &["--json"]);
            let wanted = format!("rankwise: rank {rank}: trouble on purpose");
            assert_eq!(only_line(&end, 2), wanted);
            let document: serde_json::Value =
                serde_json::from_str(&end.stdout).expect("one JSON document");
            assert_eq!(document["error"]["kind"], "input");
            assert_eq!(document["error"]["rank"], rank);
            assert_eq!(document["error"]["exit_code"], 2);
        }
    }
}

#[test]
fn ranks_that_disagree_are_named_with_calls_and_lines() {
    let _alone = alone();
    let sum = line_of(") => c.all_reduce(i, o, Op::Sum),");
    let cases = [
        (
            "mismatch-count",
            "all_reduce(i32, n = 8, sum)",
            sum,
            "all_reduce(i32, n = 9, sum)",
            line_of("c.all_reduce(input, output, Op::Sum)"),
        ),
        (
            "mismatch-type",
            "all_reduce(i32, n = 8, sum)",
            sum,
            "all_reduce(f32, n = 8, sum)",
            line_of("            c.all_reduce(i, o, Op::Sum)"),
        ),
        (
            "mismatch-op",
            "all_reduce(i32, n = 8, sum)",
            sum,
            "all_reduce(i32, n = 8, max)",
            line_of("c.all_reduce(i, o, Op::Max)"),
        ),
        (
            "mismatch-root",
            "broadcast(i32, n = 8, root = 0)",
            line_of("(Kind::MismatchRoot, false) => c.broadcast(o, 0)"),
            "broadcast(i32, n = 8, root = 2)",
            line_of("c.broadcast(o, c.ranks() - 1)"),
        ),
        (
            "mismatch-collective",
            "all_reduce(i32, n = 8, sum)",
            sum,
            "broadcast(i32, n = 8, root = 0)",
            line_of("(Kind::MismatchCollective, true) => c.broadcast(o, 0)"),
        ),
        (
            "mismatch-algorithm",
            "all_reduce(i32, n = 8, sum) [",
            line_of("run_by(c, \"flat\""),
            "all_reduce(i32, n = 8, sum) [",
            line_of("run_by(c, \"staged\""),
        ),
    ];
    for processes in ways() {
        for (kind, call, line, odd_call, odd_line) in cases {
            let end = fault(processes, kind, 1, &[]);
            // Whether a buffer was changed is looked at by `fault`, which then ends with code 1.
            let text = only_line(&end, 3);
            let (first, second) = text.split_once("; ").expect("two calls");
            assert!(first.contains(&format!("ranks 0, 2 called {call}")), "{text}");
            assert!(first.ends_with(&format!("at src/cli/fault.rs:{line}")), "{text}");
            assert!(second.contains(&format!("rank 1 called {odd_call}")), "{text}");
            assert!(second.contains(&format!("at src/cli/fault.rs:{odd_line}")), "{text}");
        }
    }
}

/// Each way of disagreeing, on ranks that pretend to live on one node each and on nodes of two: one
/// line, which every rank has, names all of them. A rank that has left out a call is named too,
/// when its program ends.
#[test]
fn all_ranks_of_several_nodes_have_the_same_error_when_they_disagree() {
    let _alone = alone();
    let sum = |dtype: &str, n: usize, op: &str| format!("all_reduce({dtype}, n = {n}, {op})");
    let broadcast = |root: usize| format!("broadcast(i32, n = 8, root = {root})");
    let usual = sum("i32", 8, "sum");
    let cases = [
        ("mismatch-count", usual.clone(), sum("i32", 9, "sum")),
        ("mismatch-type", usual.clone(), sum("f32", 8, "sum")),
        ("mismatch-op", usual.clone(), sum("i32", 8, "max")),
        ("mismatch-root", broadcast(0), broadcast(2)),
        ("mismatch-collective", usual.clone(), broadcast(0)),
        ("skip", usual, "the end of the job".into()),
    ];
    for processes in ways() {
        for ((kind, call, odd_call), locals) in
            cases.iter().flat_map(|case| ["1", "2"].map(|locals| (case, locals)))
        {
            // A rank that has left cannot compare its error with that of the others.
            let compare = if *kind == "skip" { &[][..] } else { &["--compare"] };
            let end = fault(processes, kind, 1, &[&["--ranks-per-node", locals], compare].concat());
            // Half a second to find out and at most two until all have answered, on a busy machine.
            let text = only_line_within(&end, 3, 3 * LIMIT);
            // Errors that differ would begin with the number of a rank.
            assert!(text.starts_with("rankwise: ranks disagree in collective no. "), "{text}");
            let (first, second) = text.split_once("; ").expect("two calls");
            assert!(first.contains(&format!("ranks 0, 2 called {call} at src/cli/f")), "{text}");
            assert!(second.contains(&format!("rank 1 called {odd_call} at src/")), "{text}");
        }
    }
}

#[test]
fn a_rank_that_leaves_out_a_call_is_named_at_the_end_of_its_program() {
    let _alone = alone();
    for processes in ways() {
        for rank in [0, RANKS - 1] {
            let end = fault(processes, "skip", rank, &[]);
            let line = only_line(&end, 3);
            assert!(line.contains(&format!("rank {rank} called the end of the job")), "{line}");
        }
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_when_the_limit_is_over() {
    let _alone = alone();
    for processes in ways() {
        for rank in [0, RANKS - 1] {
            let end = fault(processes, "hang", rank, &["--timeout", "1"]);
            let line = only_line(&end, 3);
            assert!(line.contains("barrier") && line.contains("waited 1.0 s"), "{line}");
            assert!(line.contains(&format!("for ranks [{rank}]")), "{line}");
            assert!(end.time >= Duration::from_secs(1));
        }
    }
}

#[test]
fn a_process_that_leaves_ends_the_job_without_success() {
    let _alone = alone();
    if let Some(reason) = no_mpi() {
        return println!("skipped: {reason}");
    }
    for rank in [0, RANKS - 1] {
        let end = fault(true, "exit", rank, &["--timeout", "20"]);
        assert!(end.code != 0 && end.time < LIMIT, "{end:#?}");
    }
}

#[test]
fn a_rank_that_does_not_exist_is_refused_once() {
    let _alone = alone();
    for processes in ways() {
        let end = fault(processes, "panic", RANKS, &[]);
        assert_eq!(only_line(&end, 2), "rankwise: --rank 3: below 3, the number of ranks");
    }
}
