//! Debian package metadata → an edge list, `package<TAB>dependency`, for `rankwise pagerank`.
//!
//! ```text
//! apt-cache dumpavail | cargo run --release --example package_graph > packages.txt
//! cargo run --release --example package_graph -- Packages > packages.txt
//! ```
//!
//! An edge goes from a package to each package that could satisfy one of its dependencies:
//! - `Depends` and `Pre-Depends` count; `Recommends` and weaker fields do not.
//! - All alternatives of `a | b` count, since the metadata does not say which one is installed.
//! - Version restrictions `(>= 1)`, qualifiers `:any`, and `[amd64]` or `<!nocheck>` are ignored.
//! - A name that is a package means that package alone. Any other name is virtual: an edge to
//!   every package whose `Provides` lists it. A name that nobody provides gives no edge.
//! - A package listed several times counts once, by its highest version.
//! - Each edge is written once, and never from a package to itself.
//!
//! Packages without an edge in or out are not in an edge list, so not in the graph; they would
//! all get the same, lowest rank, and leaving them out scales every other rank by one factor.
//!
//! The rule gives, for bookworm's `main` (amd64): 63,436 packages, of which 59,453 have edges;
//! 275,492 edges; 3,605 dangling vertices (7,588 with the packages that have no edge at all);
//! highest in-degree 21,809 (`libc6`).
//!
//! Cost: one pass over the text, holding only names: 55 MB of memory and a second for 50 MB.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::process::ExitCode;

/// What one stanza says about dependencies.
#[derive(Default, Debug, PartialEq)]
struct Package {
    name: String,
    version: String,
    depends: Vec<String>,
    provides: Vec<String>,
}

