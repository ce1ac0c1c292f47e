//! `catalogue`: which rows of the catalogue of bad inputs, faults and attacks have a test.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::process;

/// Where the rows are.
const CATALOGUE: &str = "tests/catalogue.txt";
/// Where the tests may be: the members of the workspace.
const SOURCES: [&str; 5] = [
    "tests",
    "mx-crypto-store",
    "mx-transport",
    "mx-olm-orchestrator",
    "mx-e2ee",
];

/// Where the cells of `cargo xtask interop` are: what a row says about another client is one of them.
const CELLS: &str = "tests/examples/interop/cells";

/// Show which rows of the catalogue have no test.
///
/// A test belongs to the row whose id its name begins with: `kq_01_…` to KQ-01. Rows of priority P0 must have one, or a
/// reason why not in `tests/catalogue.txt`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only this family, such as KQ.
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// Fail when a P0 row of these families has no test.
    #[arg(long, value_name = "FAMILIES", value_delimiter = ',')]
    check: Vec<String>,
}

/// Fail when a P0 row of these families has no test.
pub(crate) fn check(families: &[&str]) -> anyhow::Result<()> {
    run(&Options {
        family: None,
        check: families.iter().map(|&family| family.to_owned()).collect(),
    })
}

/// A row of the catalogue.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    priority: String,
    words: String,
    /// Why it has no test.
    waived: Option<String>,
}

impl Row {
    /// A line is `ID PRIORITY TIER words`, and ` | waived: reason` where there will be no test.
    fn parse(line: &str) -> anyhow::Result<Self> {
        let (row, waived) = match line.split_once(" | waived: ") {
            Some((row, reason)) => (row, Some(reason.trim().to_owned())),
            None => (line, None),
        };
        let mut parts = row.split_whitespace();
        let (Some(id), Some(priority), Some(_tier)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("{CATALOGUE}: {line:?} is no row");
        };
        if !["P0", "P1", "P2"].contains(&priority) || waived.as_deref() == Some("") {
            bail!("{CATALOGUE}: {line:?} has no priority, or an empty reason");
        }
        Ok(Self {
            id: id.to_owned(),
            priority: priority.to_owned(),
            words: parts.collect::<Vec<_>>().join(" "),
            waived,
        })
    }

    /// The letters before the number: KQ of KQ-01, and K of K4.
    fn family(&self) -> &str {
        self.id
            .split(|c: char| c == '-' || c.is_ascii_digit())
            .next()
            .unwrap_or_default()
    }

    /// What the name of its test begins with.
    fn prefix(&self) -> String {
        format!("{}_", self.id.to_lowercase().replace('-', "_"))
    }

