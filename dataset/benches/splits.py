"""Compares how even splits are: `dataset split`, random draws and two Python packages.

    python dataset/benches/splits.py DATASET [--binary dataset] [--ratio 1] [--seeds 5]

Needs numpy, pyarrow, scikit-multilearn and iterative-stratification. Makes the split `bench` in DATASET. For the ratio's
set of the training subset it prints the largest absolute difference of a finding's prevalence from the whole training
subset, in percentage points:

- `dataset split`: whole patients; its certificate's value, and the same measured here;
- random patients: shuffled, taken until the number of records is reached;
- the packages: single images of the same training subset, since neither knows groups.

Seeds 0, 1, ...; the smallest time is printed. The time of `dataset split` includes its start, reading the shards and writing the split; the packages have the labels in memory.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet


def load(folder):
    """Identifiers, patients and positives `[records, findings]` of a dataset."""
    columns = ["record_id", "patient_id", "labels"]
    table = parquet.ParquetDataset(sorted(Path(folder, "shards").glob("*.parquet"))).read(columns=columns)
    labels = table["labels"].combine_chunks().flatten()
    positives = np.stack([column.fill_null(0).to_numpy(zero_copy_only=False) == 1 for column in labels], axis=1)
    return table["record_id"].to_numpy(), table["patient_id"].to_numpy(), positives.astype(np.int64)


def deviation(pool, chosen):
    """Largest absolute difference of a prevalence, in points."""
    return 100 * np.abs(pool[chosen].mean(axis=0) - pool.mean(axis=0)).max()


def random_patients(patients, wanted, seed):
    """Rows of shuffled patients, until there are enough."""
    names, patient = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(patient)[order]
    taken = order[: np.searchsorted(np.cumsum(sizes), wanted) + 1]
    return np.isin(patient, taken)


def multilearn(pool, share, seed):
    from skmultilearn.model_selection import IterativeStratification

    np.random.seed(seed)
    folds = IterativeStratification(n_splits=2, order=1, sample_distribution_per_fold=[share, 1 - share])
    # The distribution is that of the test parts; the first fold's is the share's.
    _, chosen = next(folds.split(np.zeros((len(pool), 1)), pool))
    return chosen


def trent_b(pool, share, seed):
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    folds = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    return next(folds.split(np.zeros((len(pool), 1)), pool))[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--binary", default="dataset")
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    records, patients, positives = load(options.dataset)
    share = options.ratio / 100

    rows = []

    def measure_draw(name, unit, seeds, measure):
        values, sizes, times = [], [], []
        for seed in range(seeds):
            start = time.perf_counter()
            value, size = measure(seed)
            times.append(time.perf_counter() - start)
            values.append(value)
            sizes.append(size)
        rows.append((name, unit, f"{np.mean(sizes):.0f}", np.mean(values), min(values), max(values), min(times)))
        print(f"{name}: {rows[-1][3]:.3f} points, {rows[-1][6]:.1f} s", flush=True)

    def ours(seed):
        ratios = ",".join(sorted({f"{options.ratio:g}", "10", "100"}, key=float))
        command = [options.binary, "split", options.dataset, "--name", "bench", "--ratios", ratios, "--seed", str(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        certificate = json.loads(Path(options.dataset, "splits", "bench.json").read_text())
        assert certificate["shared_patients"] == 0
        part = next(part for part in certificate["parts"] if part["name"] == f"{options.ratio:g}%")
        table = parquet.read_table(Path(options.dataset, "splits", "bench.parquet"))
        place = {name: row for row, name in enumerate(records)}
        row_of = np.array([place[name] for name in table["record_id"].to_pylist()])
        train = table["subset"].to_numpy() == "train"
        ratio = table["ratio"].to_numpy()
        pool, chosen = row_of[train], ratio[train] <= options.ratio
        assert len(np.intersect1d(patients[row_of[train]], patients[row_of[~train]])) == 0
        assert chosen.sum() == part["records"]
        ours.pool = pool
        return deviation(positives[pool], chosen), part["records"]

    # Seed 0 is last, so that the pool of all others is that of the default seed.
    measure_draw("`dataset split`", "patient", options.seeds, lambda seed: ours(options.seeds - 1 - seed))
    pool, owners = positives[ours.pool], patients[ours.pool]
    wanted = round(share * len(pool))

    def drawn(draw):
        def measure(seed):
            chosen = draw(seed)
            size = chosen.sum() if chosen.dtype == bool else len(chosen)
            return deviation(pool, chosen), size

        return measure

    measure_draw("random draw", "patient", options.seeds, drawn(lambda seed: random_patients(owners, wanted, seed)))
    measure_draw("random draw", "image", options.seeds, drawn(lambda seed: np.random.default_rng(seed).permutation(len(pool))[:wanted]))
    measure_draw("iterative-stratification", "image", options.seeds, drawn(lambda seed: trent_b(pool, share, seed)))
    # Once, since it takes minutes.
    measure_draw("scikit-multilearn", "image", 1, drawn(lambda seed: multilearn(pool, share, seed)))

    print(f"\n{options.ratio:g}% of {len(pool)} training records of {len(np.unique(owners))} patients\n")
    print("| draw | unit | records | deviation, mean | least | most | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, unit, size, mean, least, most, seconds in rows:
        print(f"| {name} | {unit} | {size} | {mean:.3f} | {least:.3f} | {most:.3f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
