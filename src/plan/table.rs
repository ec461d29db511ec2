//! The one table of algorithms, with what each of them needs.
//!
//! The checker, the tests, the tuner, the command line and the documentation read it; a new row is
//! tested without a new test. Within a collective the rows go from the most special to the most
//! general one, so that the last row fits everywhere.

use super::algorithms::{
    Builder, binomial, bruck, circulant, direct, dissemination, doubling, halving, hierarchical,
    linear, pairwise, ring, staged,
};
use super::{Collective, Plan, Problem};
use crate::error::{Error, Result};
use crate::topology::Topology;

/// What an algorithm requires of the problem, the placement and the caller's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// The number of ranks is a power of two.
    pub power_of_two: bool,
    /// All ranks share a node.
    pub one_node: bool,
    /// The input lies in memory that node peers can read.
    pub shared_input: bool,
    /// The output lies in memory that node peers can read.
    pub shared_output: bool,
    /// All counts are equal.
    pub uniform: bool,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    /// Its name among the algorithms of its collective.
    pub name: &'static str,
    /// What it does; root 0 stands for any root.
    pub collective: Collective,
    /// Where it may be used.
    pub needs: Needs,
    /// Whether it supports [`Problem::in_place`], where that means something.
    pub in_place: bool,
    /// Every element of the result is made by exactly one reduction over all contributions in rank
    /// order: 16-bit floats round once, and the bits are those of any other such row. The checker
    /// verifies it.
    pub single_rounding: bool,
    /// Where its results are the canonical tree over all contributions. The checker verifies it.
    pub canonical: Canonical,
    /// What it is good for, in a line.
    pub summary: &'static str,
    /// Makes the plan of a rank.
    pub build: Builder,
}

/// Where the bits of a reduction do not depend on the algorithm: every element of the result is
/// the canonical tree over all contributions. `tree(a..b)` is the contribution of rank a if there
/// is only that, else `tree(a..m) ⊕ tree(m..b)`, where m - a is the largest power of two below
/// b - a. A step combines its operands by it, and an aligned group of ranks can combine its part
/// of it beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canonical {
    /// Its bits are its own.
    Never,
    /// Wherever it fits.
    Always,
    /// On nodes of consecutive ranks, as many on each, a power of two; at most as many on the last.
    OnAlignedNodes,
}

const ANY: Needs = Needs {
    power_of_two: false,
    one_node: false,
    shared_input: false,
    shared_output: false,
    uniform: false,
};
const POWER_OF_TWO: Needs = Needs { power_of_two: true, ..ANY };
const ONE_NODE: Needs = Needs { one_node: true, ..ANY };
const SHARED_INPUT: Needs = Needs { shared_input: true, ..ANY };
const DIRECT: Needs = Needs { one_node: true, ..SHARED_INPUT };
const DIRECT_OUTPUT: Needs = Needs { shared_output: true, ..ONE_NODE };
const UNIFORM: Needs = Needs { uniform: true, ..ANY };

const REDUCE_SCATTER: Collective = Collective::ReduceScatter;
const ALL_GATHER: Collective = Collective::AllGather;
const ALL_REDUCE: Collective = Collective::AllReduce;
const BROADCAST: Collective = Collective::Broadcast { root: 0 };
const GATHER: Collective = Collective::Gather { root: 0 };
const SCATTER: Collective = Collective::Scatter { root: 0 };
const ALL_TO_ALL: Collective = Collective::AllToAll;
const BARRIER: Collective = Collective::Barrier;

const fn row(
    collective: Collective,
    name: &'static str,
    needs: Needs,
    build: Builder,
    summary: &'static str,
) -> Algorithm {
    let in_place = matches!(
        collective,
        Collective::ReduceScatter | Collective::AllGather | Collective::AllReduce
    );
    let (single_rounding, canonical) = (false, Canonical::Never);
    Algorithm { name, collective, needs, in_place, single_rounding, canonical, summary, build }
}

