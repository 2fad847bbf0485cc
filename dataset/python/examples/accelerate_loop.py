"""A loop of Hugging Face Accelerate: accelerate_loop.py DATASET SPLIT CHECKPOINT [STEPS]; `accelerate launch` or `torchrun`
starts it in several processes.

Trains two epochs, and writes a checkpoint after each step. It ends after STEPS steps, if given; the next start continues at
the next batch.
"""

import os
import sys
import zlib

import torch
from accelerate import Accelerator
from torch import nn

import mrm
from mrm.torch import MrmDataset

folder, split, checkpoint = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else None
EPOCHS = 2

torch.manual_seed(0)
accelerator = Accelerator()
data = mrm.open(folder)
# Each process gets its part of every batch from the loader itself: `accelerator.prepare` would divide it once more.
loader = MrmDataset(data, split=split, subset="train", batch_size=8, drop_last=True, transform=mrm.transforms.finetune(64))
model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, len(data.findings)))
model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
accelerator.register_for_checkpointing(loader)
if os.path.exists(checkpoint):
    accelerator.load_state(checkpoint)

done = 0
while (epoch := loader.state_dict()["epoch"]) < EPOCHS and done != steps:
    for batch in loader:
        images, labels = batch["images"].to(accelerator.device), batch["labels"].to(accelerator.device)
        loss = nn.functional.binary_cross_entropy_with_logits(model(images), (labels == 1).float())
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        rows, loss = accelerator.gather((batch["rows"].to(accelerator.device), loss.detach()))
        rows = rows.sort().values.cpu().numpy()
        accelerator.print(f"epoch {epoch}: rows {zlib.crc32(rows):08x}, loss {loss.mean().item():.6f}")
        accelerator.save_state(checkpoint)
        done += 1
        if done == steps:
            break
