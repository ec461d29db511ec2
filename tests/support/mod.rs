//! What tests that start other programs share: a time limit on every command, the reason to skip
//! when a program is missing, and the one JSON document of `rankwise selftest --json`.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of this

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The binary under test.
pub const RANKWISE: &str = env!("CARGO_BIN_EXE_rankwise");

/// A file of the repository by its relative path.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `program` under a time limit: a hang becomes exit code 124 instead of a test that never ends.
pub fn limited(seconds: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &seconds.to_string()]).arg(program);
    command
}

/// `mpirun` under a time limit, allowed to run as root and with more ranks than cores. The names
/// of Open MPI 4 come first, those of Open MPI 5 second.
pub fn mpirun(seconds: u32) -> Command {
    let mut command = limited(seconds, "mpirun");
    for name in ["ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM"] {
        command.env(format!("OMPI_{name}"), "1").env(format!("PRTE_{name}"), "1");
    }
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    command
}

/// The first of `programs` that cannot be run here.
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let found = |program: &str| {
        let run = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
        run.is_ok_and(|status| status.success())
    };
    programs.iter().copied().find(|program| !found(program))
}

/// Standard output of `command`, which must end with exit code 0.
pub fn stdout_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success(),
        "{command:?}\nended with {status} (124 and 137: the time limit)\n{stdout}\n{stderr}"
    );
    stdout.into_owned()
}

/// Runs `rankwise selftest --json` by `command`; it must pass on this many ranks and nodes.
pub fn assert_selftest_passes(command: &mut Command, ranks: u64, nodes: u64) {
    let stdout = stdout_of(command);
    let report: serde_json::Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|e| panic!("{command:?}\nprinted no JSON document: {e}\n{stdout}"));
    let number = |key: &str| {
        report[key].as_u64().unwrap_or_else(|| panic!("{command:?}\nno number '{key}' in {report}"))
    };
    assert_eq!((number("ranks"), number("nodes")), (ranks, nodes), "ranks, nodes in {report}");
    assert_eq!(number("failed"), 0, "{report}");
    assert!(number("passed") > 0, "nothing was tested: {report}");
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// The lines on standard error that rankwise wrote, without the banners of a launcher.
    pub lines: Vec<String>,
    /// All of standard error.
    pub stderr: String,
    /// From start to end.
    pub time: Duration,
}

/// Runs `command` to its end.
pub fn ended(command: &mut Command) -> Ended {
    let start = Instant::now();
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours = stderr.lines().filter(|line| line.starts_with("rankwise:"));
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        lines: ours.map(str::to_string).collect(),
        stderr,
        time: start.elapsed(),
    }
}

/// Runs rankwise on `ranks` ranks: as threads, or as processes if there is MPI.
pub fn rankwise(processes: bool, ranks: usize, arguments: &[&str]) -> Command {
    let mut command = if processes {
        let mut command = mpirun(120);
        command.args(["-n", &ranks.to_string(), RANKWISE]);
        command
    } else {
        let mut command = limited(120, RANKWISE);
        command.args(["--ranks", &ranks.to_string()]);
        command
    };
    command.args(arguments);
    command
}

/// Why no ranks can be processes here, if so.
pub fn no_mpi() -> Option<String> {
    if !cfg!(feature = "mpi") {
        return Some("built without MPI".into());
    }
    missing(&["mpirun", "timeout"]).map(|program| format!("there is no `{program}` here"))
}
