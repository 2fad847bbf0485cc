"""torchdata's StatefulDataLoader: stateful_dataloader.py DATASET SPLIT CHECKPOINT [STEPS]

Trains two epochs, and writes a checkpoint after each step. It ends after STEPS steps, if given; the next start continues at
the next batch.
"""

import itertools
import os
import sys
import zlib

import torch
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import mrm
from mrm.torch import MrmDataset

folder, split, checkpoint = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else None
EPOCHS = 2

torch.manual_seed(0)
data = mrm.open(folder)
dataset = MrmDataset(data, split=split, subset="train", batch_size=8, drop_last=True, transform=mrm.transforms.finetune(64))
loader = StatefulDataLoader(dataset, batch_size=None, num_workers=0)
model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, len(data.findings)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

start = 0
if os.path.exists(checkpoint):
    state = torch.load(checkpoint)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    loader.load_state_dict(state["loader"])
    start = state["step"]

batches = itertools.chain.from_iterable(loader for _ in range(start // len(dataset), EPOCHS))
for step, batch in enumerate(itertools.islice(batches, steps), start):
    loss = nn.functional.binary_cross_entropy_with_logits(model(batch["images"]), (batch["labels"] == 1).float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: rows {zlib.crc32(batch['rows'].numpy()):08x}, loss {loss.item():.6f}")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict(), "step": step + 1}
    torch.save(state, checkpoint)
