//! `mx listen`.

mod consumer;
mod files;
mod lines;
mod trouble;

use std::{pin::pin, time::Duration};

use anyhow::Result;
use futures_util::StreamExt;
use mx_e2ee::{Accept, Client, Error, Invites};

pub(crate) use self::consumer::NotHandled;
use self::{
    consumer::{Consumer, Ending},
    trouble::Trouble,
};
use crate::{
    cli::{Cli, Listen},
    output::{Output, exit_code},
    profile,
    signals::{GRACE, asked_to_end},
};

/// In trouble, how often it is looked whether a sync works again: there may be nothing to print for long.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(cli: &Cli, listen: &Listen, output: Output) -> Result<()> {
    let invites = Invites::of(&listen.accept_invites)?;
    if let Some(directory) = &listen.save {
        std::fs::create_dir_all(directory).map_err(|source| Error::File {
            path: directory.clone(),
            source,
        })?;
    }
    let mut consumer = Consumer::new(listen, output, profile::directory(cli)?)?;
    let client = profile::builder(cli)?
        .accept_invites(invites)
        .accept(accepted(listen))
        .memberships(listen.memberships)
        .open()
        .await?;
    if listen.once {
        return once(client, listen, consumer).await;
    }
    output.note(&format!(
        "listening as {} device {}; Ctrl-C ends it",
        client.user_id(),
        client.device_id()
    ));
    // Who reads what is printed may have stopped to, and a write waits for ever then.
    let patience = tokio::spawn(async {
        asked_to_end().await;
        tokio::time::sleep(2 * GRACE).await;
        std::process::exit(i32::from(exit_code("ended")));
    });
    let ending = Ending::default();
    let listened = {
        let mut follow = pin!(follow(&client, listen, output, &mut consumer, &ending));
        tokio::select! {
            listened = &mut follow => listened,
            () = asked_to_end() => match ending.begin() {
                // What was printed is handled by somebody: that is waited for, so that it does not come again.
                true => tokio::time::timeout(GRACE, follow)
                    .await
                    .unwrap_or_else(|_| Err(NotHandled::in_time().into())),
                false => Ok(()),
            },
        }
    };
    client.close().await?;
    patience.abort();
    listened
}

/// Whose messages are printed.
const fn accepted(listen: &Listen) -> Accept {
    match (listen.only_verified, listen.only_cross_signed) {
        (true, _) => Accept::Verified,
        (_, true) => Accept::CrossSigned,
        _ => Accept::Everybody,
    }
}

async fn follow(
    client: &Client,
    listen: &Listen,
    output: Output,
    consumer: &mut Consumer<'_>,
    ending: &Ending,
) -> Result<()> {
    let mut events = pin!(client.events());
    let mut handled = 0;
    let mut trouble = Trouble::default();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(LOOK), if trouble.is_on() => {
                let worked = client.orchestrator().since_last_sync();
                if let Some(over) = worked.and_then(|worked| trouble.is_over_since(worked)) {
                    output.note(&over);
                }
                continue;
            }
        };
        let Some(event) = event else {
            return Ok(());
        };
        match event {
            Ok(event) => {
                if let Some(over) = trouble.is_over() {
                    output.note(&over);
                }
                // Acknowledged by asking for the next one, right after it was handled.
                let taken = ending.handling(consumer.take(client, &event)).await?;
                if taken.is_gone {
                    return Ok(());
                }
                handled += u64::from(taken.counts);
                if ending.has_begun() || listen.count.is_some_and(|count| handled >= count) {
                    // Everything before it is acknowledged: it is the oldest that waits.
                    let last = client.orchestrator().inbox(None, 1).await.map_err(Error::from)?;
                    client.orchestrator().acknowledge(&last).await.map_err(Error::from)?;
                    return Ok(());
                }
            }
            Err(error) if error.is_transient() => {
                if let Some(told) = trouble.goes_on(error.code(), &error) {
                    output.note(&told);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn once(client: Client, listen: &Listen, mut consumer: Consumer<'_>) -> Result<()> {
    let mut left = listen.count.unwrap_or(u64::MAX);
    'all: loop {
        let mut waiting = client.orchestrator().inbox(None, 100).await.map_err(Error::from)?;
        client.answer_invites(&mut waiting).await;
        if waiting.is_empty() {
            client.sync().await?;
            if client
                .orchestrator()
                .inbox(None, 1)
                .await
                .map_err(Error::from)?
                .is_empty()
            {
                break;
            }
        }
        for delivery in waiting {
            if left == 0 {
                break 'all;
            }
            let taken = consumer.take(&client, &delivery.event).await?;
            if taken.is_gone {
                break 'all;
            }
            client
                .orchestrator()
                .acknowledge(&[delivery])
                .await
                .map_err(Error::from)?;
            left -= u64::from(taken.counts);
        }
    }
    client.close().await?;
    Ok(())
}
