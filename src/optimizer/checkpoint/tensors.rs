//! Tensors, the pieces of them that ranks own, and the check that pieces cover tensors once.
//!
//! Cost of the check: one sort of all pieces of all ranks, on rank 0.

use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a check finds wrong, to be completed by the name of the file or the call.
pub(super) type Checked<T> = std::result::Result<T, String>;

/// A tensor of f32 as the whole job sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name, unique in a checkpoint, such as `exp_avg/blocks.3.mlp.weight`.
    pub name: String,
    /// Its shape, row-major, slowest dimension first.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// A tensor by name and shape.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        TensorInfo { name: name.into(), shape: shape.to_vec() }
    }

    /// How many elements it has; `None` if their bytes are more than a `usize` counts.
    pub(super) fn checked_elements(&self) -> Option<usize> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        elements.checked_mul(size_of::<f32>()).map(|_| elements)
    }

    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.checked_elements().unwrap_or(usize::MAX)
    }
}

/// Elements of a tensor that this rank owns and saves.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The index of the tensor in the list that goes with the pieces.
    pub tensor: usize,
    /// The first element, counted in the flattened tensor.
    pub start: usize,
    /// The values from there on.
    pub values: &'a [f32],
}

/// Elements of a tensor that this rank asks for.
#[derive(Debug)]
pub struct PieceMut<'a> {
    /// The index of the tensor in the list that goes with the pieces.
    pub tensor: usize,
    /// The first element, counted in the flattened tensor.
    pub start: usize,
    /// Where the values from there on go.
    pub values: &'a mut [f32],
}

/// Where a piece lies and who owns it; ordered by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) tensor: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) rank: usize,
}

impl Place {
    pub(super) fn end(&self) -> usize {
        self.start + self.len
    }
}

/// Refuses names that are empty, reserved or used twice, and shapes too large to count.
pub(super) fn check_tensors(tensors: &[TensorInfo]) -> Checked<()> {
    let mut names = HashSet::new();
    for TensorInfo { name, shape } in tensors {
        if name.is_empty() || name == "__metadata__" {
            return Err(format!("'{name}' is no name for a tensor"));
        }
        if !names.insert(name) {
            return Err(format!("tensor {name} is listed twice; names are unique"));
        }
        if TensorInfo::new("", shape).checked_elements().is_none() {
            return Err(format!("tensor {name}: its shape {shape:?} is too large to count"));
        }
    }
    Ok(())
}

/// Refuses a range that is not inside its tensor.
pub(super) fn check_range(
    tensors: &[TensorInfo],
    tensor: usize,
    start: usize,
    len: usize,
) -> Checked<()> {
    let Some(info) = tensors.get(tensor) else {
        return Err(format!("a piece of tensor {tensor}, and there are {}", tensors.len()));
    };
    match start.checked_add(len) {
        Some(end) if end <= info.elements() => Ok(()),
        _ => Err(format!(
            "tensor {}: a piece of {len} elements from {start} on; it has {}",
            info.name,
            info.elements()
        )),
    }
}

/// Refuses pieces of one rank that are not inside their tensors.
pub(super) fn check_pieces(
    tensors: &[TensorInfo],
    pieces: impl IntoIterator<Item = (usize, usize, usize)>,
) -> Result<()> {
    let mut pieces = pieces.into_iter();
    pieces
        .try_for_each(|(tensor, start, len)| check_range(tensors, tensor, start, len))
        .map_err(|what| Error::input(format!("checkpoint: {what}")))
}

/// Sorts the places and refuses a gap or an overlap. They are inside their tensors and not empty.
pub(super) fn check_coverage(tensors: &[TensorInfo], places: &mut [Place]) -> Checked<()> {
    places.sort_unstable();
    let mut places = places.iter().peekable();
    for (tensor, info) in tensors.iter().enumerate() {
        let gap = |range: Range<usize>| {
            Err(format!("tensor {}: elements {range:?} belong to no rank", info.name))
        };
        let (mut covered, mut before) = (0, 0);
        while let Some(place) = places.next_if(|place| place.tensor == tensor) {
            if place.start > covered {
                return gap(covered..place.start);
            }
            if place.start < covered {
                return Err(format!(
                    "tensor {}: elements {:?} are given twice, by rank {before} and by rank {}",
                    info.name,
                    place.start..covered.min(place.end()),
                    place.rank
                ));
            }
            (covered, before) = (place.end(), place.rank);
        }
        if covered < info.elements() {
            return gap(covered..info.elements());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tensor: usize, range: Range<usize>, rank: usize) -> Place {
        Place { tensor, start: range.start, len: range.len(), rank }
    }

    #[test]
    fn every_single_gap_and_overlap_is_named() {
        let tensors = [TensorInfo::new("a", &[2, 3]), TensorInfo::new("b", &[5])];
        for cut in 1..6 {
            let whole = [place(0, cut..6, 1), place(1, 0..5, 0), place(0, 0..cut, 0)];
            check_coverage(&tensors, &mut whole.clone()).unwrap();
            for lost in 0..3 {
                let mut places = whole.to_vec();
                let Place { tensor, start, .. } = places[lost];
                let end = places.remove(lost).end();
                let error = check_coverage(&tensors, &mut places).unwrap_err();
                let name = &tensors[tensor].name;
                let wanted = format!("tensor {name}: elements {start}..{end} belong to no rank");
                assert_eq!(error, wanted);
            }
            for start in 0..6 {
                for end in start + 1..=6 {
                    let mut places = whole.to_vec();
                    places.push(place(0, start..end, 2));
                    let error = check_coverage(&tensors, &mut places).unwrap_err();
                    assert!(error.starts_with("tensor a: elements "), "{error}");
                    assert!(error.contains("given twice") && error.contains("rank 2"), "{error}");
                }
            }
        }
    }

    #[test]
    fn scalars_have_one_element_and_empty_tensors_need_no_piece() {
        let tensors = [TensorInfo::new("none", &[3, 0]), TensorInfo::new("scalar", &[])];
        assert_eq!((tensors[0].elements(), tensors[1].elements()), (0, 1));
        check_coverage(&tensors, &mut [place(1, 0..1, 0)]).unwrap();
        check_coverage(&tensors, &mut []).unwrap_err();
    }

    #[test]
    fn impossible_tensors_and_ranges_are_refused() {
        let huge = [usize::MAX / 2, 3];
        for (tensors, wanted) in [
            (vec![TensorInfo::new("", &[1])], "'' is no name"),
            (vec![TensorInfo::new("__metadata__", &[1])], "is no name"),
            (vec![TensorInfo::new("w", &[1]), TensorInfo::new("w", &[2])], "w is listed twice"),
            (vec![TensorInfo::new("w", &huge)], "w: its shape"),
            (vec![TensorInfo::new("w", &[usize::MAX / 2])], "w: its shape"),
        ] {
            assert!(check_tensors(&tensors).unwrap_err().contains(wanted), "{wanted}");
        }
        let tensors = [TensorInfo::new("w", &[4])];
        check_range(&tensors, 0, 4, 0).unwrap();
        for (tensor, start, len) in [(1, 0, 1), (0, 0, 5), (0, 4, 1), (0, 1, usize::MAX)] {
            check_range(&tensors, tensor, start, len).unwrap_err();
        }
    }
}
