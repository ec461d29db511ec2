//! A scanner for Rust source that knows just enough for `tidy.rs`: what is code and what is a
//! comment or a string, whole words, and the modules named under `crate::`. Not a parser.
//!
//! Cost: a few passes over the text; the whole repository takes well under a second.
#![allow(unreachable_pub)] // a module of a test binary

/// `text` with comments, strings and characters blanked; lines keep their numbers.
pub fn code_of(text: &str) -> String {
    let (mut code, mut rest, mut depth) = (String::new(), text, 0);
    while let Some(c) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let hashes = rest[c.len_utf8()..].chars().take_while(|&c| c == '#').count();
        let skip = if depth > 0 || rest.starts_with("/*") {
            let (open, close) = (rest.starts_with("/*"), rest.starts_with("*/"));
            depth = depth + usize::from(open) - usize::from(close);
            if open || close { 2 } else { c.len_utf8() }
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == 'r'
            && (!after_word || code.ends_with('b'))
            && rest[1 + hashes..].starts_with('"')
        {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
        } else if c == '"' || (c == '\'' && is_char_literal(rest)) {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|&(_, d)| {
                let ends = d == c && !escaped;
                escaped = d == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else {
            0
        };
        let (taken, left) = rest.split_at(if skip == 0 { c.len_utf8() } else { skip });
        let blank = |c: char| if skip == 0 || c == '\n' { c } else { ' ' };
        code.extend(taken.chars().map(blank));
        rest = left;
    }
    code
}

/// Tells `'x'` and `'\n'` from a lifetime.
fn is_char_literal(rest: &str) -> bool {
    rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')
}

/// Byte positions of `word` in `code` where it is no part of a longer name.
pub fn find_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    let ends_open = !word.ends_with(inner); // `todo!` may be followed by anything
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        (!code[..at].ends_with(inner) || !word.starts_with(inner))
            && (ends_open || !code[at + word.len()..].starts_with(inner))
    })
}

/// (module, position) of everything that `code` names directly under `crate::`.
pub fn crate_uses(code: &str) -> Vec<(&str, usize)> {
    let ident = |at: usize| {
        let end = code[at..].find(|c: char| !c.is_alphanumeric() && c != '_');
        &code[at..end.map_or(code.len(), |end| at + end)]
    };
    let mut uses = Vec::new();
    for at in find_word(code, "crate::").map(|at| at + "crate::".len()) {
        if !code[at..].starts_with('{') {
            uses.push((ident(at), at));
            continue;
        }
        let (mut depth, mut starts) = (0, true); // `crate::{a, b::{c, d}}` uses a and b
        for (i, c) in code[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => starts = true,
                c if c.is_whitespace() => {}
                _ if starts && depth == 1 => {
                    uses.push((ident(at + i), at + i));
                    starts = false;
                }
                _ => starts = false,
            }
            if depth == 0 {
                break;
            }
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blank_and_lines_stay() {
        let cases = [
            ("a // b\nc", "a\nc"),
            ("a /* b /* c */ d\n */ e", "a\ne"),
            ("f(\"un\\\"safe\") g", "f( ) g"),
            ("r\"\\\" x br#\"a\"b\"# y", "x b y"),
            ("'\"' x '\\'' y <'a> 'é' z", "x y <'a> z"),
            ("r#type /* é", "r#type"),
            ("\"open", ""),
        ];
        for (text, words) in cases {
            let code = code_of(text);
            assert_eq!(code.chars().count(), text.chars().count(), "{text}");
            let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let found: Vec<String> = code.lines().map(squeeze).collect();
            assert_eq!(found.join("\n"), words, "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        let at = |code, word| find_word(code, word).collect::<Vec<_>>();
        assert_eq!(at("unsafe_code unsafe{} not_unsafe", "unsafe"), [12]);
        assert_eq!(at("eprintln!() println!(x)", "println!"), [12]);
        assert_eq!(at("pub(crate) crate::x $crate::y", "crate::"), [11, 21]);
    }

    #[test]
    fn uses_are_found_in_paths_and_groups() {
        let code = "use crate::plan::x; crate::error::E { crate::{\n a, b::{c, d}, e }; } crate::f";
        let names: Vec<_> = crate_uses(code).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["plan", "error", "a", "b", "e", "f"]);
    }
}
