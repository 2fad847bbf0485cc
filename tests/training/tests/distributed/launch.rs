//! Ways to start several processes.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use helpers::{binary, text};

/// A port that nobody listens on.
pub fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address").port().to_string()
}

/// A command that starts `ranks` trainers with the same arguments by torchrun; none, with a line that says so, if no Python
/// with torch is at hand.
pub fn torchrun(ranks: usize, options: &[&str], arguments: &[OsString]) -> Option<Command> {
    let Ok(python) = std::env::var("MRM_TORCH_PYTHON") else {
        assert!(std::env::var("MRM_REQUIRE_TEST_DATA").as_deref() != Ok("1"), "MRM_TORCH_PYTHON is not set");
        eprintln!("skipped: MRM_TORCH_PYTHON names no Python with torch");
        return None;
    };
    let mut command = Command::new(python);
    command.args(["-m", "torch.distributed.run", "--no-python", "--nproc-per-node", &ranks.to_string()]);
    command.args(["--master-addr", "127.0.0.1", "--master-port", &free_port(), "--monitor-interval", "0.1"]);
    command.args(options).arg("--").arg(binary("trainer")).args(arguments);
    command.env("OMP_NUM_THREADS", "1").env("GLOO_SOCKET_IFNAME", "lo").env_remove("LIBTORCH");
    command.stdin(Stdio::null());
    Some(command)
}

/// Runs a command that must succeed; returns its standard output.
pub fn succeeds(command: Option<Command>) -> Option<String> {
    let output = command?.output().expect("it starts");
    assert!(output.status.success(), "{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    Some(text(&output.stdout))
}

/// A trainer as rank `rank` of `world_size`, started by the variables alone.
pub fn rank(rank: usize, world_size: usize, port: &str, arguments: &[OsString]) -> Command {
    let mut command = helpers::command("trainer");
    command.args(arguments).env("GLOO_SOCKET_IFNAME", "lo");
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", world_size.to_string());
    command.env("LOCAL_RANK", rank.to_string()).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts all ranks of a job, each with arguments of its own, and waits for them.
pub fn ranks(arguments: &[Vec<OsString>]) -> Vec<Output> {
    let port = free_port();
    let start =
        |(number, own): (usize, &Vec<OsString>)| rank(number, arguments.len(), &port, own).spawn().expect("it starts");
    let children: Vec<Child> = arguments.iter().enumerate().map(start).collect();
    children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect()
}

/// The process of a job, below `parent`, that has this rank.
pub fn process_of_rank(parent: u32, rank: usize) -> u32 {
    let started = Instant::now();
    let wanted = format!("RANK={rank}");
    while started.elapsed() < Duration::from_mins(2) {
        for process in descendants(parent) {
            let folder = Path::new("/proc").join(process.to_string());
            let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
            if name.trim() == "trainer" && environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
            {
                return process;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no process of rank {rank}");
}

/// All processes below one.
fn descendants(parent: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let children: Vec<u32> = children.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    children.iter().copied().chain(children.iter().flat_map(|child| descendants(*child))).collect()
}
