#!/usr/bin/env python3
"""Changes one expression of the code at a time, and sees whether a test fails.

    tests/mutants.py OUT [--groups splits,order,…] [--every N] [--first K]

The changes are those of cargo-mutants (`cargo install cargo-mutants`). Each is built in a worktree below OUT with fast settings, and
tried with the tests of its group. OUT/mutants.jsonl has a line for each; the same command continues after a stop. `--every 4
--first 1` tries the second, sixth, tenth … mutant of each file. The environment is that of the tests (CONTRIBUTING.md), with a
CARGO_TARGET_DIR of its own.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import time

# Files, package of their unit tests and a filter of these, test programs and a filter of their tests. Unit tests are tried first.
GROUPS = {
    "splits": (
        ["split/draw", "split/local_search", "split/stratify", "split/duplicates", "split/groups", "split/parts", "split/ratio",
         "split/published_lists", "split/warnings", "split/index_table", "split/types"],
        "mrm-dataset", "split|tests", "dataset,joins", "splits|duplicates|old_formats|inspect|differential",
    ),
    "certificate": (["split/certificate", "split/stored"], "mrm-dataset", "split|tests",
                    "dataset,joins", "splits|silence|verify|hostile|old_formats|inspect|differential"),
    "verify": (["commands/verify"], "mrm-dataset", "tests|commands", "dataset", "verify|silence|hostile|columns|windows"),
    "checksums": (["format/checksums"], "mrm-dataset", "format", "dataset", "verify|silence|hostile|old_formats"),
    "order": (["loader/order", "loader/part", "loader/plan", "loader/state"], "mrm-dataset", "tests|loader",
              "dataset", "loader|mixture|studies|old_formats|texts|hostile|silence"),
    "metrics": (["trainer/src/eval/*"], "mrm-trainer", "eval", "trainer", "evaluation|classification_metrics"),
    "checkpoint": (["trainer/src/train/checkpoint"], "mrm-trainer", "train::checkpoint",
                   "trainer", "resume|faults|hostile|robustness|pretraining|finetuning"),
    "resume": (["trainer/src/train/run_dir", "trainer/src/train/recorder", "trainer/src/train/train_loop"], "mrm-trainer", "train",
               "trainer", "resume|faults|hostile|robustness|old_formats|finetuning|recipes"),
}

def fast(opt_level):
    """Settings with which only what is changed is built again, and quickly."""
    settings = ["profile.release.incremental=true"]
    for package in ("mrm-dataset", "mrm-ingest", "mrm-trainer"):
        settings += [f"profile.release.package.{package}.opt-level={opt_level}", f"profile.release.package.{package}.codegen-units=256"]
    return [part for setting in settings for part in ("--config", setting)]


def run(command, tree, seconds=None):
    """Exit code of a command and the end of its output; none after so many seconds."""
    process = subprocess.Popen(
        command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output[-4000:]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""


def unit_tests(tree, package, tests, seconds=None):
    """What became of the tree as it is, by the unit tests of a package: `unviable`, `caught`, `missed` or `timeout`."""
    command = ["cargo", "nextest", "run", "--release", "--package", package, "--lib", *fast(0)]
    return outcome(tree, [], command, f"test(/^({tests})::/)", seconds)


def end_to_end_tests(tree, programs, tests, seconds=None):
    """The same, by the tests of comma-separated test programs."""
    # The trainer's crates would be built again for each change of a crate below.
    of_trainer = programs == "trainer"
    without = [] if of_trainer else ["--exclude", "mrm-trainer", "--exclude", "mrm-tests-training"]
    of_workspace = ["--release", "--workspace", *without, *fast(1)]
    options = [part for program in programs.split(",") for part in ("--test", program)]
    command = ["cargo", "nextest", "run", *of_workspace, *options]
    binaries = ["--bin", "trainer"] if of_trainer else ["--bin", "dataset", "--bin", "ingest"]
    return outcome(tree, [["cargo", "build", *of_workspace, *binaries]], command, f"test(/^({tests})::/)", seconds)


def outcome(tree, builds, command, tests, seconds):
    for build in [*builds, [*command, "--no-run"]]:
        code, output = run(build, tree)
        if code != 0:
            return "unviable", output, 0.0
    started = time.monotonic()
    code, output = run([*command, "--no-tests=fail", "-E", tests], tree, seconds)
    return {None: "timeout", 0: "missed"}.get(code, "caught"), output, time.monotonic() - started


def mutants(tree, files):
    found = []
    for file in files:
        path = f"{file}.rs" if file.startswith("trainer/") else f"dataset/src/{file}.rs"
        command = ["cargo", "mutants", "--list", "--json", "--diff", "--dir", ".", "-f", path]
        listed = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
        of_file = json.loads(listed.stdout)
        assert of_file, f"{path}: no mutants"
        found.append(of_file)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--groups", default=",".join(GROUPS), help="comma-separated: " + ", ".join(GROUPS))
    parser.add_argument("--every", type=int, default=1, help="try one mutant of so many of each file")
    parser.add_argument("--first", type=int, default=0, help="the first one to try, from 0")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    here = pathlib.Path(__file__).resolve().parent.parent
    tree = out / "tree"
    if not tree.exists():
        subprocess.run(["git", "-C", here, "worktree", "add", "--detach", tree], check=True, capture_output=True)
    head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "checkout", "--quiet", "--force", "--detach", head], cwd=tree, check=True)
    log = out / "mutants.jsonl"
    log.touch()
    done = {json.loads(line)["name"] for line in log.read_text().splitlines()}

    for group in arguments.groups.split(","):
        files, package, units, programs, tests = GROUPS[group]
        chosen = [mutant for of_file in mutants(tree, files) for mutant in of_file[arguments.first :: arguments.every]]
        left = [mutant for mutant in chosen if mutant["name"] not in done]
        print(f"{group}: {len(chosen)} mutants, {len(left)} left", flush=True)
        if not left:
            continue
        limits = []
        for name, stage in ((package, lambda limit: unit_tests(tree, package, units, limit)),
                            (programs, lambda limit: end_to_end_tests(tree, programs, tests, limit))):
            found, output, seconds = stage(None)
            if found != "missed":
                raise SystemExit(f"{group}: the tests fail without a change: {output}")
            print(f"{group}: the tests of {name} take {seconds:.0f} s without a change", flush=True)
            limits.append(60 + 5 * seconds)
        for mutant in left:
            path = tree / mutant["file"]
            whole = path.read_bytes()
            started = time.monotonic()
            try:
                subprocess.run(["patch", "--quiet", path], input=mutant["diff"], text=True, check=True)
                found, _, _ = unit_tests(tree, package, units, limits[0])
                if found == "missed":
                    found, _, _ = end_to_end_tests(tree, programs, tests, limits[1])
            finally:
                path.write_bytes(whole)
            row = {"group": group, "file": mutant["file"], "name": mutant["name"], "outcome": found}
            with log.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(f"{time.monotonic() - started:4.0f} s {found:9}{mutant['name']}", flush=True)

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    print("\n| group | mutants | caught | in endless loops | do not compile | missed |\n| --- | --- | --- | --- | --- | --- |")
    for group in GROUPS:
        of_group = [row["outcome"] for row in rows if row["group"] == group]
        counts = [of_group.count(outcome) for outcome in ("caught", "timeout", "unviable", "missed")]
        if of_group:
            print(f"| {group} | {len(of_group)} | " + " | ".join(map(str, counts)) + " |")


main()
