//! What a panel takes in memory: loading stays below twice the panel, and blocks of dates take
//! less than all dates. Each measurement has a process of its own, whose high-water mark tells.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use rankwise::factor::config::Config;
use rankwise::factor::input;
use rankwise::launch;
use rankwise::measure::memory::peak_rss_bytes;

const DATES: usize = 500;
const ASSETS: usize = 500;
const FACTORS: usize = 20;

/// A panel as one Parquet file, written by another process.
fn panel(folder: &Path) -> PathBuf {
    let file = folder.join("panel.parquet");
    let spec = format!("assets={ASSETS},dates={DATES},factors={FACTORS},seed=2");
    let mut command = support::limited(120, support::RANKWISE);
    command.args(["factor", "generate", &spec, "--codec", "none", "--output"]).arg(&file);
    support::stdout_of(&mut command);
    file
}

#[test]
fn memory_follows_the_panel_and_its_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let file = panel(folder.path());
    let source = file.to_str().unwrap();
    if peak_rss_bytes() == 0 {
        println!("skipped: /proc tells no memory here");
        return;
    }
    // All ranks are threads of this process, so that shares add up to the panel.
    let before = peak_rss_bytes();
    let sizes = launch::threads(2, |comm| {
        let panel = input::load(comm, source, &Config::default())?;
        let matrices = 3 + panel.factors.len();
        Ok(panel.price.len() * (8 * matrices + 3))
    })
    .unwrap();
    let (took, size) = (peak_rss_bytes() - before, sizes.iter().sum::<usize>());
    assert!(size > DATES * ASSETS * FACTORS * 8);
    let ratio = took as f64 / size as f64;
    println!("loading takes {ratio:.2} × the panel");
    assert!(ratio < 2.0, "loading takes {took} bytes for a panel of {size}");

    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[portfolio]\nenabled = false\n").unwrap();
    let run = |source: &str, more: &[&str]| -> (u64, u64) {
        let mut command: Command = support::limited(120, support::RANKWISE);
        command.args(["factor", source, "--json", "--ranks", "2", "--threads", "1"]).args(more);
        command.arg("--config").arg(&config);
        let document: serde_json::Value =
            serde_json::from_str(&support::stdout_of(&mut command)).unwrap();
        let number = |key: &str| document[key].as_u64().unwrap();
        (number("peak_rss_bytes"), number("blocks"))
    };
    // The program itself, with a panel of nothing.
    let base = run("synthetic:assets=5,dates=5,factors=20", &[]).0;
    let peak = |more: &[&str]| {
        let (peak, blocks) = run(source, more);
        (peak - base, blocks)
    };
    let (whole, large, small) =
        (peak(&[]), peak(&["--block-dates", "125"]), peak(&["--block-dates", "25"]));
    println!("peaks: whole {whole:?}, blocks of 125 {large:?}, of 25 {small:?}");
    assert_eq!((whole.1, large.1, small.1), (1, 4, 20));
    assert!(small.0 < large.0 && large.0 < whole.0 * 7 / 10, "{whole:?} {large:?} {small:?}");
    assert!(small.0 < whole.0 / 2, "{whole:?} {small:?}");
    // Bytes of each of two ranks; besides them, what is read and not kept.
    let limited = peak(&["--memory", "16M"]);
    assert!(limited.1 > 2 && limited.0 < (2 * 16 + 32) << 20, "{limited:?}");
}
