"""What a type checker says about calls of the package: right ones pass, wrong ones are refused in their line."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_calls(calls: str, folder: Path) -> None:
    """Asserts that mypy says what stands in the comment at the end of a line, and nothing about lines without one.

    Args:
        calls: a program, one call a line.
        folder: where it may be written.
    """
    (folder / "calls.py").write_text(calls)
    command = [sys.executable, "-m", "mypy", "--config-file=setup.cfg", "--follow-imports=silent"]
    done = subprocess.run([*command, folder / "calls.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    said = re.findall(r"calls\.py:(\d+): (?:error: |note: (?=Revealed))(.*)", done.stdout)
    found = {int(number): text for number, text in said}
    lines = enumerate(calls.splitlines(), start=1)
    wanted = {number: line.partition("  # ")[2] for number, line in lines if "  # " in line}
    assert list(found) == list(wanted), done.stdout
    for number, text in wanted.items():
        assert text in found[number], done.stdout
