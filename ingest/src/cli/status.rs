//! The subcommand `status`: progress of the tasks that make a dataset together.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli::counted;

use crate::run::tasks::status::{Report, Running, SILENT, Status, status};

pub const EXAMPLES: &str = "Examples:\n  ingest status data/mimic\n  ingest status s3://bucket/mimic";

/// Lines of tasks that are printed, of those with nothing to report.
const SHOWN: usize = 1000;

#[derive(Args)]
pub struct StatusArguments {
    /// Directory or URL of the dataset.
    out: PathBuf,
}

impl StatusArguments {
    /// Prints the state of the dataset.
    pub fn run(&self) -> Result<u8> {
        let out = self.out.display();
        match status(&self.out)? {
            Status::Complete { shards, records } => {
                dataset::cli_println!(
                    "{out}: complete, {} in {}",
                    counted(records as usize, "record"),
                    counted(shards, "shard")
                );
            }
            Status::Alone { shards_done } => {
                let shards = counted(shards_done, "shard");
                dataset::cli_println!("{out}: unfinished, begun by a run without --task; finished so far: {shards}");
            }
            Status::Planning { host } => dataset::cli_println!("{out}: the plan is being made on {host}"),
            Status::Running(running) => {
                dataset::cli_println!("{out}: {}", summary(&running));
                lines(&running).iter().for_each(|line| dataset::cli_println!("{line}"));
            }
        }
        Ok(0)
    }
}

/// One line about all tasks.
fn summary(running: &Running) -> String {
    let Running { shards, shards_done, records, records_done, .. } = running;
    let percent = *records_done as f64 * 100.0 / (*records).max(1) as f64;
    let left = match running.seconds_left() {
        _ if shards_done == shards => "all shards are there; --finish writes the manifest".to_owned(),
        Some(seconds) => format!("{} left", duration(seconds)),
        None => "time left unknown".to_owned(),
    };
    format!(
        "{shards_done} of {} done, {records_done} of {} ({percent:.1}%), {:.1}/s, {left}",
        counted(*shards, "shard"),
        counted(*records as usize, "radiograph"),
        running.rate()
    )
}

/// A table of the tasks.
fn lines(running: &Running) -> Vec<String> {
    let count = running.tasks.len();
    let mut rows = vec![["task", "host", "shards", "radiographs", "rate", "state"].map(str::to_owned)];
    for (index, task) in running.tasks.iter().enumerate().take(SHOWN) {
        rows.push([
            format!("{index}/{count}"),
            task.report.as_ref().map_or_else(|| "-".to_owned(), |report| report.host.clone()),
            format!("{}/{}", task.shards_done, task.shards),
            format!("{}/{}", task.records_done, task.records),
            rate(task.report.as_ref()),
            match &task.report {
                _ if task.shards_done == task.shards => "done".to_owned(),
                None => "not begun".to_owned(),
                Some(report) => state(report),
            },
        ]);
    }
    if let Some(report) = &running.alone {
        let done = format!("{}/{}", running.records_done, running.records);
        let shards = format!("{}/{}", running.shards_done, running.shards);
        rows.push(["all".to_owned(), report.host.clone(), shards, done, rate(Some(report)), state(report)]);
    }
    let widths: Vec<usize> =
        (0..5).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}  {}", cells.collect::<Vec<_>>().join("  "), row[5])
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    if count > SHOWN {
        lines.push(format!("… and {} more tasks", count - SHOWN));
    }
    lines
}

fn rate(report: Option<&Report>) -> String {
    report.filter(|report| report.is_alive()).map_or_else(|| "-".to_owned(), |report| format!("{:.1}/s", report.rate))
}

/// What a task does, and when it said so.
fn state(report: &Report) -> String {
    let ago = format!("{} ago", duration(report.seconds_ago));
    match &report.error {
        Some(error) => format!("failed {ago}: {error}"),
        None if report.state == "done" => format!("ended {ago}"),
        None if report.seconds_ago > SILENT => format!("silent, last seen {ago}"),
        None => format!("{}, last seen {ago}", report.state),
    }
}

/// A number of seconds in words: `12 s`, `3 min`, `2 h 5 min`.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tasks::TaskStatus;

    #[test]
    fn each_task_has_a_line() {
        let report = |state: &str, rate: f64, seconds_ago: u64, error: Option<&str>| {
            let error = error.map(str::to_owned);
            Some(Report { host: "node1".to_owned(), state: state.to_owned(), error, rate, seconds_ago })
        };
        let task = |shards_done: usize, records_done: u64, report: Option<Report>| TaskStatus {
            shards: 4,
            shards_done,
            records: 400,
            records_done,
            report,
        };
        let mut running = Running {
            shards: 20,
            shards_done: 9,
            records: 2000,
            records_done: 950,
            tasks: vec![
                task(4, 400, report("done", 0.0, 90, None)),
                task(2, 250, report("running", 15.0, 2, None)),
                task(2, 200, report("running", 12.5, 400, None)),
                task(1, 100, report("failed", 3.0, 9000, Some("No space left on device"))),
                task(0, 0, None),
            ],
            alone: None,
        };
        assert_eq!(
            summary(&running),
            "9 of 20 shards done, 950 of 2000 radiographs (47.5%), 15.0/s, time left unknown"
        );
        assert_eq!(
            lines(&running),
            [
                "task  host   shards  radiographs  rate    state",
                "0/5   node1  4/4     400/400      -       done",
                "1/5   node1  2/4     250/400      15.0/s  running, last seen 2 s ago",
                "2/5   node1  2/4     200/400      -       silent, last seen 6 min ago",
                "3/5   node1  1/4     100/400      -       failed 2 h 30 min ago: No space left on device",
                "4/5   -      0/4     0/400        -       not begun",
            ]
        );
        running.tasks.truncate(2);
        assert!(summary(&running).ends_with("15.0/s, 10 s left"), "{}", summary(&running));
    }
}
