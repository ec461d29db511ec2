//! Initial values of parameters: a stream of random numbers for each (seed, parameter), so that
//! they do not depend on ranks, on other parameters, or on the order in which they are asked for.
//!
//! PCG (M. O'Neill, pcg-random.org), 128 bits of state: the seed is the state, the parameter the
//! stream. The draws of one parameter are in row-major order.

use rand_distr::{Distribution, StandardNormal, StandardUniform};
use rand_pcg::Pcg64;

/// The random numbers of one parameter.
pub fn stream(seed: u64, parameter: usize) -> Pcg64 {
    Pcg64::new(u128::from(seed), parameter as u128)
}

/// Normal values with mean 0 and the given standard deviation.
pub fn normal(values: &mut [f32], deviation: f32, seed: u64, parameter: usize) {
    let mut random = stream(seed, parameter);
    for value in values {
        let draw: f32 = StandardNormal.sample(&mut random);
        *value = deviation * draw;
    }
}

/// Uniform values within −limit and limit, as PyTorch's linear, recurrent and convolution layers
/// begin with, there with limit = 1 / √inputs.
pub fn uniform(values: &mut [f32], limit: f32, seed: u64, parameter: usize) {
    let mut random = stream(seed, parameter);
    for value in values {
        let draw: f32 = StandardUniform.sample(&mut random);
        *value = limit * (2.0 * draw - 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_and_parameter_and_repeat() {
        let draw = |seed, parameter| {
            let mut values = [0.0; 8];
            normal(&mut values, 1.0, seed, parameter);
            values.map(f32::to_bits)
        };
        let mut all: Vec<_> =
            (0..4).flat_map(|seed| (0..4).map(move |parameter| draw(seed, parameter))).collect();
        assert_eq!(all[5], draw(1, 1));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 16);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let moments = |values: &[f32]| {
            let n = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            (mean, values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n)
        };
        let mut values = vec![0.0; 100_000];
        normal(&mut values, 0.5, 7, 3);
        let (mean, variance) = moments(&values);
        assert!(mean.abs() < 0.01 && (variance - 0.25).abs() < 0.01, "{mean} {variance}");
        uniform(&mut values, 3.0, 7, 3);
        let (mean, variance) = moments(&values);
        assert!(mean.abs() < 0.03 && (variance - 3.0).abs() < 0.05, "{mean} {variance}");
        assert!(values.iter().all(|x| x.abs() <= 3.0));
    }
}
