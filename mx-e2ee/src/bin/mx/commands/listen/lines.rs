//! An event as a line for people. What came from the network cannot begin lines of its own.

use mx_e2ee::{
    Event, LostBecause, MembershipChanged, Message, RejectedReason, VerificationOutcome,
    ruma::events::room::member::MembershipState,
};
use serde_json::json;

use crate::output::clean;

pub(super) fn line(event: &Event) -> String {
    match event {
        Event::Message(message) => text(message),
        Event::Invite(invite) => {
            let inviter = invite.inviter.as_ref().map_or("somebody", |user| user.as_str());
            let what = if invite.joined {
                "and you joined".to_owned()
            } else {
                format!("mx room join '{}'", invite.room_id)
            };
            format!("{} * {inviter} invites you: {what}", invite.room_id)
        }
        Event::Undecryptable(event) => {
            let why = json!(event.reason)["code"].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} ! undecryptable event {} ({why}): {}",
                event.room_id, event.sender, event.event_id, event.advice
            )
        }
        Event::Rejected(event) => format!(
            "{} {} ! rejected event {}: {}",
            event.room_id,
            event.sender,
            event.event_id,
            rejected(&event.reason)
        ),
        Event::Lost(event) => format!(
            "{} {} ! gave up on undecryptable event {}: {}",
            event.room_id,
            event.sender,
            event.event_id,
            lost(event.because)
        ),
        Event::Malformed(event) => format!("{} ! the homeserver gave something that is no event", event.room_id),
        Event::Gap(gap) => format!(
            "{} ! events were missed: the homeserver has more than could be asked for ({} were recovered)",
            gap.room_id, gap.recovered
        ),
        Event::DeviceRejected(event) => format!(
            "{} ! device {} is not used: {}",
            event.user_id,
            clean(event.device_id.as_str()),
            event.reason.describe()
        ),
        Event::IdentityChanged(event) => format!("{} ! the identity of this user was replaced", event.user_id),
        Event::EncryptionTampered(event) => {
            format!("{} ! {}, which is not followed", event.room_id, event.change.describe())
        }
        Event::MembershipChanged(event) => membership(event),
        event => about_sends(event),
    }
}

fn about_sends(event: &Event) -> String {
    match event {
        Event::SendRefused(event) => format!(
            "{} ! an event that waited to be sent is refused by the homeserver and was dropped (transaction {}, status {}{})",
            event.room_id,
            event.transaction_id,
            event.status,
            event
                .errcode
                .as_deref()
                .map(|code| format!(", {}", clean(code)))
                .unwrap_or_default()
        ),
        Event::Sent(event) => format!(
            "{} * an event that waited was sent as {} (transaction {})",
            event.room_id, event.event_id, event.transaction_id
        ),
        event => about_trust(event),
    }
}

fn membership(event: &MembershipChanged) -> String {
    let before = event.before.as_ref();
    let by_another = event.sender != event.user_id;
    let what = match &event.membership {
        MembershipState::Join => "joined",
        MembershipState::Invite => "is invited",
        MembershipState::Knock => "asks to be let in",
        MembershipState::Ban => "is banned",
        MembershipState::Leave => match (before, by_another) {
            (Some(MembershipState::Ban), _) => "is banned no more",
            (Some(MembershipState::Invite), true) => "is invited no more",
            (Some(MembershipState::Knock), true) => "is not let in",
            (_, true) => "was removed",
            (Some(MembershipState::Invite), false) => "did not accept the invitation",
            (Some(MembershipState::Knock), false) => "asks to be let in no more",
            (_, false) => "left",
        },
        other => return format!("{} {} * {}", event.room_id, event.user_id, clean(other.as_str())),
    };
    let by = if by_another {
        format!(" by {}", event.sender)
    } else {
        String::new()
    };
    let why = event.reason.as_deref().map(|reason| format!(": {}", clean(reason)));
    format!(
        "{} {} * {what}{by}{}",
        event.room_id,
        event.user_id,
        why.unwrap_or_default()
    )
}

