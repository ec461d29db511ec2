//! A stream of bits, most significant first, and the instantaneous codes of BVGraph (Boldi, Vigna:
//! Codes for the World Wide Web, 2005).
//!
//! Cost: a window of 64 bits is loaded from memory for each code; codes of up to 32 bits need one.

/// Reads codes from bytes. A read beyond the end gives `None`.
#[derive(Clone, Debug)]
pub(super) struct Bits<'b> {
    bytes: &'b [u8],
    /// In bits.
    at: u64,
}

/// How numbers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Code {
    Unary,
    Gamma,
    Delta,
    Zeta(u32),
}

impl<'b> Bits<'b> {
    pub(super) fn new(bytes: &'b [u8], at: u64) -> Self {
        Bits { bytes, at }
    }

    /// Where the next code starts, in bits.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// At least 57 bits from here, at the top of the word; zeros after the end.
    fn window(&self) -> u64 {
        let byte = (self.at / 8) as usize;
        let word = match self.bytes.get(byte..byte + 8) {
            Some(bytes) => bytes.iter().fold(0, |word, &b| word << 8 | u64::from(b)),
            None => {
                let rest = self.bytes.get(byte..).unwrap_or(&[]);
                (0..8).fold(0, |word, i| word << 8 | u64::from(rest.get(i).copied().unwrap_or(0)))
            }
        };
        word << (self.at % 8)
    }

    fn skip(&mut self, bits: u64) -> Option<()> {
        self.at += bits;
        (self.at <= self.bytes.len() as u64 * 8).then_some(())
    }

    /// `count` bits as a number.
    pub(super) fn read(&mut self, count: u32) -> Option<u64> {
        match count {
            0 => Some(0),
            1..=56 => {
                let value = self.window() >> (64 - count);
                self.skip(count.into())?;
                Some(value)
            }
            57..=64 => {
                let high = self.read(count - 32)?;
                Some(high << 32 | self.read(32)?)
            }
            _ => None,
        }
    }

    fn unary(&mut self) -> Option<u64> {
        let mut zeros = 0;
        loop {
            let window = self.window();
            let run = window.leading_zeros();
            if run < 57 {
                self.skip(u64::from(run) + 1)?;
                return Some(zeros + u64::from(run));
            }
            self.skip(56)?;
            zeros += 56;
        }
    }

    fn gamma(&mut self) -> Option<u64> {
        let bits = self.unary()?;
        if bits > 63 {
            return None;
        }
        Some((1 << bits | self.read(bits as u32)?) - 1)
    }

    fn zeta(&mut self, k: u32) -> Option<u64> {
        let h = self.unary()?;
        let low = u32::try_from(h).ok()?.checked_mul(k)?;
        let bits = low.checked_add(k)?.checked_sub(1)?;
        if bits > 62 {
            return None;
        }
        let left = 1u64 << low;
        let value = self.read(bits)?;
        if value < left {
            // A zeta code with k = 1 and h = 0 is the number 0, of no bits.
            return (value + left).checked_sub(1);
        }
        Some((value << 1 | self.read(1)?) - 1)
    }

    /// A number.
    pub(super) fn code(&mut self, code: Code) -> Option<u64> {
        match code {
            Code::Unary => self.unary(),
            Code::Gamma => self.gamma(),
            Code::Delta => {
                let bits = self.gamma()?;
                if bits > 63 {
                    return None;
                }
                Some((1 << bits | self.read(bits as u32)?) - 1)
            }
            Code::Zeta(k) => self.zeta(k),
        }
    }
}

/// The integer that is written as a natural number: 0, −1, 1, −2, 2, …
pub(super) fn signed(natural: u64) -> i64 {
    (natural >> 1) as i64 ^ -((natural & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of 0 and 1 as bytes.
    fn bytes(text: &str) -> Vec<u8> {
        let bits: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
        let byte = |c: &[u8]| (0..8).fold(0, |byte, i| byte << 1 | c.get(i).copied().unwrap_or(0));
        bits.chunks(8).map(byte).collect()
    }

    #[test]
    fn published_code_words_are_read() {
        // Boldi and Vigna, Codes for the World Wide Web, table 1 (they count from 1).
        let words: [(Code, [&str; 8]); 4] = [
            (Code::Gamma, ["1", "010", "011", "00100", "00101", "00110", "00111", "0001000"]),
            (Code::Zeta(2), ["10", "110", "111", "01000", "01001", "01010", "01011", "011000"]),
            (Code::Zeta(3), ["100", "1010", "1011", "1100", "1101", "1110", "1111", "0100000"]),
            (Code::Delta, ["1", "0100", "0101", "01100", "01101", "01110", "01111", "00100000"]),
        ];
        for (code, words) in words {
            for shift in 0..9 {
                let text = "1".repeat(shift) + &words.concat();
                let data = bytes(&text);
                let mut bits = Bits::new(&data, shift as u64);
                for number in 0..8 {
                    assert_eq!(bits.code(code), Some(number), "{code:?} {number}");
                }
                assert_eq!(bits.position(), text.len() as u64);
            }
        }
        assert_eq!(Bits::new(&bytes("0001"), 0).code(Code::Unary), Some(3));
        let long = "0".repeat(130) + "1";
        assert_eq!(Bits::new(&bytes(&long), 0).code(Code::Unary), Some(130));
    }

    #[test]
    fn the_end_and_large_numbers_are_no_trap() {
        assert_eq!(Bits::new(&[], 0).code(Code::Unary), None);
        for byte in 0..=255u8 {
            for code in [Code::Unary, Code::Gamma, Code::Delta, Code::Zeta(1), Code::Zeta(40)] {
                for data in [vec![byte], vec![0, byte], vec![0; 40], vec![255; 3]] {
                    let mut bits = Bits::new(&data, 0);
                    let mut read = 0;
                    while bits.code(code).is_some() {
                        read += 1;
                    }
                    assert!(read <= data.len() * 8);
                }
            }
        }
        assert_eq!([0, 1, 2, 3, 4].map(signed), [0, -1, 1, -2, 2]);
        assert_eq!(signed(u64::MAX), i64::MIN);
        let all = [0xa5u8; 20];
        assert_eq!(Bits::new(&all, 4).read(64), Some(0x5a5a_5a5a_5a5a_5a5a));
    }
}
