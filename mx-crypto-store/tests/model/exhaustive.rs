//! Every sequence of up to three steps, each in a commit of its own and all in one unit, with the process killed before
//! the write, after it and before it is acknowledged, and after that. Most bugs of file systems that lose data in a
//! crash need no more steps than these (Mohan et al., OSDI 2018).
//!
//! A prefix is played once: whoever goes on begins with an image of it.

use std::{pin::Pin, sync::Arc};

use super::{
    act::step,
    alphabet::alphabet,
    check::{self, Checked},
    faulty::Plan,
    home::{Home, Rows, rows},
    live::{self, Live, first_rows, open},
    random::number,
    records::Eyes,
    reference::{Reference, Step, settled},
};

/// What a prefix left.
struct Prefix<'a, H> {
    live: &'a Live<H>,
    rows: &'a Rows,
    reference: &'a Reference,
    steps: &'a [Step],
}

struct Exhaustive<H> {
    alphabet: Vec<Step>,
    depth: usize,
    /// Where every unit begins.
    base: Live<H>,
    base_rows: Rows,
    sequences: usize,
}

async fn opened<H: Home>(home: H, plan: &Arc<Plan<H>>) -> Checked<Live<H>> {
    open(&Arc::new(home), plan)
        .await
        .map_err(|error| format!("it does not open: {error:?}"))
}

async fn rows_of<H: Home>(home: H) -> Checked<Rows> {
    let raw = home
        .open()
        .await
        .map_err(|error| format!("its backend does not open: {error:?}"))?;
    Ok(rows(&*raw).await)
}

async fn take<H: Home>(live: &Live<H>, taken: &Step, reference: &mut Reference) -> Checked {
    let answer = step(&live.store, None, taken)
        .await
        .map_err(|error| format!("{error:?}"))?;
    check::that(answer == reference.apply(taken).await, "a step answers as it should")
}

/// The images of one commit: nothing of it, then all of it.
async fn images_are_whole<H: Home>(plan: &Plan<H>, before: &Rows, after: &Rows) -> Checked {
    let images = plan.images();
    // A step that has nothing to write takes no commit.
    check::that(images.len() <= 2, "there is one commit")?;
    for (image, (rows, what)) in images.into_iter().zip([
        (
            before,
            "a process that is killed before the write leaves what was there before",
        ),
        (after, "a process that is killed after the write leaves all of it"),
    ]) {
        check::that(rows_of(image).await? == *rows, what)?;
    }
    Ok(())
}

impl<H: Home> Exhaustive<H> {
    /// All sequences that begin with the prefix.
    fn visit<'a>(&'a mut self, prefix: Prefix<'a, H>) -> Pin<Box<dyn Future<Output = Checked> + Send + 'a>> {
        Box::pin(async move {
            if prefix.steps.len() == self.depth {
                return Ok(());
            }
            for next in self.alphabet.clone() {
                let steps = [prefix.steps, std::slice::from_ref(&next)].concat();
                let mut reference = prefix.reference.fork();
                let told = |what: String| format!("{steps:#?}\n{what}");
                let (live, rows) = Self::alone(&prefix, &next, &mut reference).await.map_err(told)?;
                if steps.len() > 1 {
                    let told = |what: String| format!("in one unit: {steps:#?}\n{what}");
                    self.in_one_unit(&steps, &mut reference).await.map_err(told)?;
                }
                self.sequences += 1;
                let prefix = Prefix {
                    live: &live,
                    rows: &rows,
                    reference: &reference,
                    steps: &steps,
                };
                self.visit(prefix).await?;
            }
            Ok(())
        })
    }

    /// The last step in a commit of its own. What is left after it.
    async fn alone(prefix: &Prefix<'_, H>, next: &Step, reference: &mut Reference) -> Checked<(Live<H>, Rows)> {
        let plan = Plan::new();
        let live = opened(prefix.live.image().await, &plan).await?;
        plan.watch();
        take(&live, next, reference).await?;
        let rows = live.rows().await;
        images_are_whole(&plan, prefix.rows, &rows).await?;
        let left = live.image().await;
        drop(live);
        let again = opened(left, &Plan::new()).await?;
        check::that(again.rows().await == rows, "what was acknowledged is there")?;
        again.holds("after the commit", reference).await?;
        Ok((again, rows))
    }

    /// All steps in one unit.
    async fn in_one_unit(&self, steps: &[Step], reference: &mut Reference) -> Checked {
        let plan = Plan::new();
        let live = opened(self.base.image().await, &plan).await?;
        plan.watch();
        let unit = live.store.begin().await.map_err(|error| format!("{error:?}"))?;
        for taken in steps {
            step(&live.store, Some(&unit), taken)
                .await
                .map_err(|error| format!("{error:?}"))?;
        }
        if steps.len() < 3 {
            live::same("in the unit", &live.store, reference).await?;
        }
        let records = Eyes::Unit(&unit)
            .records()
            .await
            .map_err(|error| format!("{error:?}"))?;
        check::that(records.same(&reference.records), "a unit sees its own records")?;
        check::that(
            live.rows().await == self.base_rows,
            "nothing is written before the commit",
        )?;
        unit.commit().await.map_err(|error| format!("{error:?}"))?;
        let rows = live.rows().await;
        images_are_whole(&plan, &self.base_rows, &rows).await?;
        let left = live.image().await;
        drop(live);
        let again = opened(left, &Plan::new()).await?;
        check::that(again.rows().await == rows, "what was acknowledged is there")?;
        again.holds("after the unit", reference).await
    }
}

async fn run<H: Home>(depth: usize) -> Checked<usize> {
    let base = opened(live::first::<H>().await, &Plan::new()).await?;
    let mut reference = Reference::default();
    for taken in settled() {
        take(&base, &taken, &mut reference).await?;
    }
    let base_rows = base.rows().await;
    let again = opened(base.image().await, &Plan::new()).await?;
    let mut exhaustive = Exhaustive {
        alphabet: alphabet(),
        depth,
        base,
        base_rows: base_rows.clone(),
        sequences: 0,
    };
    let prefix = Prefix {
        live: &again,
        rows: &base_rows,
        reference: &reference,
        steps: &[],
    };
    exhaustive.visit(prefix).await?;
    Ok(exhaustive.sequences)
}

/// Try all sequences of up to `depth` steps. `MX_MODEL_DEPTH` sets another number.
pub(crate) fn exhaustive<H: Home>(depth: usize) {
    let depth = number("MX_MODEL_DEPTH").unwrap_or(depth);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let ran = runtime.block_on(run::<H>(depth));
    let sequences = ran.unwrap_or_else(|what| {
        let store = serde_json::to_string(runtime.block_on(first_rows())).unwrap();
        panic!("MX_STORE='{store}' replays this\n{what}")
    });
    let letters = alphabet().len();
    let all: usize = (1..=depth)
        .map(|length| letters.pow(u32::try_from(length).unwrap()))
        .sum();
    assert_eq!(sequences, all, "no sequence was left out");
}
