//! What errors say: a stable code for programs, and for people a line that names what to do. Rows LM of the catalogue.

use std::{collections::BTreeSet, io, path::PathBuf};

use mx_crypto_store::StoreError;
use mx_e2ee::{AttachmentError, Error, orchestrator};
use mx_transport::{Phase, RequestError, TransportError, TransportErrorKind as Kind};
use ruma::{owned_device_id, owned_event_id, owned_room_id, owned_user_id};

type Row = (Error, &'static str, &'static str);

fn of_the_facade() -> Vec<Row> {
    let directory = || PathBuf::from("profile");
    vec![
        (Error::WrongPassword, "wrong_password", "check both"),
        (Error::NoPasswordLogin, "no_password_login", "log in elsewhere"),
        (
            Error::NotLoggedIn { directory: directory() },
            "not_logged_in",
            "log in first",
        ),
        (
            Error::AlreadyLoggedIn {
                directory: directory(),
                user: "@a:b".to_owned(),
            },
            "already_logged_in",
            "log out first, or choose another directory",
        ),
        (
            Error::DeviceDeleted {
                device: owned_device_id!("D"),
            },
            "device_deleted",
            "log out",
        ),
        (
            Error::StoreLost { directory: directory() },
            "store_lost",
            "put the store back",
        ),
        (Error::Busy, "busy", "receive in one place"),
        (
            Error::TokenWithoutDevice,
            "token_without_device",
            "log in with a password",
        ),
        (
            Error::InvalidId {
                given: "x".to_owned(),
                wanted: "a room id",
            },
            "invalid_id",
            "is not a room id",
        ),
        (
            Error::SessionFilePermissions { path: directory() },
            "session_file_permissions",
            "run chmod 600",
        ),
    ]
}

fn of_files() -> Vec<Row> {
    let source = || io::Error::other("x");
    let path = || PathBuf::from("file");
    let errors = [
        (
            AttachmentError::Unreadable {
                path: None,
                source: source(),
            },
            "file_unreadable",
            "check its path",
        ),
        (
            AttachmentError::Disk {
                directory: path(),
                source: source(),
            },
            "file_not_writable",
            "check the disk's space",
        ),
        (AttachmentError::TooLarge { max: 7 }, "too_large", "larger than 7 bytes"),
        (
            AttachmentError::Corrupt,
            "attachment_corrupt",
            "ask the sender to send it again",
        ),
        (
            AttachmentError::NotEncrypted,
            "attachment_not_encrypted",
            "is not fetched",
        ),
        (
            AttachmentError::Malformed { what: "x" },
            "attachment_malformed",
            "does not say how to read",
        ),
        (
            AttachmentError::UnsupportedVersion {
                version: "v9\u{1b}".to_owned(),
            },
            "attachment_version",
            "is there a newer version",
        ),
        (
            AttachmentError::Exists { path: path() },
            "file_exists",
            "choose another name",
        ),
        (
            AttachmentError::NoName { path: path() },
            "file_name",
            "is not the name of a file",
        ),
    ];
    errors
        .into_iter()
        .map(|(error, code, words)| (error.into(), code, words))
        .collect()
}

fn of_sending() -> Vec<Row> {
    use orchestrator::Error as Failed;
    let room = || owned_room_id!("!r:s");
    let errors = [
        (
            Failed::RoomNotEncrypted { room: room() },
            "room_not_encrypted",
            "mark it as encrypted first",
        ),
        (Failed::NotInRoom { room: room() }, "not_in_room", "join it first"),
        (
            Failed::RoomIsEncrypted { room: room() },
            "room_is_encrypted",
            "never sent to it",
        ),
        (
            Failed::ClaimFailed { source: timeout() },
            "claim_failed",
            "try again later",
        ),
        (Failed::TooLarge { bytes: 9, max: 8 }, "too_large", "send a file"),
        (
            Failed::BadContent {
                reason: "x",
                path: "/body".to_owned(),
            },
            "bad_content",
            "cannot be sent",
        ),
        (
            Failed::KeyShareIncomplete {
                room: room(),
                delivered: 1,
                outstanding: 2,
                source: Box::new(timeout()),
            },
            "key_share_incomplete",
            "delivers the rest",
        ),
        (Failed::EngineStopped, "engine_stopped", "may be tried again"),
    ];
    errors
        .into_iter()
        .map(|(error, code, words)| (error.into(), code, words))
        .collect()
}