fn about_trust(event: &Event) -> String {
    match event {
        Event::OwnIdentity(event) => format!("! {} [{}]", event.advice, event.standing.code()),
        Event::TrustDrift(event) => {
            let words: Vec<String> = event.differences.iter().map(ToString::to_string).collect();
            format!("! differs from the trust manifest: {}", words.join("; "))
        }
        Event::BackupStopped(event) => format!("! {}", event.advice),
        Event::DehydratedDeviceNotOpened(event) => {
            let device = event.device_id.as_ref().map(|device| clean(device.as_str()));
            format!(
                "! the dehydrated device {} is not opened: {} ({})",
                device.unwrap_or_default(),
                clean(&event.advice),
                clean(&event.code)
            )
        }
        event => about_history(event),
    }
}

fn about_history(event: &Event) -> String {
    match event {
        Event::HistoryReceived(event) => format!(
            "{} {} * gave {} room keys of the time before ({} cannot be used, {} are withheld)",
            event.room_id, event.from, event.room_keys, event.unusable, event.withheld
        ),
        Event::HistoryRefused(event) => format!(
            "{} {} ! the history that was offered is not taken: {}",
            event.room_id,
            event.from,
            event.reason.describe()
        ),
        Event::HistoryNotShared(event) => format!(
            "{} {} ! was not given the history: {}",
            event.room_id, event.user_id, event.advice
        ),
        event => verification(event),
    }
}

fn verification(event: &Event) -> String {
    match event {
        Event::VerificationRequested(event) => format!(
            "{} ? asks to verify this device: run mx verify listen instead, and let them ask again",
            event.id.user_id
        ),
        Event::VerificationEnded(event) => match &event.outcome {
            VerificationOutcome::Done { .. } => format!("{} * is verified", event.id.user_id),
            VerificationOutcome::Cancelled { reason, code, .. } => format!(
                "{} ! the verification was cancelled: {} ({})",
                event.id.user_id,
                clean(reason),
                clean(code)
            ),
            _ => format!("{} ! the verification ended", event.id.user_id),
        },
        _ => "! something that this version of mx cannot show: use --json".to_owned(),
    }
}

const fn lost(because: LostBecause) -> &'static str {
    match because {
        LostBecause::TooMany => "more events wait for their keys than are kept",
        LostBecause::LeftRoom => "we are not in the room any more",
        _ => "it is not kept",
    }
}

fn rejected(reason: &RejectedReason) -> String {
    match reason {
        RejectedReason::Replay { first } => format!("it replays {first}"),
        RejectedReason::IndexReuse { first } => format!(
            "its place in the sender's key was used by {first}: the sender's store was set back or copied, or it is forged"
        ),
        RejectedReason::SenderMismatch { owner: Some(owner) } => format!("its key belongs to {owner}"),
        RejectedReason::SenderMismatch { owner: None } => "its sender is not the owner of its key".to_owned(),
        RejectedReason::SenderUnattributed => "its key was given in the name of another device".to_owned(),
        RejectedReason::StateEvent => "a room's state is never encrypted".to_owned(),
        RejectedReason::Plaintext => "it came as plaintext into an encrypted room".to_owned(),
        RejectedReason::NestedEncryption => "it is encrypted twice".to_owned(),
        RejectedReason::UnusableVerification => "it is no step of a verification, although it says so".to_owned(),
        _ => "it cannot be believed".to_owned(),
    }
}

fn text(message: &Message) -> String {
    let mark = match (&message.encryption, message.plaintext_in_encrypted_room) {
        (Some(_), _) => "",
        (None, true) => " (PLAINTEXT IN AN ENCRYPTED ROOM)",
        (None, false) => " (plaintext)",
    };
    let head = format!("{} {}{mark}", message.room_id, message.sender);
    match deed(message) {
        Some(deed) => format!("{head} * {deed}"),
        None => match message.body() {
            Some(body) => format!("{head}: {}", clean(body)),
            None => format!(
                "{head}: [{}] {}",
                clean(&message.event_type),
                clean(&message.content.to_string())
            ),
        },
    }
}

