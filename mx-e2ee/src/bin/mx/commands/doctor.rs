//! `mx doctor`.

use anyhow::Result;
use mx_e2ee::{Check, Checkup, Facts, Finding, Findings, Looked, Severity};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, Doctor},
    output::{Output, clean},
    profile,
};

/// Something is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{errors} error(s), {warnings} warning(s)")]
pub(crate) struct Unwell {
    errors: usize,
    warnings: usize,
}

impl Unwell {
    /// A stable name, which has an exit code.
    pub(crate) const fn code(&self) -> &'static str {
        if self.errors > 0 {
            "doctor_errors"
        } else {
            "doctor_warnings"
        }
    }
}

pub(crate) async fn run(cli: &Cli, options: &Doctor, output: Output) -> Result<()> {
    let mut checkup = if options.fix {
        Checkup::fixing()
    } else {
        Checkup::default()
    };
    checkup.rooms = !options.no_rooms;
    let builder = profile::builder_for_looking(cli)?;
    let progress = output.progress("looking at everything");
    let found = Box::pin(builder.doctor(checkup)).await?;
    progress.finish_and_clear();
    let mut json = json!(found);
    if let Value::Object(object) = &mut json {
        object.insert("worst".to_owned(), json!(found.worst()));
    }
    output.show(&json, &described(&found, options.all))?;
    let number = |severity| {
        let findings = found.findings.iter();
        findings
            .filter(|finding| !finding.mended && finding.severity == severity)
            .count()
    };
    let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
    if errors + warnings == 0 {
        return Ok(());
    }
    Err(Unwell { errors, warnings }.into())
}

fn described(found: &Findings, all: bool) -> String {
    let mut blocks: Vec<String> = found
        .findings
        .iter()
        .filter(|finding| all || finding.severity > Severity::Note || finding.mended)
        .map(block)
        .collect();
    let notes = found
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Note);
    let hidden = notes.filter(|finding| !finding.mended).count();
    if all {
        blocks.insert(0, figures(&found.facts));
    } else if hidden > 0 {
        blocks.push(format!("{hidden} note(s): mx doctor --all shows them"));
    }
    let well: Vec<&str> = looked_at(found);
    if found.worst().is_none_or(|worst| worst == Severity::Note) {
        blocks.push("all is well, as far as it was looked at".to_owned());
    }
    blocks.push(format!("looked at: {}", well.join(", ")));
    for (check, looked) in &found.checks {
        if let Looked::No { because } = looked {
            blocks.push(format!("not looked at: {}, since {}", name(*check), clean(because)));
        }
    }
    blocks.join("\n")
}

fn looked_at(found: &Findings) -> Vec<&'static str> {
    let checks = found.checks.iter();
    checks
        .filter(|(_, looked)| **looked == Looked::Yes)
        .map(|(check, _)| name(*check))
        .collect()
}

fn block(finding: &Finding) -> String {
    let state = match (finding.mended, finding.severity) {
        (true, _) => "mended",
        (_, Severity::Error) => "ERROR",
        (_, Severity::Warning) => "WARNING",
        _ => "note",
    };
    let about = finding.subject.as_deref().map(|subject| format!(" {}", clean(subject)));
    let mut lines = vec![format!(
        "{state} [{}]{}: {}",
        finding.code.code(),
        about.unwrap_or_default(),
        finding.meaning
    )];
    lines.extend(finding.details.iter().map(|detail| format!("    {}", clean(detail))));
    if let Some(why) = &finding.not_mended {
        lines.push(format!("    could not be mended: {}", clean(why)));
    }
    if !finding.mended {
        let fix = if finding.fixable { " (or mx doctor --fix)" } else { "" };
        let fix = if finding.mend.contains("--fix") { "" } else { fix };
        lines.push(format!("  → {}{fix}", finding.mend));
    }
    lines.join("\n")
}

fn figures(facts: &Facts) -> String {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let number = |value: Option<u64>| or_unknown(value.map(|value| value.to_string()));
    let bytes = |value: Option<u64>| or_unknown(value.map(of_bytes));
    let last = facts.versions.last().map(|version| clean(version));
    [
        format!("free space       {}", bytes(facts.free_bytes)),
        format!(
            "store            {}, {} record(s), schema {}",
            bytes(facts.store_bytes),
            number(facts.store_records),
            number(facts.store_schema.map(u64::from))
        ),
        format!("specification    up to {}", or_unknown(last)),
        format!(
            "clock            {}",
            or_unknown(
                facts
                    .clock_ahead_ms
                    .map(|ahead| format!("{:+.0} s", ahead as f64 / 1000.0))
            )
        ),
        format!("fingerprint      {}", or_unknown(facts.fingerprint.clone())),
        format!(
            "one-time keys    {} on the homeserver, {} here; {}",
            number(facts.one_time_keys),
            number(facts.one_time_keys_here),
            match facts.fallback_key {
                Some(true) => "a fallback key",
                Some(false) => "no unused fallback key",
                None => "a fallback key is not told of",
            }
        ),
        format!(
            "room keys        {} here, {} in the backup",
            number(facts.room_keys.and_then(|keys| keys.try_into().ok())),
            number(facts.backed_up.and_then(|keys| keys.try_into().ok()))
        ),
        format!("undecryptable    {} event(s)", number(facts.undecryptable)),
        format!(
            "encrypted rooms  {}",
            number(facts.encrypted_rooms.and_then(|rooms| rooms.try_into().ok()))
        ),
    ]
    .join("\n")
}

fn of_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = bytes.div_ceil(1024);
    let mut unit = 0;
    while shown >= 10_240 && unit + 1 < UNITS.len() {
        shown = shown.div_ceil(1024);
        unit += 1;
    }
    format!("{shown} {}", UNITS.get(unit).unwrap_or(&"?"))
}

const fn name(check: Check) -> &'static str {
    match check {
        Check::Profile => "profile",
        Check::Login => "login",
        Check::Store => "store",
        Check::Server => "homeserver",
        Check::Clock => "clock",
        Check::Token => "token",
        Check::Device => "device",
        Check::Keys => "keys",
        Check::Identity => "identity",
        Check::Backup => "backup",
        Check::Undecryptable => "undecryptable events",
        Check::Health => "health",
        Check::Rooms => "rooms",
        _ => "?",
    }
}
