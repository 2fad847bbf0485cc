"""The formats and loaders that `loader.py` compares with ours, and what each of them does for a sample.

Every format has a function that writes the samples, and one that opens them as batches. All do the same for a sample
(`Work`), except `mrm-official`, which has the transform of MRM's release: RGB, three channels, the report tokenized and
masked token by token. OpenCV resamples, which is several times faster than Pillow but does not antialias; `files-pillow`
makes the pixels of ours.
"""

from __future__ import annotations

import glob
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

SIDE, CROP, TOKENS = 512, 448, 100
MEAN, STD = 0.4978, 0.2449
MASK = 3
Sample = tuple[Any, Any, str]  # pixels `uint8 [512, 512]`, padded token ids `int32 [100]`, report


class Work:
    """RandomResizedCrop to 448 (bicubic), flip, normalization to float32; half of the words masked."""

    def __init__(self, tokenizer: Path, pillow: bool = False) -> None:
        vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
        self.tokenizer, self.pillow = tokenizer, pillow
        self.continues = np.zeros(max(vocabulary.values()) + 1, bool)
        for piece, token in vocabulary.items():
            self.continues[token] = piece.startswith("##")

    def __call__(self, image: Any, ids: Any) -> tuple[torch.Tensor, ...]:
        """`image` is JPEG, raw pixels or an array; `ids` int32 `[100]`, or their bytes.

        Returns `float32 [1, 448, 448]`, and masked ids, ids and attention mask, `int64 [100]`.
        """
        pixels = np.empty((1, CROP, CROP), np.float32)
        self.augment(decode(image), pixels[0])
        return (torch.from_numpy(pixels), *map(torch.from_numpy, self.mask(ids)))

    def augment(self, pixels: Any, out: Any) -> None:
        """Writes the transformed image to `out`, float32 `[448, 448]`."""
        top, left, height, width = crop(*pixels.shape)
        if self.pillow:
            from PIL import Image

            box = (left, top, left + width, top + height)
            image = np.asarray(Image.fromarray(pixels).resize((CROP, CROP), Image.Resampling.BICUBIC, box=box))
        else:
            part = pixels[top : top + height, left : left + width]
            image = cv2.resize(part, (CROP, CROP), interpolation=cv2.INTER_CUBIC)
        out[...] = cv2.flip(image, 1) if random.random() < 0.5 else image
        out *= np.float32(1 / 255 / STD)
        out -= np.float32(MEAN / STD)

    def mask(self, ids: Any) -> tuple[Any, Any, Any]:
        ids = np.frombuffer(ids, np.int32) if isinstance(ids, bytes) else np.asarray(ids, np.int32)
        length = int(np.count_nonzero(ids))
        word = np.cumsum(~self.continues[ids])
        masked = (np.random.rand(int(word[-1]) + 1) < 0.5)[word]
        masked[0] = masked[-1] = False
        masked[length:] = False
        return np.where(masked, MASK, ids).astype(np.int64), ids.astype(np.int64), (ids != 0).astype(np.int64)


