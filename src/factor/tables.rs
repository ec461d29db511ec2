//! The tables of a study as CSV: a head, one row a line, dates as YYYY-MM-DD, missing numbers
//! empty, and numbers that read back to the same bits; as Parquet, the same cells with types.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::config::TableFormat;
use super::cumulative::cumulate;
use super::dates;
use super::evaluation::LongShort;
use super::job::{Line, Results};
use super::study::Study;
use super::table_file::parquet;
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

/// Writes all tables of a study into a folder, in each of some formats.
pub fn write(folder: &Path, results: &Results, formats: &[TableFormat]) -> Result<Vec<FileRecord>> {
    let tables = [
        ("ic.csv", coefficients(results)),
        ("summary.csv", summary(&results.lines())),
        ("monthly.csv", monthly(results)),
        ("decay.csv", decay(results)),
        ("quantiles.csv", quantiles(results)),
        ("turnover.csv", turnover(results)),
        ("cumulative.csv", cumulative(results)),
        ("long_short.csv", long_short(&results.long_short())),
        ("fama_macbeth.csv", fama_macbeth(results)),
        ("fama_macbeth_slopes.csv", slopes(results)),
        ("correlation.csv", correlation(results)),
        ("portfolio.csv", portfolios(results)),
    ];
    let mut records = Vec::new();
    for (name, text) in &tables {
        for format in formats {
            let path = folder.join(name);
            let (path, bytes) = match format {
                TableFormat::Csv => (path, text.as_bytes().to_vec()),
                TableFormat::Parquet => (path.with_extension("parquet"), parquet(text)?),
            };
            records.push(files::write_atomically(&path, |file| file.write_all(&bytes))?);
        }
    }
    Ok(records)
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

/// By lag against the return of one date, then by horizon.
fn decay(results: &Results) -> String {
    let mut text = String::from(
        "factor,lag,horizon,dates,ic_mean,ic_std,ic_t,rank_ic_mean,rank_ic_std,rank_ic_t\n",
    );
    let many = results.study.horizons.len();
    for (k, evaluation) in results.evaluations.iter().enumerate() {
        let name = quoted(&results.study.factors[k]);
        let lags = evaluation.decay.iter().map(|lag| (lag.lag, 1, &lag.ic, &lag.rank_ic));
        let horizons = results.study.summary[k * many..(k + 1) * many]
            .iter()
            .filter(|row| row.horizon != 1)
            .map(|row| (0, row.horizon, &row.ic, &row.rank_ic));
        for (lag, horizon, ic, rank) in lags.chain(horizons) {
            let _ = write!(text, "{name},{lag},{horizon},{}", rank.n);
            for x in [ic.mean, ic.std, ic.t, rank.mean, rank.std, rank.t] {
                let _ = write!(text, ",{}", cell(x));
            }
            text.push('\n');
        }
    }
    text
}

fn quantiles(results: &Results) -> String {
    let mut text =
        String::from("factor,horizon,quantile,mean_return,mean_turnover,standard_error\n");
    for (name, evaluation) in results.study.factors.iter().zip(&results.evaluations) {
        let (name, groups) = (quoted(name), &evaluation.quantiles);
        for (h, horizon) in results.study.horizons.iter().enumerate() {
            for group in 0..groups.count {
                let (mean, error) = (groups.mean[h][group], groups.standard_error[h][group]);
                let turnover = evaluation.stability[h].mean_turnover[group];
                let numbers = [mean, turnover, error].map(cell).join(",");
                let _ = writeln!(text, "{name},{horizon},{},{numbers}", group + 1);
            }
        }
    }
    text
}

/// The head of a table with a column for each group.
fn head_of_groups(results: &Results, before: &str) -> String {
    let count = results.evaluations.first().map_or(0, |evaluation| evaluation.quantiles.count);
    let groups = (1..=count).map(|group| format!(",q{group}"));
    groups.fold(before.to_string(), |head, group| head + &group)
}

fn turnover(results: &Results) -> String {
    let mut text = head_of_groups(results, "date,factor,period,autocorrelation") + "\n";
    for (name, evaluation) in results.study.factors.iter().zip(&results.evaluations) {
        let (name, count) = (quoted(name), evaluation.quantiles.count);
        for stability in &evaluation.stability {
            let rows = stability.turnover.chunks_exact(count).zip(&stability.autocorrelation);
            for (date, (shares, correlation)) in results.study.dates.iter().zip(rows) {
                let (date, period) = (dates::format(*date), stability.period);
                let _ = write!(text, "{date},{name},{period},{}", cell(*correlation));
                shares.iter().for_each(|x| text += &format!(",{}", cell(*x)));
                text.push('\n');
            }
        }
    }
    text
}

fn cumulative(results: &Results) -> String {
    let mut text = head_of_groups(results, "date,factor,horizon") + ",spread,factor_weighted\n";
    for (name, evaluation) in results.study.factors.iter().zip(&results.evaluations) {
        let name = quoted(name);
        for (h, &horizon) in results.study.horizons.iter().enumerate() {
            let (groups, weighted) = (&evaluation.quantiles, &evaluation.weighted);
            let all = cumulate(groups, weighted, h, horizon, results.delay);
            let columns: Vec<&Vec<f64>> =
                all.groups.iter().chain([&all.spread, &all.weighted]).collect();
            for (t, date) in results.study.dates.iter().enumerate() {
                let _ = write!(text, "{},{name},{horizon}", dates::format(*date));
                columns.iter().for_each(|column| text += &format!(",{}", cell(column[t])));
                text.push('\n');
            }
        }
    }
    text
}

fn long_short(lines: &[LongShort]) -> String {
    let mut text = String::from(
        "factor,horizon,spread_mean,spread_t,spread_t_newey_west,spread_total,spread_drawdown,\
         weighted_mean,weighted_t,weighted_t_newey_west,weighted_total,weighted_drawdown,\
         annual_alpha,beta,autocorrelation\n",
    );
    for line in lines {
        let numbers = [
            line.spread_mean,
            line.spread_t,
            line.spread_t_newey_west,
            line.spread_total,
            line.spread_drawdown,
            line.weighted_mean,
            line.weighted_t,
            line.weighted_t_newey_west,
            line.weighted_total,
            line.weighted_drawdown,
            line.annual_alpha,
            line.beta,
            line.autocorrelation,
        ];
        let numbers = numbers.map(cell).join(",");
        let _ = writeln!(text, "{},{},{numbers}", quoted(&line.factor), line.horizon);
    }
    text
}

fn fama_macbeth(results: &Results) -> String {
    let mut text = String::from(
        "horizon,factor,dates,mean,std,t,p,t_newey_west,p_newey_west,lags,mean_r2,mean_assets,\
         few_assets,collinear\n",
    );
    for all in &results.fama_macbeth {
        for one in &all.coefficients {
            let (s, name) = (&one.summary, quoted(&one.factor));
            let numbers = [s.mean, s.std, s.t, s.p, s.t_newey_west, s.p_newey_west];
            let numbers = numbers.map(cell).join(",");
            let (r2, assets) = (cell(all.mean_r2), cell(all.mean_assets));
            let _ = writeln!(
                text,
                "{},{name},{},{numbers},{},{r2},{assets},{},{}",
                all.horizon, all.dates, all.lags, all.few_assets, all.collinear
            );
        }
    }
    text
}

/// What the factors earned, date by date.
fn slopes(results: &Results) -> String {
    let mut text = String::from("date,horizon");
    let names = results.fama_macbeth.first().map_or(&[][..], |all| &all.coefficients);
    names.iter().for_each(|one| text += &format!(",{}", quoted(&one.factor)));
    text.push('\n');
    for all in &results.fama_macbeth {
        for (t, date) in results.study.dates.iter().enumerate() {
            let _ = write!(text, "{},{}", dates::format(*date), all.horizon);
            all.coefficients.iter().for_each(|one| text += &format!(",{}", cell(one.series[t])));
            text.push('\n');
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
