//! What people and programs read: data on stdout, everything else on stderr.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{
    commands::{NotHandled, NotVerified, doctor::Unwell},
    signals::Ended,
};

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// It is read by a program.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Show a result: a JSON object for programs, or a line for people. Whatever it holds, a terminal stays as it is. What
    /// came from the network must be [`clean`] in the line, lest it begin lines of its own.
    ///
    /// # Errors
    /// Of stdout. A reader that went away ends the process as a success, as in every pipe.
    pub(crate) fn show(self, json: &Value, line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = if self.json {
            writeln!(stdout, "{}", escaped(json))
        } else {
            writeln!(stdout, "{}", cleaned_lines(line))
        };
        written.and_then(|()| stdout.flush())
    }

    /// Tell people something that is not data.
    pub(crate) fn note(self, line: &str) {
        let _nobody_reads = writeln!(io::stderr(), "{}", cleaned_lines(line));
    }

    /// Something that takes a while has begun.
    pub(crate) fn progress(self, what: &'static str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// Say what went wrong, and with which exit code to end.
    pub(crate) fn failure(self, error: &anyhow::Error) -> ExitCode {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            return ExitCode::SUCCESS;
        }
        let code = if error.is::<Ended>() {
            "ended"
        } else if error.is::<NotVerified>() {
            "not_verified"
        } else if error.is::<NotHandled>() {
            "not_handled"
        } else if let Some(unwell) = error.downcast_ref::<Unwell>() {
            unwell.code()
        } else {
            error
                .downcast_ref::<mx_e2ee::Error>()
                .map_or("unexpected", mx_e2ee::Error::code)
        };
        let text = clean(&format!("{error:#}"));
        if self.json {
            let _nobody_reads = writeln!(io::stderr(), "{}", escaped(&json!({"error": code, "message": text})));
        } else {
            self.note(&format!("mx: {text} [{code}]"));
        }
        ExitCode::from(exit_code(code))
    }
}

/// What is wrong with a login or an account.
fn is_of_account(code: &str) -> bool {
    code.starts_with("login_")
        || code.starts_with("authentication_")
        || code.starts_with("oauth_")
        || code.starts_with("user_")
        || code.starts_with("session_file")
        || matches!(
            code,
            "wrong_password"
                | "wrong_login_token"
                | "no_password_login"
                | "no_oauth_login"
                | "not_logged_in"
                | "already_logged_in"
                | "logged_out"
                | "soft_logged_out"
                | "device_deleted"
                | "device_mismatch"
                | "device_moved"
                | "move_unfinished"
                | "token_without_device"
                | "device_keys_mismatch"
                | "one_time_key_conflict"
                | "store_set_back"
                | "token_not_kept"
                | "consent_not_given"
                | "exclusive"
                | "import_other_device"
        )
}

/// The homeserver cannot be reached, or fails; or what was begun goes on later.
fn is_of_the_network(code: &str) -> bool {
    matches!(
        code,
        "unreachable"
            | "timeout"
            | "interrupted"
            | "tls"
            | "redirect"
            | "homeserver_failed"
            | "rate_limited"
            | "unreadable_answer"
            | "malformed_sync"
            | "discovery_failed"
            | "discovery_redirected"
            | "no_homeserver"
            | "import_unreachable"
            | "send_pending"
            | "earlier_send_pending"
            | "unsent_events"
            | "devices_unknown"
            | "key_share_incomplete"
            | "answer_too_large"
    )
}

/// The exit code of an error; `mx --help` lists them.
pub(crate) fn exit_code(code: &str) -> u8 {
    match code {
        code if is_of_account(code) => 3,
        code if is_of_the_network(code) => 4,
        "recipients_unknown"
        | "no_usable_recipients"
        | "claim_failed"
        | "identity_changed"
        | "members_incomplete"
        | "recipient_not_allowed"
        | "history_no_devices"
        | "trust_manifest_drift" => 5,
        "not_in_room"
        | "room_not_encrypted"
        | "room_is_encrypted"
        | "room_tombstoned"
        | "history_not_for_newcomers"
        | "history_not_invited"
        | "unsupported_algorithm"
        | "forbidden"
        | "no_such_room"
        | "room_name_ambiguous"
        | "not_found" => 6,
        "bad_content"
        | "too_large"
        | "history_too_large"
        | "key_file_rejected"
        | "key_file_wrong_passphrase"
        | "no_secrets_bundle"
        | "import_foreign" => 8,
        "ended" => 9,
        "doctor_warnings" => 12,
        "doctor_errors" => 13,
        "not_handled" => 14,
        code if is_about_identity(code) => 3,
        code if code == "not_verified" || code.starts_with("verification_") => 11,
        code if code.starts_with("attachment_") => 8,
        "local_body"
        | "trust_manifest_unreadable"
        | "recovery_key_not_kept"
        | "file_unreadable"
        | "file_not_writable"
        | "file_exists"
        | "file_name"
        | "import_unreadable"
        | "import_not_empty" => 10,
        code if code.starts_with("store_") => 7,
        "invalid_id" | "configuration" | "invalid_homeserver" | "trust_manifest_invalid" => 2,
        _ => 1,
    }
}

