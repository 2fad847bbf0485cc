//! How the processes of a job find each other, and what they must agree on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tch::Device;

use super::launcher::Launch;
use super::watchdog::{Activity, Job, Watchdog};
use crate::torch::c10d::{self, Group, Store};

/// Collectives never end by this timeout, but by the watchdog: rank 0 evaluates while the others wait.
const COLLECTIVE_TIMEOUT: Duration = Duration::from_hours(24);

/// Time between two looks at the store.
const POLL: Duration = Duration::from_millis(100);

/// Time between two messages about missing processes.
const MESSAGE_PAUSE: Duration = Duration::from_secs(30);

/// A process that failed tries for so long to report to the others.
const FAREWELL: Duration = Duration::from_secs(2);

/// The processes have so long to read why the job cannot begin.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// What must be the same in all processes: a name for messages, and a value or digest.
pub type Agreement = Vec<(&'static str, String)>;

/// What a process writes about itself when it joins.
#[derive(Serialize, Deserialize)]
struct Introduction {
    host: String,
    agreement: Vec<(String, String)>,
    /// The error that ended the process before it could join.
    #[serde(default)]
    error: Option<String>,
}

/// Time limits of a job.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Processes may start so long after each other.
    pub join: Duration,
    /// A step may take so long.
    pub stall: Duration,
}

/// A joined job: the connections, and the thread that watches over them.
pub(super) struct Joined {
    pub group: Group,
    pub watchdog: Watchdog,
}

/// Joins the job. Returns when all processes are there, agree, and are connected.
pub(super) fn join(
    launch: &Launch,
    device: Device,
    nccl: bool,
    agreement: &Agreement,
    timeouts: Timeouts,
    notify: &dyn Fn(&str),
) -> Result<Joined> {
    if nccl && !c10d::HAS_NCCL {
        bail!(
            "this trainer was built without NCCL, which {} GPUs need: build it where the CUDA libraries of torch are installed",
            launch.world_size
        );
    }
    let open = || Store::open(&launch.host, launch.port, false, launch.world_size, &launch.prefix, timeouts.join);
    let store = Store::open(&launch.host, launch.port, launch.serves, launch.world_size, &launch.prefix, timeouts.join)
        .with_context(|| no_store(launch))?;
    let own = Introduction {
        host: host(),
        agreement: agreement.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        error: None,
    };
    if store.get(&key(launch.rank))?.is_some() {
        bail!(
            "two processes have rank {}: are RANK, or the numbers of nodes and tasks, the same in all of them?",
            launch.rank
        );
    }
    store.set(&key(launch.rank), &serde_json::to_vec(&own)?)?;
    let all = wait_for_all(&store, launch, timeouts.join, notify);
    store.set(&format!("read/{}", launch.rank), b"")?;
    if let Err(error) = all.as_ref().map_err(|error| anyhow!("{error:#}")).and_then(|all| agree(launch, all)) {
        if launch.serves {
            wait_for_readers(&store, launch.world_size);
        }
        return Err(error);
    }
    let hosts = all?.into_iter().map(|introduction| introduction.host).collect();
    let server = launch.serves.then(|| store.share());
    let job = Job::new(launch.rank, hosts, timeouts.stall, open()?, server);
    let watchdog = Watchdog::start(job).context("no thread")?;
    watchdog.job.set(Activity::Waiting);
    let group = Group::join(&store, launch.rank, launch.world_size, device, nccl, COLLECTIVE_TIMEOUT)?;
    watchdog.job.set(Activity::Starting);
    Ok(Joined { group, watchdog })
}

/// Reports to the others that this process failed before it could join, if the store is there already.
pub(super) fn fail(launch: &Launch, message: &str) {
    let Launch { host: at, port, serves, world_size, prefix, .. } = launch;
    if *serves {
        return;
    }
    if let Ok(store) = Store::open(at, *port, false, *world_size, prefix, FAREWELL) {
        let introduction = Introduction { host: host(), agreement: Vec::new(), error: Some(message.to_owned()) };
        let _ = store.set(&key(launch.rank), &serde_json::to_vec(&introduction).unwrap_or_default());
    }
}

