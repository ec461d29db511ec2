//! The part of a training report that a planner has: predicted and true paths from above, how often
//! each hypothesis is used, and errors by distance.
//!
//! Paths have equal metres to both sides: forward is to the right, left is up.

use std::fmt::Write as _;

use super::escaped;
use super::line::{short, ticks};
use crate::train::planner::exhibit::{Drawn, Exhibit};
use crate::train::planner::metrics::{HIT_METRES, RangeReport, Report};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 38.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;

/// The part of the page.
pub fn section(exhibit: &Exhibit) -> String {
    let mut body = String::new();
    if !exhibit.samples.is_empty() {
        let _ = write!(
            body,
            "<h2>Predicted and true paths</h2>\n<p class=\"note\">Held-out windows from the \
             smallest to the largest error, {} s ahead, seen from above: the car is at 0 and looks \
             to the right; metres. ADE: mean distance to the true path.</p>\n{LEGEND}\
             <div class=\"charts small\">\n",
            short(exhibit.horizon_seconds)
        );
        exhibit.samples.iter().for_each(|sample| body += &figure(sample));
        body += "</div>\n";
    }
    body + &modes(&exhibit.report) + &ranges(&exhibit.report.ranges)
}

const LEGEND: &str = "\
<ul class=\"legend\">\
<li><span style=\"border-color: var(--ink)\"></span>true path</li>\
<li><span class=\"bold\" style=\"border-color: var(--c0)\"></span>most probable prediction</li>\
<li><span class=\"thin\" style=\"border-color: var(--c2)\"></span>other predictions, fainter the \
less probable</li>\
<li><span class=\"dashed\" style=\"border-color: var(--c1)\"></span>constant velocity</li></ul>\n";

/// The part of the plane that a chart shows, and where it shows it.
struct View {
    forward: (f64, f64),
    left: (f64, f64),
    scale: f64,
}

impl View {
    /// Around all paths, with the same scale on both axes.
    fn around(sample: &Drawn) -> Self {
        let modes = sample.modes.iter().map(|(_, path)| path);
        let points = modes.chain([&sample.truth, &sample.straight]).flatten();
        let finite = points.filter(|p| p.iter().all(|v| v.is_finite()));
        // The car itself, and nothing closer than a lane.
        let (mut forward, mut left) = ((0.0f64, 4.0f64), (-2.0f64, 2.0f64));
        for &[x, y] in finite {
            let (x, y) = (f64::from(x), f64::from(y));
            forward = (forward.0.min(x), forward.1.max(x));
            left = (left.0.min(y), left.1.max(y));
        }
        let (across, up) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let needed = ((forward.1 - forward.0) / across).max((left.1 - left.0) / up) * 1.06;
        let wide = |range: (f64, f64), pixels: f64| {
            let (middle, half) = ((range.0 + range.1) / 2.0, pixels * needed / 2.0);
            (middle - half, middle + half)
        };
        View { forward: wide(forward, across), left: wide(left, up), scale: 1.0 / needed }
    }

    fn x(&self, forward: f64) -> f64 {
        LEFT + (forward - self.forward.0) * self.scale
    }

    fn y(&self, left: f64) -> f64 {
        TOP + (self.left.1 - left) * self.scale
    }

    /// Grid lines at the same round distances on both axes, with their numbers.
    fn grid(&self, svg: &mut String) {
        let every = ticks(self.forward.0, self.forward.1);
        let step = every.get(1).zip(every.first()).map_or(10.0, |(b, a)| b - a);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let multiples = |range: (f64, f64)| {
            let (first, last) = ((range.0 / step).ceil() as i64, (range.1 / step).floor() as i64);
            (first..=last).map(move |k| k as f64 * step)
        };
        for value in multiples(self.forward) {
            let (at, text) = (self.x(value), short(value));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                HEIGHT - 8.0
            );
        }
        for value in multiples(self.left) {
            let (at, text) = (self.y(value), short(value));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 5.0,
                at + 4.0
            );
        }
    }

    fn path(&self, svg: &mut String, path: &[[f32; 2]], style: &str) {
        let finite = path.iter().filter(|p| p.iter().all(|v| v.is_finite()));
        let points = finite
            .map(|&[x, y]| format!("{:.1},{:.1}", self.x(f64::from(x)), self.y(f64::from(y))));
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(svg, "<polyline class=\"line {style} points=\"{points}\"/>");
    }
}

fn figure(sample: &Drawn) -> String {
    let [error, straight] = sample.errors;
    let caption = format!(
        "{}, {:.0} m/s: ADE {error:.2} m, constant velocity {straight:.2} m",
        escaped(&sample.vehicle),
        sample.speed
    );
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{caption}\">\n");
    let view = View::around(sample);
    view.grid(&mut svg);
    let others = sample.modes.iter().skip(1).rev();
    for (share, path) in others {
        let style =
            format!("thin\" style=\"stroke: var(--c2); opacity: {:.2}\"", 0.3 + 0.7 * share);
        view.path(&mut svg, path, &style);
    }
    if let Some((_, path)) = sample.modes.first() {
        view.path(&mut svg, path, "bold\" style=\"stroke: var(--c0)\"");
    }
    view.path(&mut svg, &sample.straight, "dashed\" style=\"stroke: var(--c1)\"");
    view.path(&mut svg, &sample.truth, "\" style=\"stroke: var(--ink)\"");
    let (x, y) = (view.x(0.0), view.y(0.0));
    let _ = writeln!(
        svg,
        "<circle r=\"4\" cx=\"{x:.1}\" cy=\"{y:.1}\" style=\"fill: var(--ink)\"/>\n</svg>"
    );
    format!("<figure><figcaption>{caption}</figcaption>\n{svg}</figure>\n")
}