def crop(height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's `RandomResizedCrop.get_params` with scale 0.2 to 1, without its tensors: top, left, height, width."""
    for _ in range(10):
        area = height * width * random.uniform(0.2, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return random.randint(0, height - high), random.randint(0, width - wide), high, wide
    return 0, 0, height, width


def decode(image: Any) -> Any:
    """Gray pixels `[H, W]` of a JPEG, raw bytes or an array."""
    if not isinstance(image, bytes):
        return np.asarray(image)
    if image[:2] == b"\xff\xd8":
        return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.frombuffer(image, np.uint8).reshape(SIDE, SIDE)


def jpeg(pixels: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def raw(pixels: Any) -> bytes:
    return bytes(pixels.tobytes())


@dataclass
class Options:
    """Where a format is, and how it is read."""

    folder: Path
    tokenizer: Path
    workers: int
    batch_size: int
    remote: str | None = None
    """`s3://BUCKET/PREFIX` of the format: `folder` is then an empty cache."""

    @property
    def work(self) -> Work:
        return Work(self.tokenizer)

    def loader(self, dataset: Any, make: Any = DataLoader, **more: Any) -> Any:
        """Worker processes that live as long as the loader, with single-threaded libraries."""
        more.setdefault("batch_size", self.batch_size)
        return make(
            dataset, num_workers=self.workers, drop_last=more["batch_size"] is not None, persistent_workers=True,
            prefetch_factor=4, worker_init_fn=start_worker, **more,
        )


def start_worker(_: int) -> None:
    """Single-threaded libraries, and a seed of its own for each worker."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


class Rows(Dataset[Any]):
    """A map-style dataset: `read(row)` gives an image and ids."""

    def __init__(self, length: int, read: Callable[[int], tuple[Any, Any]], work: Work) -> None:
        self.length, self.read, self.work = length, read, work

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Any:
        return self.work(*self.read(row))


# A file for each image.


def write_files(folder: Path, samples: list[Sample], encode: Callable[[Any], bytes]) -> None:
    for key, (pixels, _, _) in enumerate(samples):
        (folder / f"{key:06d}").write_bytes(encode(pixels))
    np.save(folder / "ids.npy", np.stack([ids for _, ids, _ in samples]))
    (folder / "reports.json").write_text(json.dumps([report for _, _, report in samples]))


class Files:
    """Reads plain files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ids = f"{folder}/", np.load(folder / "ids.npy")

    def __call__(self, row: int) -> tuple[bytes, Any]:
        with open(f"{self.folder}{row:06d}", "rb", buffering=0) as file:
            return file.read(), self.ids[row]


def open_files(options: Options, pillow: bool = False) -> Any:
    read = Files(options.folder)
    return options.loader(Rows(len(read.ids), read, Work(options.tokenizer, pillow)), shuffle=True)


class Spdl:
    """SPDL on plain files: threads of one process make whole batches, without a copy between processes."""

    def __init__(self, options: Options) -> None:
        self.read, self.work, self.options = Files(options.folder), options.work, options
        cv2.setNumThreads(0)

    def batch(self, rows: list[int]) -> tuple[torch.Tensor, ...]:
        images = torch.empty((len(rows), 1, CROP, CROP))
        texts = torch.empty((3, len(rows), TOKENS), dtype=torch.int64)
        pixels, tokens = images.numpy(), texts.numpy()
        for at, row in enumerate(rows):
            image, ids = self.read(row)
            self.work.augment(decode(image), pixels[at, 0])
            tokens[:, at] = self.work.mask(ids)
        return (images, *texts)

    def __iter__(self) -> Iterator[Any]:
        from spdl.pipeline import PipelineBuilder

        size, rows = self.options.batch_size, np.random.permutation(len(self.read.ids))
        source = [rows[first : first + size].tolist() for first in range(0, len(rows) - size + 1, size)]
        builder: Any = PipelineBuilder()
        builder = builder.add_source(source).pipe(self.batch, concurrency=self.options.workers)
        pipeline = builder.add_sink(2 * self.options.workers).build(num_threads=self.options.workers)
        with pipeline.auto_stop():
            yield from pipeline


def open_official(options: Options) -> Any:
    """The data set of MRM's release, with the tokenizers library."""
    from PIL import Image
    from tokenizers import Tokenizer
    from torchvision import transforms

    folder = options.folder
    reports = json.loads((folder / "reports.json").read_text())
    transform = transforms.Compose([
        transforms.RandomResizedCrop(CROP, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.Grayscale(3),
        transforms.ToTensor(),
        transforms.Normalize([MEAN], [STD]),
    ])
    words = Tokenizer.from_file(str(options.tokenizer))
    words.enable_truncation(TOKENS)
    words.enable_padding(length=TOKENS)
    pieces = {token: piece for piece, token in words.get_vocab().items()}

    class Official(Dataset[Any]):
        def __len__(self) -> int:
            return len(reports)

        def __getitem__(self, row: int) -> Any:
            image = transform(Image.open(folder / f"{row:06d}").convert("RGB"))
            ids = torch.tensor(words.encode("[CLS] " + reports[row]).ids).unsqueeze(0)
            masked = ids.clone()
            for at in range(1, TOKENS - 1):
                if masked[0][at] == 0:
                    break
                if pieces[masked[0][at].item()].startswith("##"):
                    masked[0][at] = MASK if masked[0][at - 1] == MASK else masked[0][at]
                elif random.random() < 0.5:
                    masked[0][at] = MASK
            return image, masked, ids

    return options.loader(Official(), shuffle=True)


# WebDataset: tar files.


def write_webdataset(folder: Path, samples: list[Sample], encode: Callable[[Any], bytes]) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=128, verbose=0) as writer:
        for key, (pixels, ids, _) in enumerate(samples):
            writer.write({"__key__": f"{key:06d}", "image": encode(pixels), "ids": ids.tobytes()})


def open_webdataset(options: Options) -> Any:
    import webdataset

    tars = sorted(glob.glob(f"{options.folder}/*.tar"))
    if options.remote:
        base = options.remote.replace("s3:/", os.environ["AWS_ENDPOINT_URL"], 1)
        tars = [f"pipe:curl -sf {base}/{name}" for name in os.environ["TARS"].split(",")]
    work = options.work
    dataset = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False).shuffle(512)
    dataset = dataset.map(lambda sample: work(sample["image"], sample["ids"]))
    return options.loader(dataset.batched(options.batch_size, partial=False, collation_fn=collate), batch_size=None)


def collate(samples: list[Any]) -> Any:
    return torch.utils.data.default_collate(samples)


# MosaicML Streaming.


def write_mosaic(folder: Path, samples: list[Sample], encode: Callable[[Any], bytes]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "bytes", "ids": "bytes"}, size_limit=1 << 25, exist_ok=True) as writer:
        for pixels, ids, _ in samples:
            writer.write({"image": encode(pixels), "ids": ids.tobytes()})


def open_mosaic(options: Options) -> Any:
    from streaming import StreamingDataset

    work = options.work

    class Mosaic(StreamingDataset):
        def __getitem__(self, row: Any) -> Any:
            sample = super().__getitem__(row)
            return work(sample["image"], sample["ids"])

    return options.loader(
        Mosaic(remote=options.remote, local=str(options.folder), shuffle=True, batch_size=options.batch_size)
    )


# LitData.


def write_litdata(folder: Path, samples: list[Sample], encode: Callable[[Any], bytes]) -> None:
    import litdata

    inputs = [{"image": encode(pixels), "ids": ids.tobytes()} for pixels, ids, _ in samples]
    litdata.optimize(fn=dict, inputs=inputs, output_dir=str(folder), chunk_bytes="32MB", num_workers=1, mode="overwrite")


def open_litdata(options: Options) -> Any:
    import litdata

    work, more = options.work, {}
    if options.remote:
        # Its client refuses plain HTTP otherwise.
        litdata.streaming.downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
        more = {"cache_dir": str(options.folder), "storage_options": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}}

    class Lit(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, row: Any) -> Any:
            sample = super().__getitem__(row)
            return work(sample["image"], sample["ids"])

    dataset = Lit(options.remote or str(options.folder), shuffle=True, drop_last=True, **more)
    return options.loader(dataset, litdata.StreamingDataLoader)


