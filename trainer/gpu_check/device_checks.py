"""Checks of the device: what it is, golden numbers, steps, PyTorch's steps, memory that does not suffice."""

import json
import os
import re
import shutil
from pathlib import Path

from runner import Failed, Unavailable, last_line

TRAINER = Path(__file__).resolve().parent.parent


def probe_cuda(check):
    """What a training step on the device says if it cannot be made; none if it can."""
    words = ["bench", "--preset", "mrm-vit-tiny", "--batch-size", "2", "--steps", "1", "--warmup", "0"]
    code, _, err = check.finish(check.start([check.binary("trainer"), *words, "--device", check.options.device]))
    return None if code == 0 else last_line(err) or f"exit code {code}"


TORCH_FACTS = """
import json, os, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
lib = os.path.join(os.path.dirname(torch.__file__), "lib")
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda if cuda else None, "devices": names, "lib": lib}))
"""


def machine(check):
    facts = {"cores": len(os.sched_getaffinity(0)), "device": check.options.device}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        facts["gpus"] = [line.strip() for line in check.run(query).splitlines() if line.strip()]
    torch = None
    try:
        torch = json.loads(check.run([check.options.python, "-c", TORCH_FACTS]))
        facts["torch"], facts["torch_cuda"] = torch["torch"], torch["cuda"]
    except (Failed, OSError) as error:
        facts["torch"] = f"none: {error}"
    linked = b"libtorch_cuda.so" in check.binary("trainer").read_bytes()
    facts["linked_to_cuda"] = linked
    facts["trainer"] = "linked to CUDA" if linked else "not linked to CUDA"
    check.reason = probe_cuda(check)
    if check.reason and torch and (not check.cuda or torch["cuda"]):
        # The libtorch of the binary is not on this machine, or has no CUDA.
        check.environment = {"LD_LIBRARY_PATH": torch["lib"]}
        if check.cuda:
            check.environment["LD_PRELOAD"] = os.path.join(torch["lib"], "libtorch_cuda.so")
        first, check.reason = check.reason, probe_cuda(check)
        facts["trainer"] += f"; alone: {first}; hence the libtorch of PYTHON was loaded in front of its own"
    if check.reason:
        facts["trainer"] += f"; cannot compute on {check.options.device}: {check.reason}"
        check.reason = f"the trainer is {facts['trainer']}"
    facts["version"] = " ".join(check.finish(check.start([check.binary("trainer"), "--version"]))[1].split())
    gpus = "; ".join(facts.get("gpus", [])) or "no NVIDIA GPU"
    text = f"{gpus}; {facts['cores']} cores; torch {facts['torch']}; trainer: {facts['trainer']}"
    yield "", facts, text + (f" ({facts['version']})" if facts["version"] else "")
    if check.reason:
        raise Failed(check.reason)


def golden(precision):
    def run(check):
        program = check.options.golden_tests or check.binary("golden-tests")
        variables = {"MRM_GOLDEN_DIR": str(TRAINER.parent / "tests" / "golden"), "MRM_TEST_DEVICE": check.options.device}
        # Convolutions of cuDNN round to TF32 otherwise.
        variables |= {"MRM_TEST_PRECISION": precision, "NVIDIA_TF32_OVERRIDE": "0"}
        # Tolerances are those of the CPU; where one fails, ten times as much shows how far it is off.
        factors = [1] if precision == "bf16" else [1, 10]
        for factor in factors:
            process = check.start([program, "--test-threads", "2"], MRM_TEST_TOLERANCE=str(factor), **variables)
            code, out, err = check.finish(process)
            verdicts = dict(re.findall(r"^test (\S+) \.\.\. (ok|FAILED)", out, re.M))
            if not verdicts:
                raise Failed(last_line(err) or f"exit code {code}")
            wrong = sorted(name for name, verdict in verdicts.items() if verdict != "ok")
            reasons = re.findall(r"panicked at .*\n(.+)", out + err)
            figures = {"tolerance_factor": factor, "passed": len(verdicts) - len(wrong), "of": len(verdicts)}
            figures |= {"failed": wrong, "reasons": reasons}
            what = "tolerances of float32 on a CPU" if factor == 1 else f"{factor} times these tolerances"
            if precision == "bf16":
                what = "norm of the difference: outputs 2%, gradients 5% (UPerNet 25%)"
            if wrong and factor == factors[-1]:
                raise Failed(f"{what}: {len(wrong)} of {len(verdicts)} failed: {', '.join(wrong)}: {'; '.join(reasons[:3])}")
            text = f"{figures['passed']} of {figures['of']} passed"
            yield what, figures, text + (f"; failed: {', '.join(wrong)}: {'; '.join(reasons[:3])}" if wrong else "")
            if not wrong:
                return

    return run


def steps(check):
    grid = [("mrm-vit-tiny", "fp32", [4])]
    if not check.options.tiny:
        grid = [("mrm-vit-b16", "bf16", [256, 64, 128, 512]), ("mrm-vit-b16", "fp32", [64, 256]),
                ("mrm-vit-s16", "bf16", [256, 512, 1024]), ("mrm-vit-s16", "fp32", [256])]
    for preset, precision, batches in grid:
        for batch in batches:
            found = check.bench(preset, precision, batch)
            check.step_ms[preset, precision, batch] = found["milliseconds_per_step"]
            yield f"{preset}, {precision}, batch {batch}", found, in_words(found)


