"""Computes the tables of docs/scaling.md, and with `finetuning` that of docs/reproduce.md: python docs/scaling.py [finetuning]

Measured rates and assumed limits are the constants below; change them to those of your cluster. Nothing here is measured on
more than one machine.
"""

import sys

NODES = [1, 2, 4, 8, 16, 32, 64]

# Ingest. Images/s of a core, measured with ingest/benches/peers/ingest.py on files of 2544 × 3056 (two jobs on two cores).
IMAGES = 377_110
KINDS = {"DICOM": {"bytes": 4.7e12, "per_core": 40}, "JPEG": {"bytes": 558e9, "per_core": 36}}
OUTPUT_BYTES = 119e9
SHARD_ROWS = 2048
PLAN_SECONDS = 15.1 * IMAGES / 1e6  # measured: a million rows in 15.1 s; planned once
# Assumed.
CORES = 32
NIC = 12.5e9
STORAGE = {
    "NFS, 1 GB/s in all": {"all": 1e9, "node": NIC},
    "parallel file system, 10 GB/s in all": {"all": 10e9, "node": NIC},
    "object store, 1.25 GB/s a node": {"all": None, "node": 1.25e9},
}

# Pre-training. Parameters of the presets with 30,000 tokens, and GFLOP of a record from `trainer bench`.
MODELS = {"mrm-vit-b16": {"parameters": 151.2e6, "gflop": 76.6}, "mrm-vit-s16": {"parameters": 64.1e6, "gflop": 30.4}}
GRADIENT_BYTES = 4
BACKWARD = 2 / 3  # share of a step that the all-reduce can be hidden behind
EPOCHS = 200
BATCH = 256
RECORD_BYTES = 512 * 615
LOADER_PER_CORE = 4_100  # images/s of a thread, measured with `dataset bench --transform pretrain`
# Assumed: a GPU of 989 TFLOP/s in bfloat16 of which a share is reached, eight in a node.
PEAK, MFU = 989e12, 0.3
MFU_RANGE = (0.2, 0.4)
GPUS_A_NODE = 8
NVLINK = 450e9  # bus bandwidth of a ring in a node, one direction
ETHERNET = 12.5e9  # 100 Gb/s of a node

# Fine-tuning of ViT-B/16. Forward and backward GFLOP of a record, counted by hand: 3 × the forward pass, which is 2 × 86e6 × 197
# tokens and the attention (224 pixels); for segmentation 1,025 tokens of 512 pixels and UPerNet's convolutions of 512 channels.
CLASSIFY_GFLOP, SEGMENT_GFLOP = 105, 1_900
# Steps of the release's recipe at 1, 10 and 100% of the labels, and records of a step.
RELEASE = {
    "nih14": ([3_000, 30_000, 200_000], 96, CLASSIFY_GFLOP),
    "chexpert5": ([2_000, 60_000, 200_000], 96, CLASSIFY_GFLOP),
    "rsna": ([2_000, 10_000, 50_000], 96, CLASSIFY_GFLOP),
    "siim": ([None, 10_000, 20_000], 16, SEGMENT_GFLOP),
}
# Training records at 1, 10 and 100%, records of a step, epochs at most and at least (ten evaluations, five epochs apart).
BENCHX = {"nih14": ([785, 7_847, 78_468], 64), "rsna": ([186, 1_867, 18_678], 64)}
BENCHX_EPOCHS = (50, 200)


