//! Headers of safetensors files: 8 bytes of length, JSON of names, types, shapes and offsets,
//! then the values. Reference: the format description of the `safetensors` crate, which builds
//! and validates the JSON; the bytes of values are read and written by range elsewhere.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::tensors::{Checked, TensorInfo};
use crate::error::{Error, Result};

/// The longest header that the format allows.
const LONGEST: u64 = 100_000_000;

/// The header of f32 tensors that lie one after the other, with its length in front. `format` is
/// the framework that some readers want to see named.
pub(super) fn header(tensors: &[TensorInfo], format: Option<&str>) -> Result<Vec<u8>> {
    let mut end = 0;
    let entries = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.elements() * size_of::<f32>();
        let info = safetensors::tensor::TensorInfo {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.clone(), info)
    });
    let entries = entries.collect();
    let format = format.map(|name| [("format".into(), name.into())].into_iter().collect());
    let json = Metadata::new(format, entries)
        .map_err(|e| e.to_string())
        .and_then(|metadata| serde_json::to_vec(&metadata).map_err(|e| e.to_string()))
        .map_err(|e| Error::internal(format!("checkpoint: cannot build a header: {e}")))?;
    let len = json.len().next_multiple_of(8);
    if len as u64 > LONGEST {
        return Err(Error::input(format!(
            "checkpoint: a header of {len} bytes for {} tensors; safetensors allows {LONGEST}",
            tensors.len()
        )));
    }
    let mut header = (len as u64).to_le_bytes().to_vec();
    header.extend(json);
    header.resize(8 + len, b' ');
    Ok(header)
}

/// Reads the JSON of the header of a file and the length of the file.
pub(super) fn read_header(path: &Path) -> Result<(Vec<u8>, u64)> {
    let failed = |e| Error::file(path, "read it", &e);
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut len = [0; 8];
    if bytes >= 8 {
        file.read_exact(&mut len).map_err(failed)?;
    }
    let len = u64::from_le_bytes(len);
    if bytes < 8 || len > LONGEST.min(bytes - 8) {
        return Err(Error::input(format!(
            "{}: not a safetensors file, or cut off: its {bytes} bytes hold no header",
            path.display()
        )));
    }
    let mut json = vec![0; len as usize];
    file.read_exact(&mut json).map_err(failed)?;
    Ok((json, bytes))
}

/// The tensors that a header lists; their offsets count from the end of the header, and fill the
/// file, of `bytes` bytes, exactly.
pub(super) fn parse_header(json: &[u8], bytes: u64) -> Checked<Metadata> {
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|e| format!("not a safetensors file: its header: {e}"))?;
    let whole = (metadata.data_len() as u64).checked_add(8 + json.len() as u64);
    if whole != Some(bytes) {
        let whole = whole.map_or("more".to_string(), |whole| whole.to_string());
        return Err(format!("has {bytes} bytes; its header promises {whole}: it was cut off"));
    }
    Ok(metadata)
}
