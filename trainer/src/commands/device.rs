//! Where a command computes.

use anyhow::{Context, Result, bail};
use tch::Device;

/// The device of a process that was started as number `local_rank` on its machine: a GPU of its own where there are GPUs. A
/// process that sees one GPU only takes that one.
///
/// # Errors
/// When there are fewer GPUs than processes.
pub fn device_of_rank(local_rank: usize) -> Result<Device> {
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    match count {
        0 => Ok(Device::Cpu),
        1 => Ok(Device::Cuda(0)),
        _ if local_rank < count => Ok(Device::Cuda(local_rank)),
        _ => bail!(
            "process {local_rank} of this machine has no GPU of its own: there are {count}; start one process a GPU"
        ),
    }
}

/// The device that is named `auto`, `cpu` or `cuda:N`.
///
/// # Errors
/// When there is no such device.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(Device::cuda_if_available()),
        other => {
            let index = other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok());
            let index = index.with_context(|| format!("no device `{other}`: give auto, cpu or cuda:N"))?;
            let count = tch::Cuda::device_count();
            if (index as i64) < count {
                return Ok(Device::Cuda(index));
            }
            bail!("no device cuda:{index} here ({count} CUDA devices found)")
        }
    }
}
