//! Which assets take part on which date: industries, flags, and a history of prices.
//!
//! The history counts the dates with a price up to and including the date; what earlier ranks
//! counted comes by an all-gather of one number for each asset.

use super::config::Universe;
use super::panel::Panel;
use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// Which cells of the own dates take part; empty if all do. Collective.
pub fn of(comm: &Communicator, panel: &Panel, options: &Universe) -> Result<Vec<bool>> {
    comm.agree(check(panel, options))?;
    let n = panel.assets.len();
    let cells = panel.own_dates().len() * n;
    let all = Universe { industries: Vec::new(), exclude_flagged: false, minimum_history: 0 };
    if *options == all {
        return Ok(Vec::new());
    }
    let mut takes_part = vec![true; cells];
    if !options.industries.is_empty() {
        let chosen: Vec<bool> =
            panel.industries.iter().map(|name| options.industries.contains(name)).collect();
        for (part, &industry) in takes_part.iter_mut().zip(&panel.industry) {
            *part &= chosen.get(usize::from(industry)).copied().unwrap_or(false);
        }
    }
    if options.exclude_flagged {
        takes_part.iter_mut().zip(&panel.flagged).for_each(|(part, flagged)| *part &= !flagged);
    }
    if options.minimum_history > 0 {
        let mut counts = vec![0u64; n];
        for (cell, price) in panel.price.iter().enumerate() {
            counts[cell % n] += u64::from(price.is_finite());
        }
        let (all, _) = comm.all_gather_vec(&counts)?;
        counts.fill(0);
        for (i, count) in all[..panel.rank * n].iter().enumerate() {
            counts[i % n] += count;
        }
        for (cell, price) in panel.price.iter().enumerate() {
            counts[cell % n] += u64::from(price.is_finite());
            takes_part[cell] &= counts[cell % n] >= options.minimum_history as u64;
        }
    }
    Ok(takes_part)
}

fn check(panel: &Panel, options: &Universe) -> Result<()> {
    let cells = panel.own_dates().len() * panel.assets.len();
    let needs = [
        (!options.industries.is_empty(), panel.industry.len(), "industries"),
        (options.exclude_flagged, panel.flagged.len(), "flags"),
        (options.minimum_history > 0, panel.price.len(), "prices"),
    ];
    for (needed, held, what) in needs {
        if needed && held != cells {
            return Err(Error::input(format!(
                "the panel has no {what}, which [universe] needs; name the column in [input]"
            )));
        }
    }
    match options.industries.iter().find(|name| !panel.industries.contains(name)) {
        Some(name) => Err(Error::input(format!(
            "universe.industries: no industry '{name}' in the panel; it has {}",
            panel.industries.join(", ")
        ))),
        None => Ok(()),
    }
}