def ingest_seconds(kind, storage, nodes):
    """Planning, then the larger one of the slowest node's shards and what the storage can deliver; and which one it is."""
    facts, limits = KINDS[kind], STORAGE[storage]
    read, written = facts["bytes"] / IMAGES, OUTPUT_BYTES / IMAGES
    cores, network = CORES * facts["per_core"], limits["node"] / read
    shards = -(-IMAGES // SHARD_ROWS)
    most = min(-(-shards // nodes) * SHARD_ROWS, IMAGES)
    times = {"cores": most / cores, "network": most / network}
    if limits["all"]:
        times["storage"] = IMAGES * (read + written) / limits["all"]
    limit = max(times, key=times.get)
    return PLAN_SECONDS + times[limit], limit


def duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ingest_table():
    head = ["files", "storage", *(f"{nodes}" for nodes in NODES), "limited by", "stops at", "node-hours there"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for kind in KINDS:
        for storage in STORAGE:
            times = [ingest_seconds(kind, storage, nodes) for nodes in NODES]
            seconds = [time for time, _ in times]
            # The first number of nodes whose double saves less than a tenth of the time.
            last = next((at for at in range(len(NODES) - 1) if seconds[at + 1] > 0.9 * seconds[at]), len(NODES) - 1)
            stops = f"{NODES[last]}" if last < len(NODES) - 1 else "not by 64"
            cells = [kind, storage, *map(duration, seconds), times[last][1], stops]
            yield "| " + " | ".join([*cells, f"{NODES[last] * seconds[last] / 3600:.1f}"]) + " |"


def all_reduce_seconds(model, gpus):
    """A ring in each node, then one between the nodes: every byte twice through each link, but for the share of one rank."""
    size = MODELS[model]["parameters"] * GRADIENT_BYTES
    inside, nodes = min(gpus, GPUS_A_NODE), -(-gpus // GPUS_A_NODE)
    return 2 * size * ((inside - 1) / inside / NVLINK + (nodes - 1) / nodes / ETHERNET)


def efficiency(model, gpus, batch, mfu=MFU):
    """Compute time over step time, without overlap and with all of the backward pass in which to hide the all-reduce."""
    compute = batch * MODELS[model]["gflop"] * 1e9 / (PEAK * mfu)
    exchange = all_reduce_seconds(model, gpus)
    hidden = compute * (1 - BACKWARD) + max(compute * BACKWARD, exchange)
    return compute, compute / (compute + exchange), compute / hidden


def training_table():
    columns = ["no overlap", "overlap", f"hours for {EPOCHS} epochs"]
    head = ["model", "GPUs", "all-reduce"]
    for rule in ("a GPU", "in all"):
        head += [f"{BATCH} {rule}: {columns[0]}", *columns[1:]]
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for model in MODELS:
        for gpus in NODES:
            cells = [model, f"{gpus}", f"{all_reduce_seconds(model, gpus) * 1e3:.1f} ms"]
            for batch in (BATCH, BATCH / gpus):
                compute, alone, overlapped = efficiency(model, gpus, batch)
                hours = EPOCHS * IMAGES / (batch * gpus) * compute / overlapped / 3600
                slow, fast = (100 * efficiency(model, gpus, batch, mfu)[1] for mfu in MFU_RANGE)
                cells += [f"{alone:.0%} ({fast:.0f}–{slow:.0f})", f"{overlapped:.0%}", f"{hours:.2f}"]
            yield "| " + " | ".join(cells) + " |"


def loader_lines():
    """What the GPUs of a node need of the loader."""
    for model, facts in MODELS.items():
        rate = GPUS_A_NODE * PEAK * MFU / (facts["gflop"] * 1e9)
        cores, bytes_ = rate / LOADER_PER_CORE, rate * RECORD_BYTES / 1e9
        yield (f"- `{model}`, {GPUS_A_NODE} GPUs: {rate:,.0f} images/s, which are {cores:.0f} cores of the loader "
               f"and {bytes_:.1f} GB/s of raw pixels")


def finetuning_table():
    """A GPU trains one run at a time, so that a node of eight makes eight runs in the time of one."""
    yield "| recipe | task | 1% | 10% | 100% | GPU hours, 3 seeds |\n| --- | --- | --- | --- | --- | --- |"
    for task, (steps, batch, gflop) in RELEASE.items():
        seconds = [count and count * batch * gflop * 1e9 / (PEAK * MFU) for count in steps]
        cells = [duration(time) if time else "" for time in seconds]
        hours = 3 * sum(filter(None, seconds)) / 3600
        yield f"| release | {task} | {' | '.join(cells)} | {hours:.1f} |"
    for task, (records, _) in BENCHX.items():
        at_most = [BENCHX_EPOCHS[1] * count * CLASSIFY_GFLOP * 1e9 / (PEAK * MFU) for count in records]
        cells = [f"{duration(time * BENCHX_EPOCHS[0] / BENCHX_EPOCHS[1])} to {duration(time)}" for time in at_most]
        yield f"| benchx | {task} | {' | '.join(cells)} | at most {3 * sum(at_most) / 3600:.1f} |"


if __name__ == "__main__" and sys.argv[1:] == ["finetuning"]:
    print("\n".join(finetuning_table()))
elif __name__ == "__main__":
    print("\n".join([*ingest_table(), "", *training_table(), "", *loader_lines()]))
