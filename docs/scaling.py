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

# Fine-tuning of ViT-B/16. Forward and backward GFLOP of a record of 224 pixels, counted by hand: 3 × the forward pass, which is
# 2 × 86e6 × 197 tokens and the attention.
CLASSIFY_GFLOP = 105
ENCODER_PARAMETERS, EMBED_DIM, LAYERS = 86e6, 768, 12
SEEDS = 3
# Steps of the release's recipe at 1, 10 and 100% of the labels, and records of a step. The segmenter has heads of 512 channels.
RELEASE = {
    "nih14": ([3_000, 30_000, 200_000], 96),
    "chexpert5": ([2_000, 60_000, 200_000], 96),
    "rsna": ([2_000, 10_000, 50_000], 96),
    "siim": ([None, 10_000, 20_000], 16),
}
RELEASE_CHANNELS = 512
# BenchX: training records of the split `paper` at 1, 10 and 100%; epochs at least (an evaluation and ten without a better score,
# each five epochs) and at most. The segmenter has heads of 768 channels on a frozen encoder; steps, and records of a step.
BENCHX = {"nih14": [785, 7_847, 78_468], "chexpert5": [2_184, 21_841, 218_414], "rsna": [251, 2_518, 25_184]}
BENCHX_EPOCHS = (55, 200)
BENCHX_SEGMENT = (20_000, 8)
BENCHX_CHANNELS = 768
# A run keeps two checkpoints and the best weights; numbers of the optimizer for each parameter.
CHECKPOINTS = 2
MOMENTS = {"sgd": 1, "adamw": 2}


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


def segmenter_heads(channels):
    """Parameters and forward GFLOP of neck, UPerNet and auxiliary head on maps of 32 × 32; a layer has a side of its map."""
    wide = EMBED_DIM
    layers = [(4 * wide * wide, 32), (4 * wide * wide, 64), (4 * wide * wide, 32)]  # transposed convolutions of 2 × 2
    layers += [(wide * channels, side) for side in (128, 64, 32)]  # lateral convolutions
    layers += [(9 * channels * channels, side) for side in (128, 64, 32)]  # convolutions of the pyramid
    layers += [(9 * 4 * channels * channels, 128)]  # its bottleneck
    layers += [(wide * channels, side) for side in (1, 2, 3, 6)] + [(9 * (wide + 4 * channels) * channels, 16)]  # pooling
    layers += [(9 * wide * 256, 32)]  # auxiliary head
    return sum(count for count, _ in layers), sum(2 * count * side * side for count, side in layers) / 1e9


def segment_gflop(channels, is_frozen):
    """Forward and backward GFLOP of a record of 512 pixels, 1,025 tokens; a frozen encoder has no backward pass."""
    tokens = 1_025
    encoder = (2 * ENCODER_PARAMETERS * tokens + LAYERS * 4 * tokens * tokens * EMBED_DIM) / 1e9
    return (encoder if is_frozen else 3 * encoder) + 3 * segmenter_heads(channels)[1]


def gpu_seconds(records, gflop):
    return records * gflop * 1e9 / (PEAK * MFU)


def finetuning_table():
    """A GPU trains one run at a time, so that a node of eight makes eight runs in the time of one."""
    yield "| recipe | task | 1% | 10% | 100% | GPU hours, 3 seeds |\n| --- | --- | --- | --- | --- | --- |"
    total = 0
    for task, (steps, batch) in RELEASE.items():
        gflop = segment_gflop(RELEASE_CHANNELS, False) if task == "siim" else CLASSIFY_GFLOP
        seconds = [count and gpu_seconds(count * batch, gflop) for count in steps]
        cells = [duration(time) if time else "" for time in seconds]
        hours = SEEDS * sum(filter(None, seconds)) / 3600
        total += hours
        yield f"| release | {task} | {' | '.join(cells)} | {hours:.1f} |"
    yield f"| release | all | | | | {total:.0f} |"
    total = 0
    for task, records in BENCHX.items():
        at_most = [BENCHX_EPOCHS[1] * gpu_seconds(count, CLASSIFY_GFLOP) for count in records]
        cells = [f"{duration(time * BENCHX_EPOCHS[0] / BENCHX_EPOCHS[1])} to {duration(time)}" for time in at_most]
        hours = SEEDS * sum(at_most) / 3600
        total += hours
        yield f"| benchx | {task} | {' | '.join(cells)} | at most {hours:.1f} |"
    steps, batch = BENCHX_SEGMENT
    time = gpu_seconds(steps * batch, segment_gflop(BENCHX_CHANNELS, True))
    total += SEEDS * 2 * time / 3600
    yield f"| benchx | siim |  | {duration(time)} | {duration(time)} | {SEEDS * 2 * time / 3600:.1f} |"
    yield f"| benchx | all | | | | at most {total:.0f} |"


def run_bytes(weights, trained, moments, has_best=True):
    """Float32 weights of the checkpoints and the best ones, and the optimizer's numbers for the trained parameters."""
    return 4 * (weights * (CHECKPOINTS + has_best) + trained * moments * CHECKPOINTS)


def disk_lines():
    """The size of all runs of the reproduction."""
    ratios = {task: len([count for count in steps if count]) for task, (steps, _) in RELEASE.items()}
    classifiers = 2 * SEEDS * sum(count for task, count in ratios.items() if task != "siim")
    segmenters = SEEDS * ratios["siim"]  # of a recipe
    classifier = run_bytes(ENCODER_PARAMETERS, ENCODER_PARAMETERS, MOMENTS["sgd"])
    whole = ENCODER_PARAMETERS + segmenter_heads(RELEASE_CHANNELS)[0]
    release = run_bytes(whole, whole, MOMENTS["adamw"])
    heads = segmenter_heads(BENCHX_CHANNELS)[0]
    benchx = run_bytes(ENCODER_PARAMETERS + heads, heads, MOMENTS["adamw"])
    pretrained = MODELS["mrm-vit-b16"]["parameters"]
    pretraining = run_bytes(pretrained, pretrained, MOMENTS["adamw"], has_best=False)
    total = classifiers * classifier + segmenters * (release + benchx) + pretraining
    yield (f"Disk of the runs: {classifiers} classifiers × {classifier / 1e9:.1f} GB, {segmenters} segmenters × "
           f"{release / 1e9:.1f} GB (`release`), {segmenters} × {benchx / 1e9:.1f} GB (`benchx`), pre-training "
           f"{pretraining / 1e9:.1f} GB: {total / 1e9:.0f} GB.")


if __name__ == "__main__" and sys.argv[1:] == ["finetuning"]:
    print("\n".join([*finetuning_table(), "", *disk_lines()]))
elif __name__ == "__main__":
    print("\n".join([*ingest_table(), "", *training_table(), "", *loader_lines()]))
