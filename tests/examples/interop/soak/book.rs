//! What became of every message, and whether everybody read it once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail, ensure};

use super::cast::Cast;
use crate::stage::{self, Stage};

/// After the end, everything has arrived within this.
const SETTLED: Duration = Duration::from_secs(120);

/// What a sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The homeserver has it, as this event.
    Accepted(String),
    /// It is safe in the outbox, and will be sent.
    Pending,
    /// Nothing was kept of it, with this code.
    Refused(String),
    /// The process died over it: it may have been sent, once.
    Interrupted,
}

#[derive(Debug)]
struct Entry {
    room: String,
    speaker: String,
    text: String,
    fate: Fate,
}

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: Vec<Entry>,
    took_ours: Vec<Duration>,
    took_theirs: Vec<Duration>,
    readings: usize,
    again: usize,
}

impl Book {
    pub(super) fn note(&mut self, room: &str, speaker: &str, text: String, fate: Fate) {
        let (room, speaker) = (room.to_owned(), speaker.to_owned());
        self.entries.push(Entry {
            room,
            speaker,
            text,
            fate,
        });
    }

    pub(super) fn took(&mut self, ours: bool, took: Duration, fate: &Fate) {
        if matches!(fate, Fate::Accepted(_)) {
            if ours {
                &mut self.took_ours
            } else {
                &mut self.took_theirs
            }
            .push(took);
        }
    }

    /// Everybody in the room of an accepted message has read it, as one event.
    pub(super) async fn check(&mut self, stage: &Stage<'_>, cast: &mut Cast) -> Result<()> {
        // What waits in an outbox goes with the next message of its room.
        cast.flush(stage).await?;
        let mut wrong = Vec::new();
        for entry in &self.entries {
            for reader in cast
                .readers(&entry.room)
                .into_iter()
                .filter(|one| one.device != entry.speaker)
            {
                let expected = matches!(entry.fate, Fate::Accepted(_) | Fate::Pending);
                let events = if expected {
                    let found = reader.ledger.until(SETTLED, |ledger| {
                        let events = ledger.with_body(&entry.text);
                        (!events.is_empty()).then_some(events)
                    });
                    found.await.unwrap_or_default()
                } else {
                    reader.ledger.with_body(&entry.text)
                };
                let right = match &entry.fate {
                    Fate::Accepted(event) => events.len() == 1 && events.first() == Some(event),
                    Fate::Pending => events.len() == 1,
                    Fate::Refused(_) => events.is_empty(),
                    Fate::Interrupted => events.len() <= 1,
                };
                self.readings += events.len();
                if !right {
                    wrong.push(format!(
                        "{} read {:?} of {} as {events:?}: {:?}",
                        reader.name(),
                        entry.text,
                        entry.speaker,
                        entry.fate
                    ));
                }
            }
        }
        self.again = cast.everybody().iter().map(|peer| peer.ledger.repeated()).sum();
        for (room, member) in cast.rooms() {
            stage::sound(&stage.server, &room, member).await?;
        }
        if let Some(first) = wrong.first() {
            bail!("{} readings are wrong, such as: {first}", wrong.len());
        }
        ensure!(self.readings > 0, "nothing was read");
        Ok(())
    }

    pub(super) fn report(&self, seconds: f64) -> String {
        let mut fates: BTreeMap<String, usize> = BTreeMap::new();
        for entry in &self.entries {
            let fate = match &entry.fate {
                Fate::Accepted(_) => "accepted".to_owned(),
                Fate::Pending => "pending".to_owned(),
                Fate::Refused(code) => format!("refused {code}"),
                Fate::Interrupted => "interrupted".to_owned(),
            };
            *fates.entry(fate).or_default() += 1;
        }
        let count = self.entries.len();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = count as f64 / seconds;
        format!(
            "{count} messages ({rate:.1} a second): {fates:?}\n{} readings; {} events were given to an app again after a kill\n\
             a send of ours {}, of theirs {}",
            self.readings,
            self.again,
            spread(&self.took_ours),
            spread(&self.took_theirs)
        )
    }
}

/// The median, and what one in a hundred takes.
fn spread(took: &[Duration]) -> String {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = |part: usize| {
        let found = sorted.get(sorted.len().saturating_sub(1) * part / 100);
        found.map_or(0, Duration::as_millis)
    };
    format!("p50 {} ms, p99 {} ms", at(50), at(99))
}
