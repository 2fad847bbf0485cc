//! How many threads compute: those of torch within an operation, and those of the loader.
//!
//! Threads that share a core with each other, or with another process, wait for each other in every operation, and a run
//! becomes several times slower. So the number follows what the process may use, not what the machine has.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use tch::Device;

/// The most threads that may be asked for.
pub const MOST: usize = 1024;

/// Threads of torch for one thread of the loader, where both compute on the CPU: a batch is made in a small part of the
/// time that the model takes for it.
const TORCH_PER_LOADER: usize = 4;

/// How often a thread of OpenMP looks whether there is work before it sleeps: some microseconds. The default of libgomp is
/// some milliseconds, in which a thread keeps the core that the other one waits for.
const SPINS: (&str, &str) = ("GOMP_SPINCOUNT", "1000");

/// A number of threads, and what it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    pub count: usize,
    pub from: &'static str,
}

/// Starts this program anew with `GOMP_SPINCOUNT=1000`, where it has several threads and nobody has chosen how they wait.
/// libgomp reads its settings when it is loaded, which is before `main`; the process stays the same one.
pub fn limit_spinning(asked: usize) {
    if [SPINS.0, "OMP_WAIT_POLICY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = choose(asked, variable("OMP_NUM_THREADS"), variable("SLURM_CPUS_PER_TASK"), usable);
    let mut arguments = std::env::args_os();
    if let (2.., Some(name), Ok(program)) = (threads.count, arguments.next(), std::env::current_exe()) {
        // Where it cannot be started anew, it goes on as it is.
        let _ = Command::new(program).arg0(name).args(arguments).env(SPINS.0, SPINS.1).exec();
    }
}

/// Sets the threads that torch uses within an operation: as many as are asked for, else `OMP_NUM_THREADS`, else
/// `SLURM_CPUS_PER_TASK`, else the cores that the affinity mask and the cgroups leave to this process. `asked` is 0 where
/// nothing is asked for.
pub fn set(asked: usize) -> Threads {
    // Asked before the number is first set, since torch then tells that one.
    static CORES: OnceLock<usize> = OnceLock::new();
    // The standard library looks at the affinity mask and the CPU quota of cgroups v1 and v2; torch's own number counts a core
    // once, however many hardware threads it has.
    let cores = *CORES.get_or_init(|| {
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, usable)
    });
    let threads = choose(asked, variable("OMP_NUM_THREADS"), variable("SLURM_CPUS_PER_TASK"), cores);
    tch::set_num_threads(threads.count as i32);
    threads
}

/// Threads of a loader for a device, for the number of torch's threads that is set.
pub fn of_loader(device: Device) -> usize {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    if device.is_cuda() { threads } else { (threads / TORCH_PER_LOADER).max(1) }
}

/// The number in an environment variable, the first one of a list.
fn variable(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    text.split(',').next()?.trim().parse().ok().filter(|count| (1..=MOST).contains(count))
}

fn choose(asked: usize, omp: Option<usize>, slurm: Option<usize>, cores: usize) -> Threads {
    match (asked, omp, slurm) {
        (1.., ..) => Threads { count: asked, from: "--threads or run.threads" },
        (_, Some(count), _) => Threads { count, from: "OMP_NUM_THREADS" },
        (_, _, Some(count)) if count <= cores => Threads { count, from: "SLURM_CPUS_PER_TASK" },
        _ => Threads { count: cores, from: "cores that this process may use" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_counts_before_the_environment_and_the_machine() {
        let count = |asked, omp, slurm| choose(asked, omp, slurm, 8).count;
        assert_eq!(count(3, Some(2), Some(4)), 3);
        assert_eq!(count(0, Some(2), Some(4)), 2);
        assert_eq!(count(0, Some(16), None), 16, "an explicit number is taken as it is");
        assert_eq!(count(0, None, Some(4)), 4);
        assert_eq!(count(0, None, Some(64)), 8, "no more than there are");
        assert_eq!(choose(0, None, None, 8), Threads { count: 8, from: "cores that this process may use" });
    }
}
