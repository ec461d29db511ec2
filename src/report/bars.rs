//! Bars around zero as inline SVG, and cells of tables whose colour says how far a value is from
//! zero. Both take their colours from the page.

use std::fmt::Write as _;

use super::escaped;

/// Bars around zero, each with its name.
pub fn bars(caption: &str, values: &[(String, f64)]) -> String {
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
            // Not beyond the edges, where it would be cut.
            let at = (left + each / 2.0).clamp(24.0, WIDTH - 24.0);
            let base = HEIGHT - 8.0;
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
pub fn heat(x: f64, most: f64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(heat(f64::NAN, 1.0).contains('–') && heat(-1.0, 1.0).contains("--c1"));
        assert_eq!(bars("none", &[("a".into(), 0.0)]), "");
        let found = bars("some", &[("a".into(), 1.0), ("b".into(), f64::NAN), ("c".into(), -1.0)]);
        assert_eq!(found.matches("<rect").count(), 2);
    }
}