/// Marks a row whose reductions round once.
const fn once(row: Algorithm) -> Algorithm {
    Algorithm { single_rounding: true, canonical: Canonical::Always, ..row }
}

/// Marks a row whose reductions make the canonical tree, in several steps.
const fn tree(row: Algorithm, canonical: Canonical) -> Algorithm {
    Algorithm { canonical, ..row }
}

#[rustfmt::skip] // a table is easier to read with one row a line
static ALGORITHMS: &[Algorithm] = &[
    once(row(REDUCE_SCATTER, "direct", DIRECT, direct::reduce_scatter,
        "one pass over shared inputs; the fastest on a node")),
    once(row(REDUCE_SCATTER, "staged", ONE_NODE, staged::reduce_scatter,
        "private buffers on a node, through cache-sized pieces")),
    row(REDUCE_SCATTER, "hierarchical_direct", SHARED_INPUT, hierarchical::reduce_scatter_direct,
        "shared inputs on several nodes; least bytes on the network"),
    row(REDUCE_SCATTER, "hierarchical", ANY, hierarchical::reduce_scatter,
        "several ranks a node; least bytes on the network"),
    tree(row(REDUCE_SCATTER, "hierarchical_ordered", ANY, hierarchical::reduce_scatter_ordered,
        "several ranks a node; the canonical tree on aligned nodes"), Canonical::OnAlignedNodes),
    row(REDUCE_SCATTER, "halving", POWER_OF_TWO, halving::reduce_scatter,
        "recursive halving; few messages and least bytes"),
    row(REDUCE_SCATTER, "circulant", ANY, circulant::reduce_scatter,
        "few messages and least bytes for any number of ranks"),
    once(row(REDUCE_SCATTER, "pairwise", ANY, pairwise::reduce_scatter,
        "all contributions at once, in rank order; workspace of the whole vector")),
    row(REDUCE_SCATTER, "ring", ANY, ring::reduce_scatter,
        "neighbours only, least bytes; long vectors"),

    row(ALL_GATHER, "direct", DIRECT, direct::all_gather,
        "pulls from shared inputs; the fastest on a node"),
    row(ALL_GATHER, "staged", ONE_NODE, staged::all_gather,
        "private buffers on a node, through cache-sized pieces"),
    row(ALL_GATHER, "hierarchical", ANY, hierarchical::all_gather,
        "several ranks a node; least bytes on the network"),
    row(ALL_GATHER, "doubling", POWER_OF_TWO, doubling::all_gather,
        "recursive doubling; few messages and least bytes"),
    row(ALL_GATHER, "bruck", ANY, bruck::all_gather,
        "few messages and least bytes for any number of ranks"),
    row(ALL_GATHER, "ring", ANY, ring::all_gather,
        "neighbours only, least bytes; long vectors"),

    once(row(ALL_REDUCE, "direct", DIRECT, direct::all_reduce,
        "one pass over shared inputs, then pulls; the fastest on a node")),
    once(row(ALL_REDUCE, "flat", ONE_NODE, staged::flat,
        "everybody reduces everything, one meet; short vectors on a node")),
    once(row(ALL_REDUCE, "staged", ONE_NODE, staged::all_reduce,
        "private buffers on a node, through cache-sized pieces")),
    row(ALL_REDUCE, "hierarchical_direct", SHARED_INPUT, hierarchical::all_reduce_direct,
        "shared inputs on several nodes; least bytes on the network"),
    row(ALL_REDUCE, "hierarchical", ANY, hierarchical::all_reduce,
        "several ranks a node; least bytes on the network"),
    tree(row(ALL_REDUCE, "hierarchical_ordered", ANY, hierarchical::all_reduce_ordered,
        "several ranks a node; the canonical tree on aligned nodes"), Canonical::OnAlignedNodes),
    tree(row(ALL_REDUCE, "doubling", POWER_OF_TWO, doubling::all_reduce,
        "recursive doubling; fewest messages; short vectors"), Canonical::Always),
    once(row(ALL_REDUCE, "bruck", ANY, bruck::all_reduce,
        "gathers all vectors, rounds once, in rank order; the shortest vectors on any placement")),
    row(ALL_REDUCE, "rabenseifner", POWER_OF_TWO, halving::all_reduce,
        "recursive halving, then doubling; few messages and least bytes"),
    row(ALL_REDUCE, "circulant", ANY, circulant::all_reduce,
        "few messages and least bytes for any number of ranks"),
    once(row(ALL_REDUCE, "pairwise", ANY, pairwise::all_reduce,
        "rounds once, in rank order, on any placement; workspace of the whole vector")),
    row(ALL_REDUCE, "ring", ANY, ring::all_reduce,
        "neighbours only, least bytes; long vectors"),

    row(BROADCAST, "direct", DIRECT_OUTPUT, direct::broadcast,
        "pulls from the shared output of the root; the fastest on a node"),
    row(BROADCAST, "staged", ONE_NODE, staged::broadcast,
        "private buffers on a node, through cache-sized pieces"),
    row(BROADCAST, "hierarchical", ANY, hierarchical::broadcast,
        "several ranks a node; each node receives once"),
    row(BROADCAST, "scatter_ring", ANY, binomial::scatter_ring,
        "scatter, then ring all_gather; long vectors"),
    row(BROADCAST, "binomial", ANY, binomial::broadcast,
        "a tree; short vectors"),

    row(GATHER, "direct", DIRECT, direct::gather,
        "the root pulls from shared inputs; the fastest on a node"),
    row(GATHER, "staged", ONE_NODE, staged::gather,
        "private buffers on a node, through cache-sized pieces"),
    row(GATHER, "linear", ANY, linear::gather,
        "straight to the root; long shards"),
    row(GATHER, "binomial", ANY, binomial::gather,
        "a tree; short shards"),

    row(SCATTER, "direct", DIRECT, direct::scatter,
        "pulls from the shared input of the root; the fastest on a node"),
    row(SCATTER, "staged", ONE_NODE, staged::scatter,
        "private buffers on a node, through cache-sized pieces"),
    row(SCATTER, "linear", ANY, linear::scatter,
        "straight from the root; long shards"),
    row(SCATTER, "binomial", ANY, binomial::scatter,
        "a tree; short shards"),

    row(ALL_TO_ALL, "direct", DIRECT, direct::all_to_all,
        "pulls from shared inputs; the fastest on a node"),
    row(ALL_TO_ALL, "staged", ONE_NODE, staged::all_to_all,
        "private buffers on a node, through cache-sized pieces"),
    row(ALL_TO_ALL, "bruck", UNIFORM, bruck::all_to_all,
        "few messages; short equal counts"),
    row(ALL_TO_ALL, "pairwise", ANY, pairwise::all_to_all,
        "one partner at a time, least bytes"),

    row(BARRIER, "meet", ONE_NODE, direct::barrier,
        "one meet in shared memory"),
    row(BARRIER, "hierarchical", ANY, hierarchical::barrier,
        "meets in the nodes, dissemination over one rank a node"),
    row(BARRIER, "dissemination", ANY, dissemination::barrier,
        "fewest rounds without shared memory"),
];

