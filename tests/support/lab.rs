//! Hosts that are network namespaces of this machine (`tests/netlab/netlab`), for as long as a test
//! runs. A test file that uses them has `mod support` too.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of this

use std::path::PathBuf;
use std::process::Command;

use crate::support::{limited, missing, repository, stdout_of};

/// A running lab, which goes away with this value even when a test panics.
pub struct Lab {
    // Removed after `Drop for Lab` has run, since fields are dropped last.
    folder: tempfile::TempDir,
}

impl Lab {
    /// Starts this many hosts.
    pub fn up(nodes: u32) -> Lab {
        let lab = Lab { folder: tempfile::tempdir().expect("a temporary folder") };
        stdout_of(lab.netlab(30).args(["up", &nodes.to_string()]));
        lab
    }

    /// `netlab` refuses a folder that exists, so the lab is one inside the temporary folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// A command of `netlab` on this lab, under a time limit.
    pub fn netlab(&self, seconds: u32) -> Command {
        let mut command = limited(seconds, repository("tests/netlab/netlab"));
        command.env("NETLAB_DIR", self.path()).env("NETLAB_LIFE_S", "600");
        command.env("HOSTFILE", repository("hostfiles/two-nodes"));
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let ended = self.netlab(30).arg("down").status();
        if !ended.is_ok_and(|status| status.success()) {
            println!("{}: this lab could not be taken down", self.path().display());
        }
    }
}

/// Why there can be no lab here, if so.
pub fn no_lab() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("this is not Linux".into());
    }
    if let Some(program) = missing(&["ip", "unshare", "nsenter", "mpirun", "timeout", "bash"]) {
        return Some(format!("there is no `{program}` here"));
    }
    let user = stdout_of(Command::new("id").arg("-u"));
    (user.trim() != "0").then(|| "network namespaces need root".into())
}
