//! The rules of the repository that no compiler checks: layers, where `unsafe` and single crates
//! may appear, sizes, banned words, and that the tests named in ARCHITECTURE.md exist.
//!
//! Where a rule is about code, comments and strings are blanked first (`support/source.rs`).
//! Every message names the replacement. The last tests plant violations of each rule.

#[path = "support/source.rs"]
mod source;

use source::{code_of, crate_uses, find_word};
use std::{fs, path::Path, process::Command};

/// A module may use its own layer and those before it. `with_element_type` is a macro of
/// `element`, which Rust places at the root of the crate.
const LAYERS: [&[&str]; 8] = [
    &["error", "element", "with_element_type", "sharding", "topology", "files"],
    &["plan", "reduce"],
    &["transport"],
    &["executor", "control", "signature"],
    &["select"],
    &["communicator", "launch", "measure", "selftest"],
    &["optimizer", "train", "graph", "factor"],
    &["cli", "report", "main"],
];
/// In this layer, a module may not use its neighbours either, but for `train` the optimizer.
const APPLICATIONS: usize = 6;

/// (word of code, paths that may hold it, what to do instead); a path is meant as a prefix.
const WORDS: [(&str, &[&str], &str); 12] = [
    ("unsafe", &UNSAFE, "is for src/transport and src/reduce alone: write it without"),
    ("unsafe_code", &UNSAFE, "is allowed in src/transport and src/reduce alone"),
    ("bincode", &["src/control"], "is for src/control alone; files have formats of their own"),
    ("mpi_sys", &[], "goes through `mpi::ffi` in src/transport/mpi*"),
    ("todo!", &[], "has no place in a commit: finish it, or return an `Error`"),
    ("unimplemented!", &[], "has no place in a commit: finish it, or return an `Error`"),
    ("dbg!", &[], "has no place in a commit: remove it"),
    ("#[ignore", &[], "hides a test: make it fast, or print why it is skipped"),
    ("println!", &PRINTERS, "is for src/cli and src/launch: return the value or an `Error`"),
    ("print!", &PRINTERS, "is for src/cli and src/launch: return the value or an `Error`"),
    ("eprintln!", &PRINTERS, "is for src/cli and src/launch: return an `Error`"),
    ("eprint!", &PRINTERS, "is for src/cli and src/launch: return an `Error`"),
];
/// The compiler denies `unsafe` where no `#![allow(unsafe_code)]` stands; this says where one may.
const UNSAFE: [&str; 2] = ["src/transport/", "src/reduce"];
/// Tests and benches may print too, to say why something is skipped.
const PRINTERS: [&str; 5] = ["src/cli", "src/launch", "tests/", "bench/", "examples/"];

