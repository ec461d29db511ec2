//! Tests of the edge-list parser: the dialects, the messages, shares, and random bytes.

use super::*;
use std::io::Write;

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The edges whose ids are narrow, then the others.
fn pairs(edges: &IntegerEdges) -> Vec<(u64, u64)> {
    let narrow = edges.narrow.edges.iter().map(|&(a, b)| (a.into(), b.into()));
    narrow.chain(edges.wide.iter().copied()).collect()
}

/// A piece of its own.
fn parsed(text: &[u8], weighted: bool) -> std::result::Result<IntegerEdges, Stop> {
    let mut piece = IntegerEdges::default();
    parse_integers(text, weighted, &mut piece).map(|()| piece)
}

fn integers(text: &str) -> Vec<(u64, u64)> {
    pairs(&parsed(text.as_bytes(), false).unwrap())
}

fn named(piece: &NamedEdges) -> Vec<(String, String)> {
    let name = |i: u32| String::from_utf8(piece.names.get(i as usize).to_vec()).unwrap();
    piece.edges.iter().map(|&(from, to)| (name(from), name(to))).collect()
}

/// The message of the error for a file of these bytes, in integer mode and then name mode.
fn message(bytes: &[u8], weighted: bool) -> String {
    let file = write(bytes);
    let error = match read_integers(file.path(), 0, 1, weighted) {
        Ok(None) => read_names(file.path(), 0, 1, weighted).map(|_| ()).unwrap_err(),
        Ok(Some(pieces)) => panic!("parsed {pieces:?}"),
        Err(error) => error,
    };
    assert_eq!(error.exit_code(), 2);
    let name = file.path().to_str().unwrap();
    error.message.strip_prefix(name).expect("the message names the file").trim().to_owned()
}

#[test]
fn dialects_mean_the_same() {
    let expected = vec![(1, 2), (30, 4), (18_446_744_073_709_551_615, 0)];
    for text in [
        "1 2\n30 4\n18446744073709551615 0\n",
        "1\t2\r\n30\t4\r\n18446744073709551615\t0",
        "# nodes: 5\n%% matrix\n1,2\n\n  \t\n 30 , 4 \n18446744073709551615  \t 0 \r\n\r\n",
        "1 2 0.5\n30 4 a b c\n18446744073709551615,0,\n#",
        "01 002\n000000000000000000000030 4\n18446744073709551615 0\r",
    ] {
        assert_eq!(integers(text), expected, "{text:?}");
    }
    assert_eq!(integers(""), []);
    assert_eq!(integers("# only\n\n% comments"), []);
}

#[test]
fn one_id_that_is_no_integer_makes_all_of_them_names() {
    for text in ["1 2\n3 x\n", "1 2\n3 -1\n", "1 2\n3 18446744073709551616\n", "1 2\n3 1.0"] {
        assert_eq!(parsed(text.as_bytes(), false), Err(Stop::NotAnInteger), "{text:?}");
    }
    let piece = parse_names("a b\nb é\n7 a 9\n# x y\na b\r\n".as_bytes(), false).unwrap();
    assert_eq!(piece.names.len(), 4);
    let edges = [("a", "b"), ("b", "é"), ("7", "a"), ("a", "b")];
    assert_eq!(named(&piece), edges.map(|(from, to)| (from.to_owned(), to.to_owned())));
}

