//! A good and a bad sample for each rule about Rust files.

use super::{LEFTOVERS, PANICS, check};

const NONE: [usize; 0] = [];

fn lines(path: &str, text: &str) -> Vec<usize> {
    check(path, text).iter().map(|finding| finding.line).collect()
}

#[test]
fn a_file_names_its_job_first() {
    assert_eq!(lines("a/src/b.rs", "//! A job.\n"), NONE);
    assert_eq!(
        lines("a/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n"),
        NONE
    );
    assert_eq!(lines("a/src/b.rs", "use std::fmt;\n"), [1]);
}

#[test]
fn a_name_says_a_job() {
    assert_eq!(lines("a/src/retry.rs", "//! A job.\n"), NONE);
    assert_eq!(lines("a/src/utils.rs", "//! A job.\n"), [0]);
    assert_eq!(lines("a/src/b/mod.rs", "//! A job.\n"), [0]);
}

#[test]
fn length_counts_before_the_tests() {
    let body = "fn f() {}\n".repeat(398);
    let tests = "#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(lines("a/src/b.rs", &format!("//! A job.\n{body}{tests}{body}")), NONE);
    assert_eq!(
        lines("a/src/b.rs", &format!("//! A job.\n{body}fn g() {{}}\n{tests}")),
        [0]
    );
    let declared = "#[cfg(test)]\nmod tests;\n";
    assert_eq!(lines("a/src/b.rs", &format!("//! A job.\n{declared}{body}")), [0]);
}

#[test]
fn leftovers_are_found_in_tests_too() {
    for word in LEFTOVERS {
        assert_eq!(lines("a/src/b.rs", &format!("//! A job.\n// {word})\n")), NONE);
        assert_eq!(lines("a/tests/b.rs", &format!("//! A job.\n{word})\n")), [2]);
    }
}

#[test]
fn panics_belong_to_tests() {
    for (word, lint) in PANICS {
        // As a call of `expect` ends; to the others it is a string that follows.
        let word = format!("{word}\"m\")");
        let text = format!("//! A job.\nlet x = {word}\n");
        assert_eq!(lines("a/src/b.rs", &text), [2]);
        for path in [
            "a/tests/b.rs",
            "tests/homeserver/b.rs",
            "a/examples/b.rs",
            "a/src/b/tests.rs",
        ] {
            assert_eq!(lines(path, &text), NONE);
        }
        assert_eq!(
            lines(
                "a/src/b.rs",
                &format!("//! A job.\n#[cfg(test)]\nmod tests {{\n{word}\n}}\n")
            ),
            NONE
        );
        let one = format!("//! A job.\n#![expect({lint}, reason = \"r\")]\n{word}\n");
        assert_eq!(lines("a/src/b.rs", &one), NONE);
        let other = format!("//! A job.\n#![expect(clippy::print_stdout, reason = \"r\")]\n{word}\n");
        assert_eq!(lines("a/src/b.rs", &other), [3]);
    }
}

#[test]
fn an_allow_gives_its_reason() {
    assert_eq!(
        lines(
            "a/src/b.rs",
            "//! A job.\n#[allow(\n    dead_code,\n    reason = \"r\"\n)]\n"
        ),
        NONE
    );
    assert_eq!(lines("a/src/b.rs", "//! A job.\n#[allow(dead_code)]\n"), [2]);
}

#[test]
fn another_expect_is_no_panic() {
    let (expect, _) = PANICS[1];
    assert_eq!(
        lines("a/src/b.rs", &format!("//! A job.\nbatch{expect}\"row\", None)\n")),
        NONE
    );
    assert_eq!(
        lines("a/src/b.rs", &format!("//! A job.\noption{expect}\"message\")\n")),
        [2]
    );
}
