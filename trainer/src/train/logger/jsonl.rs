//! `metrics.jsonl`: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use dataset::store::files;
use serde_json::Value;

use super::STEP;
use crate::train::checkpoint::exists;

/// Name of the file in a run.
pub(super) const NAME: &str = "metrics.jsonl";

/// Keys of older versions, and their present names.
const RENAMED: [(&str, &str); 1] = [("rate", "lr")];

/// The metrics of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// The lines, with the present names of their keys.
    pub lines: Vec<Value>,
    /// Number of damaged lines, which are left out.
    pub damaged: usize,
}

/// Reads the metrics of a run; none where it has no log.
///
/// # Errors
/// When the file cannot be read.
pub fn read_metrics(run: &Path) -> Result<Metrics> {
    let (lines, damaged) = read(&run.join(NAME))?;
    Ok(Metrics { lines: lines.into_iter().map(|(_, line)| line).collect(), damaged })
}

/// A log that is being written.
pub(super) struct Writer(File);

impl Writer {
    /// Cuts the log of a run back to its first `step` steps and opens it; returns the remaining lines, and the number of
    /// damaged ones that were left out.
    pub(super) fn cut_to(run: &Path, step: u64) -> Result<(Self, Vec<Value>, usize)> {
        let path = run.join(NAME);
        let (lines, damaged) = read(&path)?;
        // The bytes of the lines are kept, since numbers may change when they are read and written.
        let (kept, lines): (Vec<Vec<u8>>, Vec<Value>) =
            lines.into_iter().filter(|(_, line)| line[STEP].as_u64().is_some_and(|at| at <= step)).unzip();
        files::write_atomic(&path, &kept.concat())?;
        Ok((Self(OpenOptions::new().append(true).open(&path)?), lines, damaged))
    }

    pub(super) fn write(&mut self, line: &Value) -> Result<()> {
        Ok(self.0.write_all(format!("{line}\n").as_bytes())?)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.0.sync_all().context("the metrics were not written")
    }
}

/// A line of a log: its bytes, and what they say.
type Line = (Vec<u8>, Value);

/// The readable lines of a log, each as bytes and as JSON, and the number of damaged ones. The last line does not count as
/// damaged: it may still be being written, or a kill may have cut it.
fn read(path: &Path) -> Result<(Vec<Line>, usize)> {
    if !exists(path)? {
        return Ok((Vec::new(), 0));
    }
    let bytes = files::read(path, files::MAX_TABLE_BYTES)?;
    let (mut lines, mut damaged) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(value) => lines.push(([line.trim_ascii_end(), b"\n"].concat(), with_present_keys(value))),
            Err(_) => damaged += usize::from(line.ends_with(b"\n") && !line.trim_ascii().is_empty()),
        }
    }
    Ok((lines, damaged))
}

/// A line with keys of older versions renamed.
fn with_present_keys(mut line: Value) -> Value {
    if let Some(values) = line.as_object_mut() {
        for (old, new) in RENAMED {
            if let Some(value) = values.remove(old) {
                values.entry(new).or_insert(value);
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_of_older_versions_have_their_present_names() {
        assert_eq!(with_present_keys(json!({"step": 1, "rate": 0.5})), json!({"step": 1, "lr": 0.5}));
        assert_eq!(with_present_keys(json!({"lr": 0.1, "rate": 0.5})), json!({"lr": 0.1}));
        assert_eq!(with_present_keys(json!([1])), json!([1]));
    }

    #[test]
    fn a_log_is_cut_to_its_step_and_damaged_lines_are_counted() {
        let run = std::env::temp_dir().join(format!("trainer-jsonl-{}", std::process::id()));
        std::fs::create_dir_all(&run).unwrap();
        let text = "{\"step\": 1, \"loss\": 0.10}\nnot JSON\n\n{\"step\":2}\n{\"step\":3}\n{\"st";
        std::fs::write(run.join(NAME), text).unwrap();
        let metrics = read_metrics(&run).unwrap();
        assert_eq!((metrics.lines.len(), metrics.damaged), (3, 1));
        let (mut writer, lines, damaged) = Writer::cut_to(&run, 2).unwrap();
        writer.write(&json!({"step": 9})).unwrap();
        assert_eq!((lines.len(), damaged), (2, 1));
        let text = std::fs::read_to_string(run.join(NAME)).unwrap();
        assert_eq!(text, "{\"step\": 1, \"loss\": 0.10}\n{\"step\":2}\n{\"step\":9}\n");
        std::fs::remove_dir_all(&run).unwrap();
        assert_eq!(read_metrics(&run).unwrap(), Metrics::default());
    }
}
