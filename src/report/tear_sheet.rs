//! The tear sheet of a factor study: one self-contained page, in English or Chinese.
//!
//! For every factor: coefficients by date with their moving average, their distribution (histogram
//! and Q–Q plot), their decay, the monthly heat map, returns by quantile, cumulated in parts that
//! do not overlap, long-short portfolios and their drawdown, turnover, autocorrelation; and for all
//! together the summary, regressions of Fama and MacBeth, correlations and portfolios.

use std::fmt::Write as _;

use statrs::distribution::{ContinuousCDF, Normal};

use super::bars::{bars, heat};
use super::line::{Line as Curve, figure};
use super::{escaped, page as whole};
use crate::factor::config::Language;
use crate::factor::cumulative::{cumulate, drawdowns};
use crate::factor::dates;
use crate::factor::decay::Lag;
use crate::factor::evaluation::Evaluation;
use crate::factor::job::Results;
use crate::factor::tables::columns;

/// Dates of the moving average.
const AVERAGED: usize = 20;
/// Bars of a histogram.
const BARS: usize = 31;

/// Words of the page: English, Chinese.
const WORDS: [(&str, &str); 44] = [
    ("Factor study", "因子研究"),
    ("Summary", "汇总"),
    ("Correlation of factors", "因子相关性"),
    ("Portfolios", "组合回测"),
    ("rank IC", "秩 IC"),
    ("moving average", "移动平均"),
    ("year", "年"),
    ("distribution of rank IC", "秩 IC 分布"),
    ("against a normal distribution (Q–Q)", "正态 Q–Q 图"),
    ("normal", "正态"),
    ("mean rank IC by month", "月度平均秩 IC"),
    ("mean return by quantile", "分组平均收益"),
    ("cumulative return by quantile", "分组累计收益"),
    ("long-short portfolios", "多空组合"),
    ("Long-short portfolios", "多空组合"),
    ("top less bottom", "最高组减最低组"),
    ("factor-weighted", "因子加权"),
    ("drawdown", "回撤"),
    ("total", "累计"),
    ("alpha (year)", "年化 alpha"),
    ("rank autocorrelation", "秩自相关"),
    ("turnover by quantile", "分组换手率"),
    ("IC by horizon", "各持有期 IC"),
    ("IC decay, one-date returns by lag", "IC 衰减（滞后单期收益）"),
    ("lag", "滞后"),
    ("Fama–MacBeth regressions", "Fama–MacBeth 回归"),
    ("constant", "常数项"),
    ("horizon", "持有期"),
    ("dates", "期数"),
    ("skipped, too few assets", "资产不足而跳过"),
    ("skipped, collinear", "共线而跳过"),
    ("mean R²", "平均 R²"),
    ("mean", "均值"),
    ("std", "标准差"),
    ("factor", "因子"),
    ("t Newey–West", "Newey–West t 值"),
    ("p Newey–West", "Newey–West p 值"),
    ("net asset value", "净值"),
    ("annual return", "年化收益"),
    ("excess", "超额收益"),
    ("Sharpe", "夏普比率"),
    ("maximum drawdown", "最大回撤"),
    ("turnover", "换手率"),
    ("quantile", "分组"),
];

