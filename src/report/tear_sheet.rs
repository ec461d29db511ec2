//! The tear sheet of a factor study: one self-contained page, in English or Chinese.
//!
//! For every factor: coefficients by date with their moving average, their distribution (histogram
//! and Q–Q plot), the monthly heat map, returns by quantile, the cumulative spread and its
//! drawdown, turnover; and for all together the summary, correlations and portfolios.

use std::fmt::Write as _;

use statrs::distribution::{ContinuousCDF, Normal};

use super::line::{Line as Curve, figure};
use super::{escaped, page as whole};
use crate::factor::config::Language;
use crate::factor::dates;
use crate::factor::job::Results;
use crate::factor::tables::columns;

/// Dates of the moving average.
const AVERAGED: usize = 20;
/// Bars of a histogram.
const BARS: usize = 31;

/// Words of the page: English, Chinese.
const WORDS: [(&str, &str); 22] = [
    ("Factor study", "因子研究"),
    ("Summary", "汇总"),
    ("Correlation of factors", "因子相关性"),
    ("Portfolios", "组合回测"),
    ("rank IC", "秩 IC"),
    ("moving average", "移动平均"),
    ("year", "年"),
    ("distribution of rank IC", "秩 IC 分布"),
    ("against a normal distribution (Q–Q)", "正态 Q–Q 图"),
    ("mean rank IC by month", "月度平均秩 IC"),
    ("mean return by quantile", "分组平均收益"),
    ("cumulative spread, top less bottom", "多空累计收益"),
    ("drawdown of the spread", "多空回撤"),
    ("turnover by quantile", "分组换手率"),
    ("IC by horizon (decay)", "IC 衰减"),
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
    body += &format!("<h2>{}</h2>\n{}", say("Correlation of factors"), correlations(results));
    if !results.portfolios.is_empty() {
        body +=
            &format!("<h2>{}</h2>\n{}", say("Portfolios"), portfolios(results, &years, language));
    }
    whole(title, &body)
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
    let theory = Curve::new("normal", 4, vec![(-3.0, -3.0), (3.0, 3.0)]);
    let found = Curve::new(say("rank IC"), 0, against_normal(&series));
    charts += &figure(say("against a normal distribution (Q–Q)"), "z", &[theory, found]);
    let decay = (0..study.horizons.len()).map(|h| {
        let row = &study.summary[factor * study.horizons.len() + h];
        (format!("{}", study.horizons[h]), row.rank_ic.mean)
    });
    charts += &bars(say("IC by horizon (decay)"), &decay.collect::<Vec<_>>());
    if let Some(groups) = results.quantiles.get(factor) {
        let named = |values: &[f64]| -> Vec<(String, f64)> {
            values.iter().enumerate().map(|(q, &x)| (format!("{}", q + 1), x)).collect()
        };
        if let Some(means) = groups.mean.first() {
            charts += &bars(say("mean return by quantile"), &named(means));
        }
        if let Some(spread) = groups.spread.first() {
            // Returns over several dates overlap: a date has its share of them.
            let share = study.horizons[0] as f64;
            let total = cumulative(spread, share);
            let fall = drawdown(&total);
            let name = say("cumulative spread, top less bottom");
            charts += &figure(name, say("year"), &[Curve::new(name, 0, points(&total))]);
            let name = say("drawdown of the spread");
            charts += &figure(name, say("year"), &[Curve::new(name, 1, points(&fall))]);
        }
        charts += &bars(say("turnover by quantile"), &named(&groups.mean_turnover));
    }
    format!(
        "<h2>{}</h2>\n<div class=\"charts\">\n{charts}</div>\n{}",
        escaped(&study.factors[factor]),
        months(results, factor, language)
    )
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

fn cumulative(spread: &[f64], share: f64) -> Vec<f64> {
    let mut total = 0.0;
    let step = |x: &f64| {
        total += if x.is_nan() { 0.0 } else { x / share };
        total
    };
    spread.iter().map(step).collect()
}

fn drawdown(total: &[f64]) -> Vec<f64> {
    let mut high = f64::NEG_INFINITY;
    let below = |x: &f64| {
        high = high.max(*x);
        x - high
    };
    total.iter().map(below).collect()
}

/// Bars around zero, each with its name.
fn bars(caption: &str, values: &[(String, f64)]) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 260.0;
    const FOOT: f64 = 26.0;
    let finite = || values.iter().map(|(_, x)| *x).filter(|x| x.is_finite());
    let (low, high) = finite().fold((0.0f64, 0.0f64), |(l, h), x| (l.min(x), h.max(x)));
    if low == high {
        return String::new();
    }
    let y = |x: f64| (high - x) / (high - low) * (HEIGHT - FOOT);
    let each = WIDTH / values.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(caption)
    );
    let every = values.len().div_ceil(10);
    for (i, (name, x)) in values.iter().enumerate() {
        let left = i as f64 * each;
        if x.is_finite() {
            let (top, bottom) = (y(x.max(0.0)), y(x.min(0.0)));
            let color = if *x < 0.0 { 1 } else { 0 };
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 style=\"fill: var(--c{color})\"><title>{}: {x:.6}</title></rect>",
                left + each * 0.1,
                each * 0.8,
                (bottom - top).max(0.5),
                escaped(name)
            );
        }
        if i % every == 0 {
            let (at, base) = (left + each / 2.0, HEIGHT - 8.0);
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{base}\" text-anchor=\"middle\">{}</text>",
                escaped(name)
            );
        }
    }
    format!(
        "<figure>\n<figcaption>{}</figcaption>\n{svg}</svg>\n<p class=\"note\">{low:.4} … \
         {high:.4}</p></figure>\n",
        escaped(caption)
    )
}

/// A cell whose colour says how far a value is from zero; `most` is the strongest.
fn heat(x: f64, most: f64) -> String {
    if x.is_nan() {
        return "<td>–</td>".to_string();
    }
    let strength = (x.abs() / most * 60.0).min(60.0);
    let color = if x < 0.0 { "--c1" } else { "--c0" };
    format!(
        "<td style=\"background: color-mix(in srgb, var({color}) {strength:.0}%, transparent)\">\
         {x:.3}</td>"
    )
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
        assert_eq!(cumulative(&series, 1.0)[1], 0.1);
        assert_eq!(drawdown(&[1.0, 3.0, 2.0]), [0.0, 0.0, -1.0]);
        let points = against_normal(&series);
        assert!(points.len() == 3 && points[1].0.abs() < 1e-12);
        assert!(heat(f64::NAN, 1.0).contains('–') && heat(-1.0, 1.0).contains("--c1"));
        assert_eq!(bars("none", &[("a".into(), 0.0)]), "");
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
