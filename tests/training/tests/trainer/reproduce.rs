//! The script that reproduces the published tables, rehearsed on synthetic radiographs in the same layouts; and its batch
//! scripts, run by bash as Slurm runs them, with stubs in place of the programs.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use helpers::{binary, folder, read_text, repository, text, write_file};
use serde_json::Value;
use trainer::config::{FindingTask, Recipe};

fn reproduce(at: &Path, studies: &str, steps: &[&str]) -> Output {
    let mut command = Command::new(repository().join("trainer/experiments/reproduce.sh"));
    command.arg(at.join("raw")).arg(at.join("out")).args(steps);
    command.env("BIN", binary("trainer").parent().expect("a folder")).env("SCALE", "phantom").env("STUDIES", studies);
    command.env("SEEDS", "42").env("DEVICE", "cpu").env("OMP_NUM_THREADS", "1");
    command.output().expect("bash")
}

#[test]
fn the_published_tables_are_rehearsed() {
    let temporary = folder();
    let output = reproduce(temporary.path(), "100", &[]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", text(&output.stderr));
    for count in ["mimic: 100 studies, as expected", "nih: ", "chexpert: ", "rsna: 100 records, as expected"] {
        assert!(printed.contains(count), "{count}");
    }
    for name in ["nih", "chexpert", "rsna", "siim"] {
        for part in ["train", "validate", "test", "10%"] {
            let (start, end) = (format!("{name}: "), format!(" records in {part}, as expected"));
            let is_checked = printed.lines().any(|line| line.starts_with(&start) && line.ends_with(&end));
            assert!(is_checked, "{name} {part}: {printed}");
        }
    }
    let tables = read_text(&temporary.path().join("out/tables.md"));
    for (task, headline, benchx) in [
        ("nih14", "AUROC", "macro F1"),
        ("chexpert5", "AUROC", "macro F1"),
        ("rsna", "AUROC", "macro F1"),
        ("siim", "Dice", "mDice"),
    ] {
        let start = format!("{task}\n");
        let section = tables.split("## ").find_map(|section| section.strip_prefix(start.as_str())).expect("a task");
        // Two tables of one line, each below its title.
        let lines: Vec<&str> = section.lines().filter(|line| !line.is_empty()).collect();
        let [first, head, _, means, second, second_head, _, second_means] = lines.as_slice() else {
            panic!("{task}: {tables}")
        };
        let columns = "10%, release | 10%, benchx | 100%, release | 100%, benchx |";
        assert_eq!(*first, format!("Headline metric: {headline}"));
        assert_eq!(*head, format!("| test {headline}, mean ± sd | {columns}"));
        assert_eq!(means.matches("(1 run)").count(), 4, "{tables}");
        assert!(second.starts_with("BenchX's metric") && second.ends_with(&format!(": {benchx}")), "{second}");
        assert_eq!(*second_head, format!("| test {benchx}, mean ± sd | {columns}"));
        // Without a positive in the validation subset there is no threshold, hence no F1.
        let defined = second_means.matches("(1 run)").count();
        assert_eq!(defined + second_means.matches("undefined").count(), 4, "{tables}");
    }
    // The labels of RSNA's test images are in the list alone; all of them count.
    let evaluation = temporary.path().join("out/sweeps/rsna/MRM-paper-100-seed42/evaluation-test.json");
    let evaluation: Value = dataset::store::files::read_json(&evaluation).expect("an evaluation");
    let listed = read_text(&temporary.path().join("raw/lists/RSNA_Pneumonia/test_list.txt")).lines().count();
    assert!(listed > 10 && evaluation["records"].as_u64() == Some(listed as u64), "{listed}: {evaluation}");
    // Again: everything is kept, and a wrong number of records ends it.
    let again = reproduce(temporary.path(), "100", &["split", "finetune", "table"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(read_text(&temporary.path().join("out/tables.md")), tables);
    let wrong = reproduce(temporary.path(), "99", &["ingest"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stdout));
    assert!(text(&wrong.stderr).contains("mimic: 100 studies, not 99; docs/reproduce.md"), "{}", text(&wrong.stderr));
    let list = temporary.path().join("raw/lists/NIH_ChestX-ray/test_list.txt");
    let names = read_text(&list);
    let (before, after) = (names.lines().count(), names.lines().count() + 1);
    write_file(&list, names + "another.png\n");
    let wrong = reproduce(temporary.path(), "100", &["split"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stdout));
    let message = format!("nih: {before} records in test of the split paper, not {after}; docs/reproduce.md");
    assert!(text(&wrong.stderr).contains(&message), "{}", text(&wrong.stderr));
    let unknown = reproduce(temporary.path(), "100", &["train"]);
    assert_eq!(unknown.status.code(), Some(2));
}

/// A folder of programs in bash, each given by its name and its lines.
fn stubs(at: &Path, programs: &[(&str, &str)]) -> PathBuf {
    let bin = at.join("bin");
    for (name, lines) in programs {
        let path = bin.join(name);
        write_file(&path, format!("#!/bin/bash\n{lines}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    bin
}

/// A script of the reproduction at its full scale, with stubs in place of the programs; they write to `at/log`.
fn stubbed(script: &str, at: &Path, bin: &Path) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.arg(format!("trainer/experiments/{script}")).current_dir(repository());
    for name in ["SCALE", "TASKS", "RATIOS", "SEEDS", "RECIPES", "DEVICE", "LAUNCH"] {
        command.env_remove(name);
    }
    command.env("PATH", format!("{}:{path}", bin.display())).env("BIN", bin).env("LOG", at.join("log"));
    command.env("RAW", at.join("raw")).env("OUT", at.join("out"));
    command
}

/// One run of fine-tuning: task, recipe, seed, ratio.
type Cell = (String, String, String, String);

/// The runs of the sweeps in a log of the stub, which has a line of arguments for each sweep.
fn cells(log: &Path) -> Vec<Cell> {
    let mut found = Vec::new();
    for line in read_text(log).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "sweep", "{line}");
        let after = |option: &str| {
            let at = words.iter().position(|word| *word == option).unwrap_or_else(|| panic!("no {option}: {line}"));
            words[at + 1].split(',').map(str::to_owned).collect::<Vec<String>>()
        };
        let tasks = after("--task");
        assert_eq!(line.contains(" --join paper-test "), tasks == ["rsna"], "{line}");
        for task in &tasks {
            for recipe in after("--recipe") {
                for seed in after("--seeds") {
                    let ratios = after("--ratios").into_iter();
                    found.extend(ratios.map(|ratio| (task.clone(), recipe.clone(), seed.clone(), ratio)));
                }
            }
        }
    }
    found
}

/// The elements of a job array, as the script states them.
fn elements(script: &str) -> RangeInclusive<usize> {
    let text = read_text(&repository().join("trainer/experiments").join(script));
    let range = text.split("--array=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an array");
    let (first, last) = range.split_once('-').expect("a range");
    first.parse().expect("a number")..=last.parse().expect("a number")
}

#[test]
fn the_array_of_jobs_has_each_task_recipe_and_seed_once() {
    let temporary = folder();
    let bin = stubs(temporary.path(), &[("trainer", "echo \"$*\" >>\"$LOG\"")]);
    let elements = elements("reproduce-finetune.sbatch");
    let mut all: BTreeSet<Cell> = BTreeSet::new();
    for element in elements.clone() {
        let at = temporary.path().join(format!("job-{element}"));
        let mut command = stubbed("reproduce-finetune.sbatch", &at, &bin);
        let output = command.env("SLURM_ARRAY_TASK_ID", element.to_string()).output().expect("bash");
        assert!(output.status.success(), "{element}: {}", text(&output.stderr));
        let of_job = cells(&at.join("log"));
        let (task, recipe, seed, _) = of_job.first().expect("a run").clone();
        assert!(of_job.iter().all(|cell| (&cell.0, &cell.1, &cell.2) == (&task, &recipe, &seed)), "{of_job:?}");
        for cell in of_job {
            assert!(all.insert(cell.clone()), "{element}: {cell:?} is another job's, too");
        }
    }
    for (task, recipe, seed, ratio) in &all {
        assert!(task == "siim" || FindingTask::is_name(task), "{task}");
        assert!(Recipe::parse(recipe).is_ok() && seed.parse::<u64>().is_ok(), "{recipe} {seed}");
        // The ratios of the published lists.
        let listed: &[&str] = if task == "siim" { &["10", "100"] } else { &["1", "10", "100"] };
        assert!(listed.contains(&ratio.as_str()), "{task} {ratio}");
    }
    let of_jobs: BTreeSet<_> = all.iter().map(|(task, recipe, seed, _)| (task, recipe, seed)).collect();
    assert_eq!(of_jobs.len(), elements.count(), "as many as the array has elements");
    // The script without Slurm has the same runs, so that it collects those of the jobs.
    let at = temporary.path().join("all");
    let mut command = stubbed("reproduce.sh", &at, &bin);
    let output = command.args([at.join("raw"), at.join("out")]).arg("finetune").output().expect("bash");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(cells(&at.join("log")).into_iter().collect::<BTreeSet<Cell>>(), all);
}

#[test]
fn a_stopped_pretraining_is_queued_again() {
    for (code, is_requeued) in [(75, true), (0, false), (1, false)] {
        let temporary = folder();
        let trainer = format!("echo \"trainer $*\" >>\"$LOG\"\n[ \"$1\" != pretrain ] || exit {code}");
        let srun = "echo \"srun $*\" >>\"$LOG\"\nwhile [[ $1 == -* ]]; do shift; done\nexec \"$@\"";
        let scontrol = "echo \"scontrol $*\" >>\"$LOG\"";
        let programs = [("trainer", trainer.as_str()), ("srun", srun), ("scontrol", scontrol)];
        let bin = stubs(temporary.path(), &programs);
        let mut command = stubbed("reproduce-pretrain.sbatch", temporary.path(), &bin);
        let output = command.env("SLURM_JOB_ID", "17").env("SLURM_CPUS_PER_TASK", "8").output().expect("bash");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let log = read_text(&temporary.path().join("log"));
        let lines: Vec<&str> = log.lines().collect();
        let [import, srun, pretrain, rest @ ..] = lines.as_slice() else { panic!("{log}") };
        assert!(import.starts_with("trainer import ") && import.contains("/mae_pretrain_vit_base.pth "), "{log}");
        assert!(srun.starts_with("srun --kill-on-bad-exit=1 --cpus-per-task=8 "), "{log}");
        let data = format!("trainer pretrain --data {} ", temporary.path().join("out/mimic").display());
        assert!(pretrain.starts_with(&data) && pretrain.ends_with(" --stop-exit-code 75"), "{log}");
        let expected: &[&str] = if is_requeued { &["scontrol requeue 17"] } else { &[] };
        assert_eq!(rest, expected);
    }
}
