"""Puts the built program into the wheel: `MRM_TRAINER` names the file."""

import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Program(BuildHookInterface[Any]):
    """Adds the program without symbols and without the path of the libtorch that it was linked to."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        program = Path(self.folder.name) / "trainer"
        subprocess.run(["strip", "-o", program, os.environ["MRM_TRAINER"]], check=True)
        subprocess.run(["patchelf", "--remove-rpath", program], check=True)
        # The newest glibc of which it needs a symbol.
        glibc = max(int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", program.read_bytes()))
        build_data["force_include"][str(program)] = "mrm_trainer/bin/trainer"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_{glibc}_{platform.machine()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()
