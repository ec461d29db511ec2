//! The `rankwise` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    rankwise::cli::main()
}