# Hugging Face datasets.


def write_hugging_face(folder: Path, samples: list[Sample], encode: Callable[[Any], bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for first in range(0, len(samples), 128):
        part = samples[first : first + 128]
        table = {"image": [encode(pixels) for pixels, _, _ in part], "ids": [ids.tobytes() for _, ids, _ in part]}
        schema = pa.schema([("image", pa.binary()), ("ids", pa.binary())])
        pq.write_table(pa.table(table, schema), folder / f"{first // 128:05d}.parquet", row_group_size=32)
    load_hugging_face(folder)  # makes its cache of Arrow files


def load_hugging_face(folder: Path) -> Any:
    from datasets import load_dataset

    files = sorted(glob.glob(f"{folder}/*.parquet"))
    return load_dataset("parquet", data_files=files, split="train", cache_dir=f"{folder}/cache")


def open_hugging_face(options: Options) -> Any:
    table = load_hugging_face(options.folder)

    def read(row: int) -> tuple[Any, Any]:
        sample = table[int(row)]
        return sample["image"], sample["ids"]

    return options.loader(Rows(len(table), read, options.work), shuffle=True)


# What a loader's program imports, by the first part of its name.
PACKAGES = {"ours": "mrm.torch", "spdl": "spdl.pipeline", "mds": "streaming", "lit": "litdata", "wds": "webdataset", "hf": "datasets"}

Write = Callable[[Path, list[Sample]], None]
Open = Callable[[Options], Any]
# Name → folder, function that writes it, function that opens it.
LOADERS: dict[str, tuple[str, Write, Open]] = {
    "files-raw": ("files-raw", partial(write_files, encode=raw), open_files),
    "files-jpg": ("files-jpg", partial(write_files, encode=jpeg), open_files),
    "files-pillow": ("files-raw", partial(write_files, encode=raw), partial(open_files, pillow=True)),
    "spdl-raw": ("files-raw", partial(write_files, encode=raw), Spdl),
    "spdl-jpg": ("files-jpg", partial(write_files, encode=jpeg), Spdl),
    "mrm-official": ("files-jpg", partial(write_files, encode=jpeg), open_official),
    "wds-raw": ("wds-raw", partial(write_webdataset, encode=raw), open_webdataset),
    "wds-jpg": ("wds-jpg", partial(write_webdataset, encode=jpeg), open_webdataset),
    "mds-raw": ("mds-raw", partial(write_mosaic, encode=raw), open_mosaic),
    "mds-jpg": ("mds-jpg", partial(write_mosaic, encode=jpeg), open_mosaic),
    "lit-raw": ("lit-raw", partial(write_litdata, encode=raw), open_litdata),
    "lit-jpg": ("lit-jpg", partial(write_litdata, encode=jpeg), open_litdata),
    "hf-raw": ("hf-raw", partial(write_hugging_face, encode=raw), open_hugging_face),
    "hf-jpg": ("hf-jpg", partial(write_hugging_face, encode=jpeg), open_hugging_face),
}