/// All algorithms.
pub fn all() -> &'static [Algorithm] {
    ALGORITHMS
}

/// The algorithms of a collective, whatever its root.
pub fn of(collective: Collective) -> impl Iterator<Item = &'static Algorithm> {
    ALGORITHMS.iter().filter(move |row| row.collective.same_kind(collective))
}

/// The algorithm of a collective by its name.
pub fn find(collective: Collective, name: &str) -> Result<&'static Algorithm> {
    of(collective).find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<_> = of(collective).map(|row| row.name).collect();
        let (collective, names) = (collective.name(), names.join(", "));
        Error::input(format!("{collective} has no algorithm '{name}'; choose one of {names}"))
    })
}

impl Algorithm {
    /// The plan of a rank.
    pub fn plan(&self, problem: &Problem, topology: &Topology, rank: usize) -> Plan {
        (self.build)(problem, topology, rank)
    }

    /// The plans of all ranks.
    pub fn plans(&self, problem: &Problem, topology: &Topology) -> Vec<Plan> {
        (0..topology.ranks()).map(|rank| self.plan(problem, topology, rank)).collect()
    }

    /// Whether its results are the canonical tree on this placement.
    pub fn is_canonical(&self, topology: &Topology) -> bool {
        match self.canonical {
            Canonical::Never => false,
            Canonical::Always => true,
            Canonical::OnAlignedNodes => topology.is_aligned(),
        }
    }

