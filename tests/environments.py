"""Programs that judge ours and bring other versions of packages along: each in an environment of its own below ~/.cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def python_with(name: str, pins: Path) -> Path:
    """Returns the Python of an environment that holds what a file pins; made once, skipped where it cannot be.

    TFCOMPRESS_NAME in the environment names another Python instead.
    """
    named = os.environ.get(f"TFCOMPRESS_{name.upper()}")
    if named:
        return Path(named)
    mark = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path.home() / ".cache" / "tfcompress"
    folder = cache / f"{name}-{mark}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may ask at once
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            done = subprocess.run([*install, "--retries=1", "-r", pins], capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
            (folder / "complete").touch()
    return folder / "bin" / "python"
