//! How far a long run has come, for whoever wants to show it.
//!
//! The library prints nothing. A caller hands in a [`Progress`] by [`watch`] on the thread of one
//! rank, and the readers of graph files and the iterations on that thread report to it: a call for
//! each block of 4 MiB or each step.

use std::cell::RefCell;
use std::rc::Rc;

/// Is told how far a run has come.
pub trait Progress {
    /// Something new begins, of so many units if that is known: bytes of a file, or steps.
    fn stage(&self, name: &'static str, units: Option<u64>);

    /// So many units more are done.
    fn advance(&self, units: u64);
}

thread_local! {
    static WATCHER: RefCell<Option<Rc<dyn Progress>>> = const { RefCell::new(None) };
}

/// Takes the watcher away again, also when the work panics.
struct Unwatch;

impl Drop for Unwatch {
    fn drop(&mut self) {
        WATCHER.set(None);
    }
}

/// Does `work`, watched by `progress`.
pub fn watch<T>(progress: Option<Rc<dyn Progress>>, work: impl FnOnce() -> T) -> T {
    WATCHER.set(progress);
    let _unwatch = Unwatch;
    work()
}

pub(super) fn stage(name: &'static str, units: Option<u64>) {
    tell(|watcher| watcher.stage(name, units));
}

pub(super) fn advance(units: u64) {
    tell(|watcher| watcher.advance(units));
}

fn tell(what: impl FnOnce(&dyn Progress)) {
    if let Some(watcher) = WATCHER.with_borrow(Clone::clone) {
        what(&*watcher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(RefCell<Vec<String>>);

    impl Progress for Log {
        fn stage(&self, name: &'static str, units: Option<u64>) {
            self.0.borrow_mut().push(format!("{name} {units:?}"));
        }

        fn advance(&self, units: u64) {
            self.0.borrow_mut().push(format!("{units}"));
        }
    }

    #[test]
    fn only_what_is_watched_is_reported() {
        let log = Rc::new(Log(RefCell::default()));
        advance(1);
        let result = watch(Some(log.clone()), || {
            stage("read", Some(9));
            advance(5);
            7
        });
        advance(2);
        assert_eq!((result, log.0.take()), (7, vec!["read Some(9)".into(), "5".into()]));
    }
}
