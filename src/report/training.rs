//! The page of a training run: curves of loss, learning rate and gradient norm, and the numbers.

use std::fmt::Write as _;

use super::line::{Line, figure};
use super::{escaped, page as whole, planner};
use crate::optimizer::timeline::Ready;
use crate::train::run::{StepLine, TrainSummary};

/// The page.
pub fn page(summary: &TrainSummary, lines: &[StepLine]) -> String {
    let points = |value: &dyn Fn(&StepLine) -> f64| -> Vec<(f64, f64)> {
        lines.iter().map(|line| (line.step as f64, value(line))).collect()
    };
    let mut losses = vec![Line::new("training", 0, points(&|line| line.loss))];
    let measures = lines.iter().flat_map(|line| &line.evaluation).map(|m| m.name.clone());
    let mut names: Vec<String> = measures.filter(|name| name.ends_with("loss")).collect();
    names.sort_unstable();
    names.dedup();
    for (i, name) in names.iter().enumerate() {
        let during = lines.iter().map(|line| (line.step, &line.evaluation));
        let all = during.chain([(summary.steps, &summary.evaluation)]);
        let found = all.filter_map(|(step, evaluation)| {
            let measure = evaluation.iter().find(|measure| measure.name == *name)?;
            Some((step as f64, measure.value))
        });
        losses.push(Line::new(name, 1 + i % 4, found.collect()));
    }
    let figures = [
        figure("loss", "step", &losses),
        figure("gradient norm", "step", &[Line::new("norm", 2, points(&|l| l.gradient_norm))]),
        figure("learning rate", "step", &[Line::new("rate", 3, points(&|l| l.lr))]),
        figure(
            "throughput a second",
            "step",
            &[Line::new("all ranks", 0, points(&|l| l.units_per_second))],
        ),
    ];
    let mut body = format!(
        "<p class=\"note\">{} parameters, {} steps, {:.0} tokens or samples a second; bits of the \
         parameters {}</p>\n<div class=\"charts\">\n{}</div>\n",
        summary.parameters,
        summary.steps,
        summary.tokens_per_second,
        escaped(&summary.parameters_hash),
        figures.concat()
    );
    if !summary.evaluation.is_empty() {
        body += "<h2>Held-out data</h2>\n<div class=\"table\"><table><tr><th>measure</th>\
                 <th>value</th></tr>\n";
        for measure in &summary.evaluation {
            let (name, value) = (escaped(&measure.name), measure.value);
            let _ = writeln!(body, "<tr><td>{name}</td><td>{value:.6}</td></tr>");
        }
        body += "</table></div>\n";
    }
    if let Some(exhibit) = &summary.exhibit {
        body += &planner::section(exhibit);
    }
    if !summary.ready.is_empty() {
        body += &ready(&summary.ready);
    }
    if let Some(sample) = &summary.sample {
        let _ = writeln!(body, "<h2>A sample</h2>\n<pre>{}</pre>", escaped(sample));
    }
    whole("Training run", &body)
}

/// When buckets were ready: what is ready early can be communicated behind the rest.
fn ready(buckets: &[Ready]) -> String {
    let mut rows = String::new();
    for Ready { bucket, elements, parameters, share } in buckets {
        let percent = 100.0 * share;
        let names = escaped(&parameters.join(", "));
        let _ = writeln!(
            rows,
            "<tr><td>{bucket}</td><td class=\"bar\"><span style=\"width: {percent:.1}%; \
             background: var(--c0)\"></span>{percent:.1} %</td><td>{elements}</td>\
             <td class=\"names\">{names}</td></tr>"
        );
    }
    format!(
        "<h2>When gradients are ready</h2>\n<p class=\"note\">When the last gradient of a bucket \
         was written, as a share of the backward pass: the mean over micro-batches and ranks. From \
         then on it can be reduced while the rest goes on.</p>\n<div class=\"table\">\
         <table class=\"bars\"><tr><th>bucket</th><th>ready</th><th>elements</th>\
         <th>parameters</th></tr>\n{rows}</table></div>\n"
    )
}
