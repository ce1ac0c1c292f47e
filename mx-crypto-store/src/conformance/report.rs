//! What the suite found: which clauses an engine keeps, and which were not run, and why.

use std::fmt;

use crate::backend::Promises;

/// Which clauses passed and which were skipped, by name.
#[derive(Clone, Debug)]
pub struct Report {
    passed: Vec<&'static str>,
    skipped: Vec<Skipped>,
}

/// A clause that was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub clause: &'static str,
    /// Why it was not.
    pub why: &'static str,
}

impl Report {
    pub(super) fn new(promises: Promises) -> Self {
        let reason = |promised, elsewhere| {
            if promised {
                elsewhere
            } else {
                "the engine does not promise it"
            }
        };
        let skipped = vec![
            Skipped {
                clause: "survives_kill",
                why: reason(promises.survives_kill, "promised; run `conformance::killed::survives`"),
            },
            Skipped {
                clause: "survives_power_cut",
                why: reason(
                    promises.survives_power_cut,
                    "promised; no process can cut its own power: record what the engine writes and syncs",
                ),
            },
        ];
        Self {
            passed: Vec::new(),
            skipped,
        }
    }

    pub(super) fn pass(&mut self, clause: &'static str) {
        self.passed.push(clause);
    }

    /// The clauses that the engine keeps.
    #[must_use]
    pub fn passed(&self) -> &[&'static str] {
        &self.passed
    }

    /// The clauses that were not run.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for clause in &self.passed {
            writeln!(f, "passed   {clause}")?;
        }
        for Skipped { clause, why } in &self.skipped {
            writeln!(f, "skipped  {clause}: {why}")?;
        }
        Ok(())
    }
}
