//! The planner in the training loop: the same bits at any number of ranks, also where a run stops
//! in the middle of a batch and goes on at another number, with images and with workers; and wrong
//! configurations by name.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use rankwise::error::Result;
use rankwise::launch;
use rankwise::train::config::TrainConfig;
use rankwise::train::run::{RunOptions, TrainSummary, run};
use rankwise::train::task::task;
use serde_json::Value;

/// Windows of 8 steps in chunks of 4: checkpoints at odd steps are in the middle of a batch.
const CONFIG: &str = "\
[model]\nkind = \"planner\"\nhidden = 12\nmodes = 3\nchunk = 4\n\
[data]\nheld_out = 0.3\n\
[data.synthetic]\nvehicles = 13\nseconds = 20.0\nseed = 3\n\
[data.windows]\nsteps = 8\nmirror = true\n\
[training]\nsteps = 13\nmicro_batches = 6\nexamples = 3\nevaluate_examples = 1000\nlog_every = 4\n\
[optimizer]\nrule = \"adam\"\n\
[schedule]\nlr = 1e-2\ndecay = \"cosine\"\n\
[checkpoint]\nfolder = \"checkpoints\"\nevery = 5\nkeep = 0\n";

/// The same with images.
fn seeing() -> String {
    let image = "[model.image]\nheight = 16\nwidth = 8\nmetres_per_cell = 4.0\n\
                 channels = [3, 4, 5]\n[data]\n";
    CONFIG.replace("[data]\n", image)
}

fn load(folder: &Path, config: &str) -> Result<TrainConfig> {
    let path = folder.join("config.toml");
    std::fs::write(&path, config).unwrap();
    TrainConfig::load(&path)
}

/// Trains on threads; all ranks must report the same.
fn train(ranks: usize, config: &TrainConfig, resume: bool) -> TrainSummary {
    let options = RunOptions { resume, record: false };
    let all = launch::threads(ranks, |comm| {
        let mut task = comm.agree(task(config, 1))?;
        run(comm, config, &mut *task, options, &mut |_| Ok(())).map(|(summary, _)| summary)
    });
    let all = all.unwrap();
    assert!(all.iter().all(|s| s.parameters_hash == all[0].parameters_hash));
    assert!(all.iter().all(|s| s.evaluation == all[0].evaluation));
    all[0].clone()
}

fn same(found: &TrainSummary, expected: &TrainSummary, what: &str) {
    assert_eq!(found.parameters_hash, expected.parameters_hash, "{what}");
    assert_eq!(found.loss.map(f64::to_bits), expected.loss.map(f64::to_bits), "{what}");
    assert_eq!(found.evaluation, expected.evaluation, "{what}");
    assert!(found.exhibit == expected.exhibit, "{what}");
}

#[test]
fn training_has_the_same_bits_at_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let config = load(folder.path(), CONFIG).unwrap();
    let expected = train(1, &config, false);
    let value = |name: &str| {
        let found = expected.evaluation.iter().find(|measure| measure.name == name);
        found.unwrap_or_else(|| panic!("no {name}: {:?}", expected.evaluation)).value
    };
    for name in ["held_out_loss", "ade", "fde", "ade_constant_velocity", "fde_constant_velocity"] {
        assert!(value(name).is_finite() && value(name) > 0.0, "{name}");
    }
    assert!((0.0..=3f64.log2()).contains(&value("mode_entropy_bits")));
    assert!((0.0..=1.0).contains(&value("ap_0.5m_0_10")));
    for ranks in 2..=4 {
        same(&train(ranks, &config, false), &expected, &format!("{ranks} ranks"));
    }
    let exhibit = expected.exhibit.as_ref().unwrap();
    // All of the few windows that are held out.
    assert_eq!(exhibit.samples.len(), 8);
    assert!(exhibit.samples.is_sorted_by(|a, b| a.errors[0] <= b.errors[0]));
    assert!(exhibit.samples.iter().all(|drawn| drawn.modes.len() == 3));
    // Values depend on what is trained: the test can fail.
    let other = CONFIG.replace("seed = 3", "seed = 4");
    let other = train(2, &load(folder.path(), &other).unwrap(), false);
    assert_ne!(other.parameters_hash, expected.parameters_hash);
}

