//! What the suite found: which clauses a transport keeps, and which were not run, and why.

use std::fmt;

/// Which clauses passed and which were skipped, by name.
#[derive(Clone, Debug, Default)]
pub struct Report {
    passed: Vec<&'static str>,
    skipped: Vec<Skipped>,
}

/// Clauses that were not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Which.
    pub clause: &'static str,
    /// Why they were not.
    pub why: &'static str,
}

impl Report {
    pub(super) fn pass(&mut self, clause: &'static str) {
        self.passed.push(clause);
    }

    pub(super) fn skip(&mut self, clause: &'static str, why: &'static str) {
        self.skipped.push(Skipped { clause, why });
    }

    /// The clauses that were run, and are kept.
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
