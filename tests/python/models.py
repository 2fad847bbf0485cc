"""Loads our exports with timm and transformers, and writes models of theirs for our import.

models.py FOLDER: reads FOLDER/probe.safetensors (images, and what our models give for them) and the exported folders
FOLDER/to-*; prints the largest relative difference of each. Writes models of its own as FOLDER/from-*, and what they give
as FOLDER/given.safetensors.
"""

import json
import os
import sys

import numpy
import safetensors.torch
import timm
import torch
import transformers

os.environ["HF_HUB_OFFLINE"] = "1"
folder = sys.argv[1]
torch.manual_seed(3)
torch.set_num_threads(1)
probe = safetensors.torch.load_file(f"{folder}/probe.safetensors")


def compare(name, ours, theirs):
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    print(name, ((ours - theirs).abs().max() / ours.abs().max()).item())


def strictly(loaded):
    model, info = loaded
    wrong = {k: v for k, v in info.items() if v}
    assert not wrong, wrong
    return model.eval()


with torch.no_grad():
    for name in ("to-timm", "to-timm-small"):
        model = timm.create_model(f"local-dir:{folder}/{name}", pretrained=True).eval()
        assert model.pretrained_cfg["mean"] == [0.4978] * 3 and model.num_classes == 0, model.pretrained_cfg
        images = probe["images"] if name == "to-timm" else probe["large_images"]
        compare(name, probe[f"{name}.tokens"], model.forward_features(images))
        compare(name, probe[f"{name}.tokens"][:, 0], model(images))
    small = timm.create_model(
        "vit_small_patch16_224", pretrained=True, num_classes=0,
        pretrained_cfg_overlay=dict(file=f"{folder}/to-timm-small/model.safetensors", custom_load=False, num_classes=0),
    ).eval()
    compare("overlay", probe["to-timm-small.tokens"][:, 0], small(probe["large_images"]))

    model = timm.create_model(f"local-dir:{folder}/to-timm-classifier", pretrained=True).eval()
    assert model.num_classes == 3, model.num_classes
    compare("to-timm-classifier", probe["to-timm-classifier.logits"], model(probe["images"]))

    load = dict(output_loading_info=True)
    model = strictly(transformers.ViTModel.from_pretrained(f"{folder}/to-vit", add_pooling_layer=False, **load))
    compare("to-vit", probe["to-timm.tokens"], model(probe["images"]).last_hidden_state)

    # The order of the patches is that of the noise; none is masked.
    model = strictly(transformers.ViTMAEModel.from_pretrained(f"{folder}/to-mae-encoder", **load))
    model.config.mask_ratio = model.embeddings.config.mask_ratio = 0.0
    noise = torch.arange(64.0).repeat(2, 1)
    compare("to-mae-encoder", probe["to-timm.tokens"], model(probe["images"], noise=noise).last_hidden_state)

    model = strictly(transformers.ViTMAEForPreTraining.from_pretrained(f"{folder}/to-mae", **load))
    given = model(probe["images"], noise=probe["noise"])
    compare("to-mae", probe["to-mae.pred"], given.logits)
    compare("to-mae loss", probe["to-mae.loss"], given.loss)

    processor = transformers.AutoImageProcessor.from_pretrained(f"{folder}/to-vit")
    gray = (numpy.arange(64 * 96) % 251).astype("uint8").reshape(64, 96)
    from PIL import Image

    pixels = processor(Image.fromarray(gray), return_tensors="pt")["pixel_values"]
    expected = (torch.from_numpy(gray[:, 16:80] / 255.0).float() - 0.4978) / 0.2449
    compare("processor", expected.expand(1, 3, 64, 64), pixels)

    # Models of timm and transformers with the sizes of mrm-vit-tiny and random weights, including biases and norms.
    given = {}

    def perturbed(model):
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        return model.eval()

    sizes = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, image_size=64,
                 patch_size=8, layer_norm_eps=1e-6)
    vit = perturbed(transformers.ViTModel(transformers.ViTConfig(**sizes)))
    vit.save_pretrained(f"{folder}/from-vit")
    torch.save(vit.state_dict(), f"{folder}/from-vit-memory.pth")
    given["from-vit"] = given["from-vit-memory.pth"] = vit(probe["images"]).last_hidden_state

    mae = transformers.ViTMAEConfig(**sizes, decoder_hidden_size=64, decoder_num_hidden_layers=1,
                                    decoder_num_attention_heads=4, decoder_intermediate_size=256, norm_pix_loss=True,
                                    mask_ratio=0.5)
    mae = perturbed(transformers.ViTMAEForPreTraining(mae))
    mae.save_pretrained(f"{folder}/from-mae")
    made = mae(probe["images"], noise=probe["noise"])
    given["from-mae.pred"], given["from-mae.loss"] = made.logits, made.loss

    arguments = dict(img_size=64, patch_size=8, embed_dim=128, depth=4, num_heads=4)
    vit = perturbed(timm.create_model("vit_base_patch16_224", num_classes=0, **arguments))
    torch.save(vit.half().state_dict(), f"{folder}/from-timm.pth")
    given["from-timm.pth"] = vit.float().forward_features(probe["images"])
    vit = perturbed(timm.create_model("vit_base_patch16_224", num_classes=3, global_pool="avg", **arguments))
    safetensors.torch.save_file(vit.state_dict(), f"{folder}/from-classifier.safetensors")
    given["from-classifier.safetensors"] = vit(probe["images"])
    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in given.items()}, f"{folder}/given.safetensors")
