//! One line on stderr says how a job failed; with `--json` a document on stdout says it too.

#![allow(clippy::print_stdout, clippy::print_stderr)] // this is where a job talks to its user

use std::process::ExitCode;

use crate::error::Error;

/// How a job talks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// One JSON document on stdout, nothing else there.
    pub json: bool,
    /// No progress and no tables, only results and errors.
    pub quiet: bool,
}

/// Reports the failure of the job.
pub(super) fn failure(error: &Error, output: Output) -> ExitCode {
    if output.json {
        let document = serde_json::json!({
            "error": {
                "kind": error.kind.name(),
                "message": error.message,
                "rank": error.rank,
                "exit_code": error.exit_code(),
            }
        });
        println!("{document}");
    }
    eprintln!("rankwise: {error}");
    ExitCode::from(error.exit_code())
}
