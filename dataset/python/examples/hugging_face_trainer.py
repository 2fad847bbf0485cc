"""The Trainer of Hugging Face: hugging_face_trainer.py DATASET SPLIT FOLDER [STEPS]; `torchrun` starts it in several processes.

Trains two epochs, and writes a checkpoint below FOLDER after each step. It ends after STEPS steps, if given; the next start
continues at the next batch.
"""

import os
import sys
import zlib
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import mrm
from mrm.torch import MrmDataset


class Classifier(nn.Module):
    def __init__(self, findings: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, findings))

    def forward(self, images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(images), (labels == 1).float())
        print(f"rows {zlib.crc32(rows.cpu().numpy().tobytes()):08x}, loss {loss.item():.6f}")
        return {"loss": loss}


class MrmTrainer(Trainer):
    def get_train_dataloader(self) -> Any:
        return self.train_dataset  # gives whole batches; each process gets its part of them


class SaveLoader(TrainerCallback):
    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            torch.save(train.state_dict(), os.path.join(args.output_dir, f"checkpoint-{state.global_step}", "loader.pt"))


folder, split, checkpoints = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else -1
arguments = TrainingArguments(
    checkpoints, num_train_epochs=2, max_steps=steps, learning_rate=0.1, lr_scheduler_type="constant", seed=0, save_steps=1,
    ignore_data_skip=True, disable_tqdm=True, report_to="none",
)  # ignore_data_skip: the loader continues by itself
data = mrm.open(folder)
train = MrmDataset(data, split=split, subset="train", batch_size=8, drop_last=True, transform=mrm.transforms.finetune(64))
last = get_last_checkpoint(checkpoints) if os.path.isdir(checkpoints) else None
if last:
    train.load_state_dict(torch.load(os.path.join(last, "loader.pt")))
torch.manual_seed(0)
MrmTrainer(Classifier(len(data.findings)), arguments, train_dataset=train, callbacks=[SaveLoader()]).train(last)