/// What is done to another event, where that is what the message is.
fn deed(message: &Message) -> Option<String> {
    let text = |pointer: &str| message.content.pointer(pointer)?.as_str().map(clean);
    match message.event_type.as_str() {
        "m.room.redaction" => {
            let reason = text("/reason").map(|reason| format!(": {reason}")).unwrap_or_default();
            Some(format!("takes back {}{reason}", text("/redacts")?))
        }
        "m.reaction" => {
            let (key, to) = (text("/m.relates_to/key")?, text("/m.relates_to/event_id")?);
            Some(format!("reacts to {to} with {key}"))
        }
        "m.room.message" if text("/m.relates_to/rel_type")? == "m.replace" => {
            let (edited, said) = (text("/m.relates_to/event_id")?, text("/m.new_content/body")?);
            Some(format!("edits {edited}: {said}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(event_type: &str, content: serde_json::Value) -> String {
        let event = json!({
            "kind": "message", "room_id": "!r:hs.test", "event_id": "$e", "sender": "@a:hs.test", "origin_server_ts": 1,
            "event_type": event_type, "content": content, "encryption": null, "plaintext_in_encrypted_room": false,
        });
        line(&serde_json::from_value(event).unwrap())
    }

    #[test]
    fn who_comes_and_goes_is_said() {
        for (membership, before, sender, said) in [
            ("join", json!("invite"), "@a:hs.test", "joined"),
            (
                "invite",
                json!(null),
                "@b:hs.test",
                "is invited by @b:hs.test: why\\u{1b}",
            ),
            ("leave", json!("join"), "@a:hs.test", "left"),
            (
                "leave",
                json!("join"),
                "@b:hs.test",
                "was removed by @b:hs.test: why\\u{1b}",
            ),
            ("leave", json!("invite"), "@a:hs.test", "did not accept the invitation"),
            (
                "leave",
                json!("invite"),
                "@b:hs.test",
                "is invited no more by @b:hs.test: why\\u{1b}",
            ),
            (
                "leave",
                json!("ban"),
                "@b:hs.test",
                "is banned no more by @b:hs.test: why\\u{1b}",
            ),
            (
                "ban",
                json!("join"),
                "@b:hs.test",
                "is banned by @b:hs.test: why\\u{1b}",
            ),
            ("knock", json!(null), "@a:hs.test", "asks to be let in"),
            ("odd\u{1b}", json!(null), "@a:hs.test", "odd\\u{1b}"),
        ] {
            let event = json!({
                "kind": "membership_changed", "room_id": "!r:hs.test", "event_id": "$e", "user_id": "@a:hs.test",
                "sender": sender, "origin_server_ts": 1, "membership": membership, "before": before,
                "reason": (sender != "@a:hs.test").then_some("why\u{1b}"),
            });
            let shown = line(&serde_json::from_value(event).unwrap());
            assert_eq!(shown, format!("!r:hs.test @a:hs.test * {said}"));
        }
    }

    #[test]
    fn what_is_done_to_another_event_is_said() {
        let edit = json!({
            "msgtype": "m.text", "body": "* new\u{1b}", "m.new_content": {"msgtype": "m.text", "body": "new\u{1b}"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$o"},
        });
        let reaction = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$o", "key": "+1"}});
        let head = "!r:hs.test @a:hs.test (plaintext)";
        for (event_type, content, said) in [
            ("m.room.message", edit, " * edits $o: new\\u{1b}"),
            ("m.reaction", reaction, " * reacts to $o with +1"),
            (
                "m.room.redaction",
                json!({"redacts": "$o", "reason": "spam"}),
                " * takes back $o: spam",
            ),
            ("m.reaction", json!({"odd": 1}), ": [m.reaction] {\"odd\":1}"),
            ("m.room.message", json!({"body": "hello"}), ": hello"),
        ] {
            assert_eq!(shown(event_type, content), format!("{head}{said}"));
        }
    }
}
