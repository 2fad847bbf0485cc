//! The files of `docs/cluster.md` and `ingest/cluster`, run by a real Slurm and a real Ray on loopback. There is no Kubernetes
//! to run: its file is checked against the schemas of its interface.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use helpers::pages::page;
use helpers::slurm::Slurm;
use helpers::{SMALL, cluster_python, is_installed, repository, requires_cluster, text};

use crate::{Source, succeeds};

/// A program `ingest` that does something before it runs the real one. Returns its folder, for PATH.
fn wrapped(source: &Source, before: &str) -> PathBuf {
    let folder = source.out("bin");
    let path = folder.join("ingest");
    let real = helpers::binary("ingest");
    helpers::write_file(&path, format!("#!/bin/bash\n{before}\nexec {} \"$@\"\n", real.display()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    folder
}

/// The batch script of the page, with the paths of a test and small settings.
fn batch_script(source: &Source, out: &Path) -> PathBuf {
    let page = page("docs/cluster.md");
    let script = page.split("```bash\n").find(|block| block.contains("#SBATCH --array=")).expect("a batch script");
    let script = script.split("```").next().expect("a block");
    assert!(script.contains("--array=0-3") && script.contains("--cpus-per-task=4") && script.contains(" --task\n"));
    let script = script
        .replace("/shared/mimic-cxr", &source.raw.display().to_string())
        .replace("/shared/data/mimic", &out.display().to_string())
        .replace("--cpus-per-task=4", "--cpus-per-task=1")
        .replace(" --task\n", &format!(" {} --task\n", SMALL.join(" ")));
    let path = source.out("ingest.sbatch");
    fs::write(&path, script).expect("written");
    path
}

#[test]
fn an_array_of_slurm_makes_the_same_bytes() {
    let source = Source::new(60);
    let Some(cluster) = Slurm::start(2, 2) else { return };
    let (out, logs) = (source.out("set"), source.out("logs"));
    fs::create_dir(&logs).expect("a folder");
    // Element 2 is killed in its first run.
    let killed = source.out("killed");
    // All four begin at the same time, so that both nodes take part.
    let kill = format!(
        "touch {1}/begun-$SLURM_ARRAY_TASK_ID; until [ $(ls {1} | grep -c begun) = 4 ]; do sleep 0.05; done\n\
         [ \"$SLURM_ARRAY_TASK_ID\" = 2 ] && [ ! -e {0} ] && touch {0} && kill -KILL $$\nhostname >>{1}/host-$SLURM_ARRAY_TASK_ID",
        killed.display(),
        logs.display()
    );
    let path = wrapped(&source, &kill);
    let script = batch_script(&source, &out);
    let submit = format!("--output={}/%a.out {}", logs.display(), script.display());
    let submit = || {
        let mut submit = cluster.command(&format!("PATH={}:$PATH sbatch --parsable {submit}", path.display()));
        succeeds(&mut submit).trim().to_owned()
    };
    let jobs = cluster.wait(&submit());
    let states: Vec<&str> = jobs.iter().map(|job| job.state.as_str()).collect();
    let log = || -> String {
        (0..4).map(|task| fs::read_to_string(logs.join(format!("{task}.out"))).unwrap_or_default()).collect()
    };
    assert_eq!(
        (jobs.len(), states.iter().filter(|state| **state == "COMPLETED").count()),
        (4, 3),
        "{jobs:?}\n{}",
        log()
    );
    assert!(!out.join("dataset.json").exists());
    let printed = helpers::ok("ingest", ["status".as_ref(), out.as_os_str()]);
    assert!(printed.contains("2/4") && printed.contains("not begun"), "{printed}");
    // The same script again.
    let jobs = cluster.wait(&submit());
    assert!(jobs.len() == 4 && jobs.iter().all(|job| job.state == "COMPLETED"), "{jobs:?}\n{}", log());
    source.is_at(&out);
    let hosts: String = helpers::contents(&logs)
        .into_iter()
        .filter(|(name, _)| name.starts_with("host-"))
        .map(|(_, host)| text(&host))
        .collect();
    assert!(hosts.contains("n1") && hosts.contains("n2"), "both nodes took part: {hosts}");
}

#[test]
fn a_node_that_dies_is_replaced_by_another_one() {
    let source = Source::new(60);
    let Some(cluster) = Slurm::start(2, 4) else { return };
    let (out, stopped) = (source.out("set"), source.out("stopped"));
    // On the first node the work stops at once, until the node dies.
    let path = wrapped(
        &source,
        &format!("[ $(hostname) = n1 ] && touch {}-$SLURM_ARRAY_TASK_ID && sleep 1000", stopped.display()),
    );
    let script = batch_script(&source, &out);
    let logs = source.out("%a.out");
    let mut submit = cluster.command(&format!(
        "PATH={}:$PATH sbatch --parsable --output={} {}",
        path.display(),
        logs.display(),
        script.display()
    ));
    let job = succeeds(&mut submit).trim().to_owned();
    cluster.wait_until(&job, |jobs| {
        let on_first = jobs.iter().any(|job| job.state == "RUNNING" && job.nodes == "n1");
        on_first && (0..4).any(|task| source.out(&format!("stopped-{task}")).exists())
    });
    cluster.kill_node("n1");
    let jobs = cluster.wait(&job);
    assert!(jobs.len() == 4 && jobs.iter().all(|job| job.state == "COMPLETED" && job.nodes == "n2"), "{jobs:?}");
    assert!(jobs.iter().any(|job| job.restarts > 0), "{jobs:?}");
    source.is_at(&out);
}

#[test]
fn ray_makes_the_same_bytes() {
    let source = Source::new(60);
    let Some(python) = cluster_python() else { return };
    if !["unshare", "ip"].into_iter().all(is_installed) {
        assert!(!requires_cluster());
        return;
    }
    let out = source.out("set");
    // The process of task 1 and the Ray worker of task 2 are killed in their first run.
    let marks = source.out("marks");
    fs::create_dir(&marks).expect("a folder");
    let kill = format!(
        "once() {{ [[ \" $* \" == *\" --task $task/4 \"* ]] && mkdir {}/$task 2>/dev/null; }}\n\
         task=1; once \"$@\" && kill -KILL $$\n\
         task=2; once \"$@\" && kill -KILL $PPID",
        marks.display()
    );
    let path = wrapped(&source, &kill);
    let home = source.out("home");
    fs::create_dir(&home).expect("a folder");
    // Ray replaces 127.0.0.1 by the machine's own address and listens there; without other networks it cannot. All of it ends
    // with the first process of the namespace.
    let script = r#"set -e
        ip link set lo up
        start() { ray start --node-ip-address=127.0.0.1 --object-store-memory=80000000 "$@" >>"$HOME/ray.log" 2>&1; }
        start --head --port=6379 --num-cpus=1 --include-dashboard=false --temp-dir="$HOME/ray" || { cat "$HOME/ray.log"; exit 1; }
        start --address=127.0.0.1:6379 --num-cpus=1 || { cat "$HOME/ray.log"; exit 1; }
        RAY_ADDRESS=127.0.0.1:6379 python "$@""#;
    let programs = format!("{}:{}", path.display(), python.parent().expect("a folder").display());
    let mut driver = Command::new("unshare");
    driver
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script, "bash"])
        .arg(repository().join("ingest/cluster/ray_ingest.py"))
        .args(["4", "1", "mimic-cxr"])
        .args([&source.raw, &out])
        .args(SMALL)
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()))
        .env("HOME", &home)
        .env("RAY_AUTH_MODE", "disabled")
        .env("RAY_USAGE_STATS_ENABLED", "0");
    if !Command::new("unshare").args(["--net", "--pid", "--fork", "true"]).status().is_ok_and(|status| status.success())
    {
        assert!(!requires_cluster(), "no namespaces for Ray");
        eprintln!("skipped: no namespaces for Ray");
        return;
    }
    let printed = succeeds(&mut driver);
    assert!(marks.join("1").exists() && marks.join("2").exists(), "both were killed: {printed}");
    source.is_at(&out);
}

