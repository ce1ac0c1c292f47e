//! Lists and places in what errors say: never longer than a line.

use std::collections::BTreeSet;

use ruma::OwnedUserId;

use crate::DeviceReceipt;

/// At most five reasons, so that an error stays one line.
pub(super) fn reasons(devices: &[DeviceReceipt]) -> String {
    let mut reasons: Vec<String> = devices
        .iter()
        .take(5)
        .map(|device| format!("{} {}: {}", device.user_id, device.device_id, device.outcome.describe()))
        .collect();
    if reasons.is_empty() {
        return String::new();
    }
    if devices.len() > reasons.len() {
        reasons.push("…".to_owned());
    }
    format!(" ({})", reasons.join("; "))
}

/// Where something is.
pub(super) fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" (at {path})")
    }
}

pub(super) fn colliding(ids: &BTreeSet<String>) -> String {
    if ids.is_empty() {
        return "one-time keys".to_owned();
    }
    let named: Vec<&str> = ids.iter().take(5).map(String::as_str).collect();
    format!("{} one-time key(s), such as {},", ids.len(), named.join(", "))
}

/// At most five names, so that an error stays one line.
pub(super) fn listed(users: &BTreeSet<OwnedUserId>) -> String {
    let mut names: Vec<&str> = users.iter().take(5).map(|user| user.as_str()).collect();
    if users.len() > names.len() {
        names.push("…");
    }
    names.join(", ")
}
