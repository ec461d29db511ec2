//! Where an asset stands in a cross-section: its doubled average rank and its group, in 32 bits.
//!
//! Doubled ranks are whole numbers from 2 to 2 n, so that those of `MOST_ASSETS` assets take 21
//! bits; 11 are left for groups, counted from 1, of which a configuration may ask for 1,000. An
//! asset without a value is 0. Keeping 4 bytes a cell instead of two floats is what lets several
//! factors of a date be judged in one visit.

use super::ic::MOST_ASSETS;

/// Bits of a rank.
const RANK_BITS: u32 = 21;
const RANK: u32 = (1 << RANK_BITS) - 1;
const _: () = assert!(2 * MOST_ASSETS <= RANK as usize);

/// The standing with a doubled rank and a group from 0.
#[inline(always)]
pub(super) fn standing(doubled_rank: u64, group: usize) -> u32 {
    (group as u32 + 1) << RANK_BITS | doubled_rank as u32
}

/// The doubled rank, 0 for none.
#[inline(always)]
pub(super) fn rank_of(standing: u32) -> u32 {
    standing & RANK
}

/// The group from 1, 0 for none.
#[inline(always)]
pub(super) fn group_of(standing: u32) -> usize {
    (standing >> RANK_BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_ranks_and_groups_fit() {
        for rank in [2, 3, 2 * MOST_ASSETS as u64] {
            for group in [0, 1, 999] {
                let found = standing(rank, group);
                assert_eq!((u64::from(rank_of(found)), group_of(found)), (rank, group + 1));
            }
        }
        assert_eq!((rank_of(0), group_of(0)), (0, 0));
    }
}