/// The edges by position in the list of packages, sorted within each source.
#[derive(Debug, PartialEq)]
struct Graph {
    edges: Vec<(usize, usize)>,
    /// Edges before repeated ones were dropped.
    mentions: usize,
    /// Packages with at least one edge.
    vertices: usize,
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        None | Some("-") => convert("standard input", io::stdin().lock()),
        Some(path) => match File::open(path) {
            Ok(file) => convert(path, BufReader::with_capacity(1 << 20, file)),
            Err(e) => Err(format!("{path}: {e}")),
        },
    };
    if let Err(message) = result {
        // Nothing is left to report to if even standard error is closed.
        let _ = writeln!(io::stderr(), "package_graph: {message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// Reads `input`, called `name` in messages, and writes the edge list to standard output.
fn convert(name: &str, input: impl BufRead) -> Result<(), String> {
    let packages = read_packages(input).map_err(|e| format!("{name}: {e}"))?;
    if packages.is_empty() {
        return Err(format!("{name}: no package in it; expected stanzas with 'Package: NAME'"));
    }
    let graph = graph_of(&packages);
    write_edges(BufWriter::new(io::stdout().lock()), &packages, &graph)
        .map_err(|e| format!("standard output: {e}"))
}

/// All packages, each once by its highest version, in order of first mention.
fn read_packages(mut input: impl BufRead) -> Result<Vec<Package>, String> {
    let mut packages: Vec<Package> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut keep = |stanza: Package| {
        if stanza.name.is_empty() {
            return; // blank lines in a row, or a stanza about something else
        }
        match index.get(&stanza.name) {
            None => {
                index.insert(stanza.name.clone(), packages.len());
                packages.push(stanza);
            }
            Some(&i) if compare_versions(&stanza.version, &packages[i].version).is_gt() => {
                packages[i] = stanza;
            }
            Some(_) => {}
        }
    };
    let (mut stanza, mut field) = (Package::default(), String::new());
    let mut line = Vec::new();
    for number in 1usize.. {
        line.clear();
        let got = input.read_until(b'\n', &mut line).map_err(|e| format!("line {number}: {e}"))?;
        // Descriptions may hold any bytes; the fields used here are ASCII.
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            keep(std::mem::take(&mut stanza));
            field.clear();
            if got == 0 {
                break;
            }
        } else if text.starts_with([' ', '\t']) {
            add_field(&mut stanza, &field, text.trim_start()); // a folded line continues its field
        } else if let Some((key, value)) = text.split_once(':') {
            field = key.to_ascii_lowercase();
            add_field(&mut stanza, &field, value.trim_start());
        } else if !text.starts_with('#') {
            return Err(format!("line {number}: expected 'Field: value' or a folded line"));
        }
    }
    Ok(packages)
}

/// Takes what matters of `value` into the stanza; `field` is in lower case.
fn add_field(stanza: &mut Package, field: &str, value: &str) {
    match field {
        "package" => stanza.name = value.to_string(),
        "version" => stanza.version = value.to_string(),
        "depends" | "pre-depends" => stanza.depends.extend(names(value).map(String::from)),
        "provides" => stanza.provides.extend(names(value).map(String::from)),
        _ => {}
    }
}

/// The bare names in a relation field such as `a:any (>= 1) | b [amd64], c`.
fn names(field: &str) -> impl Iterator<Item = &str> {
    field
        .split([',', '|'])
        .map(|relation| relation.trim_start())
        .map(|relation| {
            let is_end = |c: char| c.is_whitespace() || matches!(c, ':' | '(' | '[' | '<');
            relation.split(is_end).next().unwrap_or("")
        })
        .filter(|name| !name.is_empty())
}

/// The edges between `packages` by the rule in the module comment.
fn graph_of(packages: &[Package]) -> Graph {
    let index: HashMap<&str, usize> =
        packages.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, package) in packages.iter().enumerate() {
        for name in &package.provides {
            let list = providers.entry(name).or_default();
            if list.last() != Some(&i) {
                list.push(i); // a name may be provided in several versions
            }
        }
    }
    let (mut edges, mut mentions) = (Vec::new(), 0);
    let mut touched = vec![false; packages.len()];
    for (source, package) in packages.iter().enumerate() {
        let mut targets: Vec<usize> = Vec::new();
        for name in &package.depends {
            match index.get(name.as_str()) {
                Some(&target) => targets.push(target),
                None => targets.extend(providers.get(name.as_str()).into_iter().flatten()),
            }
        }
        targets.retain(|&target| target != source);
        mentions += targets.len();
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            (touched[source], touched[target]) = (true, true);
            edges.push((source, target));
        }
    }
    Graph { edges, mentions, vertices: touched.iter().filter(|&&t| t).count() }
}

fn write_edges(mut out: impl Write, packages: &[Package], graph: &Graph) -> io::Result<()> {
    writeln!(out, "# package\tdependency")?;
    writeln!(
        out,
        "# {} packages, {} of them with edges; {} edges ({} with repeated ones)",
        packages.len(),
        graph.vertices,
        graph.edges.len(),
        graph.mentions
    )?;
    for &(source, target) in &graph.edges {
        writeln!(out, "{}\t{}", packages[source].name, packages[target].name)?;
    }
    out.flush()
}

/// Debian's order of versions, `[epoch:]upstream[-revision]` (deb-version(7)).
fn compare_versions(a: &str, b: &str) -> Ordering {
    fn parts(version: &str) -> (u64, &str, &str) {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| compare_part(a.1, b.1)).then_with(|| compare_part(a.2, b.2))
}

