//! Several processes of a job as threads, each with connections of its own.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tch::{Device, Kind, Tensor, nn};

use super::{Agreement, Launch, ProcessGroup, Timeouts};
use crate::model::batch_norm::BatchNorm;
use crate::model::contrast::info_nce;

const TIMEOUTS: Timeouts = Timeouts { join: Duration::from_mins(1), stall: Duration::from_mins(1) };

fn launch(rank: usize, world_size: usize, port: u16) -> Launch {
    let (host, prefix) = ("127.0.0.1".to_owned(), "test".to_owned());
    Launch { rank, world_size, local_rank: rank, host, port, serves: rank == 0, prefix }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs `body` in `world_size` threads, each in its group; returns what they return, by rank.
pub(crate) fn in_group<T: Send>(world_size: usize, body: impl Fn(&ProcessGroup) -> Result<T> + Sync) -> Vec<T> {
    let results = joining(
        world_size,
        TIMEOUTS,
        |_| vec![("dataset", "a".to_owned())],
        |group| {
            let result = body(&group)?;
            group.leave()?;
            Ok(result)
        },
    );
    results.into_iter().map(|result| result.unwrap()).collect()
}

/// As [`in_group`], with what each rank states; a rank that states nothing does not come.
fn joining<T: Send>(
    world_size: usize,
    timeouts: Timeouts,
    stated: impl Fn(usize) -> Agreement + Sync,
    body: impl Fn(ProcessGroup) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let port = free_port();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world_size)
            .map(|rank| {
                let (stated, body) = (&stated, &body);
                scope.spawn(move || {
                    let launch = launch(rank, world_size, port);
                    let group = ProcessGroup::join(&launch, Device::Cpu, true, &stated(rank), timeouts, &|_| {})?;
                    body(group)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(values)
}

#[test]
fn collectives_give_all_ranks_the_same() {
    let results = in_group(3, |group| {
        let rank = group.rank() as f32;
        assert_eq!((group.world_size(), group.is_main()), (3, group.rank() == 0));
        let tensors = [floats(&[rank, 1.0]), floats(&[10.0 * rank])];
        group.sum(&tensors)?;
        let sent = [floats(&[rank + 5.0])];
        group.broadcast(&sent)?;
        let bytes = group.broadcast_bytes(format!("from {rank}").as_bytes())?;
        let mean = group.mean(&floats(&[rank]).get(0), &floats(&[rank]).get(0))?; // the mean over all is 3 / 3
        group.sum(std::slice::from_ref(&mean))?;
        let values = Vec::<f32>::try_from(Tensor::cat(&[&tensors[0], &tensors[1], &sent[0]], 0))?;
        let flags = (group.any(group.rank() == 1)?, group.any(false)?);
        Ok((values, String::from_utf8(bytes)?, mean.double_value(&[]) / 3.0, flags))
    });
    for result in results {
        assert_eq!(result, (vec![3.0, 3.0, 30.0, 5.0], "from 0".to_owned(), 1.0, (true, false)));
    }
}

#[test]
fn gradients_flow_through_sums_and_gathered_tensors() {
    let results = in_group(2, |group| {
        let rank = group.rank();
        let x = floats(&[1.0 + rank as f32, 3.0]).set_requires_grad(true);
        let gathered = group.gather_with_gradient(&x.view([1, 2]))?; // [2, 2]
        assert_eq!(gathered.size(), [2, 2]);
        // Each rank weights all features: the loss of all is 1·x₀ + 2·x₁ on rank 0 and 10·x₀ + 20·x₁ on rank 1.
        let weights = floats(&[1.0, 2.0]) * if rank == 0 { 1.0 } else { 10.0 };
        (gathered * weights.view([2, 1])).sum(Kind::Float).backward();
        let of_gathered = Vec::<f32>::try_from(x.grad())?;

        let y = floats(&[2.0]).set_requires_grad(true);
        let total = group.sum_with_gradient(&y)?;
        (total.square() * (rank as f64 + 1.0)).sum(Kind::Float).backward();
        Ok((of_gathered, y.grad().double_value(&[0])))
    });
    // ∂/∂x of both ranks' losses, and 2 · Σy · (1 + 2).
    assert_eq!(results, [(vec![11.0, 11.0], 24.0), (vec![22.0, 22.0], 24.0)]);
}

#[test]
fn a_loss_of_gathered_rows_has_the_gradient_of_one_process() {
    let counts = [3, 0, 2];
    let total: i64 = counts.iter().sum();
    // The inputs of both towers, `[5, 4]` each, and one shared weight.
    let inputs = |seed| {
        let values = (0..total * 4).map(|i| ((i * 7 + seed) as f32).sin()).collect::<Vec<_>>();
        floats(&values).view([total, 4])
    };
    let run = |group: &ProcessGroup, start: i64, n: i64| -> Result<(f64, Vec<f32>, Vec<i64>)> {
        let weight = inputs(3).narrow(0, 0, 4).contiguous().copy().set_requires_grad(true); // [4, 4]
        let tower = |seed| inputs(seed).narrow(0, start, n).matmul(&weight);
        let rows = group.rows(n)?;
        assert_eq!(rows.start(), start);
        let both = rows.gather(&Tensor::cat(&[tower(1), tower(2)], 1))?; // [5, 8]
        let keys = rows.gather(&Tensor::arange_start(start, start + n, (Kind::Int64, Device::Cpu)))?;
        let logits = both.narrow(1, 0, 4).matmul(&both.narrow(1, 4, 4).transpose(0, 1));
        let loss = info_nce(&logits, &Tensor::zeros([total, total], (Kind::Bool, Device::Cpu))).total;
        loss.backward();
        let gradient = weight.grad();
        group.sum(std::slice::from_ref(&gradient))?;
        let gradient = gradient / group.world_size() as f64;
        Ok((loss.double_value(&[]), Vec::try_from(gradient.flatten(0, 1))?, Vec::try_from(keys)?))
    };
    let whole = run(&ProcessGroup::single(), 0, total).unwrap();
    let shares = in_group(3, |group| {
        let before: i64 = counts[..group.rank()].iter().sum();
        run(group, before, counts[group.rank()])
    });
    for (loss, gradient, keys) in shares {
        assert!((loss - whole.0).abs() < 1e-6, "{loss} for {}", whole.0);
        let error = gradient.iter().zip(&whole.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "{gradient:?} for {:?}", whole.1);
        assert_eq!(keys, [0, 1, 2, 3, 4]);
    }
    assert!(whole.1.iter().any(|value| value.abs() > 0.05), "{:?}", whole.1);
}

#[test]
fn a_batch_norm_is_over_the_batches_of_all_processes() {
    tch::manual_seed(3);
    let x = Arc::new(std::sync::Mutex::new(Tensor::randn([6, 4, 5, 3], (Kind::Float, Device::Cpu)) * 3.0 + 7.0));
    let run = |group: &ProcessGroup, x: &Tensor| -> Result<(Tensor, Tensor, Vec<Tensor>)> {
        let store = nn::VarStore::new(Device::Cpu);
        let norm = BatchNorm::new(&store.root(), 4, group);
        let x = x.copy().set_requires_grad(true);
        let y = norm.forward(&x, true)?;
        // A loss whose gradient differs between the places.
        (y.square() * x.detach()).sum(Kind::Float).backward();
        let named = store.variables();
        let kept = ["running_mean", "running_var"].map(|name| named[name].copy());
        let mut gradients = vec![named["weight"].grad()];
        group.sum(&gradients)?;
        gradients.extend(kept);
        Ok((y.detach(), x.grad(), gradients))
    };
    let whole = run(&ProcessGroup::single(), &x.lock().unwrap()).unwrap();
    // Ranks with different numbers of images: 4 and 2.
    let shares = in_group(2, |group| {
        let own = {
            let x = x.lock().unwrap();
            if group.rank() == 0 { x.narrow(0, 0, 4) } else { x.narrow(0, 4, 2) }.copy()
        };
        run(group, &own)
    });
    let close = |a: &Tensor, b: &Tensor| {
        assert_eq!(a.size(), b.size());
        let error = ((a - b).abs().max() / b.abs().max()).double_value(&[]);
        assert!(error < 1e-5, "{error}");
    };
    let joined = |pick: fn(&(Tensor, Tensor, Vec<Tensor>)) -> &Tensor| {
        Tensor::cat(&shares.iter().map(pick).collect::<Vec<_>>(), 0)
    };
    close(&joined(|share| &share.0), &whole.0);
    close(&joined(|share| &share.1), &whole.1);
    for share in &shares {
        share.2.iter().zip(&whole.2).for_each(|(a, b)| close(a, b));
    }
}

#[test]
fn a_rank_that_differs_is_named_by_all() {
    let stated = |rank: usize| {
        let dataset = if rank == 1 { "other" } else { "mimic" };
        vec![("version of the program", "1".to_owned()), ("dataset", dataset.to_owned())]
    };
    let results = joining(3, TIMEOUTS, stated, |_| Ok(()));
    for (rank, result) in results.into_iter().enumerate() {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.starts_with("rank 1 (") && error.contains("another dataset than rank 0"), "{error}");
        assert!(error.ends_with(": other, not mimic"), "{error}");
        assert_eq!(error.contains("this process"), rank == 1, "{error}");
    }
}

#[test]
fn a_missing_rank_is_named_after_the_timeout() {
    let timeouts = Timeouts { join: Duration::from_millis(300), ..TIMEOUTS };
    let launch = launch(0, 3, free_port());
    let error = ProcessGroup::join(&launch, Device::Cpu, true, &Vec::new(), timeouts, &|_| {}).unwrap_err();
    assert!(error.to_string().ends_with("(run.join_timeout): 1, 2 of ranks 0 to 2"), "{error}");
}

#[test]
fn a_run_of_one_process_needs_no_others() {
    let group = ProcessGroup::single();
    let tensors = [floats(&[1.0, 2.0])];
    group.sum(&tensors).unwrap();
    assert_eq!(group.gather_with_gradient(&tensors[0]).unwrap(), tensors[0]);
    assert_eq!(group.sum_with_gradient(&tensors[0]).unwrap(), tensors[0]);
    assert_eq!(group.broadcast_bytes(b"x").unwrap(), b"x");
    assert!(group.any(true).unwrap() && !group.any(false).unwrap());
    assert_eq!(group.mean(&floats(&[6.0]).get(0), &floats(&[4.0]).get(0)).unwrap().double_value(&[]), 1.5);
}
