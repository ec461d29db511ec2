//! What the groups of a factor and the portfolio of its values earned on one date, over four
//! horizons at once.
//!
//! The definitions are those of `quantiles` and `weighted` without industries: returns less their
//! mean averaged by group, and Σ w r with weights that are the values less their mean, scaled to
//! Σ abs w = 1, each over the assets that have the return. Every sum runs over the assets one by
//! one, in their order, which fixes its bits; an addition waits for the one before, so horizons
//! stand side by side and what is missing adds 0, which changes no sum. Returns are laid out that
//! way once a date, for all factors. Cost: three passes of about five cycles an asset, for four
//! horizons.

use super::standing::group_of;
use super::weighted::ROUNDING;
use crate::reduce::simd::vectorised;

/// Horizons side by side: a vector of AVX2.
const LANES: usize = 4;
type Lanes = [f64; LANES];

/// The returns of one date: for each four horizons a row of four for each asset, NaN where there
/// is no return or no horizon.
#[derive(Debug, Default)]
pub(super) struct SideBySide {
    fours: Vec<Vec<Lanes>>,
}

impl SideBySide {
    /// Takes the returns of each horizon.
    pub(super) fn prepare(&mut self, returns: &[&[f64]]) {
        self.fours.resize_with(returns.len().div_ceil(LANES), Vec::new);
        for (four, returns) in self.fours.iter_mut().zip(returns.chunks(LANES)) {
            four.clear();
            four.resize(returns[0].len(), [f64::NAN; LANES]);
            for (lane, row) in returns.iter().enumerate() {
                four.iter_mut().zip(*row).for_each(|(four, &r)| four[lane] = r);
            }
        }
    }
}

/// The assets of a cross-section that have a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'m> {
    /// Assets, ascending.
    pub(super) assets: &'m [u32],
    /// The value of each.
    pub(super) values: &'m [f64],
    /// Where every asset of the panel stands.
    pub(super) standings: &'m [u32],
}

/// Room for the sums of groups.
#[derive(Debug, Default)]
pub(super) struct Room {
    sums: Vec<Lanes>,
    counts: Vec<Lanes>,
}

/// Sums over the assets with a return.
struct Totals {
    n: Lanes,
    returns: Lanes,
    values: Lanes,
    largest: Lanes,
}

/// Writes horizons × groups mean returns into `groups`, and horizons × 2 numbers into `weighted`:
/// the return of the portfolio and the mean return of its assets. Means are taken away if `demean`.
pub(super) fn earned(
    members: Members<'_>,
    returns: &SideBySide,
    demean: bool,
    room: &mut Room,
    groups: &mut [f64],
    weighted: &mut [f64],
) {
    let horizons = weighted.len() / 2;
    let count = groups.len() / horizons.max(1);
    let parts = groups.chunks_mut(LANES * count).zip(weighted.chunks_mut(2 * LANES));
    for (four, (groups, weighted)) in returns.fours.iter().zip(parts) {
        vectorised(
            #[inline(always)]
            || four_horizons(members, four, demean, room, count, groups, weighted),
        );
    }
}

#[inline(always)]
fn four_horizons(
    members: Members<'_>,
    returns: &[Lanes],
    demean: bool,
    room: &mut Room,
    count: usize,
    groups: &mut [f64],
    weighted: &mut [f64],
) {
    let totals = totals(members, returns);
    let (mut mean, mut centre, mut value_centre) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        mean[lane] = totals.returns[lane] / totals.n[lane];
        if demean {
            centre[lane] = mean[lane];
            value_centre[lane] = totals.values[lane] / totals.n[lane];
        }
    }
    let mut size = group_sums(members, returns, room, count, &centre, &value_centre);
    for (lane, size) in size.iter_mut().enumerate() {
        let least = ROUNDING * totals.largest[lane] * totals.n[lane];
        *size = if *size > least { *size } else { f64::NAN };
    }
    let (earned, held) = weigh(members, returns, &value_centre, &size);
    for (lane, (groups, weighted)) in
        groups.chunks_exact_mut(count).zip(weighted.chunks_exact_mut(2)).enumerate()
    {
        for (into, (sum, n)) in groups.iter_mut().zip(room.sums.iter().zip(&room.counts)) {
            *into = sum[lane] / n[lane];
        }
        if held[lane] > 0.0 {
            weighted.copy_from_slice(&[earned[lane], mean[lane]]);
        } else {
            weighted.fill(f64::NAN);
        }
    }
}

#[inline(always)]
fn totals(members: Members<'_>, returns: &[Lanes]) -> Totals {
    let mut totals = Totals { n: [0.0; 4], returns: [0.0; 4], values: [0.0; 4], largest: [0.0; 4] };
    for (&asset, &x) in members.assets.iter().zip(members.values) {
        for (lane, &r) in returns[asset as usize].iter().enumerate() {
            let there = !r.is_nan();
            let masked = if there { x } else { 0.0 };
            totals.n[lane] += if there { 1.0 } else { 0.0 };
            totals.returns[lane] += if there { r } else { 0.0 };
            totals.values[lane] += masked;
            let size = masked.abs();
            let most = &mut totals.largest[lane];
            *most = if size > *most { size } else { *most };
        }
    }
    totals
}

