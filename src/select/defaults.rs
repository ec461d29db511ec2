//! What is chosen without a table: short lists of names, best first, of which the first that fits
//! is taken.
//!
//! The lists follow measured crossings (one node: shared memory always; between nodes: few
//! messages for short vectors, few bytes for long ones).

use super::{Order, bytes_of, order_matters};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::plan::table::{self, Algorithm};
use crate::plan::{Collective, Problem};
use crate::topology::Topology;

/// Up to here a vector is short: latency counts more than bytes.
const SHORT_BYTES: usize = 32 << 10;
/// Up to here every rank of a node reduces everything, to save a meet. Two ranks: 0.40 against 0.44
/// µs at 2 KiB, 1.42 against 0.99 at 8 KiB.
const FLAT_BYTES: usize = 4 << 10;
/// Up to here even shared buffers go through the workspace: one meet instead of two. Two ranks:
/// 0.22 against 0.24 µs up to 512 bytes, 0.29 against 0.27 at 2 KiB.
const TINY_BYTES: usize = 512;

/// The names to try, best first. The last one of each list fits everywhere.
fn preference(collective: Collective, bytes: usize, topology: &Topology) -> Vec<&'static str> {
    let short = bytes <= SHORT_BYTES;
    let nodes_share = topology.nodes() > 1 && topology.nodes() < topology.ranks();
    let mut names = match collective {
        Collective::AllReduce if bytes <= FLAT_BYTES => vec!["flat", "direct"],
        Collective::Barrier => vec!["meet"],
        _ if bytes <= TINY_BYTES => vec!["staged", "direct"],
        _ => vec!["direct", "staged"],
    };
    if nodes_share {
        names.extend(["hierarchical_direct", "hierarchical", "hierarchical_ordered"]);
    }
    names.extend(match collective {
        Collective::ReduceScatter if short => &["halving", "circulant", "pairwise"][..],
        Collective::ReduceScatter => &["ring", "pairwise"],
        Collective::AllGather if short => &["doubling", "bruck"],
        Collective::AllGather => &["ring"],
        Collective::AllReduce if bytes <= FLAT_BYTES => &["doubling", "bruck"],
        Collective::AllReduce if short => &["rabenseifner", "circulant", "pairwise"],
        Collective::AllReduce => &["rabenseifner", "ring", "pairwise"],
        Collective::Broadcast { .. } if short => &["binomial"],
        Collective::Broadcast { .. } => &["scatter_ring", "binomial"],
        Collective::Gather { .. } | Collective::Scatter { .. } if short => &["binomial"],
        Collective::Gather { .. } | Collective::Scatter { .. } => &["linear", "binomial"],
        Collective::AllToAll if short => &["bruck", "pairwise"],
        Collective::AllToAll => &["pairwise"],
        Collective::Barrier => &["dissemination"],
    });
    names
}

/// The rows that are weighed for a call, best first, each with why it is passed over, if it is.
/// `shared` says whether input and output are in node-shared memory.
pub fn weigh<'a>(
    problem: &'a Problem,
    dtype: DType,
    topology: &'a Topology,
    shared: [bool; 2],
    order: Order,
) -> impl Iterator<Item = (&'static Algorithm, Option<Error>)> + use<'a> {
    preference(problem.collective, bytes_of(problem, dtype), topology)
        .into_iter()
        .filter_map(|name| table::find(problem.collective, name).ok())
        .map(move |row| {
            let fits = usable(row, problem, dtype, topology, shared, order);
            (row, fits.err())
        })
}

/// Whether a row may be used for a call, and if not, why not.
pub(super) fn usable(
    row: &Algorithm,
    problem: &Problem,
    dtype: DType,
    topology: &Topology,
    shared: [bool; 2],
    order: Order,
) -> Result<()> {
    if order_matters(problem, dtype, order) && !row.is_canonical(topology) {
        return Err(Error::input(format!(
            "{}/{} combines contributions in an order of its own; --order fastest allows that",
            problem.collective.name(),
            row.name
        )));
    }
    row.fits(problem, topology, shared[0], shared[1])
}

/// The first row that is not passed over.
pub(super) fn first(
    problem: &Problem,
    dtype: DType,
    topology: &Topology,
    shared: [bool; 2],
    order: Order,
) -> Result<&'static Algorithm> {
    weigh(problem, dtype, topology, shared, order)
        .find_map(|(row, passed_over)| passed_over.is_none().then_some(row))
        .ok_or_else(|| Error::internal(format!("no algorithm fits {}", problem.collective.name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharding::Sharding;

    #[test]
    fn every_name_is_in_the_table_and_every_call_finds_one() {
        for collective in Collective::ALL {
            for ranks in 1..=9 {
                for topology in
                    [Topology::one_node(ranks), Topology::flat(ranks), Topology::blocks(ranks, 2)]
                {
                    for n in [0, 1, ranks, 1 << 12, 1 << 24] {
                        let mut problem = Problem::new(collective, Sharding::even(n, ranks));
                        if collective == Collective::AllToAll {
                            let counts = (0..ranks * ranks).map(|i| i % 3 * n).collect();
                            problem = Problem::all_to_all(ranks, counts);
                        }
                        for name in preference(collective, 4 * n, &topology) {
                            let known = table::of(collective).any(|row| row.name == name);
                            let special = ["direct", "staged", "hierarchical_direct"];
                            let hierarchy = name.starts_with("hierarchical");
                            assert!(known || hierarchy || special.contains(&name), "{name}");
                        }
                        for shared in [[false; 2], [true, false], [false, true], [true; 2]] {
                            for order in [Order::Canonical, Order::Fastest] {
                                let row =
                                    first(&problem, DType::F32, &topology, shared, order).unwrap();
                                row.fits(&problem, &topology, shared[0], shared[1]).unwrap();
                                let free = !collective.reduces() || order == Order::Fastest;
                                assert!(free || ranks <= 2 || row.is_canonical(&topology));
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn shared_buffers_are_never_staged() {
        let topology = Topology::one_node(4);
        for collective in [Collective::ReduceScatter, Collective::AllGather, Collective::AllReduce]
        {
            let problem = Problem::new(collective, Sharding::even(1 << 20, 4));
            let row = first(&problem, DType::F32, &topology, [true; 2], Order::Canonical).unwrap();
            assert_eq!(row.name, "direct");
        }
    }
}
