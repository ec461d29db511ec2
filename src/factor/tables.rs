//! The tables of a study as CSV: a head, one row a line, dates as YYYY-MM-DD, missing numbers
//! empty, and numbers that read back to the same bits.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::dates;
use super::job::{Line, Results};
use super::study::Study;
use crate::error::Result;
use crate::files::{self, FileRecord};

/// A number, or nothing if it is missing.
fn cell(x: f64) -> String {
    if x.is_nan() { String::new() } else { x.to_string() }
}

/// Text that may hold a comma or a quote.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

/// Writes all tables of a study into a folder.
pub fn write(folder: &Path, results: &Results) -> Result<Vec<FileRecord>> {
    let tables = [
        ("ic.csv", coefficients(results)),
        ("summary.csv", summary(&results.lines())),
        ("monthly.csv", monthly(results)),
        ("quantiles.csv", quantiles(results)),
        ("correlation.csv", correlation(results)),
        ("portfolio.csv", portfolios(results)),
    ];
    let write = |(name, text): (&str, String)| {
        files::write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()))
    };
    tables.into_iter().map(write).collect()
}

fn studies(results: &Results) -> impl Iterator<Item = &Study> {
    std::iter::once(&results.study).chain(&results.composites)
}

fn coefficients(results: &Results) -> String {
    let mut text = String::from("date,factor,horizon,ic,rank_ic\n");
    for study in studies(results) {
        let names: Vec<String> = study.factors.iter().map(|name| quoted(name)).collect();
        for row in study.ic_rows() {
            let (date, name) = (dates::format(row.date), &names[row.factor]);
            let (ic, rank_ic) = (cell(row.ic), cell(row.rank_ic));
            let _ = writeln!(text, "{date},{name},{},{ic},{rank_ic}", row.horizon);
        }
    }
    text
}

/// The columns of the summary: name and value.
pub fn columns(line: &Line) -> [(&'static str, f64); 16] {
    [
        ("ic_mean", line.ic_mean),
        ("ic_std", line.ic_std),
        ("ic_ir", line.ic_ir),
        ("t", line.t),
        ("p", line.p),
        ("t_newey_west", line.t_newey_west),
        ("hit_rate", line.hit_rate),
        ("rank_ic_mean", line.rank_ic_mean),
        ("rank_ic_std", line.rank_ic_std),
        ("rank_ic_ir", line.rank_ic_ir),
        ("rank_ic_t", line.rank_ic_t),
        ("rank_ic_p", line.rank_ic_p),
        ("rank_ic_t_newey_west", line.rank_ic_t_newey_west),
        ("rank_ic_skew", line.rank_ic_skew),
        ("rank_ic_kurtosis", line.rank_ic_kurtosis),
        ("rank_ic_hit_rate", line.rank_ic_hit_rate),
    ]
}

fn summary(lines: &[Line]) -> String {
    let mut text = String::from("factor,horizon,dates");
    if let Some(line) = lines.first() {
        columns(line).iter().for_each(|(name, _)| text += &format!(",{name}"));
    }
    for line in lines {
        let _ = write!(text, "\n{},{},{}", quoted(&line.factor), line.horizon, line.dates);
        columns(line).iter().for_each(|(_, x)| text += &format!(",{}", cell(*x)));
    }
    text + "\n"
}

fn monthly(results: &Results) -> String {
    let mut text = String::from("factor,horizon,month,dates,rank_ic_mean\n");
    for row in studies(results).flat_map(|study| &study.summary) {
        for month in &row.months {
            let (name, mean) = (quoted(&row.factor), cell(month.mean));
            let (year, number) = (month.year, month.month);
            let _ = writeln!(text, "{name},{},{year}-{number:02},{},{mean}", row.horizon, month.n);
        }
    }
    text
}

fn quantiles(results: &Results) -> String {
    let mut text = String::from("factor,horizon,quantile,mean_return,mean_turnover\n");
    for (name, groups) in results.study.factors.iter().zip(&results.quantiles) {
        for (horizon, means) in results.study.horizons.iter().zip(&groups.mean) {
            for (group, (mean, turnover)) in means.iter().zip(&groups.mean_turnover).enumerate() {
                let (mean, turnover) = (cell(*mean), cell(*turnover));
                let name = quoted(name);
                let _ = writeln!(text, "{name},{horizon},{},{mean},{turnover}", group + 1);
            }
        }
    }
    text
}

fn correlation(results: &Results) -> String {
    let all = &results.correlations;
    let mut text = String::from("factor");
    all.factors.iter().for_each(|name| text += &format!(",{}", quoted(name)));
    for (a, name) in all.factors.iter().enumerate() {
        let _ = write!(text, "\n{}", quoted(name));
        (0..all.factors.len()).for_each(|b| text += &format!(",{}", cell(all.of(a, b))));
    }
    text + "\n"
}

fn portfolios(results: &Results) -> String {
    let mut text = String::from("date,factor,nav,traded\n");
    for tested in &results.portfolios {
        let days = results.study.dates.iter().zip(&tested.portfolio.nav);
        for ((date, nav), traded) in days.zip(&tested.portfolio.traded) {
            let (date, name) = (dates::format(*date), quoted(&tested.factor));
            let _ = writeln!(text, "{date},{name},{},{}", cell(*nav), cell(*traded));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_read_back_and_names_are_quoted() {
        assert_eq!(
            (cell(f64::NAN), cell(0.1 + 0.2)),
            (String::new(), "0.30000000000000004".into())
        );
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
