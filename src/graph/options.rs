//! What a PageRank run may be asked for, with the defaults of networkx.
//!
//! Three families of tools give three kinds of numbers for the same graph; each can be asked for:
//! how ranks are scaled, when iteration stops, and where the rank of dangling nodes goes.

use super::scheme::Partitioning;
use crate::error::{Error, Result};

/// The types of the contributions that are gathered, and of ranks and their sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Number {
    /// 64 bits.
    #[default]
    F64,
    /// 32 bits: ranks are right to about seven digits.
    F32,
    /// Contributions of 32 bits, ranks and sums of 64: the rank of a node with many sources is
    /// right to more digits than with 32.
    Mixed,
}

/// Where the rank of the nodes without outgoing weight goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dangling {
    /// Where teleports go, as in networkx.
    #[default]
    Follow,
    /// To all nodes alike.
    Uniform,
    /// Nowhere, so ranks add up to less than 1: GAP, Neo4j, GraphX.
    Ignore,
    /// Where [`Distributions::dangling`] says.
    Given,
}

/// When iteration stops; each compares strictly with the tolerance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stop {
    /// The L1 change of a step is below the tolerance times the number of nodes.
    #[default]
    Networkx,
    /// The L1 change of a step is below the tolerance: NetworKit, GAP, cuGraph.
    L1,
    /// No rank changes by the tolerance: Neo4j, GraphX.
    Max,
    /// α/(1−α) times the L1 change is below the tolerance, and so is the L1 distance from the
    /// solution: webgraph.
    Bound,
}

/// What the ranks add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scale {
    /// 1.
    #[default]
    One,
    /// The number of nodes.
    Nodes,
}

/// The parameters of a run, with the defaults of networkx.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PageRankOptions {
    /// The share of a rank that follows the edges; in [0, 1).
    pub alpha: f64,
    /// See [`Stop`]; above 0. It applies to ranks that add up to 1, whatever the scale.
    pub tolerance: f64,
    /// Give up after this many steps; at least 1.
    pub max_iterations: usize,
    /// Types of the numbers.
    pub number: Number,
    /// Where the rank of dangling nodes goes.
    pub dangling: Dangling,
    /// When iteration stops.
    pub stop: Stop,
    /// What ranks add up to.
    pub scale: Scale,
    /// How edges and values lie on the ranks; no bit of the result depends on it.
    pub partition: Partitioning,
    /// Do not send ranks again that changed by less than this share of what the stopping rule
    /// allows each node; in (0, 1). See `delta` for what that does to the result.
    pub delta: Option<f64>,
}

impl Default for PageRankOptions {
    fn default() -> Self {
        PageRankOptions {
            alpha: 0.85,
            tolerance: 1e-6,
            max_iterations: 100,
            number: Number::default(),
            dangling: Dangling::default(),
            stop: Stop::default(),
            scale: Scale::default(),
            partition: Partitioning::default(),
            delta: None,
        }
    }
}

impl PageRankOptions {
    /// Refuses parameters for which the iteration has no meaning.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.alpha) {
            return Err(Error::input(format!("alpha = {}: allowed is 0 <= alpha < 1", self.alpha)));
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::input(format!(
                "tolerance = {}: allowed is a finite number > 0",
                self.tolerance
            )));
        }
        if self.max_iterations == 0 {
            return Err(Error::input("max-iterations = 0: allowed is 1 or more"));
        }
        let Some(delta) = self.delta else {
            return Ok(());
        };
        if !(delta > 0.0 && delta < 1.0) {
            return Err(Error::input(format!("delta = {delta}: allowed is 0 < delta < 1")));
        }
        if self.stop == Stop::Max {
            return Err(Error::input(
                "delta bounds the sum of all errors, so it needs a rule for stopping that does; \
                 choose networkx, l1 or bound instead of max",
            ));
        }
        if self.partition == Partitioning::OneD {
            return Err(Error::input(
                "delta leaves values out, and partition 1d sends all; choose 1d-needed, 2d or auto",
            ));
        }
        Ok(())
    }

    /// The change of a step, of `n` nodes, below which iteration stops.
    pub fn limit(&self, n: usize) -> f64 {
        match self.stop {
            Stop::Networkx => n as f64 * self.tolerance,
            Stop::L1 | Stop::Max => self.tolerance,
            Stop::Bound if self.alpha == 0.0 => f64::INFINITY,
            Stop::Bound => self.tolerance * (1.0 - self.alpha) / self.alpha,
        }
    }
}

