//! This device: its store, its keys here and as others see them, its identity, its backup, and what it cannot read.

use std::collections::BTreeMap;

use mx_olm_orchestrator::{Health, KeyInspection, ShownDevice, UndecryptableReason};

use super::{
    code::FindingCode,
    finding::{Check, Finding, Findings},
};
use crate::{Client, Result};

/// Fewer one-time keys than this are few: the engine keeps fifty.
const FEW: u64 = 10;
/// So many events are looked at for why they cannot be read.
const MOST_LOOKED_AT: usize = 10_000;
/// What every device of an encrypted room speaks.
const ALGORITHMS: [&str; 2] = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"];

pub(super) async fn store(client: &Client, found: &mut Findings) {
    let store = client.orchestrator().store().sealed();
    match store.stats().await {
        Ok(stats) => {
            found.facts.store_bytes = stats.size_bytes;
            found.facts.store_schema = Some(stats.schema);
        }
        Err(error) => return found.failed(Check::Store, &error.into()),
    }
    let verified = match store.verify().await {
        Ok(verified) => verified,
        Err(error) => return found.failed(Check::Store, &error.into()),
    };
    found.looked(Check::Store);
    found.facts.store_records = Some(verified.records);
    if verified.is_whole() {
        return;
    }
    let mut finding =
        Finding::of(FindingCode::StoreDamaged).detail(format!("{} of {} records", verified.damaged, verified.records));
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for damage in &verified.first_damaged {
        *kinds
            .entry(format!("{}: {:?}", damage.records, damage.kind))
            .or_default() += 1;
    }
    for (kind, number) in kinds {
        finding = finding.detail(format!("{kind} ({number})"));
    }
    found.push(finding);
}

/// What earlier exchanges showed.
pub(super) async fn health(client: &Client, found: &mut Findings) {
    let health = match client.health().await {
        Ok(health) => health,
        Err(error) => return found.failed(Check::Health, &error),
    };
    found.looked(Check::Health);
    let Health::Degraded { problems } = health else { return };
    for problem in problems {
        let code = FindingCode::named(problem.code).unwrap_or(FindingCode::CheckFailed);
        found.push(in_words(code, problem.code, &problem.advice));
    }
}

/// With the problem's own words, where they say more than the finding's.
fn in_words(code: FindingCode, cause: &str, words: &str) -> Finding {
    let finding = Finding::of(code).caused_by(cause);
    if words.starts_with(code.meaning()) {
        finding
    } else {
        finding.detail(words)
    }
}

pub(super) async fn keys(client: &Client, found: &mut Findings) {
    let keys = match client.orchestrator().inspect_keys().await {
        Ok(keys) => keys,
        Err(error) => {
            found.failed(Check::Keys, &error.into());
            return found.skipped(Check::Device, "the keys could not be asked for");
        }
    };
    found.looked(Check::Device);
    found.looked(Check::Keys);
    found.facts.fingerprint = Some(keys.ed25519.clone());
    found.facts.one_time_keys = Some(keys.one_time_keys);
    found.facts.one_time_keys_here = Some(keys.one_time_keys_here);
    found.facts.fallback_key = keys.fallback_key;
    shown(&keys, found);
    claimable(&keys, found);
}

/// Our device as others see it.
fn shown(keys: &KeyInspection, found: &mut Findings) {
    match &keys.shown {
        ShownDevice::Absent => found.push(Finding::of(FindingCode::DeviceNotPublished)),
        ShownDevice::As {
            ed25519,
            curve25519,
            algorithms,
            signed,
        } => {
            if *ed25519 != keys.ed25519 || *curve25519 != keys.curve25519 {
                let finding = Finding::of(FindingCode::DeviceKeysMismatch)
                    .detail(format!("the fingerprint here is {}", keys.ed25519))
                    .detail(format!("the fingerprint that others see is {ed25519}"));
                return found.push(finding);
            }
            let missing: Vec<&str> = ALGORITHMS
                .into_iter()
                .filter(|algorithm| !algorithms.iter().any(|shown| shown == algorithm))
                .collect();
            if !missing.is_empty() {
                let detail = format!("not shown: {}", missing.join(", "));
                found.push(Finding::of(FindingCode::DeviceAlgorithms).detail(detail));
            }
            if !signed {
                found.push(Finding::of(FindingCode::DeviceUnsigned).detail("the signature does not verify"));
            }
        }
        _ => found.push(Finding::of(FindingCode::DeviceUnsigned).detail("what is shown are no device keys")),
    }
}