/// Alternating runs of text and digits; digits compare as numbers.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    /// `~` sorts before the end of the text, letters before everything else.
    fn order(c: Option<char>) -> i64 {
        match c {
            Some('~') => -1,
            Some(c) if c.is_ascii_digit() => 0,
            None => 0,
            Some(c) if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
            Some(c) => i64::from(u32::from(c)) + 0x20_0000,
        }
    }
    fn cut(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
        text.split_at(text.find(at).unwrap_or(text.len()))
    }
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = cut(a, |c| c.is_ascii_digit());
        let (text_b, rest_b) = cut(b, |c| c.is_ascii_digit());
        let (mut chars_a, mut chars_b) = (text_a.chars(), text_b.chars());
        for _ in 0..text_a.len().max(text_b.len()) {
            let by_text = order(chars_a.next()).cmp(&order(chars_b.next()));
            if by_text.is_ne() {
                return by_text;
            }
        }
        let (digits_a, next_a) = cut(rest_a, |c| !c.is_ascii_digit());
        let (digits_b, next_b) = cut(rest_b, |c| !c.is_ascii_digit());
        let (digits_a, digits_b) =
            (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
        // Longer numbers are larger; equally long ones compare as text. No overflow.
        let by_number = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
        if by_number.is_ne() {
            return by_number;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: &str = "Package: app\nVersion: 1\nPre-Depends: dpkg (>= 1.15)\n\
        Depends: libc6:any (>= 2.34), mta | exim,\n shell [amd64], gone <!nocheck>, libc6\n\
        Description: an app\n with a folded\n description: that looks like a field\n\n\n\
        Package: libc6\nVersion: 2.36-9\nDepends: libgcc\n\n\
        Package: exim\nVersion: 4\nprovides: mta, mta (= 4)\nDepends: mta\n\n\
        Package: postfix\nVersion: 3\nProvides: mta (= 3), libc6\n\n\
        Package: libc6\nVersion: 2.36-10\nDepends: shell\n\n\
        Package: libc6\nVersion: 2.9\nDepends: postfix\n\n\
        Package: shell\nVersion: 5\n\nPackage: dpkg\nVersion: 1\n\nPackage: alone\nVersion: 1";

    fn edge_list(text: &str) -> String {
        let packages = read_packages(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        write_edges(&mut out, &packages, &graph_of(&packages)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn edges_follow_the_rule() {
        // mta: both providers, and exim a second time by its own name; `gone` gives nothing;
        // `libc6` is real, so postfix, which provides it, is no target; exim needs an mta other
        // than itself; the highest version of libc6 counts.
        assert_eq!(
            edge_list(LISTS),
            "# package\tdependency\n# 7 packages, 6 of them with edges; 7 edges (9 with repeated \
             ones)\napp\tlibc6\napp\texim\napp\tpostfix\napp\tshell\napp\tdpkg\nlibc6\tshell\n\
             exim\tpostfix\n"
        );
    }

    #[test]
    fn windows_line_ends_and_a_missing_last_newline_change_nothing() {
        assert_eq!(edge_list(&LISTS.replace('\n', "\r\n")), edge_list(LISTS));
        assert_eq!(edge_list(&format!("{LISTS}\n\n\n")), edge_list(LISTS));
    }

    #[test]
    fn names_lose_versions_architectures_and_profiles() {
        let field = "a (>= 1:2.0~rc1), b:any|c(= 2) , d [!i386] <cross>,, libstdc++6 | ";
        assert_eq!(names(field).collect::<Vec<_>>(), ["a", "b", "c", "d", "libstdc++6"]);
        assert_eq!(names(" ").count(), 0);
    }

    #[test]
    fn a_line_that_is_no_field_is_named() {
        let error = read_packages("Package: a\nnonsense\n".as_bytes()).unwrap_err();
        assert_eq!(error, "line 2: expected 'Field: value' or a folded line");
    }

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        let rising = [
            "0~",
            "",
            "0",
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0",
            "1.0-1",
            "1.0a",
            "1.0a1",
            "1.0+b1",
            "1.2",
            "1.10",
            "1.10-0.1",
            "1.10-1~deb12u1",
            "1.10-1",
            "1.10-1+b2",
            "1.10-1+b10",
            "010.5",
            "1:0.1",
            "2:0~beta",
        ];
        for (i, a) in rising.iter().enumerate() {
            for (j, b) in rising.iter().enumerate() {
                // "" and "0" are the same number; everything else differs.
                let wanted =
                    if i + j == 3 && i.abs_diff(j) == 1 { Ordering::Equal } else { i.cmp(&j) };
                assert_eq!(compare_versions(a, b), wanted, "{a:?} against {b:?}");
            }
        }
    }
}
