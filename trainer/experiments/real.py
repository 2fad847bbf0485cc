"""Parts of real.sh and phantom.sh: lists of subsets, results of a seed, tables.

    real.py lists METADATA.csv FOLDER            the subsets of a split as lists of names
    real.py noise METADATA.csv TABLE.csv SHARE SEED   training labels of the type of pneumonia, SHARE percent of them wrong
    real.py collect OUT SEED RESULTS.json        the evaluations of a seed
    real.py table RESULTS.json…                  mean ± sd over the seeds, and paired tests, as Markdown
    real.py summary METHOD RESULTS.json…         one table of a method, with what the report adds
    real.py chart CHART.png METHOD RESULTS.json…  mean ± sd by share of the labels; needs matplotlib
"""

import csv
import json
import math
import random
import statistics
import sys
from collections import defaultdict
from pathlib import Path

TASKS = {
    "phantom": "synthetic radiographs: 5 findings",
    "pneumonia": "children: pneumonia or not",
    "type": "children: viral or bacterial",
    "nih": "NIH: 14 findings",
    "covid": "COVID-19 or other pneumonia",
    "covid-type": "COVID set: viral or bacterial",
    "type-noise30": "children: viral or bacterial, 30% of the training labels wrong",
    "pneumonia-on-nih": "trained on children, tested on NIH's pneumonia",
    "pneumonia-on-covid": "trained on children, tested on the COVID set",
}
METHODS = {"release": "fine-tuned, release", "benchx": "fine-tuned, benchx", "linear": "frozen, linear", "knn": "frozen, kNN"}
NAMES = {
    "random": "random initialization",
    "image": "masked image",
    "report": "masked report",
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


def noise(metadata, table, share, seed):
    """Draws the records by their identifiers, so that 10% are among 30%."""
    findings = ["Pneumonia/Viral", "Pneumonia/Bacterial"]
    with open(metadata, newline="") as file, open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["record_id", *findings])
        for row in csv.DictReader(file):
            if row["split_subset"] == "train" and "1" in (row[finding] for finding in findings):
                wrong = random.Random(f"{seed} {row['record_id']}").random() < share / 100
                labels = [row[finding] for finding in findings]
                writer.writerow([row["record_id"], *(reversed(labels) if wrong else labels)])


def collect(out, seed, results):
    """One row an evaluation on a test subset. Rows of the file whose evaluations OUT has not stay."""
    rows = []
    for path in sorted((out / f"seed{seed}").rglob("evaluation-test*.json")):
        task, _, ratio = path.relative_to(out / f"seed{seed}").parts[0].rpartition("-")
        if ratio == "probes":
            ratio = path.parent.name.split("-")[-2]
        evaluation = json.loads(path.read_text())
        probe = evaluation.get("probe")
        on = path.stem.removeprefix("evaluation-test")
        mean, decisions = evaluation["mean"], evaluation.get("at_threshold") or {}
        rows.append({
            "task": task + on,
            "ratio": int(ratio),
            "seed": seed,
            "method": probe["method"] if probe else evaluation["recipe"],
            "encoder": evaluation["init_name"].rpartition(": ")[2],
            "records": evaluation["records"],
            "patients": evaluation["patients"],
            "auroc": value(mean["auroc"]),
            "average_precision": value(mean["average_precision"]),
            "macro_f1": value((decisions.get("macro") or {}).get("f1")),
        })
    name = lambda row: tuple(str(row[key]) for key in ("task", "ratio", "method", "encoder"))
    before = json.loads(results.read_text()) if results.exists() else []
    rows = sorted({name(row): row for row in before + rows}.values(), key=name)
    results.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(f"{len(rows)} evaluations of seed {seed}")


def value(interval):
    return interval and round(interval["value"], 5)