/// What others can begin a session with.
fn claimable(keys: &KeyInspection, found: &mut Findings) {
    let count = format!("{} one-time key(s) are on the homeserver", keys.one_time_keys);
    let none = keys.one_time_keys == 0 && keys.fallback_key != Some(true);
    if none {
        found.push(Finding::of(FindingCode::NoKeysToClaim).detail(count));
    } else if keys.one_time_keys < FEW {
        found.push(Finding::of(FindingCode::FewOneTimeKeys).detail(count));
    }
    if keys.fallback_key == Some(false) && !none {
        found.push(Finding::of(FindingCode::NoFallbackKey));
    }
    if keys.one_time_keys > keys.one_time_keys_here {
        let detail = format!(
            "{} are on the homeserver, {} are here",
            keys.one_time_keys, keys.one_time_keys_here
        );
        found.push(Finding::of(FindingCode::ForeignOneTimeKeys).detail(detail));
    }
}

/// The identity and the backup.
pub(super) async fn identity(client: &Client, found: &mut Findings) {
    let status = match client.identity_status().await {
        Ok(status) => status,
        Err(error) => {
            found.failed(Check::Identity, &error);
            return found.skipped(Check::Backup, "the identity could not be looked at");
        }
    };
    found.looked(Check::Identity);
    found.looked(Check::Backup);
    found.facts.room_keys = Some(status.backup.room_keys);
    found.facts.backed_up = Some(status.backup.backed_up);
    for problem in &status.problems {
        // What is not published yet is told of by the keys.
        if problem.code == "device_deleted" && found.has(FindingCode::DeviceNotPublished) {
            continue;
        }
        let code = FindingCode::named(problem.code).unwrap_or(FindingCode::CheckFailed);
        found.push(in_words(code, problem.code, problem.advice));
    }
    if status.backup.enabled && status.backup.backed_up < status.backup.room_keys {
        let detail = format!(
            "{} of {} room key(s) are in it",
            status.backup.backed_up, status.backup.room_keys
        );
        found.push(Finding::of(FindingCode::BackupBehind).detail(detail));
    }
}

/// What waits for its key, by why it cannot be read.
pub(super) async fn undecryptable(client: &Client, found: &mut Findings) {
    match reasons(client, found).await {
        Ok(Some(finding)) => found.push(finding),
        Ok(None) => {}
        Err(error) => return found.failed(Check::Undecryptable, &error),
    }
    found.looked(Check::Undecryptable);
}

async fn reasons(client: &Client, found: &mut Findings) -> Result<Option<Finding>> {
    let counts = client.waiting_counts().await?;
    found.facts.undecryptable = Some(counts.waiting);
    if counts.waiting == 0 {
        return Ok(None);
    }
    let mut reasons: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for event in client.waiting(0, MOST_LOOKED_AT).await? {
        if matches!(event.reason, UndecryptableReason::NotAccepted { .. }) {
            // It can be read, and somebody wants it to wait.
            continue;
        }
        let json = serde_json::to_value(&event.reason).unwrap_or_default();
        let code = json.get("code").and_then(|code| code.as_str()).unwrap_or_default();
        let entry = reasons.entry(code.to_owned()).or_insert((0, event.advice));
        entry.0 += 1;
    }
    if reasons.is_empty() {
        return Ok(None);
    }
    let mut finding = Finding::of(FindingCode::UndecryptableEvents);
    for (code, (number, advice)) in reasons {
        finding = finding.detail(format!("{number} × {code}: {advice}"));
    }
    Ok(Some(finding))
}
