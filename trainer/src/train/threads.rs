//! Numbers of threads: those of torch within an operation, and those of the loader.
//!
//! Threads that share a core, with each other or with another process, wait for each other in every operation, and a run
//! becomes several times slower. So the default is the number of cores that this process may use, not that of the machine.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use tch::Device;

/// Largest number of threads that a user can set.
pub const MOST: usize = 1024;

/// Threads of torch per thread of the loader, if the model runs on the CPU: loading a batch takes a small part of the time of
/// the model.
const TORCH_PER_LOADER: usize = 4;

/// Number of times that an OpenMP thread checks for work before it sleeps: some microseconds. With libgomp's default of some
/// milliseconds, a waiting thread occupies the core that another thread needs.
const SPINS: (&str, &str) = ("GOMP_SPINCOUNT", "1000");

/// A number of threads, and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// The number.
    pub count: usize,
    /// The setting, variable or limit that it comes from.
    pub from: &'static str,
}

/// Restarts this program with `GOMP_SPINCOUNT=1000` if it has several threads and the environment does not set how they wait.
/// libgomp reads its settings when it is loaded, before `main`. The process id stays the same.
pub fn limit_spinning(requested: usize) {
    if [SPINS.0, "OMP_WAIT_POLICY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = choose(requested, variable("OMP_NUM_THREADS"), variable("SLURM_CPUS_PER_TASK"), usable);
    let mut arguments = std::env::args_os();
    if let (2.., Some(name), Ok(program)) = (threads.count, arguments.next(), std::env::current_exe()) {
        // If the restart fails, the program continues without it.
        let _ = Command::new(program).arg0(name).args(arguments).env(SPINS.0, SPINS.1).exec();
    }
}

/// Sets the number of threads that torch uses within an operation: `requested` if not 0, else `OMP_NUM_THREADS`, else
/// `SLURM_CPUS_PER_TASK`, else the cores that the affinity mask and the cgroups allow this process.
pub fn set(requested: usize) -> Threads {
    // Read before the number is first set, since torch then returns that one.
    static CORES: OnceLock<usize> = OnceLock::new();
    // The standard library respects the affinity mask and the CPU quota of cgroups v1 and v2; torch's own number counts a core
    // once, even if it has several hardware threads.
    let cores = *CORES.get_or_init(|| {
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, usable)
    });
    let threads = choose(requested, variable("OMP_NUM_THREADS"), variable("SLURM_CPUS_PER_TASK"), cores);
    tch::set_num_threads(threads.count as i32);
    threads
}

/// Number of loader threads for a device, given the number of torch's threads.
pub fn of_loader(device: Device) -> usize {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    if device.is_cuda() { threads } else { (threads / TORCH_PER_LOADER).max(1) }
}

/// The number in an environment variable; the first one of a list.
fn variable(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    text.split(',').next()?.trim().parse().ok().filter(|count| (1..=MOST).contains(count))
}

fn choose(requested: usize, omp: Option<usize>, slurm: Option<usize>, cores: usize) -> Threads {
    match (requested, omp, slurm) {
        (1.., ..) => Threads { count: requested, from: "--threads or run.threads" },
        (_, Some(count), _) => Threads { count, from: "OMP_NUM_THREADS" },
        (_, _, Some(count)) if count <= cores => Threads { count, from: "SLURM_CPUS_PER_TASK" },
        _ => Threads { count: cores, from: "cores that this process may use" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_before_the_environment_and_the_machine() {
        let count = |requested, omp, slurm| choose(requested, omp, slurm, 8).count;
        assert_eq!(count(3, Some(2), Some(4)), 3);
        assert_eq!(count(0, Some(2), Some(4)), 2);
        assert_eq!(count(0, Some(16), None), 16, "an explicit number is taken as it is");
        assert_eq!(count(0, None, Some(4)), 4);
        assert_eq!(count(0, None, Some(64)), 8, "no more than there are");
        assert_eq!(choose(0, None, None, 8), Threads { count: 8, from: "cores that this process may use" });
    }
}
