//! Progress bars on stderr: from rank 0, and only for people who look at a terminal.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Session;
use crate::graph::progress::{Progress, watch};

/// One bar, for the stage that runs.
struct Bar(RefCell<Option<ProgressBar>>);

const FEWEST_PER_SECOND: u8 = 5;

impl Progress for Bar {
    fn stage(&self, name: &'static str, units: Option<u64>) {
        self.clear();
        let target = ProgressDrawTarget::stderr_with_hz(FEWEST_PER_SECOND);
        let bar = ProgressBar::with_draw_target(units, target);
        let template = match (units, name) {
            (Some(_), _) => "{msg} [{bar:40}] {bytes}/{total_bytes} ({eta} left)",
            (None, "iterate") => "{msg} {pos} steps",
            (None, _) => "{msg} {bytes}",
        };
        // A template that does not parse would only look different.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(name);
        self.0.replace(Some(bar));
    }

    fn advance(&self, units: u64) {
        if let Some(bar) = &*self.0.borrow() {
            bar.inc(units);
        }
    }
}

impl Bar {
    fn clear(&self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

/// Does `work`, with a bar where someone sees it.
pub(super) fn shown<T>(session: Session<'_>, work: impl FnOnce() -> T) -> T {
    let seen = session.speaks_to_people() && !session.output.quiet;
    if !seen || !std::io::stderr().is_terminal() {
        return work();
    }
    let bar = Rc::new(Bar(RefCell::new(None)));
    let result = watch(Some(bar.clone()), work);
    bar.clear();
    result
}