    fn is_tested(&self, tests: &BTreeSet<String>) -> bool {
        let prefix = self.prefix();
        tests
            .range(prefix.clone()..)
            .next()
            .is_some_and(|name| name.starts_with(&prefix))
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let text = fs::read_to_string(root.join(CATALOGUE)).with_context(|| format!("cannot read {CATALOGUE}"))?;
    let rows = rows(&text)?;
    let tests = tests(&root)?;
    let families: BTreeSet<&str> = rows.iter().map(Row::family).collect();
    for asked in options.check.iter().chain(&options.family) {
        if !families.contains(asked.as_str()) {
            bail!(
                "there is no family {asked:?}: one of {}",
                Vec::from_iter(families).join(", ")
            );
        }
    }
    let mut failed = Vec::new();
    for family in families {
        let shown = match &options.family {
            Some(only) => only == family,
            None => options.check.is_empty() || options.check.iter().any(|check| check == family),
        };
        if !shown {
            continue;
        }
        let missing = show(family, &rows, &tests);
        if missing > 0 && options.check.iter().any(|check| check == family) {
            failed.push(format!("{family} ({missing})"));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("P0 rows without a test: {}", failed.join(", "))
}

/// Show a family, and how many P0 rows have neither a test nor a reason.
fn show(family: &str, rows: &[Row], tests: &BTreeSet<String>) -> usize {
    let important: Vec<&Row> = rows
        .iter()
        .filter(|row| row.family() == family && row.priority == "P0")
        .collect();
    let tested = important.iter().filter(|row| row.is_tested(tests)).count();
    let waived: Vec<&&Row> = important
        .iter()
        .filter(|row| row.waived.is_some() && !row.is_tested(tests))
        .collect();
    println!(
        "{family}: {tested} of {} P0 rows have a test, {} waived",
        important.len(),
        waived.len()
    );
    for row in &waived {
        let reason = row.waived.as_deref().unwrap_or_default();
        println!("  {:<6} waived: {reason}", row.id);
    }
    let missing: Vec<&&Row> = important
        .iter()
        .filter(|row| row.waived.is_none() && !row.is_tested(tests))
        .collect();
    for row in &missing {
        println!("  {:<6} no test {}*: {}", row.id, row.prefix(), row.words);
    }
    missing.len()
}

fn rows(text: &str) -> anyhow::Result<Vec<Row>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<Row> = lines.map(Row::parse).collect::<anyhow::Result<_>>()?;
    let mut seen = BTreeSet::new();
    match rows.iter().find(|row| !seen.insert(row.id.as_str())) {
        Some(twice) => bail!("{CATALOGUE}: {} is there twice", twice.id),
        None => Ok(rows),
    }
}

/// The names of all tests.
fn tests(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut directories: Vec<PathBuf> = SOURCES.iter().map(|source| root.join(source)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path)?;
                names.extend(if path.starts_with(root.join(CELLS)) {
                    cells_of(&source)
                } else {
                    tests_of(&source)
                });
            }
        }
    }
    Ok(names)
}

/// The names of the functions that are marked as tests.
fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some(name) = function(line) {
            if marked {
                names.push(name.to_owned());
            }
            marked = false;
        }
    }
    names
}

/// The names of the functions that play with other clients.
fn cells_of(source: &str) -> Vec<String> {
    let lines = source.lines().filter_map(|line| line.strip_prefix("pub(super) "));
    lines.filter_map(function).map(str::to_owned).collect()
}

fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split('(').next()
}

#[cfg(test)]
mod tests {
    use super::{Row, cells_of, rows, tests_of};

    #[test]
    fn rows_are_read_and_broken_ones_are_found() {
        let good = "# a word\n\nKQ-01 P0 U  no signature\nCR-C1 P0 U  dropped | waived: too long\nK4 P1 U  killed\n";
        let read = rows(good).unwrap();
        let families: Vec<&str> = read.iter().map(Row::family).collect();
        let prefixes: Vec<String> = read.iter().map(Row::prefix).collect();
        assert_eq!(families, ["KQ", "CR", "K"]);
        assert_eq!(prefixes, ["kq_01_", "cr_c1_", "k4_"]);
        assert_eq!(read[1].waived.as_deref(), Some("too long"));
        assert_eq!(read[0].words, "no signature");
        for bad in [
            "KQ-01 P0",
            "KQ-01 P7 U x",
            "KQ-01 P0 U x | waived:  ",
            "A-1 P0 U x\nA-1 P0 U y",
        ] {
            assert!(rows(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_plays_with_other_clients_is_a_test_too() {
        let source = "pub(super) async fn ex_06_each_way(kind: Kind) {}\nasync fn ex_07_a_part_of_it() {}\n";
        assert_eq!(cells_of(source), ["ex_06_each_way"]);
    }

    #[test]
    fn only_marked_functions_are_tests_and_ids_do_not_run_together() {
        let source = "#[tokio::test(start_paused = true)]\nasync fn kq_10_a() {}\nfn kq_02_no_test() {}\n\
                      #[test]\n#[should_panic]\nfn kq_03_b() {\n    fn kq_04_inside() {}\n}\n";
        let tests = tests_of(source).into_iter().collect();
        let tested = |id: &str| Row::parse(&format!("{id} P0 U x")).unwrap().is_tested(&tests);
        assert_eq!(
            ["KQ-10", "KQ-1", "KQ-02", "KQ-03", "KQ-04"].map(tested),
            [true, false, false, true, false]
        );
    }
}
