#!/usr/bin/env python3
"""Writes the licenses of all crates that a package is linked from, each text once: `third_party.py MANIFEST OUT`."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NAMES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def linked(manifest: str) -> list[dict]:
    """The crates of other authors that a package depends on, without those of tests and build scripts."""
    host = next(
        line.split()[1] for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if "host:" in line
    )
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    found = json.loads(subprocess.check_output([*command, "--manifest-path", manifest]))
    packages = {package["id"]: package for package in found["packages"]}
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    root = found["resolve"]["root"]
    seen, waiting = {root}, [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if is_linked and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    others = [packages[name] for name in seen if packages[name]["source"]]
    return sorted(others, key=lambda package: (package["name"], package["version"]))


def main(manifest: str, out: str) -> None:
    crates_of: dict[str, list[str]] = defaultdict(list)
    lines = ["This program is linked from these crates; their licenses follow.", ""]
    for package in linked(manifest):
        crate = f"{package['name']} {package['version']}"
        lines.append(f"{crate}: {package['license'] or package['license_file']}")
        folder = Path(package["manifest_path"]).parent
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name.upper().startswith(NAMES):
                crates_of[path.read_text(errors="replace").strip()].append(crate)
    for text, crates in crates_of.items():
        lines += ["", "=" * 100, ", ".join(dict.fromkeys(crates)), "=" * 100, "", text]
    Path(out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
