"""Writes checkpoints in the forms that PyTorch users have, valid and invalid ones, and the expected result of their import.

checkpoints.py STATE.safetensors MARKER OUT: FILE.pth, and FILE.safetensors beside those that must be imported.
"""

import argparse
import collections
import io
import os
import sys
import zipfile

import numpy
import safetensors.torch
import torch

source, marker, out = sys.argv[1:]
state = {k[len("state.") :]: v for k, v in safetensors.torch.load_file(source).items() if k.startswith("state.")}


def expect(name, tensors):
    floats = {k: v.detach().float() if v.is_floating_point() else v for k, v in tensors.items()}
    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in floats.items()}, f"{out}/{name}.safetensors")


def save(name, value, expected=None, **options):
    torch.save(value, f"{out}/{name}.pth", **options)
    if expected is not None:
        expect(name, expected)


def as_kind(kind):
    return collections.OrderedDict((k, v.to(kind) if v.is_floating_point() else v) for k, v in state.items())


# A complete training checkpoint, as the scripts of MAE and of the release write it.
model = collections.OrderedDict(
    (k, torch.nn.Parameter(v) if v.is_floating_point() else v) for k, v in state.items()
)
optimizer = torch.optim.AdamW([v for v in model.values() if isinstance(v, torch.nn.Parameter)], lr=1e-3)
for parameter in optimizer.param_groups[0]["params"]:  # as after a step, which would take seconds to import a compiler
    moments = {k: torch.rand_like(parameter) for k in ("exp_avg", "exp_avg_sq")}
    optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}
args = argparse.Namespace(lr=1e-3, output_dir="x", betas=(0.9, 0.95), flag=True, none=None)
scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7}
whole = {"model": model, "optimizer": optimizer.state_dict(), "epoch": 199, "scaler": scaler, "args": args,
         "best": numpy.float64(0.75), "random": numpy.arange(3)}
save("whole", whole, model)
for protocol in (3, 4, 5):
    save(f"protocol{protocol}", whole, model, pickle_protocol=protocol)

module = torch.nn.Linear(2, 2)  # a state dict with the versions that modules give it
versions = module.state_dict()
versions.clear()
versions.update(state)
save("plain", versions, state)
save("lightning", {"state_dict": {f"model.{k}": v for k, v in state.items()}, "hyper_parameters": {"a": 1}}, state)
save("parallel", {"model": {f"module.{k}": v for k, v in state.items()}}, state)
for kind in (torch.float16, torch.bfloat16, torch.float64):
    save(str(kind).removeprefix("torch."), {"model": as_kind(kind)}, as_kind(kind))

# A small one that the tests damage: much of it is names and structure.
some = {k: v.half() for k, v in state.items() if k.startswith("blocks.0.") and v.dim() == 1}
save("small", {"model": some, "epoch": 3})

# All tensors in one storage, every second one transposed.
pool = torch.zeros(sum(v.numel() for v in state.values()) + 5)
views, at = {}, 5
for i, (k, v) in enumerate(state.items()):
    if not v.is_floating_point():
        continue
    shown = v if i % 2 else v.transpose(0, -1)
    view = pool[at : at + v.numel()].view(shown.shape)
    view.copy_(shown)
    views[k] = view if i % 2 else view.transpose(0, -1)
    at += v.numel()
assert len({v.untyped_storage().data_ptr() for v in views.values()}) == 1
views["z.expanded"] = torch.arange(3.0).view(3, 1).expand(3, 4)
views["z.step"] = torch.arange(20.0)[1::3]
views["z.scalar"] = torch.tensor(2.5)
views["z.empty"] = torch.empty(0, 3)
views["z.empty_view"] = pool[7:7]
views["z.subclass"] = torch.nn.Buffer(torch.arange(4.0))
tagged = torch.arange(5.0)
tagged.tag = "an attribute"
views["z.attribute"] = tagged
for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
    views[f"z.{kind}"] = torch.tensor([[0, 1, 0], [1, 1, 0]]).to(kind).t()
