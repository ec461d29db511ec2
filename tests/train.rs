//! `rankwise train` from configuration to files: the same bits at any number of ranks, on threads
//! and under mpirun, and over a stop and a restart at another number of ranks.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CONFIG: &str = "\
[model]\nkind = \"gpt\"\nlayers = 2\nwidth = 16\nheads = 2\ncontext = 16\n\
[data]\ntext = [\"text.txt\"]\n\
[training]\nsteps = 12\nmicro_batches = 12\nexamples = 2\nevaluate_examples = 7\nlog_every = 3\n\
[schedule]\nlr = 1e-2\nwarmup_steps = 3\ndecay = \"cosine\"\n\
[checkpoint]\nfolder = \"checkpoints\"\nevery = 4\nkeep = 3\n\
[output]\nfolder = \"out\"\nprompt = \"abc\"\nsample_bytes = 20\n";

/// A folder with a text and a configuration.
fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let words = ["owner", "computes", "its", "shard,", "and", "shares", "the", "sum.\n"];
    let text: Vec<&str> = (0..600).map(|i: usize| words[i * i % 7 + i % 2]).collect();
    std::fs::write(folder.path().join("text.txt"), text.join(" ")).unwrap();
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

fn command(ranks: usize, folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rankwise"));
    let ranks = ranks.to_string();
    command.args(["train", "--json", "--ranks", &ranks]).arg(folder.join("config.toml"));
    command.args(more);
    command
}

fn json(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What must not depend on the ranks.
fn result(document: &Value) -> Value {
    let keys = ["parameters_hash", "loss", "evaluation", "sample", "parameters", "steps"];
    keys.iter().map(|key| document[key].clone()).collect()
}

#[test]
fn training_has_the_same_bits_at_any_number_of_ranks() {
    let one = folder(CONFIG);
    let expected = json(command(1, one.path(), &[]));
    for key in ["steps", "loss", "tokens_per_second", "parameters_hash", "seconds"] {
        assert!(!expected[key].is_null(), "no {key}: {expected}");
    }
    let loss = expected["evaluation"][0]["value"].as_f64().unwrap();
    assert!(loss < 4.0, "a model of bytes starts at 5.5 and learns: {loss}");
    let lines = std::fs::read_to_string(one.path().join("out/metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    let page = std::fs::read_to_string(one.path().join("out/report.html")).unwrap();
    assert!(page.contains("Training run") && page.contains("held_out_loss"));
    assert!(one.path().join("out/summary.json.manifest.json").exists());
    for ranks in [2, 3, 4] {
        for nodes in [&[][..], &["--ranks-per-node", "1"]] {
            let other = folder(CONFIG);
            let found = json(command(ranks, other.path(), nodes));
            assert_eq!(result(&found), result(&expected), "{ranks} ranks {nodes:?}");
        }
    }
    if !cfg!(feature = "mpi") {
        println!("skipped under mpirun: built without MPI");
        return;
    }
    if let Some(program) = support::missing(&["mpirun"]) {
        println!("skipped under mpirun: there is no {program}");
        return;
    }
    let other = folder(CONFIG);
    let mut mpirun = support::mpirun(120);
    mpirun.args(["-n", "2", support::RANKWISE, "train", "--json"]);
    mpirun.arg(other.path().join("config.toml"));
    assert_eq!(result(&json(mpirun)), result(&expected), "mpirun");
}

#[test]
fn a_run_goes_on_at_another_number_of_ranks_as_if_it_had_not_stopped() {
    for precision in ["f32", "bf16"] {
        let config = format!("{CONFIG}[buffers]\nprecision = \"{precision}\"\n");
        let whole = folder(&config);
        let expected = json(command(2, whole.path(), &[]));
        for (before, after) in [(3, 2), (1, 4), (4, 1)] {
            let parts = folder(&config);
            // The schedule is that of twelve steps, so the first part is cut off by a kill: here,
            // by taking away what was saved later.
            json(command(before, parts.path(), &[]));
            for later in ["step-00000008", "step-00000012"] {
                std::fs::remove_dir_all(parts.path().join("checkpoints").join(later)).unwrap();
            }
            let found = json(command(after, parts.path(), &["--resume"]));
            assert_eq!(found["resumed_from"], 4);
            let what = format!("{before} then {after} ranks, {precision}");
            assert_eq!(result(&found), result(&expected), "{what}");
            let lines = std::fs::read_to_string(parts.path().join("out/metrics.jsonl")).unwrap();
            assert_eq!(lines.lines().count(), 4, "lines of steps done again are replaced: {lines}");
        }
    }
}

#[test]
fn a_plan_and_a_timeline_are_written() {
    let here = folder(CONFIG);
    let plan = json(command(3, here.path(), &["--plan"]));
    assert_eq!(plan["layout"]["ranks"], 3);
    let owned: u64 = plan["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["in_shard"]["end"].as_u64().unwrap() - p["in_shard"]["start"].as_u64().unwrap())
        .sum();
    let trace = here.path().join("trace.json");
    let trace_argument = trace.to_string_lossy().into_owned();
    let more = ["--record", &trace_argument, "--ranks-per-node", "1"];
    let run = json(command(2, here.path(), &more));
    assert_eq!(run["parameters"].as_u64(), Some(owned));
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    for (name, many) in [("compute", 144), ("reduce_scatter", 24), ("all_gather", 24)] {
        let found = events.iter().filter(|e| e["name"].as_str().unwrap().starts_with(name)).count();
        assert!(found >= many, "{found} events of {name}");
    }
    assert!(events.iter().all(|e| e["dur"].as_f64().unwrap() >= 0.0 && e["ph"] == "X"));
}

#[test]
fn wrong_configurations_end_with_code_2_and_one_line() {
    for (from, to, expected) in [
        ("layers = 2", "layrs = 2", "config.toml line 3: unknown field `layrs`"),
        ("examples = 2", "exemples = 2", "config.toml line 12"),
        ("heads = 2", "heads = 3", "width 16 is no multiple of heads 3"),
        ("text.txt", "missing.txt", "missing.txt"),
        ("context = 16", "context = 4000", "give more text or a shorter context"),
        ("decay = \"cosine\"", "decay = \"wsd\"", "wsd with decay_steps"),
        ("[schedule]", "[[groups]]\npattern = \"mlp\"\n[schedule]", "'mlp' matches no parameter"),
    ] {
        let config = CONFIG.replace(from, to);
        assert_ne!(config, CONFIG);
        let here = folder(&config);
        let output = command(2, here.path(), &[]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{to}: {error}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{to}: {error}");
        assert!(!here.path().join("out/summary.json").exists());
    }
}
