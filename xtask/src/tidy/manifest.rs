//! A member's manifest: versions and lints stand once, in the workspace's manifest.

use super::Finding;

/// Where the root of a workspace has its versions. A package that is excluded from ours is such a root.
const OWN_VERSIONS: &str = "workspace.dependencies";

/// Checks the `Cargo.toml` of a member, line by line.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut lints = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = header;
            if names_one_dependency(section) {
                findings.push(Finding::at(path, index, "write a dependency on one line, in its table"));
            }
        } else if section == "lints" && line == "workspace = true" {
            lints = true;
        } else if section.ends_with("dependencies") && section != OWN_VERSIONS && is_entry(line) && !is_inherited(line)
        {
            findings.push(Finding::at(
                path,
                index,
                "take the dependency from the workspace: `workspace = true`",
            ));
        }
    }
    if !lints {
        findings.push(Finding::whole(path, "has no `[lints] workspace = true`"));
    }
    findings
}

/// `[dependencies.foo]`, also under a target.
fn names_one_dependency(section: &str) -> bool {
    section.contains("dependencies.")
}

fn is_entry(line: &str) -> bool {
    !line.starts_with('#') && line.contains('=')
}

/// Either the workspace's entry, or the crate itself for its own tests; never a version.
fn is_inherited(line: &str) -> bool {
    let origin = line.contains("workspace = true") || line.contains(r#"path = ".""#);
    origin && !line.contains("version =")
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn inherited_dependencies_pass() {
        let good = "[lints]\nworkspace = true\n\n[dependencies]\n# A word.\nbytes.workspace = true\n\
                    url = { workspace = true, optional = true }\n\n[dev-dependencies]\n\
                    me = { path = \".\", features = [\"testing\"] }\n";
        assert_eq!(check("a/Cargo.toml", good), []);
    }

    #[test]
    fn a_workspace_of_its_own_has_versions() {
        let good = "[workspace]\n\n[lints]\nworkspace = true\n\n[dependencies]\nbytes.workspace = true\n\n\
                    [workspace.dependencies]\nbytes = \"1.10\"\n";
        assert_eq!(check("a/benches/Cargo.toml", good), []);
    }

    #[test]
    fn versions_tables_and_missing_lints_are_found() {
        let bad = "[dependencies]\nbytes = \"1.10\"\nme = { path = \".\", version = \"0.1\" }\n\n[dependencies.url]\n\
                   version = \"2\"\n";
        let lines: Vec<_> = check("a/Cargo.toml", bad).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 3, 5, 0]);
    }
}