/// Sums of returns and numbers of assets by group into `room`; returns Σ abs of centred values.
#[inline(always)]
fn group_sums(
    members: Members<'_>,
    returns: &[Lanes],
    room: &mut Room,
    count: usize,
    centre: &Lanes,
    value_centre: &Lanes,
) -> Lanes {
    for sums in [&mut room.sums, &mut room.counts] {
        sums.clear();
        sums.resize(count, [0.0; LANES]);
    }
    let (sums, counts) = (&mut room.sums[..count], &mut room.counts[..count]);
    let mut size = [0.0; LANES];
    for (&asset, &x) in members.assets.iter().zip(members.values) {
        let r = &returns[asset as usize];
        let group = group_of(members.standings[asset as usize]) - 1;
        let (sum, n) = (&mut sums[group], &mut counts[group]);
        for lane in 0..LANES {
            let there = !r[lane].is_nan();
            sum[lane] += if there { r[lane] - centre[lane] } else { 0.0 };
            n[lane] += if there { 1.0 } else { 0.0 };
            size[lane] += if there { (x - value_centre[lane]).abs() } else { 0.0 };
        }
    }
    size
}

/// Σ w r over the assets with a weight, and whether there are any.
#[inline(always)]
fn weigh(
    members: Members<'_>,
    returns: &[Lanes],
    value_centre: &Lanes,
    size: &Lanes,
) -> (Lanes, Lanes) {
    let (mut sum, mut held) = ([0.0; LANES], [0.0; LANES]);
    for (&asset, &x) in members.assets.iter().zip(members.values) {
        let r = &returns[asset as usize];
        for lane in 0..LANES {
            let weight = (x - value_centre[lane]) / size[lane];
            // A size that is NaN gives no weights.
            let there = !r[lane].is_nan() && weight.abs() < f64::INFINITY;
            sum[lane] += if there { weight * r[lane] } else { 0.0 };
            held[lane] = if there { 1.0 } else { held[lane] };
        }
    }
    (sum, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::config::Demean;
    use crate::factor::quantiles;
    use crate::factor::standing::standing;
    use crate::factor::weighted;

    /// A number of small range, NaN for every seventh.
    fn made_up(i: usize, seed: usize) -> f64 {
        let mixed = (i * 7_919 + seed * 104_729 + i * i * 31) % 1_009;
        if mixed.is_multiple_of(7) { f64::NAN } else { mixed as f64 / 1_009.0 - 0.4 }
    }

    #[test]
    fn the_bits_are_those_of_the_definitions() {
        for n in [0, 1, 2, 3, 5, 64, 201] {
            for horizons in [1, 3, 4, 5, 9] {
                for constant in [false, true] {
                    let x: Vec<f64> = (0..n)
                        .map(|i| made_up(i, 1))
                        .map(|x| if constant && x.is_finite() { 0.1 } else { x })
                        .collect();
                    // The second horizon has no returns at all.
                    let row = |h: usize| move |i| if h == 1 { f64::NAN } else { made_up(i, 2 + h) };
                    let returns: Vec<Vec<f64>> =
                        (0..horizons).map(|h| (0..n).map(row(h)).collect()).collect();
                    let returns: Vec<&[f64]> = returns.iter().map(|r| &r[..]).collect();
                    for demean in [Demean::None, Demean::Date] {
                        compare(&x, &returns, demean);
                    }
                }
            }
        }
    }

    fn compare(x: &[f64], returns: &[&[f64]], demean: Demean) {
        let count = 3;
        let assets: Vec<u32> = (0..x.len() as u32).filter(|&a| !x[a as usize].is_nan()).collect();
        let values: Vec<f64> = assets.iter().map(|&a| x[a as usize]).collect();
        let mut standings = vec![0; x.len()];
        assets.iter().for_each(|&a| standings[a as usize] = standing(2, a as usize * 5 % count));
        let members = Members { assets: &assets, values: &values, standings: &standings };
        let (mut side, mut room) = (SideBySide::default(), Room::default());
        side.prepare(returns);
        let mut groups = vec![0.0; returns.len() * count];
        let mut weighted = vec![0.0; returns.len() * 2];
        let demeans = demean == Demean::Date;
        earned(members, &side, demeans, &mut room, &mut groups, &mut weighted);
        let bits = |values: &[f64]| -> Vec<Option<u64>> {
            values.iter().map(|x| (!x.is_nan()).then_some(x.to_bits())).collect()
        };
        for (h, returns) in returns.iter().enumerate() {
            let expected = weighted::of_date(x, returns, &[], demean);
            assert_eq!(bits(&weighted[2 * h..2 * h + 2]), bits(&expected), "{x:?} {returns:?}");
            // One industry is all of the date; returns that are 0 on average need no mean.
            let mut expected = vec![0.0; count];
            if demeans {
                quantiles::by_industry(returns, &standings, &[], count, &mut expected);
            } else {
                for (group, mean) in expected.iter_mut().enumerate() {
                    let of_group = |a: &&u32| group_of(standings[**a as usize]) == group + 1;
                    let earned = assets.iter().filter(of_group).map(|&a| returns[a as usize]);
                    let earned: Vec<f64> = earned.filter(|r| !r.is_nan()).collect();
                    *mean = earned.iter().sum::<f64>() / earned.len() as f64;
                }
            }
            assert_eq!(bits(&groups[h * count..][..count]), bits(&expected), "{x:?} {returns:?}");
        }
    }
}
