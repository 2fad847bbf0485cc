//! A real Slurm cluster on this machine: controller and nodes in namespaces of their own, without systemd and without a
//! port that anyone else can reach.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{folder, requires_cluster, text};

/// Starts the daemons; see the comments in it.
const SCRIPT: &str = include_str!("slurm.sh");

/// The first process of the namespaces. It ends when its standard input is closed, also by the death of the test.
const FIRST: &str = r#"{ bash "$0" "$@" || touch "$1/failed"; } & exec cat >/dev/null"#;

/// Programs that must be installed: Debian's packages slurmctld, slurmd, slurm-client and munge, iproute2, util-linux.
const PROGRAMS: [&str; 8] = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "ip", "unshare", "nsenter"];

/// Longest wait for a cluster, and for a job.
const PATIENCE: Duration = Duration::from_mins(5);

/// A running cluster with the partitions `low` (the default) and `high`, whose jobs displace those of `low`. A job that ends
/// with 75 is queued again. The nodes are `n1`, `n2` …; each has its own host name, processes and `/var/tmp`, all other
/// folders are shared. Only `lo` exists, so servers of the test itself cannot be reached from a job.
///
/// When it is dropped, or the test's process ends in any way, all daemons and jobs are killed.
pub struct Slurm {
    /// `unshare`, whose standard input keeps the cluster alive.
    child: Child,
    folder: TempDir,
}

/// A job or an element of a job array, as the controller shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmJob {
    /// Number within the array; `None` for a job without one, and for elements that have not begun.
    pub element: Option<u32>,
    /// `COMPLETED`, `FAILED`, `RUNNING` …
    pub state: String,
    /// Exit code and signal: `0:0`, `75:0`, `0:9`.
    pub exit: String,
    /// Number of times that it was queued again.
    pub restarts: u32,
    /// The nodes of its last run.
    pub nodes: String,
}

impl SlurmJob {
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned)
        };
        Some(Self {
            element: field("ArrayTaskId").and_then(|element| element.parse().ok()),
            state: field("JobState")?,
            exit: field("ExitCode")?,
            restarts: field("Restarts")?.parse().ok()?,
            nodes: field("NodeList").unwrap_or_default(),
        })
    }

    /// Whether it has ended and will not be queued again.
    pub fn has_ended(&self) -> bool {
        ![
            "PENDING",
            "RUNNING",
            "COMPLETING",
            "CONFIGURING",
            "REQUEUED",
            "REQUEUE_HOLD",
            "SUSPENDED",
            "STOPPED",
            "SIGNALING",
        ]
        .contains(&self.state.as_str())
    }
}

impl Slurm {
    /// Starts a cluster of so many nodes, with so many CPUs each (more than this machine has are allowed). It takes some
    /// seconds. `None`, with a line that says why, where Slurm is not installed or this user is not root.
    ///
    /// # Panics
    /// With `MRM_REQUIRE_CLUSTER=1` where it cannot be started.
    pub fn start(nodes: usize, cpus: usize) -> Option<Self> {
        let is_missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
        let missing = PROGRAMS.iter().copied().find(is_missing).map(|program| format!("{program} is not installed"));
        let is_root = || fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0);
        let refusal = missing.or_else(|| (!is_root()).then(|| "a Slurm cluster needs root".to_owned()));
        if let Some(refusal) = refusal {
            assert!(!requires_cluster(), "{refusal}");
            eprintln!("skipped: {refusal}");
            return None;
        }
        let folder = folder();
        fs::write(folder.path().join("slurm.sh"), SCRIPT).expect("written");
        let log = fs::File::create(folder.path().join("script.log")).expect("a log");
        let child = Command::new("unshare")
            .args(["--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"])
            .args(["-c", FIRST])
            .args([&folder.path().join("slurm.sh"), folder.path()])
            .args([nodes.to_string(), cpus.to_string()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("unshare starts");
        let mut cluster = Self { child, folder };
        let started = Instant::now();
        while !cluster.folder().join("ready").exists() {
            let ended = cluster.child.try_wait().expect("its state");
            let failed = ended.is_some() || cluster.folder().join("failed").exists();
            assert!(!failed && started.elapsed() < PATIENCE, "no cluster: {}", cluster.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(cluster)
    }

    /// The cluster's folder: `slurm.conf`, logs, and room for scripts. It is removed with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command of bash on the controller, with `SLURM_CONF` set; `sbatch`, `srun` … reach the cluster only from there.
    pub fn command(&self, command: &str) -> Command {
        let pid = self.child.id();
        let mut entered = Command::new("nsenter");
        entered
            .args(["--target", &pid.to_string(), "--mount", "--uts", "--net"])
            .arg(format!("--pid=/proc/{pid}/ns/pid_for_children"))
            .arg(format!("--wd={}", std::env::current_dir().expect("a working directory").display()))
            .args(["bash", "-c", command])
            .env("SLURM_CONF", self.folder().join("slurm.conf"))
            .stdin(Stdio::null());
        entered
    }

    /// Runs a command of bash on the controller; returns its output and exit code.
    pub fn output(&self, command: &str) -> Output {
        self.command(command).output().expect("nsenter starts")
    }

    /// Runs a command of bash on the controller, which must succeed, and returns its standard output.
    pub fn run(&self, command: &str) -> String {
        let output = self.output(command);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command}: {}\n{out}\n{err}\n{}", output.status, self.logs());
        out
    }

    /// Submits a job with these arguments of `sbatch`; returns its number.
    pub fn submit(&self, arguments: &str) -> String {
        let printed = self.run(&format!("sbatch --parsable {arguments}"));
        printed.trim().split(';').next().unwrap_or_default().to_owned()
    }

    /// The job of a number, or the elements of an array as far as they have begun and the rest as one.
    pub fn jobs(&self, job: &str) -> Vec<SlurmJob> {
        let shown = self.run(&format!("scontrol -o show job {job}"));
        shown.lines().filter_map(SlurmJob::parse).collect()
    }

    /// Waits until a job, or each element of an array, has ended for good.
    pub fn wait(&self, job: &str) -> Vec<SlurmJob> {
        self.wait_until(job, |jobs| jobs.iter().all(SlurmJob::has_ended))
    }

    /// Waits until a job, or the elements of an array, are in a wanted state.
    pub fn wait_until(&self, job: &str, wanted: impl Fn(&[SlurmJob]) -> bool) -> Vec<SlurmJob> {
        let started = Instant::now();
        loop {
            let jobs = self.jobs(job);
            if wanted(&jobs) {
                return jobs;
            }
            assert!(started.elapsed() < PATIENCE, "job {job} after {PATIENCE:?}: {jobs:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills all processes of a node at once, as when it loses its power. Its jobs are queued again after some 30 s.
    pub fn kill_node(&self, node: &str) {
        self.run(&format!("kill -KILL $(cat {}/{node}.pid)", self.folder().display()));
    }

    /// Starts a node that was killed.
    pub fn start_node(&self, node: &str) {
        self.run(&format!("{}/start-node {node}", self.folder().display()));
    }

    /// The ends of the daemons' logs, for the message of a test that fails.
    pub fn logs(&self) -> String {
        let read = |path: &Path| text(&fs::read(path).unwrap_or_default());
        let mut all = read(&self.folder().join("script.log"));
        for entry in fs::read_dir(self.folder().join("log")).into_iter().flatten().flatten() {
            let log = read(&entry.path());
            let last: Vec<&str> = log.lines().rev().take(15).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            all += &format!("\n{}:\n{}", entry.path().display(), last.join("\n"));
        }
        all
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // The first process ends, and the kernel ends all others of its namespaces.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
