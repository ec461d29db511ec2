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

/// Whether anyone would see a bar.
fn is_seen(session: Session<'_>) -> bool {
    session.speaks_to_people() && !session.output.quiet && std::io::stderr().is_terminal()
}

/// Does `work`, with a bar where someone sees it.
pub(super) fn shown<T>(session: Session<'_>, work: impl FnOnce() -> T) -> T {
    if !is_seen(session) {
        return work();
    }
    let bar = Rc::new(Bar(RefCell::new(None)));
    let result = watch(Some(bar.clone()), work);
    bar.clear();
    result
}

/// A bar over the steps of a run, with what the last one said.
pub(super) struct StepBar(Option<ProgressBar>);

impl StepBar {
    /// A bar of so many steps, where someone sees it.
    pub(super) fn new(session: Session<'_>, steps: u64) -> Self {
        StepBar(is_seen(session).then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(FEWEST_PER_SECOND);
            let bar = ProgressBar::with_draw_target(Some(steps), target);
            if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} ({eta}) {msg}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        }))
    }

    /// `step` is done.
    pub(super) fn show(&self, step: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_position(step);
            bar.set_message(message());
        }
    }

    /// Prints lines above the bar.
    pub(super) fn above(&self, print: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