/// (text that no file may hold, what to write instead); cut in two to be no match itself.
const TEXTS: [(&str, &str); 8] = [
    (concat!("FIX", "ME"), "fix it, or file an issue and explain the limit in prose"),
    (concat!("crates", ".io"), "name the package, not a registry host"),
    (concat!("pypi", ".org"), "name the package, not a registry host"),
    (concat!("npmjs", ".com"), "name the package, not a registry host"),
    (concat!("/ho", "me/"), "use a path relative to the repository"),
    (concat!("/ro", "ot/"), "use a path relative to the repository"),
    (concat!("/wo", "rk/"), "use a path relative to the repository"),
    (concat!("/Us", "ers/"), "use a path relative to the repository"),
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Violations of the layers in `src/<module>…`.
fn check_layers(path: &str, code: &str, report: &mut impl FnMut(usize, String)) {
    let Some(rest) = path.strip_prefix("src/").filter(|rest| *rest != "lib.rs") else { return };
    let module = rest.split(['/', '.']).next().unwrap_or("");
    let Some(own) = layer_of(module) else {
        return report(0, format!("module `{module}` is in no layer; add it to tests/tidy.rs"));
    };
    for (used, at) in crate_uses(code) {
        let reason = match layer_of(used) {
            None => "which is in no layer; name its module".to_string(),
            Some(layer) if layer > own => "which lies above it".to_string(),
            Some(_) if (module, used) == ("train", "optimizer") => continue,
            Some(APPLICATIONS) if own == APPLICATIONS && used != module => {
                "an application beside it; move what both need to a layer below".to_string()
            }
            Some(_) => continue,
        };
        let text = format!("layer `{module}` may not use `{used}`, {reason} (see ARCHITECTURE.md)");
        report(at, text);
    }
}

/// All violations in one file, each as `path:line: message`.
fn check_file(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let line_at = |text: &str, at: usize| text[..at].matches('\n').count() + 1;
    let may = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    for (banned, instead) in TEXTS {
        for (at, _) in text.match_indices(banned) {
            found.push(format!("{path}:{}: `{banned}`: {instead}", line_at(text, at)));
        }
    }
    if !path.ends_with(".rs") {
        return found;
    }
    if !text.starts_with("//!") {
        found.push(format!("{path}:1: open with `//!` lines: the idea, a reference, the cost"));
    }
    let lines = text.lines().count();
    if lines > 500 {
        found.push(format!("{path}:501: {lines} lines; split the file by subject at 500"));
    }
    for (i, line) in text.lines().enumerate().filter(|(_, line)| line.chars().count() > 100) {
        let columns = line.chars().count();
        found.push(format!("{path}:{}: {columns} columns; break the line at 100", i + 1));
    }
    let code = code_of(text);
    for (word, _, instead) in WORDS.into_iter().filter(|(_, allowed, _)| !may(allowed)) {
        for at in find_word(&code, word) {
            found.push(format!("{path}:{}: `{word}` {instead}", line_at(&code, at)));
        }
    }
    let mut report = |at, text| found.push(format!("{path}:{}: {text}", line_at(&code, at)));
    check_layers(path, &code, &mut report);
    // A file that declares or imports the module `transport::mpi` means that one.
    let own = ["mod mpi", "::mpi", "{mpi", ", mpi"];
    let own = own.iter().any(|name| find_word(&code, name).next().is_some());
    if !own && !path.starts_with("src/transport/mpi") {
        for at in find_word(&code, "mpi::") {
            report(at, "`mpi::` is for src/transport/mpi* alone; use `transport`".into());
        }
    }
    found
}

/// The names after `guard:` in ARCHITECTURE.md that are no function in any of `codes`.
fn missing_guards(architecture: &str, codes: &[String]) -> Vec<String> {
    let guards = architecture.lines().enumerate().flat_map(|(i, line)| {
        let named = line.split_once("guard:").map_or("", |(_, names)| names);
        named.split('`').skip(1).step_by(2).map(move |name| (i + 1, name))
    });
    let missing = guards.filter(|(_, name)| {
        let function = format!("fn {name}");
        !codes.iter().any(|code| find_word(code, &function).next().is_some())
    });
    let tell =
        |(line, name)| format!("ARCHITECTURE.md:{line}: no test `{name}`; write or rename it");
    missing.map(tell).collect()
}

/// (relative path, text) of every text file that git tracks, or of all files where git is missing.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output();
    let paths: Vec<String> = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let list = String::from_utf8_lossy(&output.stdout).into_owned();
            list.split_terminator('\0').map(String::from).collect()
        }
        _ => ["src", "tests", "bench", "examples"].iter().flat_map(|d| walk(root, d)).collect(),
    };
    let texts = paths.into_iter().filter(|path| path != "Cargo.lock");
    texts
        .filter_map(|path| Some((path.clone(), fs::read_to_string(root.join(path)).ok()?)))
        .collect()
}

fn walk(root: &Path, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let below = |entry: fs::DirEntry| {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() { walk(root, &path) } else { vec![path] }
    };
    entries.flat_map(below).collect()
}

