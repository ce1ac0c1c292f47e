//! What people and programs read: data on stdout, everything else on stderr.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Show a result: a JSON object for programs, or a line for people. What came from the network must be
    /// [`clean`] in the line.
    ///
    /// # Errors
    /// Of stdout. A reader that went away ends the process as a success, as in every pipe.
    pub(crate) fn show(self, json: &Value, line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = if self.json {
            writeln!(stdout, "{json}")
        } else {
            writeln!(stdout, "{line}")
        };
        written.and_then(|()| stdout.flush())
    }

    /// Tell people something that is not data.
    pub(crate) fn note(self, line: &str) {
        let _nobody_reads = writeln!(io::stderr(), "{line}");
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
        let code = error
            .downcast_ref::<mx_e2ee::Error>()
            .map_or("unexpected", mx_e2ee::Error::code);
        let text = clean(&format!("{error:#}"));
        if self.json {
            let _nobody_reads = writeln!(io::stderr(), "{}", json!({"error": code, "message": text}));
        } else {
            self.note(&format!("mx: {text} [{code}]"));
        }
        ExitCode::from(exit_code(code))
    }
}

/// The exit code of an error; `mx --help` lists them.
fn exit_code(code: &str) -> u8 {
    match code {
        "wrong_password"
        | "no_password_login"
        | "not_logged_in"
        | "already_logged_in"
        | "logged_out"
        | "soft_logged_out"
        | "device_deleted"
        | "token_without_device"
        | "device_keys_mismatch"
        | "one_time_key_conflict"
        | "store_set_back"
        | "session_file"
        | "session_file_permissions" => 3,
        "unreachable"
        | "timeout"
        | "interrupted"
        | "tls"
        | "redirect"
        | "homeserver_failed"
        | "rate_limited"
        | "unreadable_answer"
        | "malformed_sync"
        | "send_pending"
        | "earlier_send_pending"
        | "key_share_incomplete"
        | "answer_too_large" => 4,
        "recipients_unknown" | "no_usable_recipients" | "claim_failed" | "identity_changed" => 5,
        "not_in_room"
        | "room_not_encrypted"
        | "room_is_encrypted"
        | "unsupported_algorithm"
        | "forbidden"
        | "not_found" => 6,
        "bad_content" | "too_large" => 8,
        code if code.starts_with("store_") => 7,
        "invalid_id" | "configuration" => 2,
        _ => 1,
    }
}

/// Text from the network without what would change a terminal or the direction of its text.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |char: char| {
        !char.is_control()
            && !matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .filter_map(|char| match char {
            '\n' => Some('\u{2424}'),
            '\t' => Some(' '),
            char if harmless(char) => Some(char),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_bidi_marks_are_taken_out() {
        assert_eq!(
            clean("a\u{1b}[31mb\r\u{202e}c\u{2066}\nd\te\u{9b}"),
            "a[31mbc\u{2424}d e"
        );
        assert_eq!(clean("größe ✓ 日本"), "größe ✓ 日本");
    }

    #[test]
    fn exit_codes_tell_kinds_apart() {
        for (code, expected) in [
            ("wrong_password", 3),
            ("unreachable", 4),
            ("recipients_unknown", 5),
            ("room_not_encrypted", 6),
            ("store_in_use", 7),
            ("bad_content", 8),
            ("engine", 1),
        ] {
            assert_eq!(exit_code(code), expected, "{code}");
        }
    }
}
