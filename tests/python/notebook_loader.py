"""Reads a dataset with the loader of notebook 5: notebook_loader.py NOTEBOOK. MRM_DATASET and MRM_SPLIT as for the notebook.

Each record must be there exactly once for any number of DataLoader workers, shuffled or not."""
import json
import sys
from collections import Counter

notebook = json.load(open(sys.argv[1]))
cells = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
for cell in cells[:2]:  # imports, and the loader with a first epoch
    exec(cell)


def read(shards, workers):
    """One digest per record, in order."""
    loader = DataLoader(shards, batch_size=8, num_workers=workers)
    return [image.numpy().tobytes() for images, _ in loader for image in images]


expected = [image.numpy().tobytes() for image, _ in train]
assert len(expected) == sum(subset == 'train' for subset in members['subset']) > 0, len(expected)
assert len(set(expected)) == len(expected), 'records of one picture'
for workers in [0, 1, 2]:
    assert Counter(read(Shards('train'), workers)) == Counter(expected), f'{workers} workers'
    shuffled = Shards('train', seed=3)
    first = read(shuffled, workers)
    assert Counter(first) == Counter(expected) and first != expected, f'{workers} workers, shuffled'
    assert read(shuffled, workers) == first, f'{workers} workers: the same seed and epoch, another order'
    shuffled.epoch = 1
    assert read(shuffled, workers) not in (first, expected), f'{workers} workers: the next epoch has the same order'
try:
    DataLoader(Shards('train'), shuffle=True)
except ValueError as error:
    assert 'shuffle' in str(error), error
else:
    raise AssertionError('a DataLoader shuffles what has no index')
print(f'{len(expected)} records once')
