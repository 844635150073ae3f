#!/usr/bin/env python3
"""Collects the licence texts of what is linked into the binary: src/cli/licenses.txt.gz, which `fleetbus licenses` prints.

    licenses.py          writes it
    licenses.py --check  says whether it is out of date, and exits 1

Packages are those that `cargo metadata` resolves from Cargo.lock for the two targets of a release, without what only builds or
tests. Texts are taken from the packages' own sources, those of the C code inside included; equal ones are printed once.
"""

import gzip
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "src/cli/licenses.txt.gz"
TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
TEXT = re.compile(r"^(licen[cs]es?|copying|notice|unlicense|copyright)([-._].*)?$", re.IGNORECASE)
CODE = {".rs", ".c", ".h", ".py", ".go", ".sh", ".cmake", ".html", ".json", ".toml", ".pl"}
# Where the C code keeps what it does not link.
ASIDE = {"tests", "test", "fuzz", "examples", "benches", "contrib", "doc", "docs", "ci", "packaging", ".github"}
# What the build takes files from that go into the binary.
EMBEDDED = {"utoipa-swagger-ui-vendored"}
RULE = "=" * 100


def linked():
    """Every package in the binary, as {(name, version): package}."""
    found = {}
    for target in TARGETS:
        command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
        metadata = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        seen, ahead = set(), [metadata["resolve"]["root"]]
        while ahead:
            here = ahead.pop()
            if here in seen:
                continue
            seen.add(here)
            package = packages[here]
            if any("proc-macro" in made["kind"] for made in package["targets"]):
                continue
            if here != metadata["resolve"]["root"]:
                found[(package["name"], package["version"])] = package
            for edge in nodes[here]["deps"]:
                linked = any(kind["kind"] is None for kind in edge["dep_kinds"])
                if linked or packages[edge["pkg"]]["name"] in EMBEDDED:
                    ahead.append(edge["pkg"])
    return dict(sorted(found.items()))


def texts(package):
    """The licence texts in a package's sources, as they stand there, without space at the ends."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if len(inside.parts) > 4 or any(part.lower() in ASIDE for part in inside.parts[:-1]):
            continue
        if path.is_file() and TEXT.match(path.name) and path.suffix.lower() not in CODE:
            text = path.read_text(errors="replace").replace("\r\n", "\n").strip()
            if text:
                yield text


def page():
    """What `fleetbus licenses` prints."""
    numbers, lines, bare = {}, [], []
    for (name, version), package in linked().items():
        own = []
        for text in texts(package):
            number = numbers.setdefault(text, len(numbers) + 1)
            if number not in own:
                own.append(number)
        licence = package["license"] or "see its text"
        if not own and licence == "Apache-2.0":
            own = [numbers.setdefault((ROOT / "LICENSE").read_text().strip(), len(numbers) + 1)]
        if not own:
            bare.append(name)
        refers = " ".join(f"[{number}]" for number in own) or "no text in its package"
        lines.append(f"{name} {version}: {licence}; {refers}")
    head = [
        "fleetbus is under Apache-2.0. Its binary holds the packages below, each with its licence and the numbers of the texts that",
        "its sources have; the texts follow. It is also linked to the system's C library, OpenSSL and zlib, whose licences the image",
        "has under /usr/share/doc.",
        "",
    ]
    for text, number in numbers.items():
        lines += ["", RULE, f"[{number}]", "", text]
    return "\n".join(head + lines) + "\n", len(numbers), bare


def main():
    text, count, bare = page()
    kept = gzip.decompress(KEPT.read_bytes()).decode() if KEPT.exists() else ""
    if "--check" in sys.argv[1:]:
        if text != kept:
            print("src/cli/licenses.txt.gz does not match Cargo.lock: run `make licenses`", file=sys.stderr)
        return int(text != kept)
    if text != kept:
        KEPT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{count} texts, {KEPT.stat().st_size} bytes; without a text in their package: {' '.join(bare) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