/// Distributions over all nodes in the order of their indices, the same on every rank. They need
/// not add up to 1; `None` is the uniform one.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Distributions {
    /// Where teleports go.
    pub personalization: Option<Vec<f64>>,
    /// Where iteration starts.
    pub start: Option<Vec<f64>>,
    /// Where the rank of dangling nodes goes, with [`Dangling::Given`].
    pub dangling: Option<Vec<f64>>,
}

impl Distributions {
    /// Makes each add up to 1, in the order of the indices, or refuses it.
    pub(super) fn normalised(mut self, n: usize) -> Result<Self> {
        let parts = [
            ("personalization", &mut self.personalization),
            ("start", &mut self.start),
            ("dangling", &mut self.dangling),
        ];
        for (name, values) in parts {
            let Some(values) = values else { continue };
            if values.len() != n {
                let what = format!("{name}: {} values for {n} nodes", values.len());
                return Err(Error::internal(what));
            }
            if values.iter().any(|v| !(v.is_finite() && *v >= 0.0)) {
                return Err(Error::input(format!("{name}: allowed are finite numbers >= 0")));
            }
            let sum: f64 = values.iter().sum();
            if !sum.is_normal() {
                return Err(Error::input(format!(
                    "{name}: the values add up to {sum:e}; some node needs a value above 0"
                )));
            }
            values.iter_mut().for_each(|value| *value /= sum);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaningless_parameters_are_refused() {
        let default = PageRankOptions::default();
        assert!(default.validate().is_ok());
        assert!(PageRankOptions { alpha: 0.0, ..default }.validate().is_ok());
        for alpha in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            let error = PageRankOptions { alpha, ..default }.validate().unwrap_err();
            assert!(error.message.contains("0 <= alpha < 1"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = PageRankOptions { tolerance, ..default }.validate().unwrap_err();
            assert!(error.message.contains("finite number > 0"), "{error}");
        }
        let halves = PageRankOptions { delta: Some(0.5), ..default };
        assert!(halves.validate().is_ok());
        for (options, what) in [
            (PageRankOptions { delta: Some(0.0), ..default }, "0 < delta < 1"),
            (PageRankOptions { delta: Some(f64::NAN), ..default }, "0 < delta < 1"),
            (PageRankOptions { stop: Stop::Max, ..halves }, "instead of max"),
            (PageRankOptions { partition: Partitioning::OneD, ..halves }, "1d sends all"),
        ] {
            let error = options.validate().unwrap_err();
            assert!(error.message.contains(what), "{error}");
        }
        let error = PageRankOptions { max_iterations: 0, ..default }.validate().unwrap_err();
        assert!(error.message.contains("1 or more"), "{error}");
    }

    #[test]
    fn distributions_are_normalised_or_refused() {
        let with = |values: &[f64]| Distributions {
            start: Some(values.to_vec()),
            ..Distributions::default()
        };
        assert_eq!(with(&[1.0, 3.0]).normalised(2), Ok(with(&[0.25, 0.75])));
        for (bad, what) in [
            (vec![0.0, 0.0], "add up to 0"),
            (vec![1.0, -1.0], "start: allowed are"),
            (vec![1.0, f64::NAN], "start: allowed are"),
            (vec![f64::MAX, f64::MAX], "add up to inf"),
            (vec![1.0], "1 values for 2"),
        ] {
            let error = with(&bad).normalised(2).unwrap_err();
            assert!(error.message.contains(what), "{error}");
        }
    }
}