    /// Whether it may be used, and if not, why not and what to use instead. `shared_input` and
    /// `shared_output`: the caller's buffers lie in memory that node peers can read.
    pub fn fits(
        &self,
        problem: &Problem,
        topology: &Topology,
        shared_input: bool,
        shared_output: bool,
    ) -> Result<()> {
        let Some(lack) = self.lacks(problem, topology, shared_input, shared_output) else {
            return Ok(());
        };
        let other = of(self.collective)
            .find(|row| row.lacks(problem, topology, shared_input, shared_output).is_none())
            .map_or(String::new(), |row| format!("try {}, or ", row.name));
        let collective = self.collective.name();
        Err(Error::input(format!(
            "{collective}/{} {lack}; {other}leave the algorithm out",
            self.name
        )))
    }

    /// What is missing for its use.
    fn lacks(
        &self,
        problem: &Problem,
        topology: &Topology,
        shared_input: bool,
        shared_output: bool,
    ) -> Option<String> {
        let (needs, ranks) = (self.needs, topology.ranks());
        if !self.collective.same_kind(problem.collective) {
            return Some(format!("cannot do {}", problem.collective.name()));
        }
        if needs.power_of_two && !ranks.is_power_of_two() {
            return Some(format!("needs a power of two; ranks = {ranks}"));
        }
        if needs.one_node && topology.nodes() > 1 {
            return Some(format!("needs all ranks on one node; nodes = {}", topology.nodes()));
        }
        if needs.shared_input && !shared_input {
            return Some("needs an input in node-shared memory".to_string());
        }
        if needs.shared_output && !shared_output {
            return Some("needs an output in node-shared memory".to_string());
        }
        if needs.uniform && !problem.is_uniform() {
            return Some("needs equal counts".to_string());
        }
        if !self.in_place && problem.overlap(0).is_some() {
            return Some("cannot work in place".to_string());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharding::Sharding;

    #[test]
    fn names_are_unique_and_the_last_row_of_a_collective_fits_everywhere() {
        for collective in Collective::ALL {
            let rows: Vec<_> = of(collective).collect();
            for (i, row) in rows.iter().enumerate() {
                assert!(rows[..i].iter().all(|other| other.name != row.name), "{}", row.name);
                assert!(std::ptr::eq(find(collective, row.name).unwrap(), *row));
                assert!(collective.reduces() || !row.single_rounding);
            }
            let last = rows.last().expect("every collective has an algorithm");
            assert_eq!(last.needs, ANY, "{}", collective.name());
        }
    }

    #[test]
    fn what_does_not_fit_says_why_and_what_does() {
        let problem = Problem::new(REDUCE_SCATTER, Sharding::even(12, 6));
        let halving = find(REDUCE_SCATTER, "halving").unwrap();
        let error = halving.fits(&problem, &Topology::flat(6), false, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "reduce_scatter/halving needs a power of two; ranks = 6; \
             try hierarchical, or leave the algorithm out"
        );
        let error = find(REDUCE_SCATTER, "halvign").unwrap_err();
        assert_eq!(
            error.to_string(),
            "reduce_scatter has no algorithm 'halvign'; choose one of direct, staged, \
             hierarchical_direct, hierarchical, hierarchical_ordered, halving, circulant, \
             pairwise, ring"
        );
        let four = Problem::new(REDUCE_SCATTER, Sharding::even(12, 4));
        halving.fits(&four, &Topology::flat(4), false, false).unwrap();
    }
}
