//! Which assets take part on which dates: industries, flags, and how long an asset has had prices.
//!
//! Assets outside keep their prices, which returns and technical factors need; only their factor
//! values become missing. History counts all dates up to the own one, so each rank adds what the
//! ranks before it counted: one all-gather of assets × 4 bytes. A block of dates goes on from what
//! the blocks before it counted.

use super::config::Universe;
use super::panel::Panel;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

/// Makes factor values outside of the universe missing. Returns how many cells of the panel are
/// inside. Collective.
pub fn restrict(comm: &Communicator, panel: &mut Panel, universe: &Universe) -> Result<u64> {
    let inside = mask(comm, panel, universe)?;
    for factor in &mut panel.factors {
        let outside = factor.values.iter_mut().zip(&inside).filter(|pair| !pair.1);
        outside.for_each(|(value, _)| *value = f64::NAN);
    }
    let count = inside.iter().filter(|&&inside| inside).count() as u64;
    Ok(comm.all_reduce_vec(&[count], Op::Sum)?[0])
}

/// Whether each own date and asset is in the universe. Collective.
pub fn mask(comm: &Communicator, panel: &Panel, universe: &Universe) -> Result<Vec<bool>> {
    let width = panel.assets.len();
    let mut inside = vec![true; panel.own_dates().len() * width];
    // A rank without dates has empty matrices of a panel that has them.
    let held = [!panel.industries.is_empty(), !panel.flagged.is_empty(), !panel.price.is_empty()];
    let held = comm.all_reduce_vec(&held.map(u64::from), Op::Max)?;
    let lacks = |wanted: bool, held: u64, key: &str, column: &str| {
        if wanted && held == 0 {
            let what = format!("{key}: the panel has no {column}; name its column in [input]");
            return Err(Error::input(what));
        }
        Ok(())
    };
    let wanted = !universe.industries.is_empty();
    lacks(wanted, held[0], "universe.industries", "industry")?;
    lacks(universe.exclude_flagged, held[1], "universe.exclude_flagged", "flag")?;
    lacks(universe.minimum_history > 0, held[2], "universe.minimum_history", "price")?;
    if wanted {
        let names = &panel.industries;
        if let Some(name) = universe.industries.iter().find(|name| !names.contains(name)) {
            let there = names.join(", ");
            return Err(Error::input(format!(
                "universe.industries: no industry '{name}'; there are {there}"
            )));
        }
        let kept: Vec<bool> = names.iter().map(|name| universe.industries.contains(name)).collect();
        for (inside, &industry) in inside.iter_mut().zip(&panel.industry) {
            *inside &= kept.get(usize::from(industry)).copied().unwrap_or(false);
        }
    }
    if universe.exclude_flagged {
        inside.iter_mut().zip(&panel.flagged).for_each(|(inside, flag)| *inside &= !flag);
    }
    if universe.minimum_history > 0 && width > 0 {
        let mut counts = vec![0u32; width];
        for row in panel.price.chunks(width) {
            counts.iter_mut().zip(row).for_each(|(n, p)| *n += u32::from(!p.is_nan()));
        }
        let (all, _) = comm.all_gather_vec(&counts)?;
        counts.fill(0);
        counts.iter_mut().zip(&panel.edges.prices).for_each(|(n, before)| *n = *before);
        for before in all.chunks(width).take(comm.rank()) {
            counts.iter_mut().zip(before).for_each(|(n, before)| *n += before);
        }
        for (row, inside) in panel.price.chunks(width).zip(inside.chunks_mut(width)) {
            for ((n, p), inside) in counts.iter_mut().zip(row).zip(inside) {
                *n += u32::from(!p.is_nan());
                *inside &= *n as usize >= universe.minimum_history;
            }
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::generator::Synthetic;
    use crate::launch;

    #[test]
    fn the_universe_is_that_of_the_definition_on_any_number_of_ranks() {
        let synthetic = Synthetic { assets: 40, dates: 30, factors: 1, industries: 4, seed: 7 };
        let whole = synthetic.panel(0, 1);
        for (industries, exclude_flagged, minimum_history) in [
            (vec![], false, 0),
            (vec!["I1", "I3"], false, 0),
            (vec![], true, 0),
            (vec!["I0"], true, 9),
        ] {
            let industries = industries.into_iter().map(str::to_owned).collect();
            let universe = Universe { industries, exclude_flagged, minimum_history };
            let expected: Vec<bool> = (0..whole.price.len())
                .map(|i| {
                    let name = whole.industries.get(usize::from(whole.industry[i]));
                    let kept = name.is_some_and(|name| universe.industries.contains(name));
                    let history =
                        (i % 40..=i).step_by(40).filter(|&j| !whole.price[j].is_nan()).count();
                    (universe.industries.is_empty() || kept)
                        && !(exclude_flagged && whole.flagged[i])
                        && history >= minimum_history
                })
                .collect();
            for ranks in [1, 2, 3, 4, 7, 31] {
                let parts = launch::threads(ranks, |comm| {
                    let mut panel = synthetic.panel(comm.rank(), ranks);
                    let mask = mask(comm, &panel, &universe)?;
                    let count = restrict(comm, &mut panel, &universe)?;
                    let factor = &panel.factors[0].values;
                    let gone = factor.iter().zip(&mask).all(|(x, inside)| *inside || x.is_nan());
                    Ok((mask, count, gone))
                })
                .unwrap();
                let count = expected.iter().filter(|&&inside| inside).count() as u64;
                assert!(parts.iter().all(|part| part.1 == count && part.2));
                let joined: Vec<bool> = parts.into_iter().flat_map(|part| part.0).collect();
                assert_eq!(joined, expected, "{ranks} ranks");
            }
        }
        let unknown = Universe { industries: vec!["X".into()], ..Universe::default() };
        let error =
            launch::threads(2, |comm| mask(comm, &synthetic.panel(comm.rank(), 2), &unknown));
        assert!(error.unwrap_err().message.contains("no industry 'X'; there are I0, I1, I2, I3"));
    }
}
