//! Sizes in bytes as people write them: digits and a binary suffix, `8`, `64K`, `1G`.

/// Bytes, with K, M or G for powers of 1024.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let bad = || format!("'{text}' is no size; write bytes with K, M or G, such as 64M");
    let (digits, shift) = match text.char_indices().last() {
        Some((i, 'K' | 'k')) => (&text[..i], 10),
        Some((i, 'M' | 'm')) => (&text[..i], 20),
        Some((i, 'G' | 'g')) => (&text[..i], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary_and_nonsense_is_refused() {
        for (text, bytes) in [("0", 0), ("8", 8), ("1K", 1024), ("3k", 3072), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for wrong in ["", "x", "3Q", "-1", "1.5K", "99999999999999999999", "K", "é"] {
            assert!(size(wrong).unwrap_err().contains("is no size"), "{wrong}");
        }
    }
}
