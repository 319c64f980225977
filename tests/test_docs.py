"""Every code block of README.md and docs/ runs, and the site of the guides builds without a warning."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest

import tfcompress

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())

NEEDS_TORCH = {"pytorch.md", "pytorch_mobile.md"}


@each_page
def test_every_block_says_what_it_is(path):
    """A block is run, or is there to be read, or says why it is not run."""
    for block in pages.blocks(path.read_text()):
        where = f"{path.name}, line {block.line}"
        assert block.language in pages.RUN | pages.READ_ONLY, f"{where}: ```{block.language} is of no known kind"
        if block.language == "text":
            commands = re.findall(r"^(?:tfcompress \w+ --|python tools/|pip install )", block.code, re.MULTILINE)
            assert not commands, f"{where}: commands belong in ```bash"


@pytest.mark.docs
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@each_page
def test_the_blocks_of_a_page_run(path, tmp_path, monkeypatch):
    found = [b for b in pages.blocks(path.read_text()) if b.language in pages.RUN and b.reason is None]
    if not found:
        return
    if path.name in NEEDS_TORCH:
        pytest.importorskip("litert_torch", reason="the extra [torch] is not installed")
    monkeypatch.chdir(tmp_path)
    page = pages.Page(path, tmp_path)
    for block in found:
        if block.language == "kotlin" and not pages.has_kotlin():
            pytest.skip("no kotlinc on this machine (Debian: kotlin, default-jre-headless)")
        page.run(block)


@pytest.mark.docs
def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra [docs] is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text()
    homes = {**tfcompress._HOMES, **dict.fromkeys(tfcompress._MODULES, "")}
    for name, home in homes.items():
        anchor = ".".join(filter(None, ["tfcompress", home, name]))
        assert f'id="{anchor}"' in reference, f"docs/reference.md does not have {anchor}"
    assert {path.stem for path in PAGES[1:]} <= {path.stem for path in tmp_path.glob("*.html")}


def test_links_of_the_readme_lead_somewhere():
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), f"README.md links {link}"


# The runner itself: it sees what it looks for.

WRONG = {
    "a print that says something else": "```python\nprint(1 + 1)  # 3\n```\n",
    "an exception": "```python\nx = 1 / 0\n```\n",
    "a shell command that fails": "```bash\nfalse\n```\n",
    "a flag that does not exist": "```bash\ntfcompress inspect --modell=x\n```\n",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_block_is_an_error_that_names_its_line(text, tmp_path):
    (block,) = pages.blocks(text)
    with pytest.raises((AssertionError, ZeroDivisionError, subprocess.CalledProcessError)) as caught:
        pages.Page(Path("page.md"), tmp_path).run(block)
    assert caught.value.__notes__ == ["page.md, the block of line 2"]


def test_blocks_are_found_with_their_reasons():
    text = '<!-- before:\nx = 1\n-->\n```python\nprint(x)  # 1\n```\n```bash title="Not run: needs a phone"\nls\n```\n'
    first, second, third = pages.blocks(text)
    assert (first.code, second.line, third.reason) == ("x = 1\n", 5, "needs a phone")
    with pytest.raises(ValueError, match="Not run"):
        pages.blocks("```bash linenums\nls\n```\n")
