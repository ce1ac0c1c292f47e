//! What people and programs see of a verification.

use std::io;

use mx_e2ee::{VerificationOutcome, VerificationShown, VerificationState};
use serde_json::json;

use crate::output::{Output, clean};

pub(super) fn show(shown: &VerificationShown, output: Output) -> io::Result<()> {
    output.show(&json!(shown), &lines(shown))
}

fn lines(shown: &VerificationShown) -> String {
    let device = shown
        .device_id
        .as_ref()
        .map_or_else(String::new, |device| format!(" {}", clean(device.as_str())));
    let who = format!("{}{device}", shown.id.user_id);
    match &shown.state {
        VerificationState::Requested if shown.by_us => format!("{who} is asked to verify"),
        VerificationState::Requested => format!("{who} asks to verify"),
        VerificationState::Ready { .. } => format!("{who} takes part"),
        VerificationState::Started => format!("{who}: keys are exchanged"),
        VerificationState::Compare { emoji, decimals } => {
            let mut lines = vec![format!("{who}: compare")];
            for picture in emoji.iter().flatten() {
                lines.push(format!("  {}  {}", picture.symbol, picture.name));
            }
            let numbers: Vec<String> = decimals.iter().map(ToString::to_string).collect();
            lines.push(format!("  {}", numbers.join(" ")));
            lines.join("\n")
        }
        VerificationState::ShowingQr => format!("{who}: the code waits to be scanned"),
        VerificationState::QrScanned => format!("{who} says that the code is scanned"),
        VerificationState::Confirmed => format!("{who}: confirmed here, not yet there"),
        VerificationState::Ended(VerificationOutcome::Done { devices, user }) => {
            let devices: Vec<String> = devices.iter().map(|device| clean(device.as_str())).collect();
            let identity = if *user { ", and the identity" } else { "" };
            format!(
                "{who} is verified: {}{identity}",
                if devices.is_empty() {
                    "no device".to_owned()
                } else {
                    devices.join(", ")
                }
            )
        }
        VerificationState::Ended(VerificationOutcome::Cancelled { code, reason, by_us }) => {
            let by = if *by_us { "here" } else { "there" };
            format!("{who}: cancelled {by}, {} ({})", clean(reason), clean(code))
        }
        _ => format!("{who}: something that this version of mx cannot show: use --json"),
    }
}