#[test]
fn the_repository_is_tidy() {
    let files = files();
    assert!(files.iter().any(|(path, _)| path == "src/plan/mod.rs"), "no sources were found");
    let mut found: Vec<String> = files.iter().flat_map(|(p, text)| check_file(p, text)).collect();
    let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
    let codes: Vec<String> = rust.map(|(_, text)| code_of(text)).collect();
    match files.iter().find(|(path, _)| path == "ARCHITECTURE.md") {
        Some((_, text)) if text.contains("guard: `") => found.extend(missing_guards(text, &codes)),
        _ => found.push("ARCHITECTURE.md:1: name the tests of invariants as guard: `test`".into()),
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// A violation of each rule, and what is said about it; `""` for what is allowed.
const PLANTED: [(&str, &str, &str); 30] = [
    (
        "src/plan/ring.rs",
        "//! x\nuse crate::communicator::C;",
        "src/plan/ring.rs:2: layer `plan` may not use `communicator`, which lies above it (see \
         ARCHITECTURE.md)",
    ),
    ("src/plan/ring.rs", "//! x\nuse crate::{plan::Step, sharding::S};", ""),
    ("src/plan/ring.rs", "//! crate::cli\n// crate::cli\nf(\"crate::cli\");", ""),
    (
        "src/plan.rs",
        "//! x\nuse crate::{error::E,\ntransport::T};",
        "`transport`, which lies above",
    ),
    ("src/plan/ring.rs", "//! x\ncrate::transport::f();", "`transport`, which lies above"),
    ("src/train/step.rs", "//! x\ncrate::graph::f();", "`graph`, an application beside it"),
    ("src/train/step.rs", "//! x\ncrate::optimizer::f();", ""),
    ("src/optimizer/a.rs", "//! x\ncrate::train::f();", "`train`, an application beside it"),
    ("src/graph/a.rs", "//! x\ncrate::graph::b::f(crate::communicator::C);", ""),
    ("src/cli/run.rs", "//! x\nuse crate::Sharding;", "`Sharding`, which is in no layer"),
    ("src/stray.rs", "//! x", "module `stray` is in no layer"),
    ("src/lib.rs", "//! x\npub use crate::cli::Cli;", ""),
    ("src/plan/a.rs", "//! x\nunsafe {}", "a.rs:2: `unsafe` is for"),
    ("src/cli/a.rs", "//! x\n#![allow(unsafe_code)]", "a.rs:2: `unsafe_code` is allowed in"),
    ("src/reduce.rs", "//! x\n#![allow(unsafe_code)]\nunsafe {}", ""),
    ("src/transport/threads.rs", "//! x\nuse mpi::ffi;", "threads.rs:2: `mpi::` is for"),
    ("src/transport/mpi/world.rs", "//! x\nuse mpi::ffi;", ""),
    ("src/transport/mod.rs", "//! x\npub mod mpi;\nfn f(w: mpi::World, v: self::mpi::V);", ""),
    ("src/launch/a.rs", "//! x\nuse crate::transport::mpi::{self, Job};\nmpi::abort(1)", ""),
    ("src/launch/a.rs", "//! x\nmpi::ffi::f()", "launch/a.rs:2: `mpi::` is for"),
    ("src/launch.rs", "//! x\nbincode::encode();", "launch.rs:2: `bincode` is for src/control"),
    ("src/control.rs", "//! x\nbincode::encode();", ""),
    ("examples/a.rs", "// x\n", "examples/a.rs:1: open with `//!` lines"),
    ("tests/a.rs", "//! x\n#[ignore = \"slow\"]\nfn f() {}", "tests/a.rs:2: `#[ignore` hides"),
    ("src/plan/a.rs", "//! x\nfn f() { todo!() }", "a.rs:2: `todo!` has no place"),
    ("bench/a.rs", "//! x\nlet y = dbg!(x);", "bench/a.rs:2: `dbg!` has no place"),
    ("src/graph/a.rs", "//! x\neprintln!(\"x\");", "a.rs:2: `eprintln!` is for src/cli"),
    ("src/launch/a.rs", "//! x\neprintln!(\"x\"); print!(\"y\");", ""),
    ("README.md", concat!("x\nsee /ho", "me/me"), "README.md:2: `/ho"),
    ("src/plan/a.rs", concat!("//! x\n// FIX", "ME later"), "a.rs:2: `FIX"),
];

#[test]
fn planted_violations_are_found() {
    for (path, text, wanted) in PLANTED {
        let found = check_file(path, text);
        assert_eq!(found.len(), usize::from(!wanted.is_empty()), "{path}: {text:?}: {found:?}");
        assert!(found.iter().all(|message| message.contains(wanted)), "{wanted:?}: {found:?}");
    }
    let wide = format!("//! x\n//{}\n", "é".repeat(98));
    assert!(check_file("tests/a.rs", &wide).is_empty());
    assert!(check_file("tests/a.rs", &wide.replace("//é", "//éé"))[0].contains(":2: 101 columns"));
    let long = "//! x\n".repeat(500);
    assert!(check_file("tests/a.rs", &long).is_empty());
    assert!(check_file("tests/a.rs", &format!("{long}\n"))[0].contains(":501: 501 lines"));
}

#[test]
fn planted_guards_are_found() {
    let text = "- x guard: `a_test`, `gone`\n- `other` by review\n- guard: `a_tes`";
    let wanted = ["ARCHITECTURE.md:1: no test `gone`", "ARCHITECTURE.md:3: no test `a_tes`"];
    let found = missing_guards(text, &["#[test]\nfn a_test() {}".to_string()]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(wanted.iter().zip(&found).all(|(w, f)| f.starts_with(w)), "{found:?}");
}
