"""Computes losses and gradients of objectives anew, with timm's blocks and transformers' BERT.

objectives.py FOLDER: for each FOLDER/NAME.json (the configuration) and FOLDER/NAME.safetensors (weights `state.*`, a batch
`in.*`, our losses `out.*` and gradients `grad.*`), prints the largest difference of each loss and of all gradients, relative
to the largest value of a gradient. Equations: docs/objectives.md.
"""

import functools
import glob
import json
import math
import sys

import safetensors.torch
import torch
import transformers
from timm.models.vision_transformer import Block
from torch.func import functional_call
from torch.nn import functional as F

torch.set_num_threads(1)


def part(leaves, prefix):
    return {name[len(prefix) :]: leaf for name, leaf in leaves.items() if name.startswith(prefix)}


def norm(x, leaves, name):
    return F.layer_norm(x, x.shape[-1:], leaves[f"{name}.weight"], leaves[f"{name}.bias"], 1e-6)


def linear(x, leaves, name):
    return F.linear(x, leaves[f"{name}.weight"], leaves[f"{name}.bias"])


def blocks(x, leaves, prefix, config):
    width = x.shape[-1]
    layer_norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    module = Block(width, config["num_heads"], config["mlp_ratio"], qkv_bias=True, norm_layer=layer_norm)
    for number in range(config["num_layers"]):
        x = functional_call(module, part(leaves, f"{prefix}.{number}."), (x,))
    return x


def patches(image, side):
    """[B, C, H, W] → [B, L, side · side · C], the channel last."""
    count, channels, height, width = image.shape
    cut = image.reshape(count, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, side * side * channels)


def image_loss(image, latent, order, leaves, model, views=None):
    grid = model["vit"]["image_size"] // model["vit"]["patch_size"]
    count, kept = latent.shape[0], latent.shape[1] - 1
    x = linear(latent, leaves, "decoder_embed")
    full = leaves["mask_token"].repeat(count, grid * grid, 1)
    rows = torch.arange(count)[:, None]
    full = full.index_put((rows, order[:, :kept]), x[:, 1:])
    x = torch.cat([x[:, :1], full], 1) + leaves["decoder_pos_embed"]
    if views is not None:
        x = x + torch.stack([leaves["decoder_view_embed"][code] for code in views])
    x = blocks(x, leaves, "decoder_blocks", model["decoder"])
    pred = linear(norm(x, leaves, "decoder_norm"), leaves, "decoder_pred")[:, 1:]
    target = patches(image, model["vit"]["patch_size"] * model["super_resolution"])
    if model["norm_pix_loss"]:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (pred - target).square().mean(-1)
    return torch.stack([error[b, order[b, kept:]] for b in range(count)]).mean()


def bert_hidden(bert, leaves, ids, attention, latent=None):
    """Last hidden layer and pooled [CLS]; the latent is added to the output of the embeddings."""
    hook = None
    if latent is not None:
        hook = bert.embeddings.register_forward_hook(lambda module, inputs, output: output + latent[:, None])
    given = part(leaves, "bert_encoder.model.bert.")
    output = functional_call(bert, given, (), dict(input_ids=ids, attention_mask=attention))
    if hook:
        hook.remove()
    return output.last_hidden_state, output.pooler_output


def report_loss(bert, leaves, batch, latent, with_report, model, images_of):
    """images_of: the images of each sample."""
    ids, labels, attention = (batch[name][with_report] for name in ("ids", "labels", "attention_mask"))
    projected = linear(latent[:, 1:], leaves, "bert_mlp").mean(1)
    visible = torch.stack([projected[images_of[sample]].mean(0) for sample in with_report])
    hidden, _ = bert_hidden(bert, leaves, ids, attention, visible)
    head = "bert_encoder.model.cls.predictions."
    x = F.gelu(linear(hidden, leaves, head + "transform.dense"))
    names = (leaves[f"{head}transform.LayerNorm.{last}"] for last in ("weight", "bias"))
    x = F.layer_norm(x, x.shape[-1:], *names, 1e-12)
    logits = F.linear(x, leaves[head + "decoder.weight"], leaves[head + "decoder.bias"])
    if model["report_loss"] == "masked":
        masked = ids != labels
        return F.cross_entropy(logits[masked], labels[masked])
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def alignment_loss(latent, images_of):
    """Over single pairs of views."""
    means = latent[:, 1:].mean(1)
    pairs = [(i, j) for images in images_of for i in images for j in images if i < j]
    return torch.stack([1 - F.cosine_similarity(means[i], means[j], dim=0) for i, j in pairs]).mean()


def contrast_loss(images, texts, weights, reports, leaves, contrast):
    """Sums over single pairs, without the matrices of ours."""
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    scale, pairs = leaves["logit_scale"].exp(), len(reports)
    counts = [[i == j or reports[i] != reports[j] for j in range(pairs)] for i in range(pairs)]
    logit = [[scale * (images[i] * texts[j]).sum() for j in range(pairs)] for i in range(pairs)]
    if contrast["loss"] == "siglip":
        total = 0
        for i in range(pairs):
            for j in range(pairs):
                if counts[i][j]:
                    z = logit[i][j] + leaves["logit_bias"]
                    total = total - F.logsigmoid(z if i == j else -z)
        return total / pairs

    def entropies(factor):
        all = []
        for i in range(pairs):
            others = [j for j in range(pairs) if counts[i][j]]
            to_text = torch.stack([logit[i][j] * factor[i] for j in others])
            to_image = torch.stack([logit[j][i] * factor[i] for j in others])
            own = logit[i][i] * factor[i]
            all.append((torch.logsumexp(to_text, 0) - own) + (torch.logsumexp(to_image, 0) - own))
        return torch.stack(all)

    if weights is None:
        return entropies(torch.ones(pairs)).mean() / 2
    fixed = weights.detach()
    averaged = (entropies(torch.ones(pairs)) * fixed).sum() / fixed.sum()
    return (entropies(weights).mean() + averaged) / 4