save("views", {"model": views}, views)

torch.serialization.set_crc32_options(False)
save("nochecksum", {"model": state}, state)
torch.serialization.set_crc32_options(True)


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {marker}",)


class EvilDict(dict):
    def __reduce__(self):
        return eval, (f"open({marker!r}, 'w')",)


odd = dict(state)
odd["z.evil"] = Evil()
odd["z.complex"] = torch.zeros(2, dtype=torch.complex64)
odd["z.float8"] = torch.zeros(2).to(torch.float8_e4m3fn)
odd["z.uint16"] = torch.zeros(2, dtype=torch.uint16)
odd["z.sparse"] = torch.eye(3).to_sparse()
odd["z.quantized"] = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
odd["z.number"] = 3
save("evil", {"model": odd, "evil": Evil(), 7: "a number for a key"}, state)

# What must be refused.
save("refused-module", {"model": module})
save("refused-evil", {"model": EvilDict(state)})
save("refused-tensor", torch.zeros(3))
save("refused-keys", {"epoch": 3, "weights": {"a": 1}})
save("refused-legacy", {"model": state}, _use_new_zipfile_serialization=False)
torch.jit.script(module).save(f"{out}/refused-script.pth")
buffer = io.BytesIO()
torch.save({"model": state}, buffer)
with zipfile.ZipFile(buffer) as old:

    def rewrite(name, change, **options):
        with zipfile.ZipFile(f"{out}/{name}.pth", "w", **options) as new:
            for entry in old.namelist():
                bytes = change(entry, old.read(entry))
                if bytes is not None:
                    new.writestr(entry.replace("archive/", "any name/"), bytes)

    rewrite("renamed", lambda entry, bytes: bytes)
    expect("renamed", state)
    rewrite("refused-big-endian", lambda entry, bytes: b"big" if entry.endswith("byteorder") else bytes)
    rewrite("refused-compressed", lambda entry, bytes: bytes, compression=zipfile.ZIP_DEFLATED)
    rewrite("refused-storage", lambda entry, bytes: None if entry.endswith("data/3") else bytes)
    rewrite("refused-short", lambda entry, bytes: bytes[:-4] if entry.endswith("data/3") else bytes)
    rewrite("refused-pickle", lambda entry, bytes: None if entry.endswith("data.pkl") else bytes)
    huge = lambda entry, bytes: bytes.replace(b"K0K\x03K\x10K\x10t", b"K0K\x03J\xff\xff\xff\x7fK\x10t")
    assert huge("", old.read("archive/data.pkl")) != old.read("archive/data.pkl")
    rewrite("refused-claim", huge)

# MAE's checkpoint: its encoder has the sizes of a preset, its decoder has others.
width, patches, narrow = 128, 64, 32
mae = {"cls_token": [1, 1, width], "pos_embed": [1, 1 + patches, width], "mask_token": [1, 1, narrow],
       "patch_embed.proj.weight": [width, 3, 8, 8], "patch_embed.proj.bias": [width], "norm.weight": [width],
       "norm.bias": [width], "decoder_embed.weight": [narrow, width], "decoder_embed.bias": [narrow],
       "decoder_pos_embed": [1, 1 + patches, narrow], "decoder_norm.weight": [narrow], "decoder_norm.bias": [narrow],
       "decoder_pred.weight": [192, narrow], "decoder_pred.bias": [192]}
for stack, depth, size in (("blocks", 4, width), ("decoder_blocks", 2, narrow)):
    for i in range(depth):
        for part, shape in {"norm1": [size], "attn.qkv": [3 * size, size], "attn.proj": [size, size], "norm2": [size],
                            "mlp.fc1": [4 * size, size], "mlp.fc2": [size, 4 * size]}.items():
            mae[f"{stack}.{i}.{part}.weight"] = shape
            mae[f"{stack}.{i}.{part}.bias"] = shape[:1]
torch.manual_seed(0)
save("mae", {"model": {k: torch.randn(v) * 0.02 for k, v in mae.items()}})