#[test]
fn weights_are_the_third_column() {
    let piece = parsed(b"1 2 0.25\n3,4,1e3,x\n5 6 0\r\n7 8 -0", true).unwrap();
    assert_eq!(piece.narrow.weights, [0.25, 1000.0, 0.0, 0.0]);
    assert!(piece.narrow.weights[3].is_sign_positive());
    let piece = parsed(b"1 2 3\n4294967296 1 0.5\n4294967295 7 2", true).unwrap();
    assert_eq!((&piece.wide[..], &piece.wide_weights[..]), (&[(1 << 32, 1)][..], &[0.5][..]));
    assert_eq!((piece.narrow.edges[1], piece.narrow.weights[1]), ((u32::MAX, 7), 2.0));
    assert!(parsed(b"1 2 x\n", false).unwrap().narrow.weights.is_empty());
    for (text, what) in [
        ("1 2 1\n1 2\n", "line 2: no third column"),
        ("1 2 1\n1 2 -1\n", "line 2: the weight '-1' is not a finite number >= 0"),
        ("1 2 nan\n", "line 1: the weight 'nan'"),
        ("a b 1\na b inf", "line 2: the weight 'inf'"),
        ("1 2 1e999", "line 1: the weight '1e999'"),
    ] {
        assert!(
            message(text.as_bytes(), true).starts_with(what),
            "{}",
            message(text.as_bytes(), true)
        );
    }
}

#[test]
fn messages_name_the_line_and_what_was_expected() {
    let cases: [(&[u8], &str); 9] = [
        (b"1 2\n# c\n\n3\n", "line 4: '3' is not an edge; expected a text edge list"),
        (b"1 2\n,3 4\n", "line 2: ',3 4' is not an edge"),
        (b"abc", "line 1: 'abc' is not an edge"),
        (b"a b\nc\td\ne  \n", "line 3: 'e' is not an edge"),
        (b"1 2\n3 \x004\n", "line 2: a zero byte: this is a binary file; expected a text"),
        (b"# \0\n", "line 1: a zero byte"),
        (b"\0\0\0\0\n", "line 1: a zero byte"),
        (b"1 2\nx \xff\xfe\n", "line 2: the node id '\u{fffd}\u{fffd}' is not UTF-8 text"),
        (b"1 2\r3 4\r", "line 1: a carriage return inside a line"),
    ];
    for (bytes, what) in cases {
        let message = message(bytes, false);
        assert!(message.starts_with(what), "{message}\n{what}");
        assert!(message.contains("expected"), "{message}");
    }
    let long = message(format!("1 2\n{}\n", "x".repeat(100)).as_bytes(), false);
    assert!(long.contains(&format!("'{}...'", "x".repeat(40))), "{long}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_id() {
    let file = write(b"\xef\xbb\xbf1 2\n2 3\n");
    let edges = read_integers(file.path(), 0, 1, false).unwrap().unwrap();
    assert_eq!(edges.narrow.edges, [(1, 2), (2, 3)]);
}

#[test]
fn shares_add_up_to_the_whole_file() {
    let mut text = String::from("# header\n");
    for i in 0..137u64 {
        text += &format!(
            "{}\t{}{}",
            i * i % 1009,
            (i * 7919) % 100_003,
            ["\n", "\r\n"][i as usize % 2]
        );
        if i % 10 == 0 {
            text += "\n% comment\n";
        }
    }
    text.truncate(text.len() - 1);
    let whole = integers(&text);
    assert_eq!(whole.len(), 137);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zipped.write_all(text.as_bytes()).unwrap();
    for (bytes, zip) in [(text.clone().into_bytes(), false), (zipped.finish().unwrap(), true)] {
        let file = write(&bytes);
        for ranks in 1..=9 {
            let (mut all, mut all_named) = (Vec::new(), Vec::new());
            for rank in 0..ranks {
                let open = || LineBlocks::with_block_bytes(file.path(), rank, ranks, 100).unwrap();
                let parse = |text: &[u8], piece: &mut _| parse_integers(text, false, piece);
                let take = |piece: &mut IntegerEdges| all.extend(pairs(piece));
                assert!(read(open(), parse, take).unwrap());
                let parse = |text: &[u8], piece: &mut NamedEdges| {
                    *piece = parse_names(text, false)?;
                    Ok(())
                };
                assert!(read(open(), parse, |piece| all_named.extend(named(piece))).unwrap());
            }
            let mut numbers: Vec<(u64, u64)> = all_named
                .iter()
                .map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()))
                .collect();
            let mut expected = whole.clone();
            if zip {
                for edges in [&mut all, &mut numbers, &mut expected] {
                    edges.sort_unstable();
                }
            }
            assert_eq!(all, expected, "{ranks} ranks, gzip {zip}");
            assert_eq!(numbers, expected, "{ranks} ranks, gzip {zip}");
        }
    }
}

