//! How to wait: spin while every rank of the node has a core of its own, else give the core away.
//!
//! Measured on two cores with 4 and 8 ranks: 2000 spins before each yield cost 15 to 40 times the
//! latency of 20 spins, and sleeping on a futex from the first miss costs 5 times. So: 20 spins,
//! then yield. A long wait (a rank that loads a file while others have come early) falls back to
//! short sleeps, so that it leaves the cores to the threads of the busy rank.
//!
//! The clock is read only once a wait is past its spins.

use std::time::{Duration, Instant};

/// How ranks wait for each other, chosen once a communicator.
#[derive(Clone, Copy, Debug)]
pub struct WaitPolicy {
    /// Looks before the core is given away for the first time.
    pub spins: u32,
    /// After this long the wait is an error.
    pub limit: Duration,
}

/// With a core for each rank: 20 to 50 µs of looking before the first yield, since a pause takes 20
/// to 50 ns. Longer would cost much when other programs hold the core that a peer needs.
const SPINS_WITH_OWN_CORE: u32 = 1000;
/// With fewer cores than ranks.
const SPINS_WHEN_SHARED: u32 = 20;
/// From here on a wait sleeps between looks.
const SLEEP_AFTER: Duration = Duration::from_millis(50);
/// The sleep between looks of a long wait.
const SLEEP: Duration = Duration::from_micros(200);

impl WaitPolicy {
    /// For `locals` ranks that share the cores of this machine. Counts the cores this process may
    /// use (its affinity mask); a rank that is bound to fewer cores than there are ranks assumes
    /// that its peers are bound to others.
    pub fn new(locals: usize, limit: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = cores_of_machine();
        let own_core = locals <= cores || (cores < machine && locals <= machine);
        let spins = if own_core { SPINS_WITH_OWN_CORE } else { SPINS_WHEN_SHARED };
        WaitPolicy { spins, limit }
    }

    /// Looks at a flag in a tight loop before the first pause: about 0.1 µs, the time of a meet.
    pub fn looks_at_once(&self) -> u32 {
        if self.is_oversubscribed() { 1 } else { 64 }
    }

    /// Whether ranks of this node share cores.
    pub fn is_oversubscribed(&self) -> bool {
        self.spins == SPINS_WHEN_SHARED
    }
}

/// The cores of the machine, whatever this process may use of them.
fn cores_of_machine() -> usize {
    // SAFETY: sysconf has no preconditions.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).max(1)
}

/// One wait. `pause` between two looks.
#[derive(Debug)]
pub struct Wait {
    policy: WaitPolicy,
    looks: u32,
    since: Option<Instant>,
}

impl Wait {
    /// A wait that starts now.
    pub fn new(policy: WaitPolicy) -> Self {
        Wait { policy, looks: 0, since: None }
    }

    /// Spins, yields or sleeps once. False once the limit is over. `Some` of the time waited is
    /// returned by [`Wait::waited`].
    #[inline]
    pub fn pause(&mut self) -> bool {
        if self.looks < self.policy.spins {
            self.looks += 1;
            std::hint::spin_loop();
            return true;
        }
        self.pause_long()
    }

    #[cold]
    fn pause_long(&mut self) -> bool {
        let waited = self.waited();
        if waited > self.policy.limit {
            return false;
        }
        if waited > SLEEP_AFTER {
            std::thread::sleep(SLEEP);
        } else {
            std::thread::yield_now();
        }
        true
    }

    /// Whether this wait is past its spins, so that slower checks are worth their time.
    pub fn is_long(&self) -> bool {
        self.since.is_some()
    }

    /// How long this wait has lasted since its first look at the clock.
    pub fn waited(&mut self) -> Duration {
        self.since.get_or_insert_with(Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_at_its_limit_and_not_before() {
        let limit = Duration::from_millis(80);
        let mut wait = Wait::new(WaitPolicy { spins: 20, limit });
        let start = Instant::now();
        while wait.pause() {}
        assert!(start.elapsed() >= limit);
        assert!(wait.is_long());
    }

    #[test]
    fn more_ranks_than_cores_do_not_spin() {
        let limit = Duration::from_secs(1);
        assert!(WaitPolicy::new(100_000, limit).is_oversubscribed());
        assert!(!WaitPolicy::new(1, limit).is_oversubscribed());
    }
}