for path in sorted(glob.glob(f"{sys.argv[1]}/*.json")):
    name = path.split("/")[-1][:-5]
    with open(path) as file:
        model = json.load(file)["model"]
    several = model.get("views")
    tensors = safetensors.torch.load_file(path[:-4] + "safetensors")
    batch, ours = part(tensors, "in."), part(tensors, "out.")
    leaves = part(tensors, "state.")
    # The decoder's bias under its second name.
    for group in (leaves, tensors):
        for alias in [name for name in group if name.endswith("cls.predictions.bias")]:
            del group[alias]
    for leaf in leaves.values():
        if leaf.is_floating_point():
            leaf.requires_grad_()
    vit, sizes = model["vit"], model["bert"]
    bert = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=sizes["vocab_size"], hidden_size=sizes["embed_dim"], num_hidden_layers=sizes["num_layers"],
            num_attention_heads=sizes["num_heads"], intermediate_size=sizes["intermediate"],
            max_position_embeddings=sizes["max_positions"], type_vocab_size=sizes["type_vocab"],
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12, pad_token_id=0,
        )
    )

    image, views = batch["image"], None
    images_of = [[sample] for sample in range(len(batch["ids"]))]
    if several:
        has_view = batch["view_mask"].flatten() > 0
        image, views = image[has_view], batch["view_codes"].flatten()[has_view]
        study = (has_view.nonzero()[:, 0] // batch["view_mask"].shape[1]).tolist()
        images_of = [[at for at, of in enumerate(study) if of == sample] for sample in range(len(images_of))]
        assert {1, 2} <= {len(images) for images in images_of} and len(set(views.tolist())) > 1
    image = image.repeat(1, 3, 1, 1)
    small = image
    if model["super_resolution"] > 1:
        small = F.interpolate(image, size=[vit["image_size"]] * 2, mode="bicubic", antialias=model["antialias"])
    x = F.conv2d(small, leaves["patch_embed.proj.weight"], leaves["patch_embed.proj.bias"], stride=vit["patch_size"])
    x = x.flatten(2).transpose(1, 2) + leaves["pos_embed"][:, 1:]
    order = batch["noise"].argsort(1)
    kept = int(x.shape[1] * (1 - model["mask_ratio"]))
    visible = torch.stack([x[b, order[b, :kept]] for b in range(len(x))])
    cls = (leaves["cls_token"] + leaves["pos_embed"][:, :1]).expand(len(x), -1, -1)
    latent = norm(blocks(torch.cat([cls, visible], 1), leaves, "blocks", vit), leaves, "norm")

    with_report = (batch["attention_mask"][:, 1] == 1).nonzero()[:, 0]
    losses = {}
    if model["reconstruct"] in ("both", "image-only"):
        losses["loss_image"] = image_loss(image, latent, order, leaves, model, views)
    if model["reconstruct"] in ("both", "report-only"):
        losses["loss_report"] = report_loss(bert, leaves, batch, latent, with_report, model, images_of)
    factors = dict(loss_image=model["image_weight"], loss_report=model["report_weight"])
    if several:
        losses["loss_alignment"] = alignment_loss(latent, images_of)
        # At step 5 of 40.
        factors["loss_alignment"] = several["align_weight"] * min(1, 5 / (several["align_ramp"] * 40))
    contrast = model.get("contrast")
    if contrast:
        images = linear(latent[with_report, 1:].mean(1), leaves, "image_projection")
        labels, attention = batch["labels"][with_report], batch["attention_mask"][with_report]
        texts = linear(bert_hidden(bert, leaves, labels, attention)[1], leaves, "text_projection")
        weights = None
        if contrast["correlation"]:
            is_visible = torch.zeros(batch["noise"].shape)
            for b in range(len(is_visible)):
                is_visible[b, order[b, :kept]] = 1.0
            weights = torch.log(1 + torch.exp(linear(is_visible[with_report], leaves, "correlation")[:, 0]))
        reports = [tuple(ids.tolist()) for ids in labels]
        assert len(set(reports)) < len(reports) < len(image), "a report twice, and an image without one"
        losses["loss_contrast"] = contrast_loss(images, texts, weights, reports, leaves, contrast)
        factors["loss_contrast"] = contrast["weight"]
    losses["total"] = sum(loss * factors[part] for part, loss in losses.items())
    losses["total"].backward()

    assert set(ours) == set(losses), (name, set(ours), set(losses))
    for part_name, loss in losses.items():
        difference = abs(loss.item() - ours[part_name].item())
        assert math.isfinite(difference)
        print(f"{name}.{part_name}", difference / abs(loss.item()))
    gradients = part(tensors, "grad.")
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    worst, count = 0.0, 0
    for leaf_name, leaf in leaves.items():
        if leaf.grad is None or leaf_name in ("pos_embed", "decoder_pos_embed"):
            continue
        assert leaf_name in gradients, (name, leaf_name)
        worst = max(worst, (leaf.grad - gradients[leaf_name]).abs().max().item() / largest)
        count += 1
    zero = {n for n in gradients if leaves[n].grad is None and gradients[n].abs().max().item() > 0}
    assert not zero, (name, zero)
    assert count > 30, (name, count)
    print(f"{name}.gradients", worst)
