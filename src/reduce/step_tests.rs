//! All compilations of a step give the same bits, at any length and cut anywhere; and what the
//! oracle files do not cover: Lion, 16-bit copies, values that are not finite.

use super::*;
use crate::reduce::kernels::all_vectors;

/// Bits of every kind: all exponents, subnormals, infinities and NaN among them.
fn wild(i: usize, salt: u64) -> f32 {
    let x = (i as u64 * 4 + salt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f32::from_bits(((x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32)
}

/// Sizes as in a training run.
fn tame(i: usize, salt: u64) -> f32 {
    let x = wild(i, salt).to_bits() as i32;
    (x >> 8) as f32 * 2f32.powi(-23 - (x & 15))
}

const ADAM: AdamScalars = AdamScalars {
    keep: 0.999,
    l2: 0.0,
    beta1: 0.9,
    one_minus_beta1: 0.1,
    beta2: 0.95,
    one_minus_beta2: 0.05,
    rate: 0.01,
    correction2_sqrt: 0.7,
    epsilon: 1e-8,
};
const SGD: SgdScalars = SgdScalars {
    lr: 0.1,
    decay: 0.01,
    momentum: 0.9,
    one_minus_dampening: 0.8,
    nesterov: false,
    first: false,
};
const LION: LionScalars = LionScalars {
    keep: 0.999,
    lr: 0.01,
    beta1: 0.9,
    one_minus_beta1: 0.1,
    beta2: 0.99,
    one_minus_beta2: 0.01,
};

pub(in crate::reduce) fn all_scalars() -> [Scalars; 8] {
    [
        Scalars::Adam(ADAM),
        Scalars::Adam(AdamScalars { keep: 1.0, l2: 0.01, ..ADAM }),
        Scalars::Adam(AdamScalars { beta1: 0.2, one_minus_beta1: 0.8, ..ADAM }),
        Scalars::Sgd(SgdScalars { momentum: 0.0, ..SGD }),
        Scalars::Sgd(SGD),
        Scalars::Sgd(SgdScalars { nesterov: true, ..SGD }),
        Scalars::Sgd(SgdScalars { first: true, ..SGD }),
        Scalars::Lion(LION),
    ]
}

/// A NaN is a NaN: which of two operands hands on its payload is up to the compiler.
fn same(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

/// p, m and v after a step on elements `from..to`, as bits; and the parameters themselves.
fn stepped(
    (vectors, scalars): (Vectors, &Scalars),
    value: fn(usize, u64) -> f32,
    (from, to): (usize, usize),
    copy: Copy16<'_>,
) -> ([Vec<u32>; 3], Vec<f32>) {
    let make = |salt| -> Vec<f32> { (from..to).map(|i| value(i, salt)).collect() };
    let (mut p, g, mut m) = (make(0), make(1), make(2));
    let mut v: Vec<f32> = make(3).iter().map(|v| v.abs()).collect();
    let elements = Elements { p: &mut p, g: &g, m: &mut m, v: &mut v, copy };
    step_with(vectors, scalars, 0.7, elements);
    ([&p, &m, &v].map(|x| x.iter().map(|&x| same(x)).collect()), p)
}

#[test]
fn all_vectors_lengths_and_cuts_give_the_same_bits() {
    const N: usize = 4099;
    for scalars in all_scalars() {
        for value in [tame, wild] {
            let plain = (Vectors::Plain, &scalars);
            let (expected, _) = stepped(plain, value, (0, N), Copy16::None);
            for vectors in all_vectors() {
                for (from, to) in [(0, N), (0, 0), (0, 1), (1, 16), (3, 20), (5, 70), (77, N)] {
                    let kind = (vectors, &scalars);
                    let (got, _) = stepped(kind, value, (from, to), Copy16::None);
                    for (got, expected) in got.iter().zip(&expected) {
                        assert_eq!(got[..], expected[from..to], "{vectors:?} {scalars:?} {from}");
                    }
                }
            }
        }
    }
}

#[test]
fn copies_are_rounded_parameters_and_change_nothing() {
    const N: usize = 1031;
    for scalars in all_scalars() {
        for value in [tame, wild] {
            for vectors in all_vectors() {
                let kind = (vectors, &scalars);
                let (expected, p) = stepped(kind, value, (0, N), Copy16::None);
                let mut low = vec![bf16::ONE; N];
                let (with_low, _) = stepped(kind, value, (0, N), Copy16::Bf16(&mut low));
                let mut half = vec![f16::ONE; N];
                let (with_half, _) = stepped(kind, value, (0, N), Copy16::F16(&mut half));
                assert!(expected == with_low && expected == with_half, "{vectors:?} {scalars:?}");
                for (i, &p) in p.iter().enumerate() {
                    if p.is_nan() {
                        assert!(low[i].is_nan() && half[i].is_nan());
                        continue;
                    }
                    assert_eq!(low[i].to_bits(), bf16::from_f32(p).to_bits(), "{p}");
                    assert_eq!(half[i].to_bits(), f16::from_f32(p).to_bits(), "{p}");
                }
            }
        }
    }
}

#[test]
fn f16_is_rounded_as_the_processor_does() {
    // Around every f16 and every middle of two: all places where rounding changes.
    for bits in 0..=u16::MAX {
        let at = f16::from_bits(bits).to_f32();
        let next = f16::from_bits(bits.wrapping_add(1)).to_f32();
        for x in [at, f32::midpoint(at, next), f32::midpoint(at, f32::MAX)] {
            for x in [x, x.next_up(), x.next_down()] {
                let got = <f16 as Narrow>::narrow(x);
                assert_eq!(got.to_bits(), f16::from_f32(x).to_bits(), "{x} {:#x}", x.to_bits());
            }
        }
    }
}

#[test]
fn lion_follows_its_paper() {
    let scalars = Scalars::Lion(LionScalars { keep: 0.5, lr: 0.25, ..LION });
    // (p, g, m) to p: the sign of 0.9·m + 0.1·g decides; 0 moves nothing.
    for (p, g, m, expected) in [
        (2.0f32, 1.0f32, 0.0f32, 0.75f32),
        (2.0, -1.0, 0.0, 1.25),
        (2.0, 0.0, 0.0, 1.0),
        (2.0, -10.0, 1.0, 1.25),
        (2.0, -8.0, 1.0, 0.75),
    ] {
        let (mut p, mut m) = ([p], [m]);
        let moment = 0.99 * f64::from(m[0]) + 0.01 * f64::from(g);
        let elements = Elements { p: &mut p, g: &[g], m: &mut m, v: &mut [], copy: Copy16::None };
        step(&scalars, 1.0, elements);
        assert_eq!(p, [expected], "g {g}");
        assert!((f64::from(m[0]) - moment).abs() < 1e-7, "g {g}: {m:?}");
    }
}

#[test]
fn moments_that_a_rule_does_not_keep_are_not_touched() {
    for scalars in all_scalars() {
        let (mut p, mut m, mut v) = ([1.0], [0.25], [0.5]);
        let elements =
            Elements { p: &mut p, g: &[0.125], m: &mut m, v: &mut v, copy: Copy16::None };
        step(&scalars, 1.0, elements);
        assert_ne!(p, [1.0], "{scalars:?}");
        assert_eq!((m != [0.25]), scalars.moments() > 0, "{scalars:?}");
        assert_eq!((v != [0.5]), scalars.moments() > 1, "{scalars:?}");
    }
}
