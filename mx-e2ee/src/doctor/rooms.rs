//! Each encrypted room: whether a message would be sent, and who could not read it.

use mx_olm_orchestrator::{Reader, Readership};

use super::{
    code::FindingCode,
    finding::{Check, Finding, Findings},
};
use crate::{Client, Error, Room};

/// More devices than this are counted and not named.
const MOST_NAMED: usize = 20;

pub(super) async fn look(client: &Client, found: &mut Findings) {
    let rooms = match client.rooms().await {
        Ok(rooms) => rooms,
        Err(error) => return found.failed(Check::Rooms, &error),
    };
    found.looked(Check::Rooms);
    let mut encrypted = 0;
    for room in rooms {
        match look_at(&room).await {
            Ok(None) => {}
            Ok(Some(readers)) => {
                encrypted += 1;
                judge(&readers, found);
            }
            Err(error) => found.push(Finding::of(FindingCode::RoomUnknown).about(room.id()).because(&error)),
        }
    }
    found.facts.encrypted_rooms = Some(encrypted);
}

async fn look_at(room: &Room) -> Result<Option<Readership>, Error> {
    if room.is_encrypted().await? {
        let device = room.client().orchestrator();
        Ok(Some(device.readership_as_known(room.id()).await?))
    } else {
        Ok(None)
    }
}

fn judge(readers: &Readership, found: &mut Findings) {
    let mut refuses = Finding::of(FindingCode::RoomRefuses).about(&readers.room_id);
    for refusal in &readers.refused {
        if refuses.cause.is_none() {
            refuses = refuses.caused_by(refusal.code);
        }
        refuses = refuses.detail(format!("{} [{}]", refusal.advice, refusal.code));
    }
    if !readers.refused.is_empty() {
        found.push(refuses);
    }
    let mut suspicious = Finding::of(FindingCode::RoomSuspicious).about(&readers.room_id);
    for warning in &readers.warnings {
        if suspicious.cause.is_none() {
            suspicious = suspicious.caused_by(warning.code);
        }
        suspicious = suspicious.detail(format!("{} [{}]", warning.advice, warning.code));
    }
    if !readers.warnings.is_empty() {
        found.push(suspicious);
    }
    let missing: Vec<String> = readers.users.iter().flat_map(missing_of).collect();
    if missing.is_empty() {
        return;
    }
    let mut finding = Finding::of(FindingCode::RoomReadersMissing).about(&readers.room_id);
    let more = missing.len().saturating_sub(MOST_NAMED);
    for line in missing.into_iter().take(MOST_NAMED) {
        finding = finding.detail(line);
    }
    if more > 0 {
        finding = finding.detail(format!("and {more} more"));
    }
    found.push(finding);
}

/// Who cannot read, and why. What our own user decided is no finding.
fn missing_of(reader: &Reader) -> Vec<String> {
    if reader.unknown {
        return vec![format!("{}: the devices are not known", reader.user_id)];
    }
    if reader.devices.is_empty() {
        return vec![format!("{} has no device", reader.user_id)];
    }
    let devices = reader.devices.iter();
    devices
        .filter(|device| !device.outlook.can_read() && !device.outlook.is_decided())
        .map(|device| format!("{} {}: {}", reader.user_id, device.device_id, device.outlook.describe()))
        .collect()
}
