//! Rust files: a sentence at the top, a length, a name, and nothing that panics outside tests.

use super::Finding;

const MAX_LINES: usize = 400;
const VAGUE: [&str; 6] = ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "types.rs"];
// Written in two pieces, so that this file passes its own rules.
const LEFTOVERS: [&str; 3] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
];
/// What panics, and the lint that a file names in an `expect` attribute to be exempt.
const PANICS: [(&str, &str); 3] = [
    (concat!(".unwrap", "()"), "clippy::unwrap_used"),
    (concat!(".expect", "("), "clippy::expect_used"),
    (concat!("panic", "!("), "clippy::panic"),
];

/// Checks a tracked `*.rs` file.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = shape(path, text);
    let lines: Vec<&str> = text.lines().collect();
    let tests_start = tests_start(&lines);
    for (index, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
    {
        let test = index >= tests_start || is_test(path);
        findings.extend(self::line(path, index, line, !test, text));
        if starts_allow(line) && !attribute(&lines, index).contains("reason =") {
            findings.push(Finding::at(
                path,
                index,
                "give a reason, or better: `#[expect(.., reason = \"..\")]`",
            ));
        }
    }
    findings
}

/// The file as a whole.
fn shape(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A README as a crate's documentation is such a sentence too.
    if !text.starts_with("//!") && !text.starts_with("#![doc = include_str!(") {
        findings.push(Finding::at(
            path,
            0,
            "starts with no `//!` sentence that names the file's job",
        ));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if VAGUE.contains(&name) {
        findings.push(Finding::whole(
            path,
            "has a name that says no job (`foo.rs` and `foo/`, never `mod.rs`)",
        ));
    }
    let length = tests_start(&text.lines().collect::<Vec<_>>());
    if length >= MAX_LINES {
        findings.push(Finding::whole(
            path,
            format!("has {length} lines before its tests; split it by job"),
        ));
    }
    findings
}

/// Findings of one line that is no comment.
fn line(path: &str, index: usize, line: &str, panics_count: bool, text: &str) -> Vec<Finding> {
    let leftover = LEFTOVERS.into_iter().find(|word| line.contains(word));
    let leftover = leftover.map(|word| format!("leaves a `{word}..)`"));
    let counts = |(word, lint): &(&str, &str)| panics_count && panics(line, word) && !expects(text, lint);
    let panics = PANICS.into_iter().filter(counts);
    let panics = panics.map(|(word, _)| format!("panics outside tests (`{word}`)"));
    let messages = leftover.into_iter().chain(panics);
    messages.map(|message| Finding::at(path, index, message)).collect()
}

/// Whether a line has the word; of the methods named `expect` only the one that takes a message alone.
fn panics(line: &str, word: &str) -> bool {
    let takes_message = |rest: &str| {
        let message = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        message.is_some_and(|(_, after)| after.starts_with(')'))
    };
    let mut places = line.match_indices(word);
    places.any(|(start, word)| !word.starts_with(".e") || line.get(start + word.len()..).is_some_and(takes_message))
}

fn is_test(path: &str) -> bool {
    let directory = |name: &str| path.starts_with(&format!("{name}/")) || path.contains(&format!("/{name}/"));
    path.ends_with("/tests.rs") || directory("tests") || directory("examples")
}

/// Where the module of tests begins; a `mod tests;` at the top ends nothing.
fn tests_start(lines: &[&str]) -> usize {
    let test_only = |line: &str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,");
    let begins = |pair: &[&str]| matches!(pair, [attribute, item] if test_only(attribute) && item.ends_with('{'));
    lines.windows(2).position(begins).unwrap_or(lines.len())
}

/// Whether an inner `expect` attribute of the file names the lint.
fn expects(text: &str, lint: &str) -> bool {
    let attributes = text
        .split("#![expect(")
        .skip(1)
        .filter_map(|rest| rest.split(")]").next());
    attributes
        .flat_map(|attribute| attribute.split([',', '\n']))
        .any(|part| part.trim() == lint)
}

fn starts_allow(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("#[allow(") || line.starts_with("#![allow(")
}

/// The attribute that starts at a line, to its closing bracket.
fn attribute(lines: &[&str], start: usize) -> String {
    let mut text = String::new();
    for line in lines.iter().skip(start) {
        text.push_str(line);
        if line.contains(")]") {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests;
