"""Executes notebooks without a browser: notebooks.py FOLDER OUT. Each is written, with its outputs, to OUT."""
import pathlib
import sys

import nbformat
from nbclient import NotebookClient

folder, out = map(pathlib.Path, sys.argv[1:])
for path in sorted(folder.glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    nbformat.write(notebook, out / path.name)
    print(path.name)
