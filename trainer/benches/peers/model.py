"""Masked record modeling in PyTorch, as MAE's code and transformers' BERT have it, with PyTorch's fast parts.

Attention is `scaled_dot_product_attention`. As in MAE, all patches are embedded before they are masked, and all are
predicted. Names of parameters are the release's, so that its weights load: `train.py --golden` compares the losses with the
reference implementation's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Sizes:
    """Sizes of encoder, image decoder and report decoder; the default is `mrm-vit-b16`."""

    image: int = 224
    patch: int = 16
    embed_dim: int = 768
    layers: int = 12
    heads: int = 12
    decoder_dim: int = 768
    decoder_layers: int = 4
    decoder_heads: int = 6
    report_dim: int = 384
    report_layers: int = 6
    report_heads: int = 6
    intermediate: int = 1536
    vocabulary: int = 30_000
    tokens: int = 100
    mask_ratio: float = 0.75
    report_mask_ratio: float = 0.5
    masked_tokens_only: bool = False
    dropout: float = 0.1
    channels: int = 3
    scale: int = 2
    antialias: bool = False

    @property
    def patches(self):
        return (self.image // self.patch) ** 2

    @property
    def visible(self):
        return int(self.patches * (1 - self.mask_ratio))


PRESETS = {
    "mrm-vit-b16": Sizes(),
    "mrm-vit-s16": Sizes(embed_dim=384, heads=6, decoder_dim=384),
    "mrm-vit-tiny": Sizes(
        image=64, patch=8, embed_dim=128, layers=4, heads=4, decoder_dim=64, decoder_layers=1, decoder_heads=4,
        report_dim=96, report_layers=2, report_heads=4, intermediate=384, tokens=64, mask_ratio=0.5,
        report_mask_ratio=0.8, masked_tokens_only=True,
    ),
}


def tree(**children):
    """A module that only has children, for the names of the release."""
    module = nn.Module()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def split_heads(x, heads):
    """`[B, L, D]` → `[B, heads, L, D/heads]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm block of a vision transformer."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = Attention(dim, heads)
        self.mlp = tree(fc1=nn.Linear(dim, 4 * dim), fc2=nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class BertLayer(nn.Module):
    """A post-norm layer of BERT."""

    def __init__(self, sizes):
        super().__init__()
        dim, self.heads, self.dropout = sizes.report_dim, sizes.report_heads, sizes.dropout

        def output(inputs):
            return tree(dense=nn.Linear(inputs, dim), LayerNorm=nn.LayerNorm(dim, 1e-12))

        projections = {name: nn.Linear(dim, dim) for name in ("query", "key", "value")}
        self.attention = tree(self=tree(**projections), output=output(dim))
        self.intermediate = tree(dense=nn.Linear(dim, sizes.intermediate))
        self.output = output(sizes.intermediate)

    def forward(self, x, scores):
        names = self.attention.self
        q, k, v = (split_heads(part(x), self.heads) for part in (names.query, names.key, names.value))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=scores.to(q.dtype), dropout_p=dropout)
        x = self.add(self.attention.output, mixed.transpose(1, 2).flatten(2), x)
        return self.add(self.output, F.gelu(self.intermediate.dense(x)), x)

    def add(self, output, branch, x):
        return output.LayerNorm(x + F.dropout(output.dense(branch), self.dropout, self.training))


class Mrm(nn.Module):
    """Returns the image loss and the report loss."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        dim, report = sizes.embed_dim, sizes.report_dim
        self.patch_embed = tree(proj=nn.Conv2d(sizes.channels, dim, sizes.patch, sizes.patch))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(1, 1, sizes.decoder_dim) * 0.02)
        self.register_buffer("pos_embed", sin_cos_table(dim, sizes.image // sizes.patch))
        self.register_buffer("decoder_pos_embed", sin_cos_table(sizes.decoder_dim, sizes.image // sizes.patch))
        self.blocks = nn.ModuleList(Block(dim, sizes.heads) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(dim, 1e-6)
        self.decoder_embed = nn.Linear(dim, sizes.decoder_dim)
        blocks = (Block(sizes.decoder_dim, sizes.decoder_heads) for _ in range(sizes.decoder_layers))
        self.decoder_blocks = nn.ModuleList(blocks)
        self.decoder_norm = nn.LayerNorm(sizes.decoder_dim, 1e-6)
        self.decoder_pred = nn.Linear(sizes.decoder_dim, (sizes.patch * sizes.scale) ** 2 * sizes.channels)
        self.bert_mlp = nn.Linear(dim, report)
        embeddings = tree(
            word_embeddings=nn.Embedding(sizes.vocabulary, report, padding_idx=0),
            position_embeddings=nn.Embedding(sizes.tokens, report),
            token_type_embeddings=nn.Embedding(2, report),
            LayerNorm=nn.LayerNorm(report, 1e-12),
        )
        layers = nn.ModuleList(BertLayer(sizes) for _ in range(sizes.report_layers))
        head = tree(
            transform=tree(dense=nn.Linear(report, report), LayerNorm=nn.LayerNorm(report, 1e-12)),
            decoder=nn.Linear(report, sizes.vocabulary),
        )
        bert = tree(embeddings=embeddings, encoder=tree(layer=layers))
        self.bert_encoder = tree(model=tree(bert=bert, cls=tree(predictions=head)))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images, ids, labels, attention_mask, noise=None, types=None):
        """`images` `[B, C, H, W]`; `ids`, `labels`, `attention_mask` `[B, L]`; `noise` `[B, patches]` decides what is masked."""
        sizes = self.sizes
        small = F.interpolate(images, (sizes.image, sizes.image), mode="bicubic", antialias=sizes.antialias)
        x = self.patch_embed.proj(small).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]  # [B, patches, D]
        noise = torch.rand(x.shape[:2], device=x.device) if noise is None else noise
        shuffled = noise.argsort(1)
        restore = shuffled.argsort(1)
        x = x.gather(1, shuffled[:, : sizes.visible, None].expand(-1, -1, x.shape[2]))  # [B, visible, D]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1).to(x.dtype)
        x = torch.cat([cls, x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.image_loss(x, images, restore), self.report_loss(x, ids, labels, attention_mask, types)

    def image_loss(self, latent, images, restore):
        sizes = self.sizes
        x = self.decoder_embed(latent)
        masked = self.mask_token.to(x.dtype).expand(len(x), sizes.patches - sizes.visible, -1)
        patches = torch.cat([x[:, 1:], masked], 1).gather(1, restore[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], patches], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        grid, side = sizes.image // sizes.patch, sizes.patch * sizes.scale
        target = images.reshape(len(images), sizes.channels, grid, side, grid, side)
        target = target.permute(0, 2, 4, 3, 5, 1).reshape(len(images), sizes.patches, -1)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        mask = (restore >= sizes.visible).float()
        return ((predicted.float() - target).square().mean(-1) * mask).sum() / mask.sum()

    def report_loss(self, latent, ids, labels, attention_mask, types):
        sizes, embeddings = self.sizes, self.bert_encoder.model.bert.embeddings
        image = self.bert_mlp(latent)[:, 1:].mean(1)  # [B, H]
        types = embeddings.token_type_embeddings.weight[0] if types is None else embeddings.token_type_embeddings(types)
        x = embeddings.word_embeddings(ids) + embeddings.position_embeddings.weight[: ids.shape[1]] + types
        x = F.dropout(embeddings.LayerNorm(x), sizes.dropout, self.training) + image[:, None]
        scores = (1 - attention_mask.float())[:, None, None, :] * -10_000.0  # [B, 1, 1, L]
        for layer in self.bert_encoder.model.bert.encoder.layer:
            x = layer(x, scores)
        head = self.bert_encoder.model.cls.predictions
        if sizes.masked_tokens_only:
            masked = ids != labels
            x, labels = x[masked], labels[masked]
        logits = head.decoder(head.transform.LayerNorm(F.gelu(head.transform.dense(x))))
        return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten())


def sin_cos_table(dim, grid):
    """Position table `[1, 1 + grid², dim]` of MAE."""
    frequencies = 1 / 10_000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], 1)  # [grid, dim/2]
    table = torch.cat([axis.repeat(grid, 1), axis.repeat_interleave(grid, 0)], 1)
    return torch.cat([torch.zeros(1, dim), table.float()])[None]
