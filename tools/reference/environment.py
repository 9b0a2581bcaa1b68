"""The Python environment with the peers' packages, kept under the cache folder and made on first use."""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def cache_root():
    """`$TCC_CACHE_DIR`, or `tcc` in the user's cache folder."""
    base = os.environ.get("TCC_CACHE_DIR")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcc"


def enter(purpose, packages, without_dependencies=()):
    """Continue this script under a virtual environment that has `packages`, made on first use.

    The folder's name holds a hash of the package list, so that a changed list makes a new one.
    """
    key = hashlib.sha256(repr((packages, without_dependencies, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = cache_root() / f"venv-{purpose}-{key}"
    python = folder / "bin" / "python"
    if Path(sys.prefix) == folder:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            print(f"installing {' '.join([*packages, *without_dependencies])} under {folder}", file=sys.stderr)
            venv.create(folder, with_pip=True, clear=True)
            install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*install, *packages], check=True)
            if without_dependencies:
                subprocess.run([*install, "--no-deps", *without_dependencies], check=True)
            (folder / "ready").touch()
    os.execv(python, [str(python), *sys.argv])
