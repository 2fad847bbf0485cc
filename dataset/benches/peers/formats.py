"""The formats and loaders that `loader.py` compares with ours, and what each of them does for a sample.

Every format has a function that writes the samples, and one that opens them as a PyTorch dataset. All do the same for a
sample (`Work`), except `mrm-official`, which has the transform of MRM's release: RGB, three channels, the report tokenized
and masked token by token.
"""

import glob
import io
import json
import random
from pathlib import Path

import numpy as np

SIDE, CROP, TOKENS = 512, 448, 100
MEAN, STD = 0.4978, 0.2449
MASK = 3


class Work:
    """RandomResizedCrop to 448 (bicubic), flip, normalization to float32; half of the words masked."""

    def __init__(self, tokenizer):
        vocabulary = json.loads(Path(tokenizer).read_text())["model"]["vocab"]
        self.continues = np.zeros(max(vocabulary.values()) + 1, bool)
        for piece, token in vocabulary.items():
            self.continues[token] = piece.startswith("##")

    def __call__(self, image, ids):
        """`image` is JPEG, raw pixels or an array; `ids` int32 `[100]`. Returns `[1, 448, 448]`, masked ids, ids."""
        ids = np.frombuffer(ids, np.int32) if isinstance(ids, bytes) else np.asarray(ids, np.int32)
        return self.augment(decode(image)), self.mask(ids), ids.astype(np.int64)

    def augment(self, pixels):
        import torch
        from PIL import Image
        from torchvision.transforms import RandomResizedCrop

        height, width = pixels.shape
        draw = RandomResizedCrop.get_params(torch.empty(1, height, width), (0.2, 1.0), (3 / 4, 4 / 3))
        top, left, height, width = draw
        box = (left, top, left + width, top + height)
        image = np.asarray(Image.fromarray(pixels).resize((CROP, CROP), Image.BICUBIC, box=box), np.float32)
        if random.random() < 0.5:
            image = image[:, ::-1]
        return np.ascontiguousarray(image * (1 / 255 / STD) - MEAN / STD)[None]

    def mask(self, ids):
        length = int((ids != 0).sum())
        word = np.cumsum(~self.continues[ids])
        masked = (np.random.rand(int(word[-1]) + 1) < 0.5)[word]
        masked[0] = masked[-1] = False
        masked[length:] = False
        return np.where(masked, MASK, ids).astype(np.int64)


def decode(image):
    """Gray pixels `[H, W]` of a JPEG, raw bytes, an array or a PIL image."""
    if isinstance(image, bytes):
        if image[:2] == b"\xff\xd8":
            import cv2

            return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
        return np.frombuffer(image, np.uint8).reshape(SIDE, SIDE)
    return np.asarray(image)


def jpeg(pixels):
    import cv2

    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def npy(pixels):
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


# A file for each image.


def write_files(folder, samples, encode, ending):
    for key, (pixels, _, _) in enumerate(samples):
        (folder / f"{key:06d}.{ending}").write_bytes(encode(pixels))
    np.save(folder / "ids.npy", np.stack([ids for _, ids, _ in samples]))
    (folder / "reports.json").write_text(json.dumps([report for _, _, report in samples]))


def open_files(folder, work, read, ending):
    import torch

    ids = np.load(folder / "ids.npy")

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(ids)

        def __getitem__(self, row):
            return work(read(folder / f"{row:06d}.{ending}"), ids[row])

    return Files(), {"shuffle": True}


def open_official(folder, work, tokenizer):
    """The data set of MRM's release, with the tokenizers library."""
    import torch
    from PIL import Image
    from tokenizers import Tokenizer
    from torchvision import transforms

    reports = json.loads((folder / "reports.json").read_text())
    transform = transforms.Compose([
        transforms.RandomResizedCrop(CROP, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.Grayscale(3),
        transforms.ToTensor(),
        transforms.Normalize([MEAN], [STD]),
    ])
    words = Tokenizer.from_file(str(tokenizer))
    words.enable_truncation(TOKENS)
    words.enable_padding(length=TOKENS)
    pieces = {token: piece for piece, token in words.get_vocab().items()}

    class Official(torch.utils.data.Dataset):
        def __len__(self):
            return len(reports)

        def __getitem__(self, row):
            image = transform(Image.open(folder / f"{row:06d}.jpg").convert("RGB"))
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

    return Official(), {"shuffle": True}


# WebDataset: tar files.


def write_webdataset(folder, samples, encode, ending):
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=128, verbose=0) as writer:
        for key, (pixels, ids, _) in enumerate(samples):
            writer.write({"__key__": f"{key:06d}", ending: encode(pixels), "ids": ids.tobytes()})


