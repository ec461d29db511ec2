//! `rankwise factor` from panel to tables: the same bits at any number of ranks, on threads and
//! under mpirun, from a generator and from the Parquet file it writes.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PANEL: &str = "synthetic:assets=60,dates=70,factors=4,seed=3";
const CONFIG: &str = "\
[factors]\ntechnical = [{ kind = \"momentum\", window = 10, name = \"mom\" }]\n\
[composites]\nweights = [\"equal\", \"ic\", \"ir\", \"max_ir\"]\nwindows = [20]\n\
[screening]\nenabled = true\nminimum_t = 0.5\n\
[portfolio]\ntop = 10\ncost = 0.001\n";

fn factor(ranks: usize, panel: &str, folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(support::RANKWISE);
    let ranks = ranks.to_string();
    command.args(["factor", panel, "--json", "--ranks", &ranks, "--config"]);
    command.arg(folder.join("config.toml")).arg("--output").arg(folder.join("out")).args(more);
    command
}

fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

/// Runs it; returns the document without times, and the text of all tables.
fn results(mut command: Command, folder: &Path) -> (Value, BTreeMap<String, String>) {
    let text = support::stdout_of(&mut command);
    let mut document: Value = serde_json::from_str(&text).unwrap();
    // Times, and how the panel lay in memory.
    let of_the_run = ["seconds", "ns_per_cell", "peak_rss_bytes", "blocks", "block_dates"];
    for key in of_the_run {
        assert!(!document[key].is_null(), "no {key}");
        document.as_object_mut().unwrap().remove(key);
    }
    document.as_object_mut().unwrap().remove("technical_exchange");
    let mut tables = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("out")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".csv") || name.ends_with(".html") {
            tables.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    (document, tables)
}