#[test]
fn the_job_of_kubernetes_fits_its_interface() {
    let Some(python) = cluster_python() else { return };
    let job = repository().join("ingest/cluster/job.yaml");
    let validate = |file: &Path| {
        let mut command = Command::new(&python);
        command.args(["-m", "kubernetes_validate", "--strict", "-k", "1.31"]).arg(file);
        command.output().expect("Python starts")
    };
    let output = validate(&job);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    // The check finds a misspelled field.
    let spoilt = helpers::folder();
    let path = spoilt.path().join("job.yaml");
    let yaml = fs::read_to_string(&job).expect("the file");
    fs::write(&path, yaml.replacen("completionMode", "completionsMode", 1)).expect("written");
    assert!(!validate(&path).status.success());
    // Schemas state neither the values of these fields nor how they belong together.
    let code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let read = succeeds(Command::new(&python).args(["-c", code]).arg(&job));
    let job: serde_json::Value = serde_json::from_str(&read).expect("JSON");
    let spec = &job["spec"];
    assert_eq!((&job["kind"], &spec["completionMode"]), (&"Job".into(), &"Indexed".into()));
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Never", "a pod failure policy wants it");
    let rules = spec["podFailurePolicy"]["rules"].as_array().expect("rules");
    let actions: Vec<&str> = rules.iter().filter_map(|rule| rule["action"].as_str()).collect();
    assert_eq!(actions, ["FailIndex", "Ignore"]);
    assert!(spec["backoffLimitPerIndex"].is_u64(), "FailIndex wants it");
    let codes = &rules[0]["onExitCodes"];
    assert_eq!((&codes["operator"], &codes["containerName"]), (&"In".into(), &pod["containers"][0]["name"]));
    let command = pod["containers"][0]["command"].as_array().expect("words");
    let command: Vec<&str> = command.iter().filter_map(|word| word.as_str()).collect();
    let tasks = format!("$(JOB_COMPLETION_INDEX)/{}", spec["completions"]);
    assert!(command.windows(2).any(|words| words == ["--task", &tasks]), "{command:?}");
    // The command with the index in place is one that `ingest` accepts: it fails for want of the directory.
    let mut ingest = helpers::command(command[0]);
    ingest.args(command[1..].iter().map(|word| word.replace("$(JOB_COMPLETION_INDEX)", "0")));
    let message = crate::refused(&mut ingest);
    assert!(message.contains("/raw is no directory"), "{message}");
    let volumes: Vec<_> = pod["volumes"].as_array().expect("volumes").iter().map(|volume| &volume["name"]).collect();
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])));
}
