//! Figures: of processes, of delays, and beside those of another run.

use crate::Failed;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Ticks per second of `/proc/*/stat`; the same on every Linux of the last twenty years.
const TICKS_PER_SECOND: f64 = 100.0;
/// Upstream's figures, saved in the form of this program.
const UPSTREAM: &str = include_str!("upstream.json");

/// CPU seconds of some processes so far, user and system.
pub(crate) fn cpu_seconds(processes: &[u32]) -> Result<f64, Failed> {
    let mut all = 0.0;
    for process in processes {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let after_name = text.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        all += ticks.sum::<Result<f64, _>>()?;
    }
    Ok(all / TICKS_PER_SECOND)
}

/// Resident memory of some processes in MB (10^6 bytes).
pub(crate) fn resident_megabytes(processes: &[u32]) -> Result<f64, Failed> {
    let mut all = 0.0;
    for process in processes {
        let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no resident size")?;
        all += line.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(all * 1024.0 / 1e6)
}

/// The delay, in ms, that this share of some delays does not exceed.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len().saturating_sub(1)) as f64 * share) as usize;
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// The middle of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A table of figures that grows as they come.
pub(crate) struct Table {
    figures: BTreeMap<String, f64>,
    other: BTreeMap<String, f64>,
}

impl Table {
    /// Beside the figures of a saved run, or upstream's.
    pub(crate) fn against(saved: Option<&Path>) -> Result<Self, Failed> {
        let text = saved.map_or_else(|| Ok(UPSTREAM.to_owned()), std::fs::read_to_string)?;
        let name = saved.map_or_else(|| "upstream".to_owned(), |path| path.display().to_string());
        println!("{:<52} {:>12} {:>12} {:>8}", "", "here", name, "ratio");
        Ok(Table { figures: BTreeMap::new(), other: serde_json::from_str(&text)? })
    }

    /// Notes a figure and prints its row. The name says what and in which unit.
    pub(crate) fn row(&mut self, name: String, value: f64) {
        match self.other.get(&name) {
            Some(other) if value > 0.0 => {
                let (more, of) = if value > *other { (value / other, "") } else { (other / value, "1/") };
                println!("{name:<52} {value:>12.3} {other:>12.3} {:>8}", format!("{of}{more:.1}"));
            }
            _ => println!("{name:<52} {value:>12.3}"),
        }
        self.figures.insert(name, value);
    }

    /// Writes the figures, for a later run to compare with.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failed> {
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&self.figures)?)?)
    }
}
