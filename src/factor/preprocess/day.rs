//! What all factors of a date share: usable assets in the order of their industries, and what the
//! regression needs of them.

use super::Preprocess;
use super::lanes;
use crate::factor::config::{Capitalisation, FillMethod, MeanWeights, RegressionWeights};

/// One row of each column of a panel that preprocessing reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct DayInput<'a> {
    /// How many assets there are.
    pub assets: usize,
    /// Prices, or empty: only assets with a price are filled.
    pub price: &'a [f64],
    /// Capitalisations, or empty.
    pub capitalisation: &'a [f64],
    /// Industries, or empty; `u16::MAX` is unknown.
    pub industry: &'a [u16],
    /// Which assets belong to the universe, or empty for all of them.
    pub universe: &'a [bool],
}

/// The usable assets of a date. A *place* is a position among them.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// The asset at each place, in the order of industries.
    pub order: Vec<u32>,
    /// Where each industry that is there ends among the places.
    pub(super) ends: Vec<u32>,
    /// Whether the last industry is that of assets without one.
    pub(super) last_unknown: bool,
    /// The regressor at each place, or empty.
    pub(super) covariate: Vec<f64>,
    /// The weight of the regression at each place, or empty.
    pub(super) weight: Vec<f64>,
    /// The weight of the mean at each place, or empty.
    pub(super) mean_weight: Vec<f64>,
    /// Whether a gap at the place may be filled; empty if nothing is filled.
    pub(super) fillable: Vec<bool>,
    /// `covariate` less its means by industry, and the sum of its squares: what a factor without
    /// gaps needs.
    pub(super) centred: Vec<f64>,
    pub(super) centred_squares: f64,
    /// The largest regressor in size.
    pub(super) covariate_size: f64,
    counts: Vec<u32>,
}

impl Day {
    /// Prepares a date. The room of an earlier one is used again.
    pub fn prepare(&mut self, input: &DayInput<'_>, options: &Preprocess) {
        self.sort_by_industry(input, options);
        let caps = |use_it: bool, f: fn(f64) -> f64, into: &mut Vec<f64>| {
            into.clear();
            if use_it {
                into.extend(self.order.iter().map(|&a| f(input.capitalisation[a as usize])));
            }
        };
        let neutralise = &options.neutralise;
        let log = neutralise.capitalisation == Capitalisation::Log;
        let regressed = neutralise.capitalisation != Capitalisation::None;
        caps(regressed, if log { f64::ln } else { |cap| cap }, &mut self.covariate);
        let weighted = neutralise.weights == RegressionWeights::SqrtCap;
        caps(weighted, f64::sqrt, &mut self.weight);
        caps(options.standardise.mean == MeanWeights::Cap, |cap| cap, &mut self.mean_weight);
        self.fillable.clear();
        if options.fill.method == FillMethod::IndustryMean {
            let priced = |a: u32| input.price.is_empty() || input.price[a as usize].is_finite();
            self.fillable.extend(self.order.iter().map(|&a| priced(a)));
        }
        self.covariate_size = self.covariate.iter().fold(0.0, |most, l| l.abs().max(most));
        self.centred.clear();
        self.centred.extend_from_slice(&self.covariate);
        if regressed && !weighted {
            let whole = [self.order.len() as u32];
            let ends = if neutralise.industry { &self.ends[..] } else { &whole };
            let intercept = neutralise.industry || neutralise.intercept;
            self.centred_squares = centre(&mut self.centred, ends, intercept);
        }
    }

    /// Lists the usable assets by industry, in one counting pass: assets keep their order inside
    /// an industry.
    fn sort_by_industry(&mut self, input: &DayInput<'_>, options: &Preprocess) {
        let (order, counts) = (&mut self.order, &mut self.counts);
        let grouped = options.groups() && !input.industry.is_empty();
        let needs_cap = options.needs_capitalisation();
        let needs_industry = options.needs_industry();
        let usable = |a: usize| {
            let cap = if needs_cap { input.capitalisation.get(a).copied() } else { Some(1.0) };
            (input.universe.is_empty() || input.universe[a])
                && cap.is_some_and(|cap| cap.is_finite() && cap > 0.0)
                && !(needs_industry && input.industry.get(a).is_none_or(|&g| g == u16::MAX))
        };
        let group = |a: usize| if grouped { input.industry[a] } else { 0 };
        counts.clear();
        let (mut usables, mut unknown) = (0u32, 0u32);
        for a in (0..input.assets).filter(|&a| usable(a)) {
            let group = group(a) as usize;
            usables += 1;
            if group == usize::from(u16::MAX) {
                unknown += 1;
                continue;
            }
            if group >= counts.len() {
                counts.resize(group + 1, 0);
            }
            counts[group] += 1;
        }
        self.ends.clear();
        let mut end = 0;
        for count in counts.iter_mut().filter(|count| **count > 0) {
            let start = end;
            end += *count;
            *count = start;
            self.ends.push(end);
        }
        self.last_unknown = unknown > 0;
        if unknown > 0 {
            self.ends.push(usables);
        }
        order.clear();
        order.resize(usables as usize, 0);
        for a in (0..input.assets).filter(|&a| usable(a)) {
            let group = usize::from(group(a));
            let next = if group == usize::from(u16::MAX) { &mut end } else { &mut counts[group] };
            order[*next as usize] = a as u32;
            *next += 1;
        }
    }
}

/// Takes the mean of each group away and returns the sum of squares of what remains; without
/// `intercept` values stay.
#[inline(always)]
pub(super) fn centre(values: &mut [f64], ends: &[u32], intercept: bool) -> f64 {
    if intercept {
        let mut start = 0;
        for &end in ends {
            let group = &mut values[start..end as usize];
            let mean = lanes::sum(
                group,
                #[inline(always)]
                |x| x,
            ) / group.len() as f64;
            group.iter_mut().for_each(|x| *x -= mean);
            start = end as usize;
        }
    }
    lanes::sum(
        values,
        #[inline(always)]
        |x| x * x,
    )
}
