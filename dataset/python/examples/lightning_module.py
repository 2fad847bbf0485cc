"""Lightning: lightning_module.py DATASET SPLIT FOLDER [STEPS]

Trains two epochs with a validation after each, and writes a checkpoint below FOLDER after each step. It ends after STEPS
steps, if given; the next start continues at the next batch.
"""

import os
import sys
import zlib
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import mrm
from mrm.torch import MrmDataset


class Classifier(lightning.LightningModule):
    def __init__(self, findings: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, findings))

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.model(batch["images"]), (batch["labels"] == 1).float())

    def training_step(self, batch: dict[str, Any], number: int) -> torch.Tensor:
        loss = self.loss(batch)
        rows = zlib.crc32(batch["rows"].cpu().numpy())
        print(f"rank {self.global_rank}, step {self.global_step}: rows {rows:08x}, loss {loss.item():.6f}")
        return loss

    def validation_step(self, batch: dict[str, Any], number: int) -> None:
        # A process may have no record of the last batch.
        if not self.trainer.sanity_checking and len(batch["rows"]):
            rows = zlib.crc32(batch["rows"].cpu().numpy())
            print(f"rank {self.global_rank}, validation {number}: rows {rows:08x}, loss {self.loss(batch).item():.6f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


folder, split, checkpoints = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else -1

lightning.seed_everything(0)
data = mrm.open(folder)
train = MrmDataset(data, split=split, subset="train", batch_size=8, drop_last=True, transform=mrm.transforms.finetune(64))
validate = MrmDataset(
    data, split=split, subset="validate", batch_size=2, shuffle=False, transform=mrm.transforms.evaluate(64)
)
last = os.path.join(checkpoints, "last.ckpt")
trainer = lightning.Trainer(
    max_epochs=2, max_steps=steps, callbacks=ModelCheckpoint(checkpoints, save_last=True, every_n_train_steps=1),
    logger=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(Classifier(len(data.findings)), train, validate, ckpt_path=last if os.path.exists(last) else None)
