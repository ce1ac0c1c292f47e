//! Memory, file descriptors and store size of our processes, looked at again and again.

use std::{fs, path::Path};

use super::cast::Cast;

/// So much may the median of the last quarter be over that of the second.
const MORE_RSS: f64 = 1.25;
const SLACK_RSS_KB: f64 = 8_192.0;
const MORE_FDS: f64 = 4.0;
/// A store keeps which messages it has read; its journal comes and goes.
const MORE_STORE: f64 = 1.5;
const SLACK_STORE_BYTES: f64 = 4_194_304.0;

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    rss_kb: f64,
    fds: f64,
    store_bytes: f64,
}

/// One series for each of ours.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Vec<Sample>>);

impl Samples {
    pub(super) fn look(&mut self, cast: &Cast) {
        self.0.resize_with(cast.ours.len(), Vec::new);
        for ((peer, _), series) in cast.ours.iter().zip(&mut self.0) {
            let Some(pid) = peer.pid() else { continue };
            series.push(Sample {
                rss_kb: resident_kb(pid).unwrap_or_default(),
                fds: count(fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)),
                store_bytes: size(&peer.directory),
            });
        }
    }

    /// The median of a part of a series, in quarters: the first is for warming up.
    fn median(series: &[Sample], quarter: usize, of: fn(&Sample) -> f64) -> f64 {
        let bounds = (series.len() * quarter / 4, (series.len() * (quarter + 1) / 4).max(1));
        let mut values: Vec<f64> = series
            .get(bounds.0..bounds.1)
            .unwrap_or_default()
            .iter()
            .map(of)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn report(&self) -> String {
        let line = |(number, series): (usize, &Vec<Sample>)| {
            let [early, late] = [1, 3].map(|quarter| {
                let of = |value| Self::median(series, quarter, value);
                format!(
                    "{:.1} MiB, {} fds, store {:.0} KiB",
                    of(|sample| sample.rss_kb) / 1024.0,
                    of(|sample| sample.fds),
                    of(|sample| sample.store_bytes) / 1024.0
                )
            });
            format!(
                "ours {number}: second quarter {early}; last quarter {late}; {} samples",
                series.len()
            )
        };
        let lines: Vec<String> = self.0.iter().enumerate().map(line).collect();
        lines.join("\n")
    }

    /// What grows and should not.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, series) in self.0.iter().enumerate() {
            let both = |of| (Self::median(series, 1, of), Self::median(series, 3, of));
            let (early, late) = both(|sample| sample.rss_kb);
            if late > early * MORE_RSS + SLACK_RSS_KB {
                problems.push(format!("memory of ours {number} from {early} to {late} KiB"));
            }
            let (early, late) = both(|sample| sample.fds);
            if late > early + MORE_FDS {
                problems.push(format!("file descriptors of ours {number} from {early} to {late}"));
            }
            let (early, late) = both(|sample| sample.store_bytes);
            if late > early * MORE_STORE + SLACK_STORE_BYTES {
                problems.push(format!("the store of ours {number} from {early} to {late} bytes"));
            }
        }
        problems
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
const fn count(number: usize) -> f64 {
    number as f64
}

fn resident_kb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn size(directory: &Path) -> f64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path()),
            Ok(about) => about.len() as f64,
            Err(_) => 0.0,
        })
        .sum()
}
