//! Medians by a bracket that is remembered.
//!
//! The median of a factor moves little from one date to the next, so one pass counts the values
//! below a bracket around the last median and collects those inside, a twentieth of all; the
//! median is selected among them. If it is not there, a selection over all values finds it and a
//! new bracket. The result is exact either way: the bracket decides how long it takes, and
//! nothing else. Cost: one pass with a good bracket.

use crate::reduce::between::between;

/// Where the last median was, and how far around it one looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bracket {
    centre: f64,
    reach: f64,
}

/// The median of `of(x)` over finite values, the mean of the two middle ones where there are two.
/// `of` is computed on the way, so that what it makes needs no pass of its own.
///
/// # Panics
/// If there are none.
#[inline(always)]
pub(crate) fn median(
    values: &[f64],
    of: impl Fn(f64) -> f64,
    bracket: &mut Bracket,
    room: &mut Vec<f64>,
) -> f64 {
    let n = values.len();
    assert!(n > 0, "the median of nothing");
    let (low, high) = (bracket.centre - bracket.reach, bracket.centre + bracket.reach);
    let (below, inside) = between(values, &of, (low, high), room);
    let room = &mut room[..n];
    let (first, second) = ((n - 1) / 2, n / 2);
    if below <= first && second < below + inside {
        let middle = middle_of(&mut room[..inside], first - below, second - below);
        bracket.centre = middle;
        // A twentieth of the values is far more than the median moves, and quick to select from.
        bracket.reach *= if inside > n / 12 { 0.8 } else { 1.0 };
        bracket.reach *= if inside < n / 30 { 1.5 } else { 1.0 };
        return middle;
    }
    for (made, &x) in room.iter_mut().zip(values) {
        *made = of(x);
    }
    search(room, bracket)
}

/// The median of all values, and a new bracket around it.
#[cold]
fn search(values: &mut [f64], bracket: &mut Bracket) -> f64 {
    let (first, second) = ((values.len() - 1) / 2, values.len() / 2);
    let middle = middle_of(values, first, second);
    // What is below the median has been moved before it.
    let near = first - first / 16;
    let edge = *values[..=first].select_nth_unstable_by(near, f64::total_cmp).1;
    *bracket = Bracket { centre: middle, reach: middle - edge };
    middle
}

/// The mean of the values at two neighbouring places of the sorted order.
fn middle_of(values: &mut [f64], first: usize, second: usize) -> f64 {
    let (_, &mut a, above) = values.select_nth_unstable_by(first, f64::total_cmp);
    if first == second {
        return a;
    }
    let b = above.iter().copied().fold(f64::INFINITY, f64::min);
    // As numpy has it: the mean of the two.
    (a + b) / 2.0
}
