//! Result tables as CSV: a header, then a line for each node in the order of the ids.
//!
//! Numbers have the shortest digits that read back to the same bits, the same as in JSON, in the
//! notation of Rust's `{:?}`: decimal from 1e-4 to below 1e16, else with an exponent. Lines are
//! made in blocks by all threads of the rank, and blocks are written in their order. Memory: the
//! text of a few blocks.

use std::io::{self, Write};
use std::ops::Range;

use rayon::prelude::*;

use super::ids::{NodeId, Numbering};
use super::output::Columns;

/// Lines of a task.
const BLOCK: usize = 1 << 13;

/// Writes the ids of all nodes and their values.
pub(super) fn write(
    writer: &mut impl Write,
    numbering: &Numbering,
    columns: &Columns<'_>,
) -> io::Result<()> {
    writer.write_all(b"node")?;
    columns.iter().try_for_each(|(name, _)| write!(writer, ",{name}"))?;
    writer.write_all(b"\n")?;
    let n = numbering.len();
    let wave = 4 * rayon::current_num_threads() * BLOCK;
    for start in (0..n).step_by(wave) {
        let starts: Vec<usize> = (start..(start + wave).min(n)).step_by(BLOCK).collect();
        let block = |&start: &usize| lines(numbering, start..(start + BLOCK).min(n), columns);
        let blocks: Vec<io::Result<Vec<u8>>> = starts.par_iter().map(block).collect();
        blocks.into_iter().try_for_each(|text| writer.write_all(&text?))?;
    }
    Ok(())
}

/// The lines of some nodes.
fn lines(numbering: &Numbering, nodes: Range<usize>, columns: &Columns<'_>) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(nodes.len() * (10 + 24 * columns.len()));
    for index in nodes {
        write_id(&mut text, numbering.id(index))?;
        for (_, values) in columns {
            text.push(b',');
            push_number(&mut text, values[index])?;
        }
        text.push(b'\n');
    }
    Ok(text)
}

/// An id in a CSV file; only those of a Parquet table can have commas, and none has line ends.
pub(super) fn write_id(writer: &mut impl Write, id: NodeId<'_>) -> io::Result<()> {
    match id {
        NodeId::Integer(id) => writer.write_all(itoa::Buffer::new().format(id).as_bytes()),
        NodeId::Name(name) if name.contains(['"', ',']) => {
            write!(writer, "\"{}\"", name.replace('"', "\"\""))
        }
        NodeId::Name(name) => writer.write_all(name.as_bytes()),
    }
}

/// Appends what `{value:?}` would, or digits as short and as near.
fn push_number(text: &mut Vec<u8>, value: f64) -> io::Result<()> {
    let mut buffer = zmij::Buffer::new();
    let digits = buffer.format(value);
    if value == 0.0 || (1e-4..1e16).contains(&value) {
        text.extend_from_slice(digits.as_bytes());
        return Ok(());
    }
    let Some((mantissa, exponent)) = digits.split_once('e') else {
        return write!(text, "{value:?}");
    };
    // The exponent has a sign and two digits at least.
    let (sign, exponent) = match exponent.as_bytes() {
        [b'-', rest @ ..] => ("e-", rest),
        [b'+', rest @ ..] => ("e", rest),
        rest => ("e", rest),
    };
    let zeros = exponent.iter().take_while(|&&digit| digit == b'0').count();
    text.extend_from_slice(mantissa.as_bytes());
    text.extend_from_slice(sign.as_bytes());
    text.extend_from_slice(&exponent[zeros..]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: f64) -> String {
        let mut text = Vec::new();
        push_number(&mut text, value).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_read_back_and_look_as_those_of_the_standard_library() {
        let special = [0.0, -0.0, 5e-324, f64::MIN_POSITIVE, f64::MAX, 1.0, 0.1, 1.0 / 3.0];
        let powers = (-330..=308).map(|exponent| format!("1e{exponent}").parse().unwrap());
        let near = |power: f64| [power.next_down(), power, power.next_up(), -power, 7.25 * power];
        let mut state = 7u64;
        let random = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f64::from_bits(state ^ state >> 29)
        });
        let ranks = (1..20_000u32).map(|i| 1.0 / f64::from(i).powi(2));
        let all = special.into_iter().chain(powers.flat_map(near)).chain(ranks);
        let mut different = 0;
        for value in all.chain(random.take(50_000)) {
            let (found, expected) = (printed(value), format!("{value:?}"));
            if found == expected || value.is_nan() {
                continue;
            }
            // Of two shortest numbers that are equally near, either may be taken.
            let look = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
            assert_eq!(found.parse::<f64>().unwrap().to_bits(), value.to_bits());
            assert_eq!(look(&found), look(&expected), "{found} {expected}");
            different += 1;
        }
        assert!(different < 100, "{different} numbers have other digits");
    }

    #[test]
    fn blocks_follow_each_other() {
        let n = 9 * BLOCK + 3;
        let numbering = Numbering::Dense { first: 7, n };
        let values: Vec<f64> = (0..n).map(|i| i as f64 / 7.0).collect();
        let mut found = Vec::new();
        write(&mut found, &numbering, &[("rank", &values), ("twice", &values)]).unwrap();
        let mut expected = String::from("node,rank,twice\n");
        for (i, value) in values.iter().enumerate() {
            expected += &format!("{},{value:?},{value:?}\n", i + 7);
        }
        assert!(found == expected.as_bytes());
    }
}
