//! The workspace's crates: which may name which, and what a published one says about itself.

use serde_json::Value;

use super::Finding;

/// The picture of DESIGN: a crate, and the crates of ours that it may name.
const ARROWS: [(&str, &[&str]); 6] = [
    ("mx-crypto-store", &[]),
    ("mx-transport", &[]),
    ("mx-olm-orchestrator", &["mx-crypto-store", "mx-transport"]),
    ("mx-e2ee", &["mx-crypto-store", "mx-transport", "mx-olm-orchestrator"]),
    ("mx-test-homeserver", &["mx-transport"]),
    ("xtask", &[]),
];

/// The crate whose tests are about the whole stack: its dev-dependencies may name every crate.
const WHOLE_STACK: &str = "mx-test-homeserver";

/// Checks the answer of `cargo metadata --no-deps`.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let packages = list(metadata, "packages");
    let ours: Vec<&str> = packages.iter().map(|package| string(package, "name")).collect();
    packages
        .iter()
        .flat_map(|package| arrows(package, &ours).into_iter().chain(description(package)))
        .collect()
}

fn arrows(package: &Value, ours: &[&str]) -> Vec<Finding> {
    let name = string(package, "name");
    let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
        return vec![Finding::whole(
            name,
            "is not in tidy's picture of the crates; add its arrows there",
        )];
    };
    let stray = |dependency: &&Value| {
        let target = string(dependency, "name");
        let whole_stack = name == WHOLE_STACK && string(dependency, "kind") == "dev";
        ours.contains(&target) && target != name && !whole_stack && !allowed.contains(&target)
    };
    let finding = |dependency: &Value| {
        let kind = match string(dependency, "kind") {
            "" => "normal",
            kind => kind,
        };
        Finding::whole(
            name,
            format!("may not depend on {} ({kind} dependency)", string(dependency, "name")),
        )
    };
    list(package, "dependencies")
        .iter()
        .filter(stray)
        .map(finding)
        .collect()
}

fn description(package: &Value) -> Vec<Finding> {
    // `publish = false` is an empty list of registries; no answer means any registry.
    if package
        .get("publish")
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty)
    {
        return Vec::new();
    }
    let missing = |field: &&str| string(package, field).is_empty() && list(package, field).is_empty();
    let finding = |field| Finding::whole(string(package, "name"), format!("is published and has no `{field}`"));
    ["description", "keywords", "license", "readme", "repository"]
        .into_iter()
        .filter(missing)
        .map(finding)
        .collect()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|(name, kind)| json!({ "name": name, "kind": kind }))
            .collect();
        json!({ "name": name, "publish": [], "dependencies": dependencies })
    }

    fn messages(packages: &[Value]) -> Vec<String> {
        check(&json!({ "packages": packages }))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn arrows_of_the_picture_pass() {
        let good = [
            package("mx-transport", &[("serde", None), ("mx-transport", Some("dev"))]),
            package("mx-e2ee", &[("mx-transport", None)]),
            package(
                "mx-test-homeserver",
                &[("mx-transport", None), ("mx-e2ee", Some("dev"))],
            ),
        ];
        assert_eq!(messages(&good), Vec::<String>::new());
    }

    #[test]
    fn other_arrows_are_found() {
        let bad = [
            package("mx-transport", &[("mx-e2ee", None)]),
            package("mx-e2ee", &[("mx-test-homeserver", Some("dev"))]),
            package("mx-test-homeserver", &[("mx-e2ee", None)]),
            package("mx-new", &[]),
        ];
        assert_eq!(
            messages(&bad),
            [
                "mx-transport: may not depend on mx-e2ee (normal dependency)",
                "mx-e2ee: may not depend on mx-test-homeserver (dev dependency)",
                "mx-test-homeserver: may not depend on mx-e2ee (normal dependency)",
                "mx-new: is not in tidy's picture of the crates; add its arrows there",
            ]
        );
    }

    #[test]
    fn a_published_crate_describes_itself() {
        let good = json!({
            "name": "mx-transport", "publish": null, "description": "d", "keywords": ["k"],
            "license": "Apache-2.0", "readme": "README.md", "repository": "https://example.org",
        });
        assert_eq!(messages(&[good]), Vec::<String>::new());
        let bad = json!({ "name": "mx-transport", "publish": null, "description": "d", "keywords": [] });
        assert_eq!(messages(&[bad]).len(), 4);
    }
}
