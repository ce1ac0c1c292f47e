//! What a person types, or another program writes, on stdin.

use std::{io::BufRead, path::PathBuf};

use mx_e2ee::{VerificationId, ruma::OwnedUserId};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::output::Output;

/// As long as a line may be, in bytes.
const MOST_BYTES: usize = 4096;

/// A step of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Accept,
    Start,
    Confirm,
    Mismatch,
    Cancel,
    ShowQr,
    Scan(PathBuf),
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// For the verification of this name; for the only one, without.
    Step(Option<VerificationId>, Step),
    Unclear(&'static str),
    /// There is no line any more.
    Ended,
}

/// A step as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "do")]
    what: String,
    user_id: Option<OwnedUserId>,
    flow_id: Option<String>,
    image: Option<PathBuf>,
}

/// The lines of stdin.
pub(super) struct Steps {
    /// `None`: stdin has ended.
    lines: Option<mpsc::Receiver<String>>,
    json: bool,
}

impl Steps {
    pub(super) fn new(output: Output) -> Self {
        let (sender, lines) = mpsc::channel(8);
        // A read of stdin cannot be ended: the runtime leaves it behind at the end.
        tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            lines: Some(lines),
            json: output.is_json(),
        }
    }

    /// The next line; that stdin has ended, once; and nothing after that, ever.
    ///
    /// # Cancel safety
    /// Safe: no line is lost.
    pub(super) async fn next(&mut self) -> Answer {
        let Some(lines) = &mut self.lines else {
            return std::future::pending().await;
        };
        match lines.recv().await {
            Some(line) => read(&line, self.json),
            None => {
                self.lines = None;
                Answer::Ended
            }
        }
    }

    /// Whether nobody can answer any more.
    pub(super) const fn have_ended(&self) -> bool {
        self.lines.is_none()
    }
}

fn read(line: &str, json: bool) -> Answer {
    if line.len() > MOST_BYTES {
        return Answer::Unclear("the line is too long");
    }
    if !json {
        return match line.trim().to_lowercase().as_str() {
            "y" | "yes" => Answer::Yes,
            "n" | "no" => Answer::No,
            _ => Answer::Unclear("say yes or no"),
        };
    }
    let Ok(written) = serde_json::from_str::<Written>(line) else {
        return Answer::Unclear("a step is a JSON object such as {\"do\": \"confirm\"}");
    };
    let step = match (written.what.as_str(), written.image) {
        ("accept", None) => Step::Accept,
        ("start", None) => Step::Start,
        ("confirm", None) => Step::Confirm,
        ("mismatch", None) => Step::Mismatch,
        ("cancel", None) => Step::Cancel,
        ("show_qr", None) => Step::ShowQr,
        ("scan", Some(image)) => Step::Scan(image),
        _ => return Answer::Unclear("there is no such step: mx verify --help lists them"),
    };
    match (written.user_id, written.flow_id) {
        (Some(user_id), Some(flow_id)) => Answer::Step(Some(VerificationId { user_id, flow_id }), step),
        (None, None) => Answer::Step(None, step),
        _ => Answer::Unclear("a verification is named by user_id and flow_id"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_say_yes_or_no() {
        assert_eq!(read(" Yes ", false), Answer::Yes);
        assert_eq!(read("n", false), Answer::No);
        for unclear in ["", "yes and no", "y y", "ja"] {
            assert!(matches!(read(unclear, false), Answer::Unclear(_)), "{unclear}");
        }
    }

    #[test]
    fn programs_say_steps_and_nothing_else() {
        assert_eq!(read(r#"{"do":"confirm"}"#, true), Answer::Step(None, Step::Confirm));
        let named = r#"{"do":"cancel","user_id":"@a:b","flow_id":"f"}"#;
        assert!(matches!(read(named, true), Answer::Step(Some(_), Step::Cancel)));
        for unclear in [
            "yes",
            "{}",
            r#"{"do":"confirm","image":"x"}"#,
            r#"{"do":"scan"}"#,
            r#"{"do":"confirm","user_id":"@a:b"}"#,
            r#"{"do":"confirm","more":1}"#,
            r#"{"do":"verify"}"#,
        ] {
            assert!(matches!(read(unclear, true), Answer::Unclear(_)), "{unclear}");
        }
        assert!(matches!(read(&" ".repeat(5000), true), Answer::Unclear(_)));
    }
}
