//! 16-bit floats through algorithms that combine in several steps: widened to f32 first, rounded
//! once at the end. Twice the bytes of a 16-bit call; chosen only when the caller names such an
//! algorithm or placement leaves no other.

use std::panic::Location;

use super::Communicator;
use super::call::Call;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::reduce::{narrow, widen};
use crate::transport::memory::{Sink, Source};

fn wide_call(call: &Call) -> Call {
    Call { dtype: DType::F32, ..call.clone() }
}

fn wide<T: Element>(data: &[T]) -> Vec<f32> {
    let mut wide = vec![0.0; data.len()];
    widen(data, &mut wide);
    wide
}

/// `Communicator::run` in f32. Shared buffers become shared ones, so that the same algorithm fits.
pub(super) fn run<T: Element>(
    communicator: &Communicator,
    call: &Call,
    input: Source<'_, T>,
    output: Sink<'_, T>,
    site: &'static Location<'static>,
) -> Result<()> {
    let wide_call = wide_call(call);
    if input.located.key == 0 && output.located.key == 0 {
        let input = wide(input.data);
        let mut result = vec![0.0f32; output.data.len()];
        communicator.run::<f32>(&wide_call, (&input).into(), (&mut result).into(), site)?;
        narrow(&result, output.data);
        return Ok(());
    }
    // The whole vector bounds input and output of every rank.
    let n = call.problem.sharding.n();
    let mut from = communicator.shared::<f32>(n)?;
    let mut into = communicator.shared::<f32>(n)?;
    let (len, result) = (input.data.len(), output.data.len());
    widen(input.data, &mut from[..len]);
    communicator.run::<f32>(&wide_call, from.part(0..len), into.part_mut(0..result), site)?;
    narrow(&into[..result], output.data);
    Ok(())
}

/// `Communicator::run_in_place` in f32.
pub(super) fn run_in_place<T: Element>(
    communicator: &Communicator,
    call: &Call,
    whole: Sink<'_, T>,
    site: &'static Location<'static>,
) -> Result<()> {
    let wide_call = wide_call(call);
    if whole.located.key == 0 {
        let mut buffer = wide(whole.data);
        communicator.run_in_place::<f32>(&wide_call, (&mut buffer).into(), site)?;
        narrow(&buffer, whole.data);
        return Ok(());
    }
    let mut buffer = communicator.shared::<f32>(whole.data.len())?;
    widen(whole.data, &mut buffer);
    communicator.run_in_place::<f32>(&wide_call, (&mut buffer).into(), site)?;
    narrow(&buffer, whole.data);
    Ok(())
}
