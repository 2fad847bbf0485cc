#!/usr/bin/env python3
"""The pre-training step of `trainer` beside the same model in PyTorch, one after the other, several times.

    trainer/benches/peers/train.py --trainer target/release/trainer

Both do the same work on the same shapes: one batch of noise in the host's memory (pinned for a GPU, where it is copied at
each step), forward pass, backward pass, gradient norm, fused AdamW. The model is in `model.py`; `--compile` compiles it.
Prints medians as a Markdown table; the ratio is that of the images/s. `--cpu-time` adds the processor time of a step, which
other programs on the machine hardly change.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()


def main():
    options = arguments()
    if options.golden:
        return compare_with_golden(options.golden)
    if options.peer:
        return print(json.dumps(measure_peer(options)))
    threads = options.threads or len(os.sched_getaffinity(0))
    modes = ["eager", "compiled"] if options.compile else ["eager"]
    found = {"ours": [], **{mode: [] for mode in modes}}
    for _ in range(options.runs):
        found["ours"].append(run_ours(options, threads, options.steps)[0])
        for mode in modes:
            found[mode].append(run_peer(options, threads, mode == "compiled"))
    medians = {name: {key: median(rows, key) for key in ("img_s", "ms_step", "gib")} for name, rows in found.items()}
    for mode in modes:
        medians[mode]["cpu_s"] = median(found[mode], "cpu_s")
    if options.cpu_time:
        medians["ours"]["cpu_s"] = cpu_seconds_of_ours(options, threads)
    device, torch_version = found["eager"][0]["device"], found["eager"][0]["torch"]
    print(f"{options.preset}, batch {options.batch_size}, {options.precision}, {device}, {threads} threads; "
          f"PyTorch {torch_version}; medians of {options.runs}\n")
    print("| | images/s | ms a step | peak memory, GiB |" + (" CPU s a step |" if options.cpu_time else ""))
    print("| --- | --- | --- | --- |" + (" --- |" if options.cpu_time else ""))
    names = {"ours": "`trainer bench`", "eager": "PyTorch, eager", "compiled": "PyTorch, compiled"}
    for name, row in medians.items():
        cells = [f"{row['img_s']:.2f}", f"{row['ms_step']:.1f}", f"{row['gib']:.2f}"]
        cells += [f"{row['cpu_s']:.2f}"] if options.cpu_time else []
        print(f"| {names[name]} | " + " | ".join(cells) + " |")
    for mode in modes:
        ours, peer = medians["ours"], medians[mode]
        cells = [f"**{ours['img_s'] / peer['img_s']:.2f}**", "", ""]
        cells += [f"**{peer['cpu_s'] / ours['cpu_s']:.2f}**"] if options.cpu_time else []
        print(f"| ratio to {mode} | " + " | ".join(cells) + " |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", type=Path, help="our binary `trainer`")
    parser.add_argument("--preset", default="mrm-vit-b16", choices=["mrm-vit-b16", "mrm-vit-s16", "mrm-vit-tiny"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, help="of both; default: all cores")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also measure the compiled model")
    parser.add_argument("--cpu-time", action="store_true", help="also measure the processor time of a step")
    parser.add_argument("--peer", choices=["eager", "compiled"], help="measure PyTorch alone and print JSON")
    parser.add_argument("--golden", type=Path, metavar="DIR", help="compare the model's losses with golden numbers")
    options = parser.parse_args()
    if not (options.trainer or options.peer or options.golden):
        parser.error("give --trainer, --peer or --golden")
    if min(options.batch_size, options.steps, options.runs) < 1 or options.warmup < 0:
        parser.error("--batch-size, --steps and --runs must be at least 1")
    return options


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def run_ours(options, threads, steps):
    """What `trainer bench` measures, and the processor time of the whole process."""
    command = [str(options.trainer), "bench", "--json", "--preset", options.preset, "--device", options.device]
    command += ["--batch-size", str(options.batch_size), "--steps", str(steps), "--warmup", str(options.warmup)]
    command += ["--threads", str(threads), "--set", f"run.precision={options.precision}"]
    before = children_seconds()
    found = json.loads(checked(command).stdout)
    row = {"img_s": found["images_per_second"], "ms_step": found["milliseconds_per_step"], "gib": found["peak_memory_gib"]}
    return row, children_seconds() - before


def cpu_seconds_of_ours(options, threads):
    """Of a step: two processes that differ in the number of steps, so that the start is left out. After the measured steps,
    `bench` makes half as many again for the phases."""
    made = lambda steps: steps + (steps + 1) // 2
    few, many = 1, options.steps + 1
    pairs = [[run_ours(options, threads, steps)[1] for steps in (few, many)] for _ in range(options.runs)]
    return statistics.median((after - before) / (made(many) - made(few)) for before, after in pairs)


def run_peer(options, threads, compiled):
    command = [sys.executable, "-B", str(HERE), "--peer", "compiled" if compiled else "eager", "--preset", options.preset]
    command += ["--batch-size", str(options.batch_size), "--steps", str(options.steps), "--device", options.device]
    command += ["--warmup", str(options.warmup), "--threads", str(threads), "--precision", options.precision]
    return json.loads(checked(command).stdout.splitlines()[-1])


def checked(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"{' '.join(command[:3])} …: {lines[-1]}")
    return done


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_peer(options):
    """Rate, time of a step, memory and processor time of the model in PyTorch."""
    import torch
    from model import PRESETS, Mrm

    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes, cuda = PRESETS[options.preset], options.device.startswith("cuda")
    model = Mrm(sizes).to(options.device).train()
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.05},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if options.peer == "compiled" else model
    batch = [tensor.pin_memory() if cuda else tensor for tensor in noise(sizes, options.batch_size)]

    def step():
        gray, *report = (tensor.to(options.device, non_blocking=True) for tensor in batch)
        images = gray.expand(-1, sizes.channels, -1, -1)
        with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.precision == "bf16"):
            loss = sum(forward(images, *report))
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach(), norm

    def wait():
        if cuda:
            torch.cuda.synchronize()

    started = time.perf_counter()
    for _ in range(options.warmup):
        step()
    wait()
    warmup = time.perf_counter() - started
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    processor, started = time.process_time(), time.perf_counter()
    for _ in range(options.steps):
        loss, _ = step()
        if not cuda:
            loss.item()
    wait()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__.split("+")[0],
        "img_s": options.batch_size * options.steps / seconds,
        "ms_step": seconds / options.steps * 1e3,
        "cpu_s": processor / options.steps,
        "gib": peak / 2**30,
        "warmup_s": warmup,
        "parameters": sum(p.numel() for p in parameters),
        "loss": loss.item(),
    }


def noise(sizes, records):
    """Gray images `[B, 1, H, W]`; ids, labels and attention mask `[B, L]`: 30% of the positions are padding."""
    import torch

    side = sizes.image * sizes.scale
    labels = torch.randint(4, sizes.vocabulary, (records, sizes.tokens))
    labels[:, sizes.tokens * 7 // 10 :] = 0
    attention_mask = (labels != 0).long()
    ids = torch.where((torch.rand(labels.shape) < 0.5) & (labels != 0), 3, labels)
    return torch.randn(records, 1, side, side), ids, labels, attention_mask


def compare_with_golden(folder):
    """Prints the relative differences of both losses from the reference implementation's at tiny sizes."""
    import torch
    from model import Mrm, Sizes
    from safetensors.torch import load_file

    facts, tensors = json.loads((folder / "mrm_tiny.json").read_text()), load_file(folder / "mrm_tiny.safetensors")
    mrm, bert = facts["mrm"], facts["bert"]
    model = Mrm(Sizes(
        image=mrm["img_size"], patch=mrm["patch_size"], embed_dim=mrm["embed_dim"], layers=mrm["depth"],
        heads=mrm["num_heads"], decoder_dim=mrm["decoder_embed_dim"], decoder_layers=mrm["decoder_depth"],
        decoder_heads=mrm["decoder_num_heads"], report_dim=bert["hidden_size"], report_layers=bert["num_hidden_layers"],
        report_heads=bert["num_attention_heads"], intermediate=bert["intermediate_size"], vocabulary=bert["vocab_size"],
        tokens=bert["max_position_embeddings"], mask_ratio=facts["mask_ratio"], antialias=True,
    ))
    state = {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}
    loaded = model.load_state_dict(state, strict=False)
    unused = {"bert_encoder.model.bert.embeddings.position_ids", "bert_encoder.model.cls.predictions.bias"}
    unexpected = [name for name in loaded.unexpected_keys if name not in unused and ".pooler." not in name]
    if loaded.missing_keys or unexpected:
        sys.exit(f"other parameters: missing {loaded.missing_keys}, unexpected {unexpected}")
    given = [tensors[f"in.{name}"] for name in ("image", "ids", "labels", "attention_mask", "noise", "type_ids")]
    with torch.no_grad():
        losses = model.eval()(*given)
    for name, loss in zip(("image", "report"), losses):
        expected = tensors[f"out.loss_{name}"]
        print(name, f"{((loss - expected).abs() / expected.abs()).item():.2e}")


if __name__ == "__main__":
    main()
