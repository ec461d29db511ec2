//! The `.properties` file of a BVGraph: sizes and codes, one `key=value` a line.

use std::path::Path;

use super::bits::Code;
use crate::error::{Error, Result};
use crate::graph::load::node_count;

/// What decoding needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Properties {
    pub nodes: usize,
    pub arcs: u64,
    /// Lists may refer to so many before them.
    pub window: usize,
    /// The shortest interval; 0 for none at all.
    pub min_interval: usize,
    pub outdegrees: Code,
    pub references: Code,
    pub blocks: Code,
    pub intervals: Code,
    pub residuals: Code,
    pub offsets: Code,
}

/// A window that no graph needs, and a limit for the memory of damaged files.
const LONGEST_WINDOW: u64 = 1 << 16;

impl Properties {
    pub(super) fn read(path: &Path) -> Result<Properties> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, "read", &e))?;
        Self::parse(&text).map_err(|what| Error::input(format!("{}: {what}", path.display())))
    }

    fn parse(text: &str) -> std::result::Result<Properties, String> {
        let value = |key: &str| {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            let mut pairs = lines.filter_map(|line| line.split_once('='));
            pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
        };
        let number = |key: &str, default: Option<u64>| match value(key) {
            None => default.ok_or_else(|| format!("no line '{key}=NUMBER'")),
            Some(text) => text
                .parse::<u64>()
                .map_err(|_| format!("'{key}={text}'; expected a whole number >= 0")),
        };
        match value("graphclass") {
            Some(class) if class.ends_with("BVGraph") => {}
            other => {
                let other = other.unwrap_or("nothing");
                return Err(format!("graphclass={other}; expected one that ends in BVGraph"));
            }
        }
        if value("endianness").is_some_and(|order| order != "big") {
            return Err(
                "endianness=little; expected a graph in big-endian order; compress it again \
                        with 'webgraph to bvgraph --endianness big'"
                    .into(),
            );
        }
        let window = number("windowsize", Some(7))?;
        if window > LONGEST_WINDOW {
            return Err(format!("windowsize={window}; at most {LONGEST_WINDOW} is supported"));
        }
        let k = number("zetak", Some(3))?;
        let k = u32::try_from(k).ok().filter(|k| (1..=32).contains(k));
        let k = k.ok_or_else(|| "zetak is out of range; expected 1 to 32".to_string())?;
        let min_interval = number("minintervallength", Some(4))?;
        let mut properties = Properties {
            nodes: node_count(number("nodes", None)?)?,
            arcs: number("arcs", None)?,
            window: window as usize,
            min_interval: usize::try_from(min_interval.min(u64::from(u32::MAX))).unwrap_or(0),
            outdegrees: Code::Gamma,
            references: Code::Unary,
            blocks: Code::Gamma,
            intervals: Code::Gamma,
            residuals: Code::Zeta(k),
            offsets: Code::Gamma,
        };
        properties.set_codes(value("compressionflags").unwrap_or(""), k)?;
        Ok(properties)
    }

    fn set_codes(&mut self, flags: &str, k: u32) -> std::result::Result<(), String> {
        for flag in flags.split('|').map(str::trim).filter(|flag| !flag.is_empty()) {
            let unknown = || format!("compressionflags: '{flag}' is not supported");
            let (field, code) = flag.rsplit_once('_').ok_or_else(unknown)?;
            let code = match code.strip_prefix("ZETA") {
                Some("") => Code::Zeta(k),
                Some(k) => {
                    let k = k.parse().ok().filter(|k| (1..=32).contains(k));
                    Code::Zeta(k.ok_or_else(unknown)?)
                }
                None => match code {
                    "UNARY" => Code::Unary,
                    "GAMMA" => Code::Gamma,
                    "DELTA" => Code::Delta,
                    _ => return Err(unknown()),
                },
            };
            match field {
                "OUTDEGREES" => self.outdegrees = code,
                "REFERENCES" => self.references = code,
                "BLOCKS" => self.blocks = code,
                "INTERVALS" => self.intervals = code,
                "RESIDUALS" => self.residuals = code,
                "OFFSETS" => self.offsets = code,
                _ => return Err(unknown()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#BVGraph\nnodes=5\narcs=9\ngraphclass=it.unimi.dsi.webgraph.BVGraph\n";

    #[test]
    fn codes_and_sizes_are_read() {
        let plain = Properties::parse(TEXT).unwrap();
        assert_eq!((plain.nodes, plain.arcs, plain.window, plain.min_interval), (5, 9, 7, 4));
        assert_eq!((plain.residuals, plain.references), (Code::Zeta(3), Code::Unary));
        let flags = "windowsize=0\nzetak=2\ncompressionflags=OUTDEGREES_DELTA | \
                     REFERENCES_GAMMA|RESIDUALS_ZETA|\n";
        let other = Properties::parse(&(TEXT.to_string() + flags)).unwrap();
        assert_eq!((other.outdegrees, other.references), (Code::Delta, Code::Gamma));
        assert_eq!((other.residuals, other.blocks, other.window), (Code::Zeta(2), Code::Gamma, 0));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for (more, what) in [
            ("endianness=little", "endianness=little; expected"),
            ("compressionflags=RESIDUALS_GOLOMB", "'RESIDUALS_GOLOMB' is not supported"),
            ("compressionflags=LABELS_GAMMA", "'LABELS_GAMMA' is not supported"),
            ("windowsize=99999999", "at most 65536"),
            ("windowsize=-1", "'windowsize=-1'; expected a whole number"),
            ("zetak=0", "expected 1 to 32"),
        ] {
            let error = Properties::parse(&format!("{TEXT}{more}\n")).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let error = Properties::parse("nodes=5").unwrap_err();
        assert!(error.contains("graphclass=nothing"), "{error}");
        let error = Properties::parse("graphclass=BVGraph\nnodes=5").unwrap_err();
        assert!(error.contains("no line 'arcs=NUMBER'"), "{error}");
        let error = Properties::parse(&TEXT.replace("=5", "=5000000000")).unwrap_err();
        assert!(error.contains("promises 5000000000 nodes"), "{error}");
    }
}
