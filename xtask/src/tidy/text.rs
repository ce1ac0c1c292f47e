//! Every tracked text: no path of one machine, no other registry than crates.io.

use super::Finding;

/// This directory must name what it forbids.
const RULES: &str = "xtask/src/tidy";
const MACHINE: [&str; 3] = ["/home/", "/root/", "/work/"];
const CRATES_IO: [&str; 2] = [
    "https://github.com/rust-lang/crates.io-index",
    "https://index.crates.io/",
];
/// What stands before the address of an index, in lock files and configurations.
const INDEXES: [&str; 2] = ["registry+", "sparse+"];
/// What makes cargo or pip ask somebody else.
const REDIRECTS: [&str; 5] = [
    "[source.",
    "[registries",
    "replace-with",
    "--index-url",
    "--extra-index-url",
];

/// Checks any tracked text.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    if path.starts_with(RULES) {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .flat_map(|(index, line)| self::line(path, index, line))
        .collect()
}

fn line(path: &str, index: usize, line: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(prefix) = MACHINE.into_iter().find(|prefix| names_machine_path(line, prefix)) {
        findings.push(Finding::at(
            path,
            index,
            format!("names a path of one machine (`{prefix}`)"),
        ));
    }
    if is_other_index(line) || REDIRECTS.into_iter().any(|word| line.contains(word)) {
        findings.push(Finding::at(path, index, "names another registry than crates.io"));
    }
    findings
}

/// An absolute path: `/home/` not as a part of a longer path or of an address.
fn names_machine_path(line: &str, prefix: &str) -> bool {
    let inside_path = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "_-.~/}>$*".contains(c));
    line.match_indices(prefix)
        .any(|(start, _)| line.get(..start).is_some_and(|before| !inside_path(before)))
}

fn is_other_index(line: &str) -> bool {
    let foreign = |address: &str| !CRATES_IO.into_iter().any(|known| address.starts_with(known));
    let addresses = |word| {
        line.match_indices(word)
            .filter_map(move |(start, word)| line.get(start + word.len()..))
    };
    INDEXES
        .into_iter()
        .flat_map(addresses)
        .any(|address| address.starts_with("http") && foreign(address))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn neutral_text_passes() {
        let good = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
                    see https://example.org/home/page and GET /_matrix/client/work/1\n";
        assert_eq!(check("Cargo.lock", good), []);
    }

    #[test]
    fn machine_paths_and_registries_are_found() {
        let bad = "open \"/home/me/x\"\n/root/.cargo\nregistry+https://example.org/index\n[source.crates-io]\n";
        let lines: Vec<_> = check("a.md", bad).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2, 3, 4]);
        assert_eq!(check("xtask/src/tidy/text.rs", bad), []);
    }
}