#[test]
fn training_with_images_has_the_same_bits_at_any_number_of_ranks_and_workers() {
    let folder = tempfile::tempdir().unwrap();
    let config = load(folder.path(), &seeing()).unwrap();
    let expected = train(1, &config, false);
    let blind = train(1, &load(folder.path(), CONFIG).unwrap(), false);
    assert_eq!(expected.parameters - blind.parameters, 57 + 112 + 185 + 12 * 2 * 5);
    assert_ne!(expected.loss, blind.loss);
    for (ranks, workers, prefetch) in [(2, 0, 2), (3, 1, 1), (4, 2, 3), (1, 3, 2)] {
        let mut config = config.clone();
        (config.data.workers, config.data.prefetch) = (workers, prefetch);
        let found = train(ranks, &config, false);
        same(&found, &expected, &format!("{ranks} ranks with {workers} workers"));
    }
}

#[test]
fn a_run_that_stops_within_a_batch_goes_on_at_another_number_of_ranks() {
    let whole = tempfile::tempdir().unwrap();
    let expected = train(2, &load(whole.path(), CONFIG).unwrap(), false);
    let eyes = tempfile::tempdir().unwrap();
    let seen = train(2, &load(eyes.path(), &seeing()).unwrap(), false);
    for (before, after, stop, sees) in
        [(1, 3, 5, false), (3, 2, 5, true), (4, 1, 10, false), (2, 4, 10, true)]
    {
        let (text, expected) =
            if sees { (seeing(), &seen) } else { (CONFIG.to_string(), &expected) };
        let folder = tempfile::tempdir().unwrap();
        let mut config = load(folder.path(), &text).unwrap();
        train(before, &config, false);
        // As if it had been killed after `stop` steps.
        for later in [5, 10, 13].into_iter().filter(|&step| step > stop) {
            let name = format!("checkpoints/step-{later:08}");
            std::fs::remove_dir_all(folder.path().join(name)).unwrap();
        }
        // Nor do workers matter, which begin in the middle of a batch.
        config.data.workers = before % 3;
        let found = train(after, &config, true);
        assert_eq!(found.resumed_from, stop);
        same(&found, expected, &format!("{before} then {after} ranks at {stop}"));
    }
}

#[test]
fn a_recorded_run_says_when_buckets_are_ready() {
    let folder = tempfile::tempdir().unwrap();
    let text = seeing() + "[buffers]\nbucket_elements = 1000\n";
    let config = load(folder.path(), &text).unwrap();
    for ranks in [1, 2, 7] {
        let options = RunOptions { resume: false, record: true };
        let all = launch::threads(ranks, |comm| {
            let mut task = comm.agree(task(&config, 1))?;
            run(comm, &config, &mut *task, options, &mut |_| Ok(()))
        });
        let all = all.unwrap();
        let ready = &all[0].0.ready;
        assert!(all.iter().all(|(summary, _)| summary.ready == *ready));
        let names: Vec<&String> = ready.iter().flat_map(|bucket| &bucket.parameters).collect();
        assert!(ready.len() > 2 && names.len() == 17, "{ready:?}");
        assert_eq!(
            (names[0].as_str(), names[16].as_str()),
            ("head.output.bias", "image.convolution0.weight")
        );
        // Buckets are complete one after the other, and the convolutions' at the end.
        assert!(ready.is_sorted_by(|a, b| a.share <= b.share), "{ready:?}");
        assert!(ready.iter().all(|bucket| (0.0..=1.0).contains(&bucket.share)));
        assert!(ready[ready.len() - 1].share > ready[0].share);
        for (_, events) in &all {
            let count = |name| events.iter().filter(|event| event.name == name).count();
            assert_eq!(count("ready"), count("backward") * ready.len());
        }
    }
    assert!(train(2, &config, false).ready.is_empty(), "not recorded");
}

#[test]
fn the_command_writes_what_it_saw_and_refuses_odd_images() {
    let folder = tempfile::tempdir().unwrap();
    let command = |text: &str| {
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rankwise"));
        command.args(["train", "--json", "--ranks", "2"]).arg(folder.path().join("config.toml"));
        command.arg("--record").arg(folder.path().join("trace.json")).output().unwrap()
    };
    let text = seeing() + "[output]\nfolder = \"out\"\n";
    let done = command(&text);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(document["ready"][0]["share"].as_f64().unwrap() >= 0.0);
    assert_eq!(document["exhibit"]["mode_use"].as_array().unwrap().len(), 3);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let page = read("out/report.html");
    for title in [
        "Predicted and true paths",
        "Use of the hypotheses",
        "Errors by distance",
        "When gradients are ready",
    ] {
        assert!(page.contains(title), "no {title}");
    }
    // For each of 8 samples: three hypotheses, the truth, constant velocity.
    assert_eq!(page.matches("<polyline").count(), 8 * 5);
    assert!(read("trace.json").contains("\"name\":\"ready 0\""));
    let refused = command(&text.replace("width = 8", "width = 9"));
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("16 x 9 cells cannot be halved 3 times"), "{error}");
}