fn of_the_device() -> Vec<Row> {
    use orchestrator::Error as Failed;
    let users = BTreeSet::from([owned_user_id!("@u:s")]);
    let (room, event) = (owned_room_id!("!r:s"), owned_event_id!("$e"));
    let pending = Failed::SendPending {
        transaction_id: "t".into(),
        source: timeout(),
    };
    let errors = [
        (
            Failed::IdentityChanged { users },
            "identity_changed",
            "verify them again",
        ),
        (
            Failed::StoreRolledBack { room, event },
            "store_set_back",
            "Stop the copy",
        ),
        (pending, "send_pending", "is safe"),
        (StoreError::InUse.into(), "store_in_use", "stop it first"),
        (StoreError::WrongKey.into(), "store_wrong_key", "key"),
    ];
    errors
        .into_iter()
        .map(|(error, code, words)| (error.into(), code, words))
        .collect()
}

fn timeout() -> RequestError {
    TransportError::new(Kind::Timeout(Phase::Total)).into()
}

fn of_requests() -> Vec<Row> {
    let transport = |kind, code, words| (Error::from(TransportError::new(kind)), code, words);
    vec![
        transport(Kind::Build, "request_invalid", "cannot be sent to this address"),
        transport(Kind::Connect, "unreachable", "check its address"),
        transport(Kind::Tls, "tls", "check its certificate and the clock"),
        transport(Kind::Timeout(Phase::Queue), "timeout", "waited too long for its turn"),
        transport(Kind::Timeout(Phase::Connect), "timeout", "check its address"),
        transport(Kind::Timeout(Phase::Headers), "timeout", "took too long to answer"),
        transport(Kind::Timeout(Phase::Body), "timeout", "stood still"),
        transport(Kind::Timeout(Phase::Total), "timeout", "took too long to answer"),
        transport(Kind::Redirect, "redirect", "use the address that it redirects to"),
        transport(Kind::BodyTooLarge, "answer_too_large", "larger than allowed"),
        transport(Kind::Truncated, "interrupted", "ended before"),
        transport(Kind::Interrupted, "interrupted", "broke before"),
        transport(Kind::Malformed, "malformed_answer", "check the address"),
        transport(Kind::LocalBody, "local_body", "check the disk"),
        (
            RequestError::LoggedOut { soft: true }.into(),
            "soft_logged_out",
            "log in again with the same device",
        ),
        (
            RequestError::LoggedOut { soft: false }.into(),
            "logged_out",
            "log in again",
        ),
        (
            RequestError::TokenNotKept {
                source: "the disk is full".into(),
            }
            .into(),
            "token_not_kept",
            "check the disk",
        ),
        (RequestError::NoAccessToken.into(), "not_logged_in", "log in first"),
    ]
}

#[test]
fn lm_18_an_error_has_a_stable_code_and_says_what_to_do_in_one_line() {
    let all = [
        of_the_facade(),
        of_files(),
        of_sending(),
        of_the_device(),
        of_requests(),
    ];
    for (error, code, words) in all.into_iter().flatten() {
        let said = error.to_string();
        assert_eq!(error.code(), code, "{said}");
        assert!(said.contains(words), "{code}: {said:?} does not say {words:?}");
        assert!(
            code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{code}"
        );
        assert!(said.len() > 15 && !said.ends_with('.'), "{code}: {said:?}");
        assert!(!said.chars().any(char::is_control), "{code}: {said:?}");
    }
}
