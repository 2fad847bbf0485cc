//! Where a command computes.

use anyhow::{Context, Result, bail};
use tch::Device;

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
