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

/// `Communicator::run` in f32.
pub(super) fn run<T: Element>(
    communicator: &Communicator,
    call: &Call,
    input: Source<'_, T>,
    output: Sink<'_, T>,
    site: &'static Location<'static>,
) -> Result<()> {
    let input = wide(input.data);
    let mut result = vec![0.0f32; output.data.len()];
    communicator.run::<f32>(&wide_call(call), (&input).into(), (&mut result).into(), site)?;
    narrow(&result, output.data);
    Ok(())
}

/// `Communicator::run_in_place` in f32.
pub(super) fn run_in_place<T: Element>(
    communicator: &Communicator,
    call: &Call,
    whole: Sink<'_, T>,
    site: &'static Location<'static>,
) -> Result<()> {
    let mut buffer = wide(whole.data);
    communicator.run_in_place::<f32>(&wide_call(call), (&mut buffer).into(), site)?;
    narrow(&buffer, whole.data);
    Ok(())
}