/// How often each hypothesis was predicted, and how often it was the best, as bars.
fn modes(report: &Report) -> String {
    let total = report.steps.max(1) as f64;
    let mut rows = String::new();
    let counts = report.mode_use.iter().zip(&report.best_mode_use);
    for (mode, (&used, &best)) in counts.enumerate() {
        let cell = |count: u64, color: usize| {
            let percent = 100.0 * count as f64 / total;
            format!(
                "<td class=\"bar\"><span style=\"width: {percent:.1}%; background: \
                 var(--c{color})\"></span>{percent:.1} %</td>"
            )
        };
        let _ = writeln!(rows, "<tr><td>{mode}</td>{}{}</tr>", cell(used, 0), cell(best, 2));
    }
    format!(
        "<h2>Use of the hypotheses</h2>\n<p class=\"note\">Of {} steps; entropy of the predicted \
         ones {:.3} of at most {:.3} bits, and 0 when one is always taken.</p>\n\
         <div class=\"table\"><table class=\"bars\"><tr><th>hypothesis</th><th>most probable</th>\
         <th>best</th></tr>\n{rows}</table></div>\n",
        report.steps,
        report.mode_entropy_bits,
        (report.mode_use.len() as f64).log2()
    )
}

fn ranges(ranges: &[RangeReport]) -> String {
    let mut rows = String::new();
    for range in ranges {
        let number = |value: Option<f64>| value.map_or("–".to_string(), |v| format!("{v:.3}"));
        let cells = [range.error, range.x_error, range.y_error].into_iter().chain(range.ap);
        let cells: String = cells.map(|value| format!("<td>{}</td>", number(value))).collect();
        let (from, to, points) = (range.from_metres, range.to_metres, range.points);
        let _ = writeln!(rows, "<tr><td>{from}–{to} m</td><td>{points}</td>{cells}</tr>");
    }
    let hits: String = HIT_METRES.iter().map(|m| format!("<th>within {m} m</th>")).collect();
    format!(
        "<h2>Errors by distance</h2>\n<p class=\"note\">Points by their true distance forward; \
         errors in metres, and the share of points that near to the truth.</p>\n\
         <div class=\"table\"><table><tr><th>ahead</th><th>points</th><th>error</th>\
         <th>forward</th><th>left</th>{hits}</tr>\n{rows}</table></div>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(modes: Vec<(f64, Vec<[f32; 2]>)>) -> Drawn {
        let line = |y: f32| (0..33u8).map(|i| [f32::from(i) * 2.0, y]).collect();
        Drawn {
            vehicle: "a<b".into(),
            speed: 12.8,
            truth: line(0.0),
            modes,
            straight: line(3.0),
            errors: [0.5, 3.0],
        }
    }

    #[test]
    fn metres_are_equal_on_both_axes_and_everything_is_inside() {
        for far in [0.0f32, 30.0, -90.0, 4000.0] {
            let sample = sample(vec![(0.7, vec![[0.0, 0.0], [1.0, far]]), (0.3, vec![])]);
            let view = View::around(&sample);
            let unit = view.x(1.0) - view.x(0.0);
            assert!((unit - (view.y(0.0) - view.y(1.0))).abs() < 1e-9 && unit > 0.0);
            for &[x, y] in sample.truth.iter().chain(&sample.modes[0].1) {
                let (x, y) = (view.x(f64::from(x)), view.y(f64::from(y)));
                assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{far} {x}");
                assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{far} {y}");
            }
        }
    }

    #[test]
    fn every_path_is_drawn_once_and_numbers_that_are_none_are_left_out() {
        let modes = vec![(0.7, vec![[0.0, 0.0], [f32::NAN, 1.0]]), (0.3, vec![[1.0, 1.0]])];
        let text = figure(&sample(modes));
        assert_eq!(text.matches("<polyline").count(), 4);
        assert_eq!(text.matches("bold").count(), 1);
        assert!(text.contains("a&lt;b, 13 m/s: ADE 0.50 m") && !text.contains("NaN"));
    }

    #[test]
    fn empty_ranges_have_dashes() {
        let none = RangeReport {
            from_metres: 50.0,
            to_metres: 1000.0,
            points: 0,
            error: None,
            x_error: None,
            y_error: None,
            ap: [None; 3],
        };
        let text = ranges(&[none]);
        assert_eq!(text.matches("<td>–</td>").count(), 6);
        assert_eq!(text.matches("<th>within").count(), 3);
    }
}
