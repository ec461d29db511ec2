//! One loop gives the bits of three: parameters, moments, copies and the sum of squares, for all
//! rules, numbers of parts and lengths, also where the bet on the largest element is lost.

use half::bf16;

use super::*;
use crate::reduce::step::Copy16;
use crate::reduce::step::tests::all_scalars;

/// Elements whose sizes spread over 2^`spread`.
fn value(part: usize, i: usize, spread: i32) -> f32 {
    let x = ((part * 7919 + i) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fraction = (x >> 40) as f32 / 2f32.powi(23) - 1.0;
    fraction * 2f32.powi((x % (spread as u64 + 1)) as i32 - spread / 2)
}

/// p, m, v, the copy, the sum of squares and whether all was finite.
type Outcome = ([Vec<u32>; 3], Vec<u16>, Vec<i64>, bool);

fn run(
    parts: &[Vec<f32>],
    scalars: &Scalars,
    step: impl Fn(&[&[f32]], (&Scalars, f32), Elements<'_>, &mut ExactSum) -> bool,
) -> Outcome {
    let n = parts[0].len();
    let make = |salt: usize| -> Vec<f32> { (0..n).map(|i| value(salt, i, 3)).collect() };
    let (mut p, mut m) = (make(100), make(101));
    let mut v: Vec<f32> = make(102).iter().map(|v| v.abs()).collect();
    let (mut low, mut squares) = (vec![bf16::ONE; n], ExactSum::new());
    let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
    let copy = Copy16::Bf16(&mut low);
    let elements = Elements { p: &mut p, g: &[], m: &mut m, v: &mut v, copy };
    let finite = step(&parts, (scalars, 0.7), elements, &mut squares);
    let bits = [p, m, v].map(|x| x.iter().map(|x| x.to_bits()).collect());
    (bits, low.iter().map(|x| x.to_bits()).collect(), squares.limbs(), finite)
}

/// The squares first, as where gradients are clipped.
fn in_two_loops(
    parts: &[&[f32]],
    rule: (&Scalars, f32),
    elements: Elements<'_>,
    squares: &mut ExactSum,
) -> bool {
    let finite = sum_squares(parts, squares);
    sum_step(parts, rule, elements);
    finite
}

#[test]
fn one_loop_has_the_bits_of_three() {
    for spread in [0, 8, 40, 120] {
        for k in 1..=MOST_PARTS {
            for n in [0, 1, 15, 16, 17, 1023, 1024, 1025, 3000, 5 * BLOCK + 7] {
                let make = |part| (0..n).map(|i| value(part, i, spread)).collect();
                let parts: Vec<Vec<f32>> = (0..k).map(make).collect();
                for scalars in all_scalars() {
                    let three = run(&parts, &scalars, in_blocks);
                    let one = run(&parts, &scalars, sum_square_step);
                    assert!(one == three, "spread {spread}, {k} parts of {n}, {scalars:?}");
                    assert!(one.3);
                    if k <= MOST_TWICE {
                        let two = run(&parts, &scalars, in_two_loops);
                        assert!(two == three, "spread {spread}, {k} parts of {n}, {scalars:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn lost_bets_are_made_good() {
    // Blocks of zeros, then of much larger and much smaller elements, and both in one block.
    let size = |i: usize| match i / 700 {
        0 | 3 => 0.0,
        1 => 1e-30,
        2 | 5 => 1e18,
        4 => f32::from_bits(1),
        _ => [f32::MAX / 8.0, 1e-40, 1.0][i % 3],
    };
    let parts: Vec<Vec<f32>> =
        (0..2).map(|k| (0..9 * 700).map(|i| size(i) * (1 + k + i % 2) as f32).collect()).collect();
    for scalars in all_scalars() {
        let (one, three) =
            (run(&parts, &scalars, sum_square_step), run(&parts, &scalars, in_blocks));
        assert_eq!(one.2, three.2, "{scalars:?}");
        assert!(one == three);
        assert!(run(&parts, &scalars, in_two_loops) == three);
    }
}

#[test]
fn a_sum_that_is_not_finite_is_found_anywhere() {
    for n in [1, 17, 1024, 2500] {
        for at in [0, n / 2, n - 1] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut parts = vec![vec![1.0; n]; 3];
                parts[at % 3][at] = bad;
                let outcome = run(&parts, &all_scalars()[0], sum_square_step);
                assert!(!outcome.3, "{bad} at {at} of {n}");
                let of_one = &parts[at % 3..at % 3 + 1];
                assert!(!run(of_one, &all_scalars()[0], in_two_loops).3, "{bad} at {at} of {n}");
            }
        }
    }
}