fn word(language: Language, english: &'static str) -> &'static str {
    let found = WORDS.iter().find(|(word, _)| *word == english);
    match (language, found) {
        (Language::Zh, Some((_, chinese))) => chinese,
        _ => english,
    }
}

/// The page.
pub fn page(results: &Results, language: Language, title: &str) -> String {
    let say = |english| word(language, english);
    let title = if title.is_empty() { say("Factor study") } else { title };
    let mut body = format!(
        "<p class=\"note\">{} × {} × {} = {}</p>\n<h2>{}</h2>\n{}",
        results.study.dates.len(),
        results.assets,
        results.study.factors.len(),
        results.cells(),
        say("Summary"),
        summary(results)
    );
    let years: Vec<f64> =
        results.study.dates.iter().map(|&d| 1970.0 + f64::from(d) / 365.2425).collect();
    for factor in 0..results.study.factors.len() {
        body += &section(results, factor, &years, language);
    }
    if !results.fama_macbeth.is_empty() {
        let name = say("Fama–MacBeth regressions");
        body += &format!("<h2>{name}</h2>\n{}", fama_macbeth(results, language));
    }
    let name = say("Long-short portfolios");
    body += &format!("<h2>{name}</h2>\n{}", long_short(results, language));
    body += &format!("<h2>{}</h2>\n{}", say("Correlation of factors"), correlations(results));
    if !results.portfolios.is_empty() {
        body +=
            &format!("<h2>{}</h2>\n{}", say("Portfolios"), portfolios(results, &years, language));
    }
    let page = whole(title, &body);
    match language {
        Language::En => page,
        Language::Zh => page.replacen("<html lang=\"en\">", "<html lang=\"zh\">", 1),
    }
}

fn number(x: f64) -> String {
    if x.is_nan() { "–".to_string() } else { format!("{x:.4}") }
}

fn summary(results: &Results) -> String {
    let lines = results.lines();
    let Some(first) = lines.first() else { return String::new() };
    let heads = columns(first).map(|(name, _)| format!("<th>{name}</th>")).concat();
    let mut text = format!(
        "<div class=\"table\"><table><tr><th>factor</th><th>horizon</th><th>dates</th>{heads}\
         </tr>\n"
    );
    for line in &lines {
        let cells = columns(line).map(|(_, x)| format!("<td>{}</td>", number(x))).concat();
        let (name, horizon, dates) = (escaped(&line.factor), line.horizon, line.dates);
        let _ = writeln!(text, "<tr><td>{name}</td><td>{horizon}</td><td>{dates}</td>{cells}</tr>");
    }
    text + "</table></div>\n"
}

/// Everything about one factor, at the first horizon where one must be chosen.
fn section(results: &Results, factor: usize, years: &[f64], language: Language) -> String {
    let say = |english| word(language, english);
    let study = &results.study;
    let series = study.rank_series(factor, 0);
    let points = |values: &[f64]| years.iter().copied().zip(values.iter().copied()).collect();
    let average = moving_average(&series);
    let mut charts = figure(
        say("rank IC"),
        say("year"),
        &[
            Curve::new(say("rank IC"), 4, points(&series)),
            Curve::new(say("moving average"), 0, points(&average)),
        ],
    );
    charts += &bars(say("distribution of rank IC"), &histogram(&series));
    let theory = Curve::new(say("normal"), 4, vec![(-3.0, -3.0), (3.0, 3.0)]);
    let found = Curve::new(say("rank IC"), 0, against_normal(&series));
    charts += &figure(say("against a normal distribution (Q–Q)"), "z", &[theory, found]);
    let horizons = (0..study.horizons.len()).map(|h| {
        let row = &study.summary[factor * study.horizons.len() + h];
        (format!("{}", study.horizons[h]), row.rank_ic.mean)
    });
    charts += &bars(say("IC by horizon"), &horizons.collect::<Vec<_>>());
    if let Some(evaluation) = results.evaluations.get(factor) {
        charts += &decay(evaluation, language);
        charts += &groups(results, evaluation, years, language);
    }
    format!(
        "<h2>{}</h2>\n<div class=\"charts\">\n{charts}</div>\n{}",
        escaped(&study.factors[factor]),
        months(results, factor, language)
    )
}

/// Mean coefficients against the returns of single later dates.
fn decay(evaluation: &Evaluation, language: Language) -> String {
    let say = |english| word(language, english);
    let points = |value: fn(&Lag) -> f64| {
        evaluation.decay.iter().map(|lag| (lag.lag as f64, value(lag))).collect()
    };
    let curves = [
        Curve::new(say("rank IC"), 0, points(|lag| lag.rank_ic.mean)),
        Curve::new("IC", 3, points(|lag| lag.ic.mean)),
        Curve::new("0", 4, points(|_| 0.0)),
    ];
    figure(say("IC decay, one-date returns by lag"), say("lag"), &curves)
}

/// Returns, portfolios and turnover of the groups, at the first horizon.
fn groups(results: &Results, one: &Evaluation, years: &[f64], language: Language) -> String {
    let say = |english| word(language, english);
    let Some(&horizon) = results.study.horizons.first() else { return String::new() };
    let (groups, stability) = (&one.quantiles, &one.stability[0]);
    let named = |values: &[f64]| -> Vec<(String, f64)> {
        values.iter().enumerate().map(|(q, &x)| (format!("{}", q + 1), x)).collect()
    };
    let points = |values: &[f64]| years.iter().copied().zip(values.iter().copied()).collect();
    let all = cumulate(groups, &one.weighted, 0, horizon, results.delay);
    let mut charts = bars(say("mean return by quantile"), &named(&groups.mean[0]));
    // As many curves as there are colours, the outer groups among them.
    let shown = groups.count.min(5);
    let curves: Vec<Curve> = (0..shown)
        .map(|i| i * (groups.count - 1) / (shown - 1))
        .enumerate()
        .map(|(color, q)| Curve::new(&format!("{}", q + 1), color, points(&all.groups[q])))
        .collect();
    charts += &figure(say("cumulative return by quantile"), say("year"), &curves);
    let pair = |of: fn(&[f64]) -> Vec<f64>| {
        [
            Curve::new(say("top less bottom"), 0, points(&of(&all.spread))),
            Curve::new(say("factor-weighted"), 1, points(&of(&all.weighted))),
        ]
    };
    charts += &figure(say("long-short portfolios"), say("year"), &pair(<[f64]>::to_vec));
    charts += &figure(say("drawdown"), say("year"), &pair(drawdowns));
    charts += &bars(say("turnover by quantile"), &named(&stability.mean_turnover));
    let curve = Curve::new(say("rank autocorrelation"), 2, points(&stability.autocorrelation));
    charts + &figure(say("rank autocorrelation"), say("year"), &[curve])
}

/// Returns of all factors at once.
fn fama_macbeth(results: &Results, language: Language) -> String {
    let say = |english| word(language, english);
    let heads = ["factor", "mean", "std", "t", "p", "t Newey–West", "p Newey–West"];
    let heads = heads.map(|head| format!("<th>{}</th>", say(head))).concat();
    let mut text = String::new();
    for all in &results.fama_macbeth {
        let counts = [
            ("horizon", all.horizon.to_string()),
            ("dates", all.dates.to_string()),
            ("skipped, too few assets", all.few_assets.to_string()),
            ("skipped, collinear", all.collinear.to_string()),
            ("mean R²", number(all.mean_r2)),
        ];
        let counts = counts.map(|(name, value)| format!("{} {value}", say(name))).join(" · ");
        let _ = writeln!(
            text,
            "<p class=\"note\">{counts}</p>\n<div class=\"table\"><table><tr>{heads}</tr>"
        );
        for one in &all.coefficients {
            let s = &one.summary;
            let values = [s.mean, s.std, s.t, s.p, s.t_newey_west, s.p_newey_west];
            let cells = values.map(|x| format!("<td>{}</td>", precise(x))).concat();
            let name = if one.factor == "constant" { say("constant") } else { &one.factor };
            let _ = writeln!(text, "<tr><td>{}</td>{cells}</tr>", escaped(name));
        }
        text += "</table></div>\n";
    }
    text
}

/// The long-short portfolios of all factors.
fn long_short(results: &Results, language: Language) -> String {
    let say = |english| word(language, english);
    let heads = [
        "factor",
        "horizon",
        "top less bottom",
        "t Newey–West",
        "total",
        "drawdown",
        "factor-weighted",
        "t Newey–West",
        "total",
        "drawdown",
        "alpha (year)",
        "beta",
        "rank autocorrelation",
    ];
    let heads = heads.map(|head| format!("<th>{}</th>", say(head))).concat();
    let mut text = format!("<div class=\"table\"><table><tr>{heads}</tr>\n");
    for line in results.long_short() {
        let values = [
            line.spread_mean,
            line.spread_t_newey_west,
            line.spread_total,
            line.spread_drawdown,
            line.weighted_mean,
            line.weighted_t_newey_west,
            line.weighted_total,
            line.weighted_drawdown,
            line.annual_alpha,
            line.beta,
            line.autocorrelation,
        ];
        let cells = values.map(|x| format!("<td>{}</td>", precise(x))).concat();
        let (name, horizon) = (escaped(&line.factor), line.horizon);
        let _ = writeln!(text, "<tr><td>{name}</td><td>{horizon}</td>{cells}</tr>");
    }
    text + "</table></div>\n"
}

/// A number that may be small, such as a return of one date.
fn precise(x: f64) -> String {
    if x.is_nan() { "–".to_string() } else { format!("{x:.5}") }
}

fn moving_average(series: &[f64]) -> Vec<f64> {
    let mean = |t: usize| {
        let window = &series[(t + 1).saturating_sub(AVERAGED)..=t];
        let known: Vec<f64> = window.iter().copied().filter(|x| !x.is_nan()).collect();
        known.iter().sum::<f64>() / known.len() as f64
    };
    (0..series.len()).map(mean).collect()
}

fn histogram(series: &[f64]) -> Vec<(String, f64)> {
    let known: Vec<f64> = series.iter().copied().filter(|x| !x.is_nan()).collect();
    let most = known.iter().fold(0.0f64, |most, x| most.max(x.abs())).max(1e-9);
    let mut counts = vec![0.0; BARS];
    for x in known {
        let at = ((x / most + 1.0) / 2.0 * BARS as f64) as usize;
        counts[at.min(BARS - 1)] += 1.0;
    }
    let middle = |bar: usize| ((bar as f64 + 0.5) / BARS as f64 * 2.0 - 1.0) * most;
    counts.into_iter().enumerate().map(|(bar, n)| (format!("{:.2}", middle(bar)), n)).collect()
}

/// Sorted, standardised values over the quantiles of a normal distribution.
fn against_normal(series: &[f64]) -> Vec<(f64, f64)> {
    let mut known: Vec<f64> = series.iter().copied().filter(|x| !x.is_nan()).collect();
    known.sort_by(f64::total_cmp);
    let n = known.len() as f64;
    let mean = known.iter().sum::<f64>() / n;
    let deviation = (known.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let normal = Normal::standard();
    let point =
        |(i, x): (usize, f64)| (normal.inverse_cdf((i as f64 + 0.5) / n), (x - mean) / deviation);
    known.into_iter().enumerate().map(point).collect()
}

fn months(results: &Results, factor: usize, language: Language) -> String {
    let row = &results.study.summary[factor * results.study.horizons.len()];
    let most = row.months.iter().map(|m| m.mean.abs()).fold(1e-9, f64::max);
    let heads = (1..=12).map(|month| format!("<th>{month}</th>")).collect::<String>();
    let mut text = format!(
        "<p>{}</p>\n<div class=\"table\"><table><tr><th>{}</th>{heads}</tr>\n",
        escaped(word(language, "mean rank IC by month")),
        word(language, "year")
    );
    for year in row.months.chunk_by(|a, b| a.year == b.year) {
        let _ = write!(text, "<tr><td>{}</td>", year[0].year);
        for month in 1..=12 {
            let found = year.iter().find(|m| m.month == month);
            text += &heat(found.map_or(f64::NAN, |m| m.mean), most);
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

fn correlations(results: &Results) -> String {
    let all = &results.correlations;
    let heads: String = all.factors.iter().map(|f| format!("<th>{}</th>", escaped(f))).collect();
    let mut text = format!("<div class=\"table\"><table><tr><th></th>{heads}</tr>\n");
    for (a, name) in all.factors.iter().enumerate() {
        let cells: String = (0..all.factors.len()).map(|b| heat(all.of(a, b), 1.0)).collect();
        let _ = writeln!(text, "<tr><td>{}</td>{cells}</tr>", escaped(name));
    }
    text + "</table></div>\n"
}

fn portfolios(results: &Results, years: &[f64], language: Language) -> String {
    let say = |english| word(language, english);
    let curves: Vec<Curve> = results
        .portfolios
        .iter()
        .enumerate()
        .map(|(i, tested)| {
            let nav = tested.portfolio.nav.iter().copied();
            Curve::new(&tested.factor, i, years.iter().copied().zip(nav).collect())
        })
        .collect();
    let heads = ["annual return", "excess", "Sharpe", "maximum drawdown", "turnover"];
    let heads = heads.map(|head| format!("<th>{}</th>", say(head))).concat();
    let mut text = figure(say("net asset value"), say("year"), &curves);
    text += &format!("<div class=\"table\"><table><tr><th></th>{heads}</tr>\n");
    for tested in &results.portfolios {
        let p = &tested.portfolio;
        let values = [p.annual_return, p.annual_excess, p.sharpe, p.maximum_drawdown, p.turnover];
        let cells = values.map(|x| format!("<td>{}</td>", number(x))).concat();
        let _ = writeln!(text, "<tr><td>{}</td>{cells}</tr>", escaped(&tested.factor));
    }
    text += "</table></div>\n";
    if let (Some(&first), Some(&last)) = (results.study.dates.first(), results.study.dates.last()) {
        let _ = writeln!(
            text,
            "<p class=\"note\">{} – {}</p>",
            dates::format(first),
            dates::format(last)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_gaps_are_drawn() {
        let series = [0.1, f64::NAN, -0.2, 0.3];
        assert_eq!(moving_average(&series)[1], 0.1);
        assert_eq!(histogram(&series).iter().map(|(_, n)| n).sum::<f64>(), 3.0);
        let points = against_normal(&series);
        assert!(points.len() == 3 && points[1].0.abs() < 1e-12);
    }

    #[test]
    fn every_word_has_a_translation() {
        for (english, chinese) in WORDS {
            assert_eq!(word(Language::En, english), english);
            assert_eq!(word(Language::Zh, english), chinese);
            assert!(!chinese.is_empty() && english != chinese);
        }
    }
}