#[test]
fn a_study_has_the_same_bits_on_any_ranks_and_from_any_source() {
    let one = folder(CONFIG);
    let expected = results(factor(1, PANEL, one.path(), &["--threads", "1"]), one.path());
    let (document, tables) = &expected;
    let names = [
        "correlation",
        "cumulative",
        "decay",
        "fama_macbeth",
        "fama_macbeth_slopes",
        "ic",
        "long_short",
        "monthly",
        "portfolio",
        "quantiles",
        "summary",
        "turnover",
    ];
    let mut files: Vec<String> = names.iter().map(|name| format!("{name}.csv")).collect();
    files.insert(11, "tear_sheet.html".into());
    assert_eq!(tables.keys().cloned().collect::<Vec<_>>(), files);
    assert!(one.path().join("out/summary.json.manifest.json").exists());
    // Five factors and four composites at three horizons.
    let lines = document["summary"].as_array().unwrap();
    assert_eq!(lines.len(), 27);
    for key in ["factor", "horizon", "ic_mean", "ic_std", "ic_ir", "t", "rank_ic_mean"] {
        assert!(lines.iter().all(|line| line.get(key).is_some()), "no {key}");
    }
    let ic = &tables["ic.csv"];
    assert!(ic.starts_with("date,factor,horizon,ic,rank_ic\n"));
    assert_eq!(ic.lines().count(), 1 + 70 * 27);
    assert_eq!(document["portfolios"].as_array().map(Vec::len), Some(9));
    // Five factors: at three horizons with a constant; eleven lags and two more horizons; by date.
    for (name, lines) in [
        ("fama_macbeth", 3 * 6),
        ("fama_macbeth_slopes", 3 * 70),
        ("decay", 5 * (11 + 2)),
        ("cumulative", 5 * 3 * 70),
        ("turnover", 5 * 3 * 70),
        ("long_short", 5 * 3),
        ("quantiles", 5 * 3 * 5),
    ] {
        let table = &tables[&format!("{name}.csv")];
        assert_eq!(table.lines().count(), 1 + lines, "{name}");
        let width = table.lines().next().unwrap().split(',').count();
        assert!(table.lines().all(|line| line.split(',').count() == width), "{name}");
    }
    assert_eq!(document["fama_macbeth"][0]["coefficients"].as_array().map(Vec::len), Some(6));
    assert!(document["fama_macbeth"][1]["mean_r2"].as_f64().is_some_and(|r2| r2 > 0.0));
    assert_eq!(document["decay"][4]["rank_ic_mean"].as_array().map(Vec::len), Some(11));
    assert_eq!(document["long_short"].as_array().map(Vec::len), Some(15));
    for ranks in [2, 3, 4, 7] {
        let other = folder(CONFIG);
        let found = results(factor(ranks, PANEL, other.path(), &[]), other.path());
        assert_eq!(found.0, *document, "{ranks} ranks");
        for (name, text) in tables {
            assert!(found.1[name] == *text, "{name} differs on {ranks} ranks");
        }
    }
    // The same panel from a file.
    let other = folder(CONFIG);
    let file = other.path().join("panel.parquet");
    let made = Command::new(support::RANKWISE)
        .args(["factor", "generate", PANEL, "--output"])
        .arg(&file)
        .status();
    assert!(made.unwrap().success());
    let file = file.to_string_lossy().into_owned();
    let found = results(factor(2, &file, other.path(), &[]), other.path());
    assert_eq!(found.0, *document, "from Parquet");
    for more in [["--block-dates", "9"], ["--memory", "128K"]] {
        let found = results(factor(2, &file, other.path(), &more), other.path());
        assert!(found == expected, "{more:?}");
    }
    let output = factor(2, &file, other.path(), &["--memory", "9K"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--memory: 60 assets need 1M at least"), "{error}");
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
    mpirun.args(["-n", "2", support::RANKWISE, "factor", PANEL, "--json", "--config"]);
    mpirun.arg(other.path().join("config.toml")).arg("--output").arg(other.path().join("out"));
    let found = results(mpirun, other.path());
    assert!(found == expected, "under mpirun");
}

#[test]
fn a_commented_configuration_is_written_once_and_works() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("config.toml");
    let init =
        || Command::new(support::RANKWISE).args(["factor", "init"]).arg(&file).output().unwrap();
    assert!(init().status.success());
    let again = init();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
    let (document, _) = results(factor(2, PANEL, here.path(), &[]), here.path());
    assert_eq!(document["factors"], 4);
}

#[test]
fn a_tear_sheet_stands_alone_and_speaks_both_languages() {
    for (language, word, more) in [
        (
            "en",
            "rank IC",
            ["Fama–MacBeth regressions", "IC decay", "cumulative return by quantile"],
        ),
        ("zh", "秩 IC", ["Fama–MacBeth 回归", "IC 衰减", "分组累计收益"]),
    ] {
        let here = folder(&format!("{CONFIG}[report]\nlanguage = \"{language}\"\n"));
        let (_, tables) = results(factor(2, PANEL, here.path(), &[]), here.path());
        let page = &tables["tear_sheet.html"];
        assert!(page.contains(word) && page.contains("<svg"));
        assert!(page.contains(&format!("<html lang=\"{language}\">")));
        assert!(more.iter().all(|words| page.contains(words)));
        assert!(!page.contains("<script") && !page.contains("http"), "it needs nothing else");
    }
}

#[test]
fn wrong_input_ends_with_code_2_and_one_line() {
    for (panel, config, expected) in [
        ("missing.parquet", CONFIG, "missing.parquet"),
        (PANEL, "[winsorise]\nmethod = \"madd\"\n", "config.toml line 2"),
        (PANEL, "[composites]\nweights = [\"ic\"]\nfactors = [\"x\"]\n", "there is no factor 'x'"),
        (PANEL, "[factors]\ncolumns = [\"nope\"]\n", "nope"),
        (PANEL, "[fama_macbeth]\nfactors = [\"x\"]\n", "fama_macbeth.factors: there is no factor"),
        (PANEL, "[quantiles]\ncount = 1001\n", "line 2: quantiles.count: expected a number from"),
        ("synthetic:assets=0", CONFIG, "assets"),
    ] {
        let here = folder(config);
        let output = factor(2, panel, here.path(), &[]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{expected}: {error}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{expected}: {error}");
        assert!(!here.path().join("out").exists(), "an empty folder stays");
    }
    // Folders that were there before stay, and so does what is in them.
    let here = folder(CONFIG);
    std::fs::create_dir(here.path().join("out")).unwrap();
    std::fs::write(here.path().join("out/notes.txt"), "mine").unwrap();
    assert!(!factor(1, "missing.parquet", here.path(), &[]).output().unwrap().status.success());
    assert!(here.path().join("out/notes.txt").exists());
    let mut nested = Command::new(support::RANKWISE);
    nested.args(["factor", "missing.parquet", "--output"]).arg(here.path().join("deep/deeper"));
    assert!(!nested.output().unwrap().status.success());
    assert!(!here.path().join("deep").exists());
}

#[test]
fn coefficients_alone_make_a_page_and_tables_too() {
    let bare = "[report]\ntables = [\"csv\", \"parquet\"]\n\
                [ic]\npearson = false\ncorrelations = false\n[quantiles]\nenabled = false\n\
                [fama_macbeth]\nenabled = false\n[portfolio]\nenabled = false\n";
    let (whole, part) = (folder("[portfolio]\nenabled = false\n"), folder(bare));
    let (more, _) = results(factor(2, PANEL, whole.path(), &[]), whole.path());
    let (less, tables) = results(factor(2, PANEL, part.path(), &[]), part.path());
    let mean = |document: &Value| document["summary"][0]["rank_ic_mean"].clone();
    assert_eq!(mean(&less), mean(&more));
    assert!(less["summary"][0]["ic_mean"].is_null() && !more["summary"][0]["ic_mean"].is_null());
    let packed = std::fs::read(part.path().join("out/ic.parquet")).unwrap();
    assert!(packed.starts_with(b"PAR1") && !whole.path().join("out/ic.parquet").exists());
    assert!(tables["ic.csv"].lines().count() > 70 && tables["tear_sheet.html"].contains("</html>"));
}
