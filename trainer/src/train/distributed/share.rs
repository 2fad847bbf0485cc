//! What the main process sends to the others: where a run starts, and how an evaluation ended.

use anyhow::{Context, Result};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::group::ProcessGroup;
use crate::train::checkpoint::State;
use crate::train::optimizer::Optimizer;

/// A tensor of the optimizer's state: name, shape, and whether it counts steps (Int64, on the CPU).
type Entry = (String, Vec<i64>, bool);

/// Gives all processes the main one's weights, state of the optimizer, and position, so that only the main one reads the
/// checkpoint.
pub(in crate::train) fn state(
    group: &ProcessGroup,
    store: &VarStore,
    optimizer: &mut Optimizer,
    state: &mut State,
) -> Result<()> {
    if group.world_size() == 1 {
        return Ok(());
    }
    let mut variables: Vec<(String, Tensor)> = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let variables: Vec<Tensor> = variables.into_iter().map(|(_, tensor)| tensor).collect();
    group.broadcast(&variables)?;

    let own = optimizer.save_state();
    let entry = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.size(), tensor.kind() == Kind::Int64);
    let entries: Vec<Entry> = own.iter().map(entry).collect();
    let message = group.broadcast_bytes(&serde_json::to_vec(&(&*state, entries))?)?;
    let (start, entries): (State, Vec<Entry>) = serde_json::from_slice(&message).context("the start of the run")?;
    if group.is_main() {
        let tensors: Vec<Tensor> = own.into_iter().map(|(_, tensor)| tensor).collect();
        return Ok(group.broadcast(&tensors)?);
    }
    *state = start;
    let empty = |(name, shape, counts): Entry| {
        let options = if counts { (Kind::Int64, Device::Cpu) } else { (Kind::Float, store.device()) };
        Ok((name, Tensor::f_zeros(shape, options)?))
    };
    let received = entries.into_iter().map(empty).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = received.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
    group.broadcast(&tensors)?;
    Ok(optimizer.load_state(received)?)
}

/// Gives all processes the main one's state after an evaluation.
pub(in crate::train) fn evaluated(group: &ProcessGroup, state: &mut State) -> Result<()> {
    if group.world_size() > 1 {
        let message = group.broadcast_bytes(&serde_json::to_vec(state)?)?;
        *state = serde_json::from_slice(&message).context("the state after an evaluation")?;
    }
    Ok(())
}
