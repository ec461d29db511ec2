//! The sources of a row in ascending order.
//!
//! Most rows are short and left to the sort of the standard library. Long ones, of hubs, are sorted
//! by their digits, the lowest first (LSD radix sort): two or three passes of a read and a write,
//! where a comparison sort takes log₂ of the length. Memory: 4 bytes for each source of the longest
//! row, a thread.

/// The length from which a pass over the counts of all digits is little work.
const LONG: usize = 2048;
/// The widest digit: its counts stay in the first-level cache.
const DIGIT_BITS: u32 = 11;

/// Sorts `values`; `scratch` is any vector, kept from row to row.
pub(super) fn sort(values: &mut [u32], scratch: &mut Vec<u32>) {
    if values.len() < LONG {
        values.sort_unstable();
        return;
    }
    let bits = 32 - values.iter().copied().max().unwrap_or(0).leading_zeros();
    let passes = bits.div_ceil(DIGIT_BITS);
    let width = bits.div_ceil(passes.max(1));
    scratch.clear();
    scratch.resize(values.len(), 0);
    let (mut from, mut to) = (&mut values[..], &mut scratch[..]);
    for pass in 0..passes {
        move_by_digit(from, to, pass * width, (1 << width) - 1);
        std::mem::swap(&mut from, &mut to);
    }
    if passes % 2 == 1 {
        to.copy_from_slice(from);
    }
}

/// One pass: stable, by the bits of `mask` from `shift` on.
fn move_by_digit(from: &[u32], to: &mut [u32], shift: u32, mask: u32) {
    let mut next = [0u32; 1 << DIGIT_BITS];
    from.iter().for_each(|value| next[(value >> shift & mask) as usize] += 1);
    let mut start = 0;
    for count in &mut next[..=mask as usize] {
        start += std::mem::replace(count, start);
    }
    for &value in from {
        let at = &mut next[(value >> shift & mask) as usize];
        to[*at as usize] = value;
        *at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_lengths_and_widths_come_out_sorted() {
        let mut scratch = vec![7; 3];
        for length in [0, 1, 2, LONG - 1, LONG, LONG + 1, 3 * LONG + 2] {
            for bits in [0, 1, 8, 10, 11, 12, 21, 22, 23, 31, 32] {
                let mask = u32::try_from((1u64 << bits) - 1).unwrap();
                let mixed = |i: u32| i.wrapping_mul(0x9e37_79b9).rotate_left(13) & mask;
                let mut values: Vec<u32> = (0..length as u32).map(mixed).collect();
                let mut expected = values.clone();
                expected.sort();
                sort(&mut values, &mut scratch);
                assert!(values == expected, "{length} values of {bits} bits");
            }
        }
    }
}