#[test]
fn wrong_images_and_workers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = "16 x 8 cells cannot be halved 4 times, once by each of channels; take multiples \
                 of 16";
    for (from, to, expected) in [
        ("[3, 4, 5]", "[3, 4, 5, 6]", sizes),
        ("height = 16", "height = 30", "30 x 8 cells cannot be halved 3 times"),
        ("width = 8", "width = 7", "16 x 7 cells cannot be halved 3 times"),
        ("width = 8", "width = 0", "image: 16 x 0 cells"),
        ("[3, 4, 5]", "[]", "channels names at least one convolution"),
        ("[3, 4, 5]", "[3, 0, 5]", "channels names at least one convolution"),
        ("metres_per_cell = 4.0", "metres_per_cell = 0.0", "metres_per_cell"),
        ("metres_per_cell", "meters_per_cell", "config.toml line 9"),
        ("held_out = 0.3", "workers = 2\nprefetch = 0", "workers need prefetch of at least 1"),
        ("height = 16", "height = -2", "config.toml line"),
    ] {
        let text = seeing().replace(from, to);
        assert_ne!(text, seeing());
        let error = load(folder.path(), &text).unwrap_err();
        assert!(error.message.contains(expected), "{to}: {error}");
        assert_eq!(error.exit_code(), 2, "{to}");
    }
}

#[test]
fn wrong_configurations_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, expected) in [
        ("chunk = 4", "chunk = 3", "chunk 3 does not divide the 8 steps of a window"),
        ("chunk = 4", "chunk = 0", "hidden, modes and chunk are at least 1"),
        ("modes = 3", "mode = 3", "config.toml line 4"),
        ("modes = 3", "head = \"exp\"", "`original`, `linear`, `residual`"),
        ("modes = 3", "rule = \"best\"", "`angle`, `end_point`, `trajectory`"),
        ("modes = 3", "alpha = -1.0", "alpha is a finite number"),
        ("[data]", "[data]\ntext = [\"a.txt\"]", "text is for kind = \"gpt\""),
        ("[data]", "[data]\ntraces = [\"a.csv\"]", "traces and synthetic are both given"),
        ("seconds = 20.0", "seconds = 0.0", "synthetic needs vehicles"),
        ("mirror = true", "mirrors = true", "mirrors"),
        (
            "kind = \"planner\"\nhidden = 12\nmodes = 3\nchunk = 4",
            "kind = \"gpt\"",
            "a gpt has text",
        ),
    ] {
        let text = CONFIG.replace(from, to);
        assert_ne!(text, CONFIG);
        let error = load(folder.path(), &text).unwrap_err();
        assert!(error.message.contains(expected), "{to}: {error}");
    }
    let synthetic = "[data.synthetic]\nvehicles = 13\nseconds = 20.0\nseed = 3\n";
    let none = load(folder.path(), &CONFIG.replace(synthetic, "")).unwrap_err();
    assert!(none.message.contains("traces names no file"), "{none}");
    // What is only seen when the data is there.
    for (from, to, expected) in [
        ("seconds = 20.0", "seconds = 5.0", "no window to train on"),
        ("steps = 8", "steps = 8\nstride_seconds = 0.0", "stride_seconds = 0"),
    ] {
        let config = load(folder.path(), &CONFIG.replace(from, to)).unwrap();
        let error = task(&config, 1).err().unwrap();
        assert!(error.message.contains(expected), "{to}: {error}");
    }
    let traces = CONFIG.replace(synthetic, "").replace("[data]", "[data]\ntraces = [\"none.csv\"]");
    let config = load(folder.path(), &traces).unwrap();
    assert_eq!(config.data.traces, [folder.path().join("none.csv")]);
    assert!(task(&config, 1).err().unwrap().message.contains("none.csv"));
}
