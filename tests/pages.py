"""The code blocks of a Markdown page, and how each kind runs.

All blocks of a page run in its order in one folder: ``python`` in one namespace, statement by statement, where a
``print`` with a comment behind it must print that comment; ``bash`` in a shell, except the program's own commands, which
run in this process, where TensorFlow is loaded already; ``kotlin`` is compiled and run. ``text``, ``yaml`` and ``mermaid``
are there to be read, and so is ``cpp``, which must say why it is not run. A block whose fence says ``title="Not run: why"``
is left out, and a page may have ``<!-- before: ... -->`` with Python that gives the blocks behind it what they take for
granted.
"""

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
READ_ONLY = {"text", "yaml", "mermaid"}
NEVER_RUN = {"cpp"}  # with a reason only
RUN = {"python", "bash", "kotlin"}
TOOLS = {"tools/convert.py": "convert", "tools/measure.py": "measure", "tools/compare.py": "compare"}
TOOLS |= {"tools/inspect_model.py": "inspect"}
FOLDERS = ("tools", "models", "calibration_data")  # of the project, which blocks may name

_PART = re.compile(
    r"^(?P<fence>```+)(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=fence)[ ]*$|<!-- before:\n(?P<before>.*?)-->",
    re.DOTALL | re.MULTILINE,
)
_REASON = re.compile(r'title="Not run: ([^"]+)"')


class Block(NamedTuple):
    language: str
    code: str
    line: int  # of its first line of code
    reason: str | None  # why it is not run


def blocks(text: str) -> list[Block]:
    """Returns the blocks of a page in their order; what stands in ``<!-- before`` is Python."""
    found = []
    for match in _PART.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match["before"] is not None:
            found.append(Block("python", match["before"], line, None))
            continue
        language, _, options = match["info"].strip().partition(" ")
        reason = _REASON.fullmatch(options.strip())
        if options and reason is None:
            raise ValueError(f'A fence may say title="Not run: why". Received: {options!r} in line {line - 1}.')
        found.append(Block(language, match["code"], line, None if reason is None else reason[1]))
    return found


class Page:
    """Runs the blocks of one page in ``folder``, which gets links to the project's folders that pages name."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.names: dict = {"__name__": "__main__"}
        for name in FOLDERS:
            (folder / name).symlink_to(ROOT / name)

    def run(self, block: Block) -> None:
        """Runs one block; whatever is wrong with it is an error that names page and line."""
        try:
            getattr(self, f"_{block.language}")(block)
        except BaseException as error:
            error.add_note(f"{self.path.name}, the block of line {block.line}")
            raise

    def _python(self, block: Block) -> None:
        lines = block.code.splitlines()
        for statement in ast.parse(block.code).body:
            tree = ast.Module([statement], [])
            ast.increment_lineno(tree, block.line - 1)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, str(self.path), "exec"), self.names)  # noqa: S102 - the page is ours
            last = lines[statement.end_lineno - block.line] if statement.end_lineno else ""
            promised = last[statement.end_col_offset :].strip() if ast.unparse(statement).startswith("print(") else ""
            if promised.startswith("# "):
                said = " ".join(printed.getvalue().split())
                assert said == promised[2:], f"line {statement.lineno} prints {said!r}, the page says {promised[2:]!r}"

    def _bash(self, block: Block) -> None:
        code = re.sub(r"[ ]*\\\n[ ]*", " ", block.code)
        for line in filter(None, map(str.strip, code.splitlines())):
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if words[0] == "tfcompress":
                self._command(words[1], words[2:])
            elif words[0] == "python" and words[1] in TOOLS:
                self._command(TOOLS[words[1]], words[2:])
            else:
                subprocess.run(["bash", "-ec", line], cwd=self.folder, check=True, env=_environment())

    def _command(self, name: str, arguments: list[str]) -> None:
        from tfcompress import cli

        printed, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            code = cli.run(name, arguments, program=f"tfcompress {name}")
        assert code == 0, f"tfcompress {name} {shlex.join(arguments)}: exit {code}: {complained.getvalue()}"
        assert printed.getvalue() or complained.getvalue(), f"tfcompress {name} said nothing"

    def _kotlin(self, block: Block) -> None:
        (self.folder / "Page.kt").write_text(block.code)
        jar = self.folder / "page.jar"
        done = subprocess.run(
            ["kotlinc", "-Werror", self.folder / "Page.kt", "-include-runtime", "-d", jar],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        done = subprocess.run(["java", "-jar", jar], capture_output=True, text=True, check=True)
        promised = [
            line.partition("// ")[2] for line in block.code.splitlines() if "println(" in line and "// " in line
        ]
        assert done.stdout.splitlines() == promised


def _environment() -> dict[str, str]:
    """Returns an environment in which ``python`` is this interpreter and finds this package."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def has_kotlin() -> bool:
    """Returns whether Kotlin can be compiled and run here."""
    return bool(shutil.which("kotlinc") and shutil.which("java"))
