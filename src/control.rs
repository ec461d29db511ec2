//! Control messages between ranks: errors, as a few 64-bit words.
//!
//! The one module that uses bincode (2.0.1: unmaintained since RUSTSEC-2025-0141, without a known
//! defect). It decodes only what another rank of the same job encoded; a decoding failure is an
//! error, never a panic.

use crate::error::{Error, ErrorKind, Result};

#[derive(bincode::Encode, bincode::Decode)]
struct WireError {
    kind: u8,
    rank: Option<u32>,
    message: String,
}

/// The most bytes a control message may claim to hold.
const LIMIT: usize = 1 << 20;

/// Encodes an error, padded to whole words; the first word is the length in bytes.
pub fn encode_error(error: &Error) -> Result<Vec<u64>> {
    let kind = ErrorKind::ALL.iter().position(|&k| k == error.kind).unwrap_or(0) as u8;
    let rank = error.rank.and_then(|r| u32::try_from(r).ok());
    let mut message = error.message.clone();
    if message.len() > LIMIT / 2 {
        let cut = (0..=LIMIT / 2).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
        message.truncate(cut);
    }
    let wire = WireError { kind, rank, message };
    let bytes = bincode::encode_to_vec(wire, bincode::config::standard())
        .map_err(|e| Error::internal(format!("cannot encode an error for other ranks: {e}")))?;
    let mut words = vec![bytes.len() as u64];
    words.extend(bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    }));
    Ok(words)
}

/// Decodes what [`encode_error`] made.
pub fn decode_error(words: &[u64]) -> Result<Error> {
    let bad =
        |what: String| Error::internal(format!("an error from another rank is garbled: {what}"));
    let (&len, words) = words.split_first().ok_or_else(|| bad("empty".into()))?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let bytes = usize::try_from(len)
        .ok()
        .and_then(|len| bytes.get(..len))
        .ok_or_else(|| bad(format!("{len} bytes announced, {} there", bytes.len())))?;
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (wire, _): (WireError, usize) =
        bincode::decode_from_slice(bytes, config).map_err(|e| bad(e.to_string()))?;
    let kind = *ErrorKind::ALL.get(usize::from(wire.kind)).ok_or_else(|| bad("its kind".into()))?;
    Ok(Error { rank: wire.rank.map(|r| r as usize), ..Error::new(kind, wire.message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_trip() {
        for (i, kind) in ErrorKind::ALL.into_iter().enumerate() {
            for len in [0, 1, 7, 8, 9, 1000] {
                let error = Error::new(kind, "ü".repeat(len));
                let error = if i % 2 == 0 { error.on_rank(i) } else { error };
                assert_eq!(decode_error(&encode_error(&error).unwrap()).unwrap(), error);
            }
        }
        let long = Error::input("€".repeat(1 << 20));
        let back = decode_error(&encode_error(&long).unwrap()).unwrap();
        assert!(long.message.starts_with(&back.message) && back.message.len() > 1000);
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic() {
        let good = encode_error(&Error::input("a message").on_rank(3)).unwrap();
        for cut in 0..good.len() {
            assert!(decode_error(&good[..cut]).is_err());
        }
        let mut state = 1u64;
        for _ in 0..2000 {
            let mut words = good.clone();
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % words.len();
            words[at] ^= state;
            let _ = decode_error(&words);
        }
    }
}
