//! Self-contained HTML pages: no network, no script, readable on a phone and in dark mode.

pub mod bars;
pub mod chart;
pub mod convergence;
pub mod line;
pub mod tear_sheet;
pub mod training;

/// Text as it may stand in a page.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A whole page.
pub fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         {body}</body>\n</html>\n"
    )
}

const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1f24; --faint: #667085;
  --grid: #e4e7ec; --c0: #1f6feb; --c1: #c2410c; --c2: #8250df; --c3: #b58900; --c4: #57606a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --ink: #e6e8eb;
  --faint: #98a2b3; --grid: #2c323b; --c0: #6cb0ff; --c1: #ff9a62; --c2: #c39bff;
  --c3: #e3c04f; --c4: #9aa4b2; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.note { color: var(--faint); margin: .2rem 0; }
.warning { border-left: .3rem solid var(--c1); padding: .3rem .8rem; margin: .8rem 0; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%,
  28rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--faint); font-size: 13px; }
@media (max-width: 640px) { svg text { font-size: 20px; } } /* drawn half as large */
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 6 5; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .3rem 0; padding: 0;
  list-style: none; font-size: .9rem; }
.legend span { display: inline-block; width: 1.4rem; border-top: 3px solid; margin-right: .4rem;
  vertical-align: middle; }
.legend span.dashed { border-top-style: dashed; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let page = page("<b> & \"x\"", "");
        assert!(page.contains("<title>&lt;b&gt; &amp; &quot;x&quot;</title>"));
        assert!(!page.contains("http") && !page.contains("<script"), "it stands alone");
    }
}
