//! Whether times on this machine mean something, and whether its cores are whole ones.

use std::hint::black_box;
use std::time::Instant;

use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::Result;

/// The cores of the machine, whatever this process is bound to.
pub fn cores() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let own = || std::thread::available_parallelism().map_or(1, usize::from);
    online.and_then(|list| listed(&list)).unwrap_or_else(own)
}

/// How many numbers a list such as `0-3,8` has.
fn listed(list: &str) -> Option<usize> {
    let parts = list.trim().split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        (last + 1).checked_sub(first)
    });
    parts.sum::<Option<usize>>().filter(|&cores| cores > 0)
}

/// Processes that wanted a core over the last minute, where the system tells it.
fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Why times taken now are no measurement of the machine; `None` when they are. Collective.
pub fn noise(c: &Communicator) -> Result<Option<String>> {
    let load = load().unwrap_or(0.0);
    let crowded = c.is_oversubscribed();
    let busy = load > cores() as f64 && !crowded;
    let worst = c.all_reduce_vec(&[f64::from(crowded), f64::from(busy), load], Op::Max)?;
    Ok(if worst[0] > 0.0 {
        Some("ranks share cores".to_string())
    } else if worst[1] > 0.0 {
        Some(format!("the load average was {} at the start, above the cores", worst[2]))
    } else {
        None
    })
}

/// How much longer a rank computes while the rank beside it computes too: 1 on whole cores, up to
/// 2 on hardware threads of one core. `None` where no node has two ranks. Collective.
pub fn slowdown_in_company(c: &Communicator) -> Result<Option<f64>> {
    let local = c.topology().local(c.rank());
    let (mut alone, mut together) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..5 {
        c.barrier()?;
        if local == 0 {
            alone = alone.min(compute());
        }
        c.barrier()?;
        if local <= 1 {
            together = together.min(compute());
        }
    }
    let has_pair = c.topology().peers(c.rank()).len() > 1 && local == 0;
    let mine = if has_pair { together / alone } else { 0.0 };
    let worst = c.all_reduce_vec(&[mine], Op::Max)?[0];
    Ok((worst > 0.0).then_some(worst))
}

/// About two milliseconds of arithmetic that keeps a whole core's units busy, in seconds.
fn compute() -> f64 {
    let start = Instant::now();
    let mut lanes = [1u64, 2, 3, 4, 5, 6, 7, 8];
    for i in 0..500_000u64 {
        for lane in &mut lanes {
            *lane = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) ^ i;
        }
    }
    black_box(lanes);
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(listed("0-1\n"), Some(2));
        assert_eq!(listed("0,2-4,9"), Some(5));
        for wrong in ["", "a", "3-1", "-"] {
            assert_eq!(listed(wrong), None, "{wrong}");
        }
    }
}