def open_webdataset(folder, work, read, ending):
    import webdataset

    tars = sorted(glob.glob(f"{folder}/*.tar"))
    dataset = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False).shuffle(512)
    return dataset.map(lambda sample: work(read(sample[ending]), sample["ids"])), {}


# MosaicML Streaming.


def write_mosaic(folder, samples, encode):
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "bytes", "ids": "bytes"}, size_limit=1 << 25, exist_ok=True) as writer:
        for pixels, ids, _ in samples:
            writer.write({"image": encode(pixels), "ids": ids.tobytes()})


def open_mosaic(folder, work, batch_size):
    from streaming import StreamingDataset

    class Mosaic(StreamingDataset):
        def __getitem__(self, row):
            sample = super().__getitem__(row)
            return work(sample["image"], sample["ids"])

    return Mosaic(local=str(folder), shuffle=True, batch_size=batch_size), {}


# LitData.


def write_litdata(folder, samples, encode):
    import litdata

    inputs = [{"image": encode(pixels), "ids": ids.tobytes()} for pixels, ids, _ in samples]
    litdata.optimize(fn=dict, inputs=inputs, output_dir=str(folder), chunk_bytes="32MB", num_workers=1, mode="overwrite")


def open_litdata(folder, work):
    import litdata

    class Lit(litdata.StreamingDataset):
        def __getitem__(self, row):
            sample = super().__getitem__(row)
            return work(sample["image"], sample["ids"])

    return Lit(str(folder), shuffle=True, drop_last=True), {}


# Hugging Face datasets.


def write_hugging_face(folder, samples):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, Sequence, Value

    schema = Features({"image": Image(), "ids": Sequence(Value("int32"))}).arrow_schema
    for first in range(0, len(samples), 128):
        part = samples[first : first + 128]
        columns = {"image": [{"bytes": jpeg(pixels), "path": None} for pixels, _, _ in part]}
        columns["ids"] = [ids.tolist() for _, ids, _ in part]
        arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
        pq.write_table(pa.table(arrays, schema=schema), folder / f"{first // 128:05d}.parquet", row_group_size=32)


def open_hugging_face(folder, work):
    import torch
    from datasets import load_dataset

    files = sorted(glob.glob(f"{folder}/*.parquet"))
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=f"{folder}/cache")

    class HuggingFace(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, row):
            sample = rows[int(row)]
            return work(sample["image"], sample["ids"])

    return HuggingFace(), {"shuffle": True}


# Name → folder, function that writes, function that opens.
read_bytes = Path.read_bytes
load_npy = lambda data: np.load(io.BytesIO(data))
as_is = lambda data: data
raw = lambda pixels: pixels.tobytes()

LOADERS = {
    "files-npy": ("files-npy", lambda f, s: write_files(f, s, npy, "npy"), lambda f, w, o: open_files(f, w, np.load, "npy")),
    "files-jpg": ("files-jpg", lambda f, s: write_files(f, s, jpeg, "jpg"), lambda f, w, o: open_files(f, w, read_bytes, "jpg")),
    "mrm-official": ("files-jpg", lambda f, s: write_files(f, s, jpeg, "jpg"), lambda f, w, o: open_official(f, w, o.tokenizer)),
    "wds-npy": ("wds-npy", lambda f, s: write_webdataset(f, s, npy, "npy"), lambda f, w, o: open_webdataset(f, w, load_npy, "npy")),
    "wds-jpg": ("wds-jpg", lambda f, s: write_webdataset(f, s, jpeg, "jpg"), lambda f, w, o: open_webdataset(f, w, as_is, "jpg")),
    "mds-raw": ("mds-raw", lambda f, s: write_mosaic(f, s, raw), lambda f, w, o: open_mosaic(f, w, o.batch_size)),
    "mds-jpg": ("mds-jpg", lambda f, s: write_mosaic(f, s, jpeg), lambda f, w, o: open_mosaic(f, w, o.batch_size)),
    "lit-raw": ("lit-raw", lambda f, s: write_litdata(f, s, raw), lambda f, w, o: open_litdata(f, w)),
    "lit-jpg": ("lit-jpg", lambda f, s: write_litdata(f, s, jpeg), lambda f, w, o: open_litdata(f, w)),
    "hf-map": ("hf", write_hugging_face, lambda f, w, o: open_hugging_face(f, w)),
}
