//! Small exchanges between ranks: bytes from rank 0, words to rank 0, and whether all agree.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, ErrorKind, Result};
use crate::sharding::Sharding;

/// The words of rank 0 on every rank. Collective.
pub(super) fn broadcast_words(comm: &Communicator, words: Vec<u64>) -> Result<Vec<u64>> {
    let mut len = [words.len() as u64];
    comm.broadcast(&mut len, 0)?;
    let mut words = words;
    words.resize(len[0] as usize, 0);
    comm.broadcast(&mut words, 0)?;
    Ok(words)
}

/// The bytes of rank 0 on every rank. Collective.
pub(super) fn broadcast_bytes(comm: &Communicator, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut words = vec![bytes.len() as u64];
    words.resize(1 + bytes.len().div_ceil(8), 0);
    bytemuck::cast_slice_mut(&mut words[1..])[..bytes.len()].copy_from_slice(&bytes);
    let words = broadcast_words(comm, words)?;
    let (len, bytes) = (words[0] as usize, bytemuck::cast_slice(&words[1..]));
    Ok(bytes[..len.min(bytes.len())].to_vec())
}

/// The words of every rank, by rank, on rank 0; nothing elsewhere. Collective.
pub(super) fn gather_words(comm: &Communicator, words: &[u64]) -> Result<Vec<Vec<u64>>> {
    let mut lengths = vec![0u64; comm.ranks()];
    comm.all_gather(&[words.len() as u64], &mut lengths)?;
    let counts: Vec<usize> = lengths.into_iter().map(|n| n as usize).collect();
    let sharding = Sharding::from_counts(&counts);
    let is_root = comm.rank() == 0;
    let mut whole = vec![0u64; if is_root { sharding.n() } else { 0 }];
    comm.gather(&sharding, words, &mut whole, 0)?;
    let parts = if is_root { comm.ranks() } else { 0 };
    Ok((0..parts).map(|rank| whole[sharding.range(rank)].to_vec()).collect())
}

/// Refuses a call in which ranks give different values for `what`. Collective.
pub(super) fn same_on_all(comm: &Communicator, what: &str, value: &impl Hash) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let hash = hasher.finish();
    // Minimum of the hashes = maximum of them: the same value everywhere.
    let lowest = comm.all_reduce_vec(&[hash, !hash], Op::Min)?;
    if lowest[0] == !lowest[1] {
        return Ok(());
    }
    comm.agree(Err(Error::new(
        ErrorKind::Disagreement,
        format!("checkpoint: ranks give different {what}; all must give the same"),
    )))
}
