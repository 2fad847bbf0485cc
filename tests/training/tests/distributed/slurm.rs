//! Training under a real Slurm, by the scripts of docs/cluster.md.

use std::fs;
use std::path::Path;

use helpers::slurm::{Slurm, SlurmJob};
use helpers::{binary, folder, read_text, repository};
use training::{MINIATURE, dataset, numbers, pretraining, wait_for, weights};

use crate::launch::ranks;

/// The batch script of docs/cluster.md that has this command, with other words in place of some.
fn script(command: &str, replaced: &[(&str, &str)]) -> String {
    let page = read_text(&repository().join("docs/cluster.md"));
    let is_wanted = |block: &&str| block.starts_with("#!") && block.contains(command);
    let mut script =
        page.split("```").map(|block| block.trim_start_matches("bash\n")).find(is_wanted).expect("a script").to_owned();
    for (before, after) in replaced {
        assert!(script.contains(before), "`{before}` is not in the script of `{command}`");
        script = script.replace(before, after);
    }
    script
}

/// The settings of `pretraining`, as words of a shell.
fn miniature(steps: u64) -> String {
    let small = MINIATURE.join(" ");
    format!("--preset mrm-vit-tiny --device cpu --steps {steps} --batch-size 8 {small}")
}

#[test]
fn a_displaced_job_on_two_nodes_is_queued_again_and_ends_with_the_same_bits() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, run, steps) = (temporary.path().join("whole"), temporary.path().join("run"), 300);
    let arguments = pretraining(&data, &whole, steps, &[]);
    assert!(ranks(&[arguments.clone(), arguments]).iter().all(|output| output.status.success()));

    let Some(cluster) = Slurm::start(2, 2) else { return };
    let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
    let trainer = format!("{} pretrain {}", text(&binary("trainer")), miniature(steps));
    let script = script(
        "trainer pretrain",
        &[
            ("--nodes=1 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8", "--nodes=2 --ntasks-per-node=1"),
            ("trainer pretrain", &trainer),
            ("/data/mimic", &text(&data)),
            ("/runs/mrm", &text(&run)),
        ],
    );
    let (file, log) = (temporary.path().join("pretrain.sbatch"), temporary.path().join("log"));
    fs::write(&file, script).expect("written");
    let variables = "--export=ALL,GLOO_SOCKET_IFNAME=lo,OMP_NUM_THREADS=1";
    let job = cluster.submit(&format!("{variables} --output={} {}", text(&log), text(&file)));
    wait_for(&run, 5);
    // A job of higher priority takes both nodes; the run is asked to stop, and writes a checkpoint.
    let other = cluster.submit("--partition=high --nodes=2 --exclusive --output=/dev/null --wrap='sleep 1'");
    let ended = cluster.wait(&job);
    let shown = || format!("{ended:?}\n{}", fs::read_to_string(&log).unwrap_or_default());
    assert!(matches!(&ended[..], [SlurmJob { state, restarts: 1.., .. }] if state == "COMPLETED"), "{}", shown());
    assert_eq!(cluster.wait(&other)[0].state, "COMPLETED");
    let printed = fs::read_to_string(&log).expect("a log");
    assert!(printed.contains("give the same command again to continue"), "{printed}");
    assert!(printed.contains("on 2 processes") && printed.contains("resuming after"), "{printed}");
    assert_eq!(numbers(&run), numbers(&whole));
    assert!(weights(&run) == weights(&whole));

    // A process that is killed ends the step within its patience, and is named.
    let killed = temporary.path().join("killed");
    let step = format!(
        "srun --nodes=2 --ntasks-per-node=1 --kill-on-bad-exit=1 {trainer} --data {} --run {} --split main",
        text(&data),
        text(&killed)
    );
    let kill =
        "if [ $SLURM_PROCID = 1 ]; then (until [ -s \"$RUN/metrics.jsonl\" ]; do sleep 0.1; done; kill -9 $$) & fi";
    let step =
        step.replace(&trainer, &format!("bash -c '{kill}; exec {trainer} --data $DATA --run $RUN --split main'"));
    let (step, _) = step.split_once("' --data").expect("the end of the quoted command");
    let exports = format!("RUN={} DATA={} GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1", text(&killed), text(&data));
    let output = cluster.output(&format!("export {exports}; {step}'").replace("--steps 300", "--steps 100000"));
    let error = helpers::text(&output.stderr);
    assert!(!output.status.success(), "{error}");
    // Slurm names the process itself, and may end rank 0 before it has found out.
    assert!(error.contains("n2: task 1: Killed"), "{error}");
    assert!(killed.join("latest/state.json").is_file(), "rank 0 has saved its steps: {error}");
}

#[test]
fn a_sweep_is_an_array_of_jobs() {
    let temporary = folder();
    let (data, init) = training::pretrained(temporary.path(), 30);
    let Some(cluster) = Slurm::start(1, 4) else { return };
    let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
    let runs = temporary.path().join("runs");
    let script = script(
        "trainer finetune",
        &[
            ("--array=0-8 --gpus=1 --cpus-per-task=8", "--array=0-3"),
            ("ratios=(1 10 100)", "ratios=(50 100)"),
            ("% 3]", "% 2]"),
            ("/ 3)", "/ 2)"),
            ("--data /data/nih", &format!("--device cpu --data {}", text(&data))),
            ("--task nih14", "--task labels:Cardiomegaly,Edema --steps 2 --batch-size 8"),
            ("--init /runs/mrm", &format!("--init {}", text(&init))),
            ("/runs/nih", &text(&runs.join("nih"))),
            ("trainer ", &format!("{} ", text(&binary("trainer")))),
        ],
    );
    let file = temporary.path().join("finetune.sbatch");
    fs::write(&file, script).expect("written");
    let log = temporary.path().join("log");
    let job = cluster.submit(&format!("--export=ALL,OMP_NUM_THREADS=1 --output={} {}", text(&log), text(&file)));
    let ended = cluster.wait(&job);
    assert_eq!(ended.len(), 4);
    assert!(ended.iter().all(|job| job.state == "COMPLETED"), "{ended:?}\n{}", read_text(&log));
    for ratio in [50, 100] {
        for seed in [0, 1] {
            let run = runs.join(format!("nih-{ratio}-{seed}"));
            assert!(run.join("evaluation-test.json").is_file(), "{}", run.display());
        }
    }
}
