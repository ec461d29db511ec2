//! The speed of a training step of the GPT, in the form that `bench/peers/gpt.py` prints for
//! PyTorch: `cargo bench --bench train -- [threads] [batch] [steps]`, both in one session.
//!
//! Microseconds per token of forward and backward, best and median of the steps; 6 layers of width
//! 384, 6 heads, context 256, 256 tokens. Without arguments: 1 and 2 threads.

#![allow(clippy::print_stdout)] // the result is a line

use rankwise::error::Result;
use rankwise::train::gpt::{Batch, Config, Gpt};
use rankwise::train::model::{Model, Tensors};
use std::time::Instant;

fn main() -> Result<()> {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let at = |place: usize, or: usize| numbers.get(place).copied().unwrap_or(or);
    let (examples, steps) = (at(1, 8), at(2, 10));
    let threads = numbers.first().map_or(vec![1, 2], |&threads| vec![threads]);
    threads.into_iter().try_for_each(|threads| measure(threads, examples, steps.max(1)))
}

fn measure(threads: usize, examples: usize, steps: usize) -> Result<()> {
    let config = Config::default();
    let mut model = Gpt::new(config, threads)?;
    let mut parameters = Tensors::initial(&model, 1);
    let mut gradients = Tensors::zeros(&model);
    let length = config.context;
    let token = |i: usize| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u32 % 256;
    let tokens = (0..examples * (length + 1)).map(token).collect();
    let batch = Batch { examples, length, tokens };
    let mut times = Vec::new();
    let mut mean = 0.0;
    for step in 0..steps + 2 {
        let start = Instant::now();
        gradients.values.iter_mut().for_each(|gradient| gradient.fill(0.0));
        mean = model.forward_backward(&mut parameters, &batch, 1.0, &mut gradients)?.mean();
        if step >= 2 {
            times.push(start.elapsed().as_secs_f64() * 1e6 / (examples * length) as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    println!(
        "rankwise threads {threads} batch {examples} loss {mean:.4} us/token best {best:.2} \
         median {median:.2}"
    );
    Ok(())
}
