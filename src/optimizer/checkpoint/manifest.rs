//! The manifest of a checkpoint: which files, which pieces of which tensors where in them, and
//! the state. It is JSON whose first member is the checksum of everything after that member's
//! line, so a flipped bit in a number is found as well as one in a file of values.
//!
//! What it says is checked before it is used: a manifest may come from anywhere, and nothing in
//! it may cause a panic, a huge allocation or a path outside its folder.

use serde::{Deserialize, Serialize};

use super::State;
use super::folders::Name;
use super::tensors::{self, Checked, Place, TensorInfo};
use crate::error::{Error, Result};

/// The name of the file.
pub(super) const FILE: &str = "manifest.json";
/// The version of the format.
const VERSION: u32 = 1;

/// What a checkpoint consists of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    rankwise: String,
    checkpoint: String,
    pub(super) step: u64,
    pub(super) tensors: Vec<TensorInfo>,
    /// By rank.
    pub(super) files: Vec<RankFile>,
    pub(super) state: State,
}

/// The file of one rank.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RankFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) checksum: String,
    pub(super) pieces: Vec<StoredPiece>,
}

/// A piece: tensor, first element, elements, and the byte of the file where its values start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StoredPiece(pub(super) usize, pub(super) usize, pub(super) usize, pub(super) u64);

/// The name of the file of a rank.
pub(super) fn rank_file(rank: usize) -> String {
    format!("rank-{rank:05}.safetensors")
}

fn head(body: &[u8]) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(body);
    format!("{{\"checksum\":\"crc32:{:08x}\",\n", crc.sum())
}

impl Manifest {
    pub(super) fn new(
        name: Name,
        tensors: &[TensorInfo],
        files: Vec<RankFile>,
        state: &State,
    ) -> Self {
        Manifest {
            version: VERSION,
            rankwise: env!("CARGO_PKG_VERSION").into(),
            checkpoint: name.to_string(),
            step: name.step,
            tensors: tensors.to_vec(),
            files,
            state: state.clone(),
        }
    }

    /// The text of the file.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Error::internal(format!("checkpoint: cannot write a manifest: {e}")))?;
        // The opening brace comes before the checksum.
        let mut body = json[1..].to_vec();
        body.push(b'\n');
        let mut text = head(&body).into_bytes();
        text.extend(body);
        Ok(text)
    }

    /// Reads the manifest of the checkpoint `name`, or says what is wrong with it.
    pub(super) fn decode(text: &[u8], name: Name) -> Checked<Manifest> {
        let cut = head(&[]).len();
        let (start, body) = text.split_at_checked(cut).ok_or("is cut off")?;
        if start != head(body).as_bytes() {
            return Err("does not fit its checksum: it is damaged, or was edited".into());
        }
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let unreadable = |e| format!("is not a manifest of a checkpoint: {e}");
        // The version first: another one may have other members.
        let Versioned { version } = serde_json::from_slice(text).map_err(unreadable)?;
        if version != VERSION {
            return Err(format!("has format version {version}; this program reads {VERSION}"));
        }
        let manifest: Manifest = serde_json::from_slice(text).map_err(unreadable)?;
        manifest.check(name)?;
        Ok(manifest)
    }

    fn check(&self, name: Name) -> Checked<()> {
        if self.checkpoint != name.to_string() || self.step != name.step {
            return Err(format!("belongs to {}, whose folder was renamed", self.checkpoint));
        }
        tensors::check_tensors(&self.tensors)?;
        let mut places = Vec::new();
        for (rank, file) in self.files.iter().enumerate() {
            if file.name != rank_file(rank) {
                return Err(format!("names a file '{}' for rank {rank}", file.name));
            }
            for &StoredPiece(tensor, start, len, offset) in &file.pieces {
                tensors::check_range(&self.tensors, tensor, start, len)?;
                let end = offset.checked_add((len * size_of::<f32>()) as u64);
                if len == 0 || end.is_none_or(|end| end > file.bytes) {
                    return Err(format!("a piece of {len} elements is not inside {}", file.name));
                }
                places.push(Place { tensor, start, len, rank });
            }
        }
        tensors::check_coverage(&self.tensors, &mut places)
    }
}
