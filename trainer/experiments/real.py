"""Parts of real.sh: lists of subsets, results of a seed, tables.

    real.py lists METADATA.csv FOLDER            the subsets of a split as lists of names
    real.py collect OUT SEED RESULTS.json        the evaluations of a seed
    real.py table RESULTS.json…                  mean ± sd over the seeds, and paired tests, as Markdown
"""

import csv
import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

TASKS = {
    "pneumonia": "children: pneumonia or not",
    "type": "children: viral or bacterial",
    "nih": "NIH: 14 findings",
    "covid": "COVID-19 or other pneumonia",
    "covid-type": "COVID set: viral or bacterial",
}
METHODS = {"release": "fine-tuned, release", "benchx": "fine-tuned, benchx", "linear": "frozen, linear", "knn": "frozen, kNN"}
NAMES = {
    "random": "random initialization",
    "image": "masked image",
    "mrm": "masked image and report",
    "mrm-clip": "masks and contrast",
    "dino": "self-distillation (DINO)",
}
# Two-sided 5% points of Student's t by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def lists(metadata, folder):
    """Names without the source, which is what `dataset split --lists` compares."""
    folder.mkdir(parents=True, exist_ok=True)
    subsets = defaultdict(list)
    with open(metadata, newline="") as file:
        for row in csv.DictReader(file):
            subsets[row["split_subset"]].append(row["record_id"].split("/", 1)[1])
    for subset, name in (("validate", "val_list"), ("test", "test_list"), ("train", "train_list")):
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in subsets[subset]))


def collect(out, seed, results):
    """One row an evaluation on the test subset."""
    rows = []
    for path in sorted((out / f"seed{seed}").glob("*/**/evaluation-*test*.json")):
        evaluation = json.loads(path.read_text())
        task, _, ratio = path.relative_to(out / f"seed{seed}").parts[0].rpartition("-")
        rows.append({"task": task, "ratio": int(ratio), "seed": seed, **row_of(evaluation, path)})
    results.write_text(json.dumps(rows, indent=0) + "\n")
    print(f"{len(rows)} evaluations of seed {seed}")


def row_of(evaluation, path):
    raise NotImplementedError


def paired(differences):
    """Mean difference, and half of its 95% interval by Student's t; none of one seed."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, None
    return mean, T[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
