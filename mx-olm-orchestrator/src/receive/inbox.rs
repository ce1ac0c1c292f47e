//! Events that are safe on the disk and not yet acknowledged by the app.

use mx_crypto_store::{Cursor, Family, PickleStore, Record, RecordId, Unit};

use crate::{Event, Result};

const INBOX: Family = Family::new("inbox").passing();

/// An event, and what acknowledges it.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::Event;
///
/// for delivery in device.inbox(None, 100).await? {
///     if let Event::Invite(invite) = &delivery.event {
///         println!("invited to {}", invite.room_id);
///     }
///     // When it was handled: from then on it is not given again.
///     device.acknowledge(&[delivery]).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What happened.
    pub event: Event,
    pub(crate) cursor: Cursor,
}

/// Put events behind those that wait.
pub(crate) async fn append(unit: &Unit, events: &[Event]) -> Result<()> {
    for event in events {
        let position = unit.next_sequence(INBOX, &[]).await?;
        unit.put(&RecordId::sequence(INBOX, &[], position), event)?;
    }
    Ok(())
}

/// At most `limit` events that wait, oldest first, after `after`.
pub(crate) async fn waiting(store: &PickleStore, after: Option<&Cursor>, limit: usize) -> Result<Vec<Delivery>> {
    deliveries(store.scan(INBOX, &[], after, limit).await?)
}

/// The same, as far as a unit of work sees it.
pub(super) async fn page(unit: &Unit, after: Option<&Cursor>, limit: usize) -> Result<Vec<Delivery>> {
    deliveries(unit.scan(INBOX, &[], after, limit).await?)
}

fn deliveries(records: Vec<Record>) -> Result<Vec<Delivery>> {
    records
        .into_iter()
        .map(|record| {
            Ok(Delivery {
                event: record.decode()?,
                cursor: record.cursor,
            })
        })
        .collect()
}
