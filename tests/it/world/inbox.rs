//! I8: what a receiver was given, told by a ledger: at least once until acknowledged, never after, never under two ids.

use std::collections::BTreeMap;

use mx_e2ee::Event;
use ruma::OwnedEventId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// By the process that runs.
    Given,
    /// Its acknowledgement is under way, or ended in an error.
    Asked,
    /// By a process that ended before it was known to be acknowledged.
    Loose,
    Acknowledged,
}

/// Messages as a receiver got them. Their texts must be distinct.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    standing: BTreeMap<OwnedEventId, Standing>,
    /// By text, in which event it came.
    texts: BTreeMap<String, OwnedEventId>,
    /// In the order in which they came for the first time.
    order: Vec<String>,
    /// What came besides messages.
    pub(crate) others: Vec<Event>,
}

impl Inbox {
    /// These events were given out.
    pub(crate) fn given(&mut self, events: &[Event]) {
        for event in events {
            let Event::Message(message) = event else {
                self.others.push(event.clone());
                continue;
            };
            let text = message.body().unwrap_or_default().to_owned();
            let before = self.standing.insert(message.event_id.clone(), Standing::Given);
            assert_ne!(
                before,
                Some(Standing::Acknowledged),
                "I8: {text:?} was acknowledged and is given again"
            );
            let first = self.texts.entry(text.clone()).or_insert_with(|| {
                self.order.push(text.clone());
                message.event_id.clone()
            });
            assert_eq!(*first, message.event_id, "I8: {text:?} came in two events");
        }
    }

    /// An acknowledgement of all that this process gave is under way.
    pub(crate) fn acknowledging(&mut self) {
        self.turn(Standing::Given, Standing::Asked);
    }

    /// It has ended well.
    pub(crate) fn acknowledged(&mut self) {
        self.turn(Standing::Asked, Standing::Acknowledged);
    }

    /// Another process goes on.
    pub(crate) fn restarted(&mut self) {
        self.turn(Standing::Given, Standing::Loose);
        self.turn(Standing::Asked, Standing::Loose);
    }

    fn turn(&mut self, from: Standing, to: Standing) {
        for standing in self.standing.values_mut().filter(|standing| **standing == from) {
            *standing = to;
        }
    }

    /// The texts, in the order in which they came for the first time.
    pub(crate) fn texts(&self) -> &[String] {
        &self.order
    }
}
