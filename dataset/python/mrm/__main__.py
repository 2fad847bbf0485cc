"""`python -m mrm ingest …` and `python -m mrm dataset …`: the console scripts without a script."""

import sys

from ._commands import run

match sys.argv[1:]:
    case ["ingest" | "dataset" as name, *arguments]:
        sys.exit(run(name, arguments))
    case _:
        sys.exit("usage: python -m mrm {ingest,dataset} ...")
