//! Reading tensors from one plain safetensors file, of f32, bf16 or f16, written by any software.
//!
//! Rank 0 reads the header and sends it to the others; each rank reads the byte ranges that it
//! asks for. 16-bit values are widened to f32, which loses nothing. Cost: one pass over what is
//! asked for; 1 MiB of memory where values are widened.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::plain;
use super::tensors::{self, PieceMut, TensorInfo};
use super::words::broadcast_bytes;
use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// What an import leaves to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Tensors of the file that were not asked for, by place in the file.
    pub unused: Vec<String>,
}

/// Reads `tensors`, by name, into the requests of the ranks, which are indexed by `tensors`. One
/// that is missing, or has another shape or an unexpected type, is an error that names it.
/// Collective.
pub fn import(
    comm: &Communicator,
    path: &Path,
    tensors: &[TensorInfo],
    requests: &mut [PieceMut<'_>],
) -> Result<Imported> {
    let read = || {
        let (json, bytes) = plain::read_header(path)?;
        // The length of the file goes in front.
        Ok([&bytes.to_le_bytes(), &*json].concat())
    };
    let header = comm.agree(if comm.rank() == 0 { read() } else { Ok(Vec::new()) })?;
    let header = broadcast_bytes(comm, header)?;
    let refuse = |what: String| Error::input(format!("{}: {what}", path.display()));
    let parsed = match header.split_first_chunk() {
        Some((bytes, json)) => plain::parse_header(json, u64::from_le_bytes(*bytes))
            .map(|metadata| (metadata, 8 + json.len() as u64)),
        None => Err("its header did not arrive".into()),
    };
    let (metadata, data_start) = comm.agree(parsed.map_err(refuse))?;
    let source = Source { path, metadata: &metadata, data_start };
    comm.agree(source.read(tensors, requests))?;
    let wanted: std::collections::HashSet<&str> = tensors.iter().map(|t| &*t.name).collect();
    let mut unused = metadata.offset_keys();
    unused.retain(|name| !wanted.contains(&**name));
    Ok(Imported { unused })
}

struct Source<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    data_start: u64,
}

impl Source<'_> {
    fn refuse<T>(&self, what: String) -> Result<T> {
        Err(Error::input(format!("{}: {what}", self.path.display())))
    }

    /// Type and first byte of a tensor in the file.
    fn find(&self, tensor: &TensorInfo) -> Result<(Dtype, u64)> {
        let TensorInfo { name, shape } = tensor;
        let Some(info) = self.metadata.info(name) else {
            return self.refuse(format!("holds no tensor {name}"));
        };
        if info.shape != *shape {
            let found = &info.shape;
            return self
                .refuse(format!("tensor {name} has the shape {found:?}; expected {shape:?}"));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            let found = info.dtype;
            return self.refuse(format!("tensor {name} is {found:?}; expected F32, BF16 or F16"));
        }
        Ok((info.dtype, self.data_start + info.data_offsets.0 as u64))
    }

    fn read(&self, tensors: &[TensorInfo], requests: &mut [PieceMut<'_>]) -> Result<()> {
        let found: Vec<(Dtype, u64)> =
            tensors.iter().map(|tensor| self.find(tensor)).collect::<Result<_>>()?;
        let ranges = requests.iter().map(|r| (r.tensor, r.start, r.values.len()));
        tensors::check_pieces(tensors, ranges)?;
        let failed = |e: io::Error| {
            Error::file(self.path, "read it (do all nodes see the same file system?)", &e)
        };
        let file = File::open(self.path).map_err(failed)?;
        for request in requests {
            let (dtype, start) = found[request.tensor];
            let at = |element: usize, bytes: usize| start + (element * bytes) as u64;
            let (values, first) = (&mut *request.values, request.start);
            match dtype {
                Dtype::F32 => file.read_exact_at(bytemuck::cast_slice_mut(values), at(first, 4)),
                Dtype::BF16 => widen::<bf16>(&file, at(first, 2), values),
                _ => widen::<f16>(&file, at(first, 2), values),
            }
            .map_err(failed)?;
        }
        Ok(())
    }
}

fn widen<T>(file: &File, start: u64, values: &mut [f32]) -> io::Result<()>
where
    T: bytemuck::Pod + Into<f32>,
{
    const CHUNK: usize = 1 << 19;
    let mut buffer = vec![T::zeroed(); CHUNK.min(values.len())];
    let mut at = start;
    for values in values.chunks_mut(CHUNK) {
        let buffer = &mut buffer[..values.len()];
        file.read_exact_at(bytemuck::cast_slice_mut(buffer), at)?;
        values.iter_mut().zip(&*buffer).for_each(|(value, &x)| *value = x.into());
        at += size_of_val(buffer) as u64;
    }
    Ok(())
}
