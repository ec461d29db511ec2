//! The `rankwise` command.

use std::process::ExitCode;

use rankwise::transport::huge_pages::HugePages;

/// Graphs, panels and optimizer states are vectors of megabytes that are walked at random.
#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    rankwise::cli::main()
}
