"""Builds the plug-in of ImageJ and Fiji from ``fiji/`` into the package, with Maven and a JDK (8 or newer).

``python fiji/build.py`` builds what has changed; ``--imagej`` also fetches the ImageJ that the tests run (``net.imagej:ij`` of
Maven Central) into ``fiji/target``. The package's build hook calls `build_plugin`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

FIJI = Path(__file__).resolve().parent
PACKAGED = FIJI.parent / "src/mutoscope/viewers/fiji/_plugin"
JAR = "Mutoscope_.jar"
IMAGEJ = FIJI / "target/ij.jar"
_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.7.1:copy-dependencies"


class PluginNotBuiltError(RuntimeError):
    """The plug-in cannot be built here: no Maven, no JDK, or no Maven Central."""


def fingerprint() -> str:
    """Return a digest of all that the plug-in is built from."""
    digest = hashlib.sha256()
    files = [FIJI / "pom.xml", *(path for path in (FIJI / "src").rglob("*") if path.is_file())]
    for path in sorted(files):
        digest.update(f"{path.relative_to(FIJI)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def needs_building() -> bool:
    """Return whether the plug-in is missing or was built from other sources."""
    stamp = PACKAGED / ".built"
    return not stamp.exists() or stamp.read_text() != fingerprint() or not (PACKAGED / JAR).exists()


def _maven(*goals: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise PluginNotBuiltError("there is no Maven (mvn)")
    if shutil.which("javac") is None and not os.environ.get("JAVA_HOME"):
        raise PluginNotBuiltError("there is no JDK (javac)")
    command = [maven, "-q", "-B", "-Dstyle.color=never", "-f", str(FIJI / "pom.xml"), *goals]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
        raise PluginNotBuiltError(f"mvn {' '.join(goals)} failed: {said}")


def build_plugin() -> bool:
    """Build the plug-in if its sources have changed.

    Returns
    -------
    bool
        Whether anything had to be built.

    Raises
    ------
    PluginNotBuiltError
        If it cannot be built here.
    """
    if not needs_building():
        return False
    wanted = fingerprint()
    shutil.rmtree(FIJI / "target/classes", ignore_errors=True)
    _maven("compile", "jar:jar")
    PACKAGED.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(FIJI / "target" / JAR, PACKAGED / JAR)
    (PACKAGED / ".built").write_text(wanted)
    return True


def fetch_imagej() -> None:
    """Have ImageJ of the version that ``pom.xml`` names in ``fiji/target``."""
    stamp, wanted = IMAGEJ.with_name(".imagej"), hashlib.sha256((FIJI / "pom.xml").read_bytes()).hexdigest()
    if IMAGEJ.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    _maven(_DEPENDENCIES, "-DincludeArtifactIds=ij", "-Dmdep.stripVersion=true", f"-DoutputDirectory={IMAGEJ.parent}")
    stamp.write_text(wanted)


def main() -> int:
    """Build, and fetch if asked to."""
    parser = argparse.ArgumentParser(description="Build the plug-in of ImageJ and Fiji.")
    parser.add_argument("--imagej", action="store_true", help="fetch the ImageJ that the tests run, too")
    arguments = parser.parse_args()
    try:
        built = build_plugin()
        if arguments.imagej:
            fetch_imagej()
    except PluginNotBuiltError as error:
        print(f"The plug-in of ImageJ was not built: {error}", file=sys.stderr)
        return 1
    if built:
        print(f"Built the plug-in of ImageJ into {PACKAGED.relative_to(FIJI.parent)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