#[test]
fn numbers_of_all_lengths_and_ends_mean_the_same_in_words_of_eight() {
    let numbers = (1..=20).flat_map(|length| {
        let digits = "98765432109876543210";
        [digits[..length].to_string(), "0".repeat(length), "9".repeat(length)]
    });
    let numbers: Vec<String> = numbers.filter(|n| n.parse::<u64>().is_ok()).collect();
    let value = |text: &str| text.parse::<u64>().unwrap();
    for (from, to) in numbers.iter().flat_map(|from| numbers.iter().map(move |to| (from, to))) {
        for (separator, end) in [("\t", "\n"), (" ", "\r\n"), (",", " x\n"), ("  ", "\t\n")] {
            let expected = [(value(from), value(to))];
            for more in ["", "# long enough for a word of eight bytes, and then some\n"] {
                let text = format!("{from}{separator}{to}{end}{more}");
                assert_eq!(integers(&text), expected, "{text:?}");
            }
        }
    }
    // A byte that is no digit, at every place of a line.
    for at in 0..21 {
        for byte in 0..=255u8 {
            let mut text = b"1234567890\t123456789\n1 2\n3 4\n5 6\n".to_vec();
            text[at] = byte;
            let found = parsed(&text, false);
            let mut slow = IntegerEdges::default();
            let expected = for_each_edge(&text, false, |from, to, _, _| {
                let (Some(from), Some(to)) = (integer(from), integer(to)) else {
                    return Err(Stop::NotAnInteger);
                };
                slow.push(from, to, None);
                Ok(())
            });
            assert_eq!(found, expected.map(|()| slow), "{byte} at {at}");
        }
    }
}

#[test]
fn cuts_are_line_starts() {
    let text = b"a\nbb\n\n\ncccc\nd";
    for bytes in 1..20 {
        let cuts = cut_at_lines(text, bytes);
        assert_eq!((cuts[0], cuts[cuts.len() - 1]), (0, text.len()));
        assert!(cuts.windows(2).all(|w| w[0] < w[1]));
        assert!(cuts[1..cuts.len() - 1].iter().all(|&cut| text[cut - 1] == b'\n'));
    }
    assert_eq!(cut_at_lines(b"", 5), [0]);
}

#[test]
fn random_and_truncated_bytes_never_panic() {
    let valid =
        b"# c\n1 2 0.5\r\n30,4,1e3\n\xc3\xa9 b 7\n%\n\n18446744073709551616\t0 1\n".repeat(2);
    let alphabet = b"0123456789 \t,\r\n#%.-ea\0\xff\xc3\xa9";
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut good = 0;
    for round in 0..20_000 {
        let text: Vec<u8> = match round % 3 {
            0 => valid[..random(valid.len())].to_vec(),
            1 => (0..random(40)).map(|_| alphabet[random(alphabet.len())]).collect(),
            _ => {
                let mut text = valid.clone();
                let at = random(text.len());
                text[at] = random(256) as u8;
                text
            }
        };
        for weighted in [false, true] {
            let lines = text.split(|&b| b == b'\n').count();
            if let Ok(piece) = parsed(&text, weighted) {
                assert!(piece.len() <= lines);
                let weights = piece.narrow.weights.len() + piece.wide_weights.len();
                assert_eq!(weights, if weighted { piece.len() } else { 0 });
                // Integers are names as well.
                assert_eq!(parse_names(&text, weighted).unwrap().edges.len(), piece.len());
                good += 1;
            }
            if let Err(Stop::Malformed(offset, _)) = parse_names(&text, weighted) {
                assert!(offset < text.len());
            }
        }
    }
    assert!(good > 1000, "the generator hardly makes valid text: {good}");
}
