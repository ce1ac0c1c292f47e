//! The receipt's JSON is what programs read: its names stay.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

fn device(id: &str, outcome: DeviceOutcome) -> DeviceReceipt {
    DeviceReceipt {
        user_id: "@bob:s".try_into().unwrap(),
        device_id: id.into(),
        outcome,
    }
}

fn users(name: &str) -> BTreeSet<OwnedUserId> {
    BTreeSet::from([name.try_into().unwrap()])
}

fn receipt() -> SendReceipt {
    let withheld = |code: &str| DeviceOutcome::Withheld { code: code.to_owned() };
    let rejected = |reason| DeviceOutcome::Rejected { reason };
    SendReceipt {
        room_id: "!r:s".try_into().unwrap(),
        event_id: "$e".try_into().unwrap(),
        transaction_id: "t".into(),
        session_id: "s".to_owned(),
        new_session: true,
        rotation: Some(RotationReason::MemberLeft),
        devices: vec![
            device("A", DeviceOutcome::Reached),
            device("B", DeviceOutcome::AlreadyHad),
            device("C", DeviceOutcome::NoOneTimeKey),
            device("D", DeviceOutcome::Unknown),
            device("E", withheld("m.blacklisted")),
            device("F", rejected(UnusableReason::BadSignature)),
            device(
                "G",
                rejected(UnusableReason::KeyConflict {
                    old: "o".to_owned(),
                    new: "n".to_owned(),
                }),
            ),
            device("H", DeviceOutcome::Missed),
        ]
        .into(),
        users_without_devices: ["@none:s".try_into().unwrap()].into(),
        users_unknown: vec!["@down:t".try_into().unwrap()],
        recipients_added: vec!["@new:s".try_into().unwrap()],
        new_devices: vec![Device {
            user_id: "@bob:s".try_into().unwrap(),
            device_id: "A".into(),
        }],
        warnings: vec![
            Warning::EncryptionStateTampered {
                change: EncryptionChange::RotationRelaxed {
                    messages: 1000,
                    period_ms: 7,
                },
            },
            Warning::MembershipDisagrees {
                users: users("@gone:s"),
            },
            Warning::IdentityChanged { users: users("@bob:s") },
        ],
    }
}

#[test]
fn the_json_of_a_receipt_is_this() {
    let golden = json!({
        "room_id": "!r:s",
        "event_id": "$e",
        "transaction_id": "t",
        "session_id": "s",
        "new_session": true,
        "rotation": "member_left",
        "devices": [
            {"user_id": "@bob:s", "device_id": "A", "outcome": "reached"},
            {"user_id": "@bob:s", "device_id": "B", "outcome": "already_had"},
            {"user_id": "@bob:s", "device_id": "C", "outcome": "no_one_time_key"},
            {"user_id": "@bob:s", "device_id": "D", "outcome": "unknown"},
            {"user_id": "@bob:s", "device_id": "E", "outcome": "withheld", "code": "m.blacklisted"},
            {"user_id": "@bob:s", "device_id": "F", "outcome": "rejected", "reason": {"code": "bad_signature"}},
            {"user_id": "@bob:s", "device_id": "G", "outcome": "rejected",
                "reason": {"code": "key_conflict", "old": "o", "new": "n"}},
            {"user_id": "@bob:s", "device_id": "H", "outcome": "missed"},
        ],
        "users_without_devices": ["@none:s"],
        "users_unknown": ["@down:t"],
        "recipients_added": ["@new:s"],
        "new_devices": [{"user_id": "@bob:s", "device_id": "A"}],
        "warnings": [
            {"code": "encryption_state_tampered", "change": "rotation_relaxed", "messages": 1000, "period_ms": 7},
            {"code": "membership_disagrees", "users": ["@gone:s"]},
            {"code": "identity_changed", "users": ["@bob:s"]},
        ],
    });
    assert_eq!(serde_json::to_value(receipt()).unwrap(), golden);
    assert_eq!(receipt().readable_by(), 2);
}

#[test]
fn a_key_that_is_kept_has_no_reason() {
    let kept = SendReceipt {
        new_session: false,
        rotation: None,
        ..receipt()
    };
    let json = serde_json::to_value(kept).unwrap();
    assert_eq!((&json["rotation"], &json["new_session"]), (&json!(null), &json!(false)));
}

#[test]
fn each_reason_has_its_name() {
    use RotationReason as Reason;
    for (reason, name) in [
        (Reason::FirstKey, "first_key"),
        (Reason::SessionLost, "session_lost"),
        (Reason::Messages, "messages"),
        (Reason::Time, "time"),
        (Reason::MemberLeft, "member_left"),
        (Reason::Rejoined, "rejoined"),
        (Reason::EventsMissed, "events_missed"),
        (Reason::OwnRejoined, "own_rejoined"),
        (Reason::DeviceRemoved, "device_removed"),
        (Reason::DeviceBlocked, "device_blocked"),
        (Reason::Policy, "policy"),
        (Reason::DeviceKeysChanged, "device_keys_changed"),
        (Reason::VisibilityChanged, "visibility_changed"),
        (Reason::ByHand, "by_hand"),
        (Reason::StoreConflict, "store_conflict"),
        (Reason::Unknown, "unknown"),
    ] {
        assert_eq!(serde_json::to_value(reason).unwrap(), name);
        assert_eq!(serde_json::from_value::<RotationReason>(json!(name)).unwrap(), reason);
        assert!(!reason.describe().is_empty());
    }
}
