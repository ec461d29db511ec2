//! What a rank does while it waits in vain for messages: it tells those it waits for what it has
//! called and where, and listens to what others tell.
//!
//! Ranks of one node compare signatures before each call; between nodes that would cost a message
//! each way. There a message carries a hash of the signature in its tag, so messages of different
//! calls do not match and both sides wait. After [`TELL_AFTER`] they tell each other, and whoever
//! hears of a different call of the same number knows that the ranks disagree. This costs nothing
//! while all goes well.

use std::fmt::Write;
use std::time::Duration;

use super::Context;
use super::work::Work;
use crate::error::Result;
use crate::signature::{Called, Signature, disagreement};

/// A wait this long is worth a message.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// How long the second of two ranks that disagree leaves the report to the first.
const GRACE: Duration = Duration::from_secs(1);

/// What one wait has told and heard.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    told: bool,
    heard: Vec<(u64, Called)>,
}

impl Diagnosis {
    /// One look of a long wait. An error when another rank called something else.
    pub(super) fn look(&mut self, context: &Context, work: &Work, waited: Duration) -> Result<()> {
        if waited < TELL_AFTER {
            return Ok(());
        }
        let Some(own) = work.called(context) else { return Ok(()) };
        if !self.told {
            self.told = true;
            let words = encode(work.number(), &own);
            for peer in work.waits_for() {
                context.transport.tell(peer, &words)?;
            }
        }
        while let Some((rank, words)) = context.transport.hear()? {
            let Some((number, called)) = decode(rank, &words) else { continue };
            if number == work.number() && called.signature != own.signature {
                if own.rank > called.rank {
                    // Both know now; the other one speaks, unless it cannot.
                    std::thread::sleep(GRACE);
                }
                return Err(disagreement(&[own, called], number[1]));
            }
            self.heard.push((number[1], called));
        }
        Ok(())
    }

    /// What others wait in, for the message of a time-out.
    pub(super) fn heard(&self) -> String {
        let mut text = String::new();
        for (call, Called { rank, signature, site }) in &self.heard {
            // Writing to a string cannot fail.
            let _ = write!(text, "; rank {rank} waits in {signature}, no. {call}, at {site}");
        }
        text
    }
}

fn encode(number: [u64; 2], called: &Called) -> Vec<u64> {
    let mut words = number.to_vec();
    words.extend(called.signature.to_words());
    words.push(called.site.len() as u64);
    words.extend(called.site.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    }));
    words
}

fn decode(rank: usize, words: &[u64]) -> Option<([u64; 2], Called)> {
    let (&[lane, call, what, n, rest, len], text) = words.split_first_chunk::<6>()?;
    let bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
    let site = bytes.get(..usize::try_from(len).ok()?)?;
    let site = String::from_utf8_lossy(site).into_owned();
    let signature = Signature::from_parts([what, n, rest]);
    Some(([lane, call], Called { rank, signature, site }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_trip_and_garbage_is_nothing() {
        for site in ["", "a", "src/a_file.rs:12", "ünï/çödé.rs:1"] {
            let signature = Signature::from_parts([1, 2, 3]);
            let called = Called { rank: 4, signature, site: site.to_string() };
            let words = encode([5, 6], &called);
            assert_eq!(decode(4, &words), Some(([5, 6], called)));
            for cut in 0..words.len() {
                assert!(cut >= 6 + site.len().div_ceil(8) || decode(4, &words[..cut]).is_none());
            }
        }
        assert_eq!(decode(0, &[0, 0, 0, 0, 0, u64::MAX, 7]), None);
    }
}
