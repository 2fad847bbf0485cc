"""Computes a step of self-distillation anew, with PyTorch's own functions and gradients.

distillation.py FOLDER: reads FOLDER/case.json (settings) and FOLDER/case.safetensors (variables as state.NAME, global, local,
mask), writes FOLDER/expected.safetensors: losses, the gradients of the student as grad.NAME, centers and teacher after the
step as after.NAME.
"""

import json
import math
import sys

import safetensors.torch
import torch
from torch.nn import functional as F

folder = sys.argv[1]
torch.set_num_threads(1)
case = json.load(open(f"{folder}/case.json"))
tensors = safetensors.torch.load_file(f"{folder}/case.safetensors")
state = {k.removeprefix("state."): v.double() for k, v in tensors.items() if k.startswith("state.")}
student = {k.removeprefix("student."): v.requires_grad_() for k, v in state.items() if k.startswith("student.")}
teacher = {k: v for k, v in state.items() if not k.startswith("student.")}
vit, loss, settings = case["model"]["vit"], case["loss"], case["teacher"]
K = case["model"]["head"]["prototypes"]


def encode(p, images, mask=None):
    x = F.conv2d(images.expand(-1, 3, -1, -1), p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], vit["patch_size"])
    grid = x.shape[-1]
    x = x.flatten(2).transpose(1, 2)
    if mask is not None:
        x = torch.where(mask[..., None], p["mask_token"], x)
    table = p["pos_embed"]
    if table.shape[1] != 1 + grid * grid:
        side = math.isqrt(table.shape[1] - 1)
        patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, size=(grid, grid), mode="bicubic").flatten(2).transpose(1, 2)
        table = torch.cat([table[:, :1], patches], 1)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], 1) + table
    if "reg_token" in p:
        x = torch.cat([x[:, :1], p["reg_token"].expand(len(x), -1, -1), x[:, 1:]], 1)
    for i in range(vit["num_layers"]):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in p.items() if k.startswith(f"blocks.{i}.")}
        norm = lambda x, n: F.layer_norm(x, x.shape[-1:], b[f"{n}.weight"], b[f"{n}.bias"], 1e-6)
        q, k, v = F.linear(norm(x, "norm1"), b["attn.qkv.weight"], b["attn.qkv.bias"]).chunk(3, -1)
        heads = lambda t: t.unflatten(-1, (vit["num_heads"], -1)).transpose(1, 2)
        q, k, v = heads(q), heads(k), heads(v)
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        y = F.linear((weights @ v).transpose(1, 2).flatten(2), b["attn.proj.weight"], b["attn.proj.bias"])
        x = x + y * b.get("ls1.gamma", 1)
        y = F.gelu(F.linear(norm(x, "norm2"), b["mlp.fc1.weight"], b["mlp.fc1.bias"]))
        x = x + F.linear(y, b["mlp.fc2.weight"], b["mlp.fc2.bias"]) * b.get("ls2.gamma", 1)
    x = F.layer_norm(x, x.shape[-1:], p["norm.weight"], p["norm.bias"], 1e-6)
    return x[:, 0], x[:, 1 + vit["register_tokens"] :]


def head(p, name, x):
    if f"{name}.mlp.0.weight" not in p:
        name = "dino_head"
    for layer in (0, 2, 4):
        x = F.linear(x, p[f"{name}.mlp.{layer}.weight"], p[f"{name}.mlp.{layer}.bias"])
        x = F.gelu(x) if layer < 4 else x
    return F.linear(F.normalize(x, dim=-1), F.normalize(p[f"{name}.last_layer.weight"], dim=-1))


def schedule(start, end):
    return end + (start - end) * (1 + math.cos(math.pi * case["step"] / case["steps"])) / 2


epoch = case["step"] / case["steps"] * case["optimizer"]["epochs"]
share = min(epoch / settings["warmup_epochs"], 1) if settings["warmup_epochs"] else 1
temperature = settings["warmup_temperature"] * (1 - share) + settings["temperature"] * share
after = {}


def targets(scores, center):
    if settings["centering"] == "sinkhorn":
        q = (scores / temperature).exp().T
        q = q / q.sum()
        for _ in range(settings["sinkhorn_iterations"]):
            q = q / q.sum(1, keepdim=True) / K
            q = q / q.sum(0, keepdim=True) / len(scores)
        return (q * len(scores)).T
    m = settings["center_momentum"]
    after[center] = state[center] * m + scores.mean(0, keepdim=True) * (1 - m)
    return ((scores - state[center]) / temperature).softmax(-1)


def cross_entropy(p, scores):
    return -(p * (scores / loss["student_temperature"]).log_softmax(-1)).sum(-1)


images, local = tensors["global"].double(), tensors.get("local")
mask = tensors.get("mask")
B = len(images) // 2
with torch.no_grad():
    cls, patches = encode(teacher, images)
    whole = targets(head(teacher, "dino_head", cls), "center").split(B)
    if mask is not None:
        hidden = targets(head(teacher, "ibot_head", patches[mask]), "patch_center")

cls, patches = encode(student, images, mask)
crops = list(head(student, "dino_head", cls).split(B))
if local is not None:
    crops += list(head(student, "dino_head", encode(student, local.double())[0]).split(B))
pairs = [cross_entropy(p, s).mean() for i, p in enumerate(whole) for j, s in enumerate(crops) if i != j]
results = {"loss_cls": sum(pairs) / len(pairs)}
total = results["loss_cls"] * loss["cls_weight"]
if mask is not None:
    each = torch.zeros(mask.shape, dtype=torch.float64)
    each[mask] = cross_entropy(hidden, head(student, "ibot_head", patches[mask]))
    results["loss_patch"] = (each.sum(1) / mask.sum(1).clamp(min=1)).mean()
    total = total + results["loss_patch"] * loss["patch_weight"]
if loss["koleo_weight"] > 0:
    spread = 0
    for x in cls.split(B):
        x = F.normalize(x, dim=-1)
        near = (x @ x.T).fill_diagonal_(-1).argmax(1)
        spread = spread - (F.pairwise_distance(x, x[near], eps=1e-8) + 1e-8).log().mean()
    results["loss_koleo"] = spread
    total = total + spread * loss["koleo_weight"]
total.backward()
results["total"] = total
results |= {f"grad.{k}": v.grad for k, v in student.items() if v.grad is not None}
m = schedule(settings["momentum"], settings["momentum_end"])
after |= {k: v * m + student[k] * (1 - m) for k, v in teacher.items() if k in student}
results |= {f"after.{k}": v for k, v in after.items()}
safetensors.torch.save_file({k: v.detach().clone().contiguous() for k, v in results.items()}, f"{folder}/expected.safetensors")
