"""Writes small encoders of DINOv2 and CLIP, and what they compute, for our import.

encoders.py FOLDER: each encoder as FOLDER/NAME, with its tokens for FOLDER/probe.safetensors as given.safetensors:
NAME.tokens (images), NAME.large (larger images, on a resized position table), NAME.gray (gray images, normalized by channel).
"""

import json
import os
import pathlib
import sys

import safetensors.torch
import timm
import torch
import transformers

os.environ["HF_HUB_OFFLINE"] = "1"
folder = pathlib.Path(sys.argv[1])
torch.manual_seed(5)
torch.set_num_threads(1)
probe = safetensors.torch.load_file(folder / "probe.safetensors")
given = {}


def perturbed(model):
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def preprocessor(name, mean, std):
    (folder / name / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))


def hub(model):
    """The names of DINOv2's own checkpoints."""
    state, renamed = model.state_dict(), {}
    for name, ours in {"embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token",
                       "embeddings.position_embeddings": "pos_embed", "embeddings.register_tokens": "register_tokens",
                       "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
                       "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
                       "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias"}.items():
        if name in state:
            renamed[ours] = state[name]
    for i in range(model.config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{i}.", f"blocks.{i}."
        for end in ("weight", "bias"):
            for name in ("norm1", "norm2"):
                renamed[f"{ours}{name}.{end}"] = state[f"{theirs}{name}.{end}"]
            parts = [state[f"{theirs}attention.{part}_proj.{end}"] for part in "qkv"]
            renamed[f"{ours}attn.qkv.{end}"] = torch.cat(parts)
            renamed[f"{ours}attn.proj.{end}"] = state[f"{theirs}attention.o_proj.{end}"]
            if f"{theirs}mlp.gate_proj.{end}" in state:
                renamed[f"{ours}mlp.w12.{end}"] = torch.cat(
                    [state[f"{theirs}mlp.gate_proj.{end}"], state[f"{theirs}mlp.up_proj.{end}"]]
                )
                renamed[f"{ours}mlp.w3.{end}"] = state[f"{theirs}mlp.down_proj.{end}"]
            else:
                for name in ("fc1", "fc2"):
                    renamed[f"{ours}mlp.{name}.{end}"] = state[f"{theirs}mlp.{name}.{end}"]
        for number in (1, 2):
            renamed[f"{ours}ls{number}.gamma"] = state[f"{theirs}layer_scale{number}.lambda1"]
    return renamed


def open_clip(model):
    """The names of OpenAI's and open_clip's checkpoints."""
    state, renamed = model.state_dict(), {"visual.proj": torch.randn(128, 16), "logit_scale": torch.tensor(1.0)}
    renamed["visual.class_embedding"] = state["embeddings.class_embedding"]
    renamed["visual.positional_embedding"] = state["embeddings.position_embedding.weight"]
    renamed["visual.conv1.weight"] = state["embeddings.patch_embedding.weight"]
    for end in ("weight", "bias"):
        renamed[f"visual.ln_pre.{end}"] = state[f"pre_layrnorm.{end}"]
        renamed[f"visual.ln_post.{end}"] = state[f"post_layernorm.{end}"]
        for i in range(model.config.num_hidden_layers):
            theirs, ours = f"encoder.layers.{i}.", f"visual.transformer.resblocks.{i}."
            for name, other in {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
                                "mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj"}.items():
                renamed[f"{ours}{name}.{end}"] = state[f"{theirs}{other}.{end}"]
            renamed[f"{ours}attn.in_proj_{end}"] = torch.cat(
                [state[f"{theirs}self_attn.{part}_proj.{end}"] for part in "qkv"]
            )
    return renamed


def save(state, name):
    (folder / name).mkdir()
    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in state.items()}, folder / name / "model.safetensors")


with torch.no_grad():
    sizes = dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    for name, model in {
        "dinov2": transformers.Dinov2Model(transformers.Dinov2Config(**sizes)),
        "swiglu": transformers.Dinov2Model(transformers.Dinov2Config(**sizes, use_swiglu_ffn=True)),
        "registers": transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=3)
        ),
    }.items():
        model = perturbed(model)
        model.save_pretrained(folder / name)
        preprocessor(name, [0.5307] * 3, [0.2583] * 3)
        given[f"{name}.tokens"] = model(probe["images"]).last_hidden_state
        large = model(probe["large"]).last_hidden_state
        given[f"{name}.large"] = large
        given[f"{name}.small"] = model(probe["small"]).last_hidden_state
        save(hub(model), f"{name}-hub")
        given[f"{name}-hub.tokens"] = given[f"{name}.tokens"]
        if name == "dinov2":
            # In memory, without config.json; and with statistics that differ by channel.
            (folder / "memory").mkdir()
            torch.save(model.state_dict(), folder / "memory" / "dinov2.pth")
            given["memory/dinov2.pth.tokens"] = given["dinov2.tokens"]
            model.save_pretrained(folder / "imagenet")
            mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
            preprocessor("imagenet", mean, std)
            channels = (probe["gray"] - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
            given["imagenet.gray"] = model(channels).last_hidden_state
            # DINOv2's own interpolation: a factor with the offset of 0.1.
            table = model.embeddings.position_embeddings
            patches = table[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
            factor = (6 + 0.1) / 4
            resized = torch.nn.functional.interpolate(patches, scale_factor=(factor, factor), mode="bicubic")
            assert resized.shape[2:] == (6, 6), resized.shape
            given["dinov2-hub.table"] = torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], 1)

    clip = transformers.CLIPVisionConfig(**sizes, intermediate_size=512)
    model = perturbed(transformers.CLIPVisionModel(clip))
    model.save_pretrained(folder / "clip")

    def tokens(model, images, **more):
        """All tokens after the final norm, of which CLIP itself normalizes the class token alone."""
        return model.post_layernorm(model(images, **more).last_hidden_state)

    given["clip.tokens"] = tokens(model, probe["images"])
    assert torch.equal(given["clip.tokens"][:, 0], model(probe["images"]).pooler_output)
    given["clip.large"] = tokens(model, probe["large"], interpolate_pos_encoding=True)
    save(open_clip(model), "open-clip")
    given["open-clip.tokens"] = given["clip.tokens"]
    text = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=50,
                bos_token_id=0, eos_token_id=1)
    whole = transformers.CLIPConfig(vision_config=clip.to_dict() | {"hidden_act": "gelu"}, text_config=text)
    model = perturbed(transformers.CLIPModel(whole))
    model.save_pretrained(folder / "clip-model")
    given["clip-model.tokens"] = tokens(model.vision_model, probe["images"])

    arguments = dict(img_size=56, embed_dim=128, depth=2, num_heads=2)
    model = perturbed(timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, **arguments))
    save(model.state_dict(), "timm")
    given["timm.tokens"] = model.forward_features(probe["images"])

    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in given.items()}, folder / "given.safetensors")