def paired(differences):
    """Mean difference, and half of its 95% interval by Student's t; none of one seed."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, None
    return mean, T[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))


def read(files):
    """AUROC by task, method, ratio and encoder, then by seed."""
    cells = defaultdict(dict)
    for file in files:
        for row in json.loads(Path(file).read_text()):
            if row["auroc"] is not None:
                cells[row["task"], row["method"], row["ratio"], row["encoder"]][row["seed"]] = row["auroc"]
    return cells


def chart(path, method, files):
    """A panel for each task that has several shares of the labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = {key: list(cell.values()) for key, cell in read(files).items() if key[1] == method}
    ratios = {task: sorted({key[2] for key in cells if key[0] == task}) for task in TASKS}
    tasks = [task for task in TASKS if len(ratios[task]) > 1]
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(3.2 * len(tasks), 3.6), sharey=True, layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks):
        places = range(len(ratios[task]))
        for name, title in NAMES.items():
            values = [cells.get((task, method, ratio, name)) for ratio in ratios[task]]
            if all(values):
                spread = [statistics.stdev(value) if len(value) > 1 else 0 for value in values]
                style = "--" if name == "random" else "-"
                axis.errorbar(places, list(map(statistics.fmean, values)), spread, label=title, linestyle=style, marker="o", capsize=3)
        axis.set_xticks(list(places), [f"{ratio}%" for ratio in ratios[task]])
        axis.set_title(TASKS[task], fontsize=10)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test AUROC")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def table(files):
    """AUROC by task, method, ratio and encoder; bold: the difference to random initialization has an interval without 0."""
    cells = read(files)
    print("Mean test AUROC ± standard deviation over the seeds. In parentheses: difference to random\n"
          "initialization, with a 95% interval (Student's t over seeds, paired); bold where it excludes 0.\n")
    encoders = [name for name in NAMES if any(key[3] == name for key in cells)]
    for task, title in TASKS.items():
        rows = sorted({key[1:3] for key in cells if key[0] == task}, key=lambda row: (list(METHODS).index(row[0]), row[1]))
        if not rows:
            continue
        print(f"**{title}**\n")
        of_task = [name for name in encoders if any(key[0] == task and key[3] == name for key in cells)]
        print("| | labels | seeds | " + " | ".join(NAMES[name] for name in of_task) + " |\n| --- | --- | --- |" + " --- |" * len(of_task))
        for method, ratio in rows:
            line = [METHODS[method], f"{ratio}%", str(len(cells[task, method, ratio, "random"]))]
            for name in of_task:
                line.append(text(cells[task, method, ratio, name], cells[task, method, ratio, "random"], name == "random"))
            print("| " + " | ".join(line) + " |")
        print()


def summary(method, files):
    """Bold: the interval of a difference excludes 0."""
    cells = read(files)
    encoders = [name for name in NAMES if any(key[1] == method and key[3] == name for key in cells)]
    print("| test AUROC | labels | " + " | ".join(NAMES[name] for name in encoders) + " | with the report − without |")
    print("| --- | --- |" + " --- |" * (len(encoders) + 1))
    for task, title in TASKS.items():
        for ratio in sorted({key[2] for key in cells if key[:2] == (task, method)}):
            of = {name: cells[task, method, ratio, name] for name in encoders}
            line = [title, f"{ratio}%", *map(mean_and_spread, of.values()), difference(of["mrm"], of["image"])]
            print("| " + " | ".join(line) + " |")


def mean_and_spread(cell):
    values = list(cell.values())
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}" if values else ""


def difference(cell, baseline):
    """Mean and 95% interval of the difference over the seeds that both have."""
    both = [seed for seed in cell if seed in baseline]
    if not both:
        return ""
    mean, half = paired([cell[seed] - baseline[seed] for seed in both])
    if half is None:
        return f"{mean:+.3f}"
    return f"**{mean:+.3f} ± {half:.3f}**" if abs(mean) > half else f"{mean:+.3f} ± {half:.3f}"


def text(cell, baseline, is_baseline):
    shown = difference(cell, baseline)
    return mean_and_spread(cell) + (f" ({shown})" if shown and not is_baseline else "")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "lists":
        lists(Path(arguments[0]), Path(arguments[1]))
    elif command == "noise":
        noise(*arguments[:2], float(arguments[2]), arguments[3])
    elif command == "collect":
        collect(Path(arguments[0]), int(arguments[1]), Path(arguments[2]))
    elif command == "table":
        table(arguments)
    elif command == "summary":
        summary(arguments[0], arguments[1:])
    elif command == "chart":
        chart(*arguments[:2], arguments[2:])
    else:
        sys.exit(__doc__)
