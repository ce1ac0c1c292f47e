//! The top level: a closed list, so that a stranger sees the whole project at once.

use super::Finding;

const KNOWN: [&str; 13] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "mx-crypto-store",
    "mx-e2ee",
    "mx-olm-orchestrator",
    "mx-transport",
    "tests",
    "xtask",
];

/// Entries of the root that are neither known, nor dot-files, nor `target`.
pub(super) fn check(names: &[String]) -> Vec<Finding> {
    let stray = |name: &&String| !(name.starts_with('.') || *name == "target" || KNOWN.contains(&name.as_str()));
    names
        .iter()
        .filter(stray)
        .map(|name| Finding::whole(name, "does not belong to the top level"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn known_entries_pass_and_others_do_not() {
        assert!(check(&["Cargo.toml".to_owned(), ".ci".to_owned(), "target".to_owned()]).is_empty());
        assert_eq!(check(&["scripts".to_owned()]).len(), 1);
    }
}