/// The identity or the key backup is missing, not ours, or not opened.
fn is_about_identity(code: &str) -> bool {
    matches!(
        code,
        "identity_exists"
            | "no_identity"
            | "history_not_cross_signed"
            | "no_dehydrated_device"
            | "dehydration_key_missing"
            | "dehydration_not_signed"
            | "dehydrated_device_rejected"
            | "identity_mismatch"
            | "identity_incomplete"
            | "identity_unknown"
            | "identity_key_differs"
            | "device_not_signed"
            | "no_secret_storage"
            | "wrong_recovery_key"
            | "secret_storage_rejected"
            | "secrets_missing"
            | "no_backup"
    ) || code.starts_with("backup_")
}

/// Text from the network in one line, with everything escaped that would change a terminal, the direction of its text, or
/// hide something in it: `\u{1b}` as people write it. JSON carries the text itself.
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => shown.push('\u{2424}'),
            '\t' => shown.push(' '),
            char if is_harmful(char) => shown.extend(char.escape_unicode()),
            char => shown.push(char),
        }
    }
    shown
}

fn cleaned_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// JSON that says exactly the same and that a terminal can be shown: what is harmful is inside strings, and is written as
/// JSON's own escapes.
pub(crate) fn escaped(json: &Value) -> String {
    let mut shown = String::new();
    for char in json.to_string().chars() {
        if is_harmful(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing into a string does not fail.
                let _written = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(char);
        }
    }
    shown
}

/// C0, C1, marks of direction, separators of lines, and what nobody sees. What joins the parts of an emoji is none of them.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lm_02_what_would_change_a_terminal_is_shown_escaped() {
        assert_eq!(
            clean("a\u{1b}[31mb\r\u{202e}c\u{2066}\nd\te\u{9b}\u{0}\u{7f}"),
            r"a\u{1b}[31mb\u{d}\u{202e}c\u{2066}␤d e\u{9b}\u{0}\u{7f}"
        );
        assert_eq!(clean("\u{1b}]8;;http://evil\u{7}"), r"\u{1b}]8;;http://evil\u{7}");
        assert_eq!(clean("a\u{e0041}\u{2028}\u{feff}"), r"a\u{e0041}\u{2028}\u{feff}");
        let fine = "größe ✓ 日本 👩‍👩‍👧 e\u{301} עברית";
        assert_eq!(clean(fine), fine);
        for char in ('\0'..=char::MAX).filter(|char| is_harmful(*char)) {
            let shown = clean(&char.to_string());
            assert!(shown.chars().all(|char| !is_harmful(char)), "{char:?}");
            assert_eq!(clean(&shown), shown);
        }
    }

    #[test]
    fn lm_02_json_is_exact_and_harmless() {
        let json = json!({"body": "\u{1b}[31m\u{9b}\u{202e}\u{e0041}\u{7f}\u{0}\n\\ \" größe 👩‍👩‍👧"});
        let shown = escaped(&json);
        assert!(shown.chars().all(|char| !is_harmful(char)), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), json);
    }

    #[test]
    fn exit_codes_tell_kinds_apart() {
        for (code, expected) in [
            ("wrong_password", 3),
            ("authentication_unanswerable", 3),
            ("unreachable", 4),
            ("recipients_unknown", 5),
            ("members_incomplete", 5),
            ("recipient_not_allowed", 5),
            ("room_tombstoned", 6),
            ("room_not_encrypted", 6),
            ("store_in_use", 7),
            ("bad_content", 8),
            ("ended", 9),
            ("attachment_corrupt", 8),
            ("file_exists", 10),
            ("backup_untrusted", 3),
            ("wrong_recovery_key", 3),
            ("trust_manifest_drift", 5),
            ("history_no_devices", 5),
            ("history_not_for_newcomers", 6),
            ("history_not_cross_signed", 3),
            ("doctor_warnings", 12),
            ("doctor_errors", 13),
            ("engine", 1),
        ] {
            assert_eq!(exit_code(code), expected, "{code}");
        }
    }
}
