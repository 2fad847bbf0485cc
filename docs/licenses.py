#!/usr/bin/env python3
"""Lists the licenses of all dependencies in docs/licenses.md, and refuses those that nobody has agreed to.

    docs/licenses.py            write the page
    docs/licenses.py --check    fail where a license is not allowed, or the page is not what would be written

Everything comes from `cargo metadata`, without a network.
"""

import json
import pathlib
import re
import subprocess
import sys

# Permissive ones: they ask for their notice to be kept, and no more. Anything else wants a decision by a person.
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "IJG", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip

# The platform that is built for: crates of other platforms are no part of any program.
PLATFORM = "x86_64-unknown-linux-gnu"
PROGRAMS = ["mrm-ingest", "mrm-dataset", "mrm-trainer"]
PAGE = pathlib.Path(__file__).with_name("licenses.md")


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", PLATFORM]
    found = subprocess.run(command, cwd=PAGE.parent.parent, capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit(f"error: cargo metadata: {found.stderr.strip()}\n(build once, so that all crates are on this machine)")
    return json.loads(found.stdout)


def is_allowed(expression):
    """Whether an SPDX expression can be met by allowed licenses: AND binds closer than OR; `/` is an old OR."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    at = 0

    def peek():
        return tokens[at] if at < len(tokens) else None

    def take():
        nonlocal at
        at += 1
        return tokens[at - 1]

    def one():
        if peek() == "(":
            take()
            found = any_of()
            take()
            return found
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in ALLOWED

    def all_of():
        found = one()
        while peek() == "AND":
            take()
            found = one() and found
        return found

    def any_of():
        found = all_of()
        while peek() == "OR":
            take()
            found = all_of() or found
        return found

    return any_of()


def reached(nodes, roots, macros):
    """What the programs hold: everything reached by dependencies that are neither for building nor for tests, nor macros."""
    found, waiting = set(), list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name in macros:
            continue
        found.add(name)
        for dependency in nodes[name]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return found


def main():
    found = metadata()
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    own = {package["id"]: package for package in found["packages"] if package["source"] is None}
    is_macro = lambda package: any("proc-macro" in target["kind"] for target in package["targets"])
    macros = {package["id"] for package in found["packages"] if is_macro(package)}
    in_programs = reached(nodes, [key for key, package in own.items() if package["name"] in PROGRAMS], macros)
    packages = sorted(
        (package for package in found["packages"] if package["source"] and package["id"] in nodes),
        key=lambda package: (package["name"], package["version"]),
    )
    stated = lambda package: (package["license"] or "none stated").replace("/", " OR ").replace("  ", " ")
    refused = [package for package in packages if not is_allowed(package["license"] or "none")]
    by_license = {}
    for package in packages:
        by_license.setdefault(stated(package), []).append(package)
    counts = "".join(
        f"| {license} | {len(some)} |\n"
        for license, some in sorted(by_license.items(), key=lambda item: (-len(item[1]), item[0]))
    )
    rows = "".join(
        f"| {package['name']} | {package['version']} | {stated(package)} | "
        f"{'programs' if package['id'] in in_programs else 'building, tests'} |\n"
        for package in packages
    )
    page = f"""# Licenses
`mrm` is under Apache-2.0. It is built from {len(packages)} crates, {sum(p["id"] in in_programs for p in packages)} of which are part of
a program; their licenses, as their manifests state them, are below. `docs/licenses.py` writes this page; `make audit`
fails where it is out of date, or a license is none of these: {", ".join(sorted(ALLOWED))}.

Beside the crates: `trainer` loads libtorch (BSD-3-Clause, with notices of what it contains in the `torch` wheel), and
tests use the Python packages of `tests/requirements.txt`, which no program contains.

| license | crates |
| --- | --- |
{counts}
| crate | version | license | in |
| --- | --- | --- | --- |
{rows}"""
    for package in refused:
        print(f"error: {package['name']} {package['version']}: license not agreed to: {stated(package)}", file=sys.stderr)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        sys.exit(f"error: {PAGE.name} is not what Cargo.lock says: run docs/licenses.py")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