/// Gives the others some time to read why the job cannot begin, before the store ends with this process.
fn wait_for_readers(store: &Store, world_size: usize) {
    let began = Instant::now();
    let is_read = || (0..world_size).all(|rank| matches!(store.get(&format!("read/{rank}")), Ok(Some(_))));
    while !is_read() && began.elapsed() < LONGEST_READ {
        std::thread::sleep(POLL);
    }
}

fn no_store(launch: &Launch) -> String {
    let Launch { host, port, .. } = launch;
    if launch.serves {
        format!("rank 0 cannot listen on port {port}; set MASTER_PORT to a free one")
    } else {
        format!("rank 0 cannot be reached at {host}:{port}: has it started, and is MASTER_ADDR right?")
    }
}

fn key(rank: usize) -> String {
    format!("joined/{rank}")
}

/// Name of this machine.
fn host() -> String {
    let read = |path| std::fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    read("/proc/sys/kernel/hostname").filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown host".to_owned())
}

/// Waits until all processes have introduced themselves.
fn wait_for_all(store: &Store, launch: &Launch, limit: Duration, notify: &dyn Fn(&str)) -> Result<Vec<Introduction>> {
    let mut all: Vec<Option<Introduction>> = (0..launch.world_size).map(|_| None).collect();
    let (began, mut last_message) = (Instant::now(), Instant::now());
    loop {
        for (rank, known) in all.iter_mut().enumerate().filter(|(_, known)| known.is_none()) {
            if let Some(bytes) = store.get(&key(rank))? {
                *known =
                    Some(serde_json::from_slice(&bytes).context("another version of this program has joined the job")?);
            }
        }
        let failed = all
            .iter()
            .enumerate()
            .find_map(|(rank, known)| Some((rank, known.as_ref()?.error.as_ref()?, known.as_ref()?)));
        if let Some((rank, error, Introduction { host, .. })) = failed {
            bail!("rank {rank} ({host}) failed: {error}");
        }
        let missing: Vec<String> =
            all.iter().enumerate().filter(|(_, known)| known.is_none()).map(|(rank, _)| rank.to_string()).collect();
        if missing.is_empty() {
            return Ok(all.into_iter().flatten().collect());
        }
        let missing = format!("{} of ranks 0 to {}", missing.join(", "), launch.world_size - 1);
        if began.elapsed() > limit {
            bail!("missing after {} s (run.join_timeout): {missing}", limit.as_secs());
        }
        if last_message.elapsed() > MESSAGE_PAUSE {
            last_message = Instant::now();
            notify(&format!("waiting for {missing}"));
        }
        std::thread::sleep(POLL);
    }
}

/// An error where a process differs from rank 0. Every process finds the same one.
fn agree(launch: &Launch, all: &[Introduction]) -> Result<()> {
    let Some(first) = all.first() else { return Ok(()) };
    for (rank, other) in all.iter().enumerate().skip(1) {
        let differs = first.agreement.iter().zip(&other.agreement).find(|(a, b)| a != b);
        let lengths = (first.agreement.len() != other.agreement.len()).then_some("version of the program");
        if let Some(what) = differs.map(|((name, _), _)| name.as_str()).or(lengths) {
            let values = differs.filter(|((_, a), (_, b))| a.len() < 40 && b.len() < 40);
            let values = values.map_or_else(String::new, |((_, a), (_, b))| format!(": {b}, not {a}"));
            let also = if rank == launch.rank { ", this process," } else { "" };
            bail!("rank {rank} ({}){also} has another {what} than rank 0 ({}){values}", other.host, first.host);
        }
    }
    Ok(())
}