def in_words(found):
    text = f"{found['images_per_second']:,.0f} images/s, {found['milliseconds_per_step']:.1f} ms, "
    text += f"MFU {found['utilization']:.0%} of {found['product_teraflops']:.3g} TFLOP/s, "
    text += ", ".join(f"{phase} {share:.0%}" for phase, share in found["shares"].items())
    return text + (f", {found['peak_memory_gib']:.1f} GiB" if found["peak_memory_gib"] is not None else "")


def settings(check):
    """The step with the settings that are for a GPU, against the step without them: milliseconds, memory, loss."""
    preset, precision, main = check.main_batch
    masters, in_place = ["--set", "run.master_weights=true"], ["--set", "run.in_place_loss=true"]
    kinds = {"neither": [], "master weights": masters, "losses in place": in_place, "both": [*masters, *in_place]}
    if precision == "fp32":
        kinds = {"neither": [], "losses in place": in_place}
    for batch in [main] if check.options.tiny else [32, main]:
        plain = None
        for name, words in kinds.items():
            found = check.bench(preset, precision, batch, *words)
            plain = plain or found
            found["ratio"] = plain["milliseconds_per_step"] / found["milliseconds_per_step"]
            text = f"{found['milliseconds_per_step']:.2f} ms, {found['ratio']:.3f} times the rate of neither, "
            text += f"loss {found['loss']:.5f}"
            if found["peak_memory_gib"] is not None:
                text += f", {found['peak_memory_gib']:.2f} GiB"
            # The same noise, seed and number of steps: the loss differs by rounding.
            if not abs(found["loss"] - plain["loss"]) < 0.01 * plain["loss"]:
                raise Failed(f"{name}, batch {batch}: the loss is {found['loss']}, without settings {plain['loss']}")
            yield f"{preset}, {precision}, batch {batch}, {name}", found, text
    if check.cuda:
        yield from graphs(check, [*masters, *in_place])


def graphs(check, others):
    """The step with `run.cuda_graph`, twice, against the same step without: milliseconds, memory, loss."""
    preset, _, batch = check.main_batch
    batch = batch if check.options.tiny else 32
    masked = ["--set", "model.report_loss=masked", "--set", "optimizer.accumulation=2", *others]
    kinds = {"": ("bf16", []), ", fp16": ("fp16", []), ", all settings, 2 micro-batches": ("bf16", masked)}
    for name, (precision, words) in kinds.items():
        plain = check.bench(preset, precision, batch, *words)
        first, second = (check.bench(preset, precision, batch, *words, "--set", "run.cuda_graph=true") for _ in range(2))
        first["ratio"] = plain["milliseconds_per_step"] / first["milliseconds_per_step"]
        losses = [found["loss"] for found in (plain, first, second)]
        if not max(losses) - min(losses) < 0.001 * losses[0]:
            raise Failed(f"CUDA graph{name}, batch {batch}: the losses are {losses[1:]}, without graph {losses[0]}")
        text = f"{first['milliseconds_per_step']:.2f} ms, {first['ratio']:.3f} times the rate without, loss {losses[1]:.5f}, "
        text += f"without {losses[0]:.5f}, {first['peak_memory_gib']:.2f} GiB, without {plain['peak_memory_gib']:.2f}"
        yield f"{preset}, {precision}, batch {batch}, CUDA graph{name}", first, text


def peer(mode):
    def run(check):
        preset, precision, batch = check.main_batch
        if mode == "compiled" and not check.cuda:
            raise Unavailable("torch.compile is compared on a GPU only")
        script, tiny = TRAINER / "benches" / "peers" / "train.py", check.options.tiny
        words = ["--peer", mode, "--preset", preset, "--precision", precision, "--batch-size", batch]
        words += ["--device", check.options.device, "--steps", 2 if tiny else 30, "--warmup", 1 if tiny else 5]
        found = json.loads(check.run([check.options.python, "-B", script, *words]).splitlines()[-1])
        ours = check.step_ms.get(check.main_batch) or check.bench(preset, precision, batch)["milliseconds_per_step"]
        found["ratio"] = found["ms_step"] / ours
        text = f"{found['img_s']:,.0f} images/s, {found['ms_step']:.1f} ms, {found['gib']:.1f} GiB; "
        text += f"ratio of our rate to this {found['ratio']:.2f}"
        text += f"; warm-up {found['warmup_s']:.0f} s" if mode == "compiled" else ""
        yield f"{preset}, {precision}, batch {batch}", found, text

    return run


def out_of_memory(check):
    """A batch that cannot fit ends with one line."""
    if not check.cuda:
        raise Unavailable("a batch that does not fit is tried on a GPU only")
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    memory = float(check.run(query).splitlines()[0]) / 1024
    batch = int(20 * memory)
    words = ["bench", "--preset", "mrm-vit-b16", "--batch-size", batch, "--steps", 1, "--warmup", 0]
    code, out, err = check.finish(check.start([check.binary("trainer"), *words, "--device", check.options.device]))
    lines = [line for line in err.splitlines() if line.strip()]
    figures = {"batch": batch, "exit_code": code, "stderr": lines[:20]}
    if code != 1 or "panicked" in err or len(lines) != 1 or "memory" not in lines[0]:
        raise Failed(f"batch {batch}, exit code {code}, {len(lines)} lines: {last_line(err) or last_line(out)}")
    yield f"batch {batch} in float32", figures, f"exit code {code}: {lines[0][:300]}"
