//! Measures one case on all of its variants, in rounds, with criterion.
//!
//! # Why criterion in rounds
//! Criterion takes all samples of one benchmark before those of the next, and on a shared machine a minute later is
//! another machine. So each round is a benchmark of its own for each variant, the variants take turns in going first,
//! and what counts is the median over the rounds of the ratio *within* a round. Criterion gives what it is good at: how
//! many iterations make a sample, and the median of the samples, which is read from its `estimates.json`.
//! `iter_custom`, since a case times its own part and not the preparation between.

use std::{cell::RefCell, fs, path::Path, time::Duration};

use anyhow::Context as _;
use async_trait::async_trait;
use criterion::{BenchmarkId, Criterion};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::variant::Variant;
use crate::table::median;

/// A case that is ready to be measured on one variant.
#[async_trait]
pub(crate) trait Subject: Send {
    /// Does it so many times, and returns how long that took without what had to be prepared.
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration>;
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measurement: Duration,
}

/// The figures of one variant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) nanoseconds: f64,
    /// How many times as long as the base takes; of the base 1.
    pub(crate) ratio: Option<f64>,
}

pub(crate) type Subjects = Vec<(Variant, Box<dyn Subject>)>;

/// Measures all subjects; the figures are in their order.
pub(crate) fn measure(
    runtime: &Runtime,
    case: &str,
    subjects: Subjects,
    effort: Effort,
) -> anyhow::Result<Vec<(Variant, Figure)>> {
    let output = tempfile::tempdir()?;
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .nresamples(1_001)
        .warm_up_time(effort.warm_up)
        .measurement_time(effort.measurement)
        .output_directory(output.path());
    let mut subjects: Vec<_> = subjects
        .into_iter()
        .map(|(variant, subject)| (variant, RefCell::new(subject)))
        .collect();
    let variants: Vec<_> = subjects.iter().map(|(variant, _)| *variant).collect();
    let mut medians = Vec::new();
    for round in 0..effort.rounds {
        let mut group = criterion.benchmark_group(case);
        for (variant, subject) in &subjects {
            let failure = RefCell::new(None);
            group.bench_function(BenchmarkId::new(variant.name(), round), |bencher| {
                bencher.iter_custom(|iterations| {
                    let run = runtime.block_on(subject.borrow_mut().run(iterations));
                    run.unwrap_or_else(|error| {
                        *failure.borrow_mut() = Some(error);
                        // Criterion wants to be told something; the figure is thrown away.
                        Duration::from_secs(1)
                    })
                });
            });
            if let Some(error) = failure.into_inner() {
                return Err(error).with_context(|| format!("{case} failed on {}", variant.name()));
            }
        }
        group.finish();
        medians.push(read(output.path(), case, &variants, round)?);
        subjects.rotate_left(1);
    }
    let base = variants.iter().position(|variant| *variant == Variant::BASE);
    let figure = |(column, variant)| Some((variant, figure(&medians, column, base)?));
    Ok(variants.into_iter().enumerate().filter_map(figure).collect())
}

/// The median over rounds of one variant, and of its ratio to the base in the same round.
fn figure(rounds: &[Vec<f64>], column: usize, base: Option<usize>) -> Option<Figure> {
    let nanoseconds = median(rounds.iter().filter_map(|round| round.get(column).copied()).collect())?;
    let ratios = rounds
        .iter()
        .filter_map(|round| Some(round.get(column)? / round.get(base?)?));
    Some(Figure {
        nanoseconds,
        ratio: median(ratios.collect()),
    })
}

/// The medians of a round, in nanoseconds. Criterion names directories by what it measures, without what no file may be
/// called.
fn read(output: &Path, case: &str, variants: &[Variant], round: usize) -> anyhow::Result<Vec<f64>> {
    let median = |variant: &Variant| {
        let path = output
            .join(case)
            .join(variant.name())
            .join(round.to_string())
            .join("new")
            .join("estimates.json");
        let text = fs::read(&path).with_context(|| format!("criterion left no {}", path.display()))?;
        let estimates: Value = serde_json::from_slice(&text)?;
        let median = estimates.pointer("/median/point_estimate").and_then(Value::as_f64);
        median.context("criterion's estimates have no median")
    };
    variants.iter().map(median).collect()
}
