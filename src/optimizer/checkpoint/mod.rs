//! Checkpoints: what a training run needs to go on, saved by all ranks at once and loaded by any
//! other number of ranks with any other layout of buffers.
//!
//! A checkpoint knows tensors (`parameter/NAME`, `exp_avg/NAME`, …) and ranges of their flattened
//! elements, never buckets or shards: a rank hands in the [`Piece`]s that it owns and asks for the
//! pieces that it wants. A folder of checkpoints looks like this:
//!
//! ```text
//! runs/a/step-00000100/rank-00000.safetensors   what rank 0 owned, as tensors NAME@START
//!                      rank-00001.safetensors
//!                      manifest.json            files, checksums, pieces, state; written last
//! runs/a/step-00000200.part/                    a save that was cut off: ignored, removed later
//! ```
//!
//! **Saving** ([`save()`]): every rank writes its own file into `step-N.part` and flushes it to the
//! disk; then rank 0 writes the manifest, renames the folder to `step-N` and flushes the parent.
//! Only then are older checkpoints removed, each first renamed to `.part`. So whatever the moment
//! at which a save is killed, the folders without `.part` are complete, and there is one.
//!
//! **Loading** ([`Checkpoint::open`], [`load`]): the manifest carries its own checksum and those
//! of the files; the ranks share the files, so each is verified once by one rank, and then each
//! rank reads the byte ranges that overlap what it asks for. Cost: every byte is read once to be
//! verified and once more by whoever needs it, from the page cache if it fits there; memory
//! is 1 MiB a rank beyond the values.
//!
//! **Going back**: when a run resumes from an older step, or saves a step again, its checkpoints
//! belong to a new generation, `step-00000100-2`, and the latest one is the newest of the
//! newest generation, never a later step of the history that was given up. Nothing is
//! replaced in place, so a step that is saved again is at no moment missing.
//!
//! One job at a time saves into a folder, and all nodes must see it (a shared file system). A kill
//! is survived by the order of renames, a loss of power as far as the disk honours flushes.
//!
//! `tensors` names what is saved and checks that all is there once; `folders` names, finishes and
//! removes checkpoints; `manifest`, `save` and `load` are what they say; `plain` writes and reads
//! headers of safetensors; `export` and `import` exchange one plain file with other software.

mod export;
mod folders;
mod import;
mod load;
mod manifest;
mod plain;
mod save;
mod tensors;
mod words;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod plain_tests;
#[cfg(test)]
mod tests;

pub use export::export;
pub use import::{Imported, import};
pub use load::{Checkpoint, Which, load, steps};
pub use save::save;
pub use tensors::{Piece, PieceMut, TensorInfo};

/// Everything beside tensors that a run needs to go on: configuration, sampler position, random
/// generator, loss scale, schedule. Integers up to 64 bits and finite floats read back to the
/// same bits.
pub type State = serde_json::Value;

// Values go to files as they lie in memory, and safetensors is little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints need a little-endian machine");
