//! The files in `hostfiles/` work as they are: each is given to the launcher it is written for,
//! or, where there is none here, checked for what its launcher would read.
#![cfg(feature = "mpi")]
#![allow(clippy::print_stdout)] // a skipped test says so

mod support;

use std::fs;
use support::{RANKWISE, assert_selftest_passes, missing, mpirun, repository, stdout_of};

/// Hostfiles of Open MPI, and whether their hosts exist outside the lab of `multi_node.rs`.
const HOSTFILES: [(&str, bool); 3] =
    [("one-node", true), ("oversubscribed", true), ("two-nodes", false)];

fn assert_hostfile_works(file: &str, ranks: u64) {
    if let Some(program) = missing(&["mpirun", "timeout"]) {
        return println!("skipped: there is no `{program}` here");
    }
    let version = stdout_of(mpirun(10).arg("--version")).to_lowercase();
    if !version.contains("open mpi") && !version.contains("openrte") {
        return println!("skipped: the hostfiles are for Open MPI, and this is {version}");
    }
    let mut run = mpirun(120);
    run.arg("--hostfile").arg(repository("hostfiles").join(file));
    run.args(["-n", &ranks.to_string(), RANKWISE, "selftest", "--quick", "--json"]);
    assert_selftest_passes(&mut run, ranks, 1);
}

#[test]
fn one_node_runs_the_selftest() {
    assert_hostfile_works("one-node", 2);
}

#[test]
fn oversubscribed_runs_the_selftest() {
    assert_hostfile_works("oversubscribed", 4);
}

#[test]
fn every_line_is_a_host_with_slots() {
    for (file, local) in HOSTFILES {
        let text = fs::read_to_string(repository("hostfiles").join(file)).expect(file);
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
        let hosts: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        assert!(!hosts.is_empty(), "{file} names no host");
        for line in hosts {
            let (host, slots) = line.split_once(" slots=").unwrap_or_else(|| {
                panic!("{file}: '{line}': expected 'HOST slots=N', as Open MPI reads it")
            });
            assert!(slots.parse::<u32>().is_ok_and(|n| n > 0), "{file}: '{line}'");
            assert_eq!(host == "localhost", local, "{file}: '{line}'");
        }
    }
}

#[test]
fn every_file_is_explained_and_tested() {
    let readme = fs::read_to_string(repository("hostfiles/README.md")).expect("README.md");
    for entry in fs::read_dir(repository("hostfiles")).expect("hostfiles/") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let tested = name == "slurm.sh" || HOSTFILES.iter().any(|(file, _)| *file == name);
        assert!(tested || name == "README.md", "hostfiles/{name} has no test here");
        assert!(!tested || readme.contains(&format!("`{name}`")), "README.md lacks `{name}`");
    }
}

#[test]
fn the_slurm_example_is_valid_and_leaves_the_hosts_to_slurm() {
    let script = repository("hostfiles/slurm.sh");
    let text = fs::read_to_string(&script).expect("slurm.sh");
    let commands = || text.lines().filter(|line| !line.starts_with('#'));
    assert!(text.starts_with("#!/bin/bash\n#SBATCH "), "sbatch reads options only at the top");
    assert!(commands().any(|line| line.starts_with("srun --mpi=pmix ")), "no srun line");
    assert!(!commands().any(|line| line.contains("hostfile")), "Slurm knows the hosts");
    if let Some(program) = missing(&["bash"]) {
        return println!("skipped: there is no `{program}` here");
    }
    stdout_of(std::process::Command::new("bash").arg("-n").arg(script));
}
