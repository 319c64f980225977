"""Every code block of README.md and docs/ runs, and the site of the guides builds without a warning."""

import ast
import importlib.util
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pages
import pytest

import tfcompress
from tfcompress.bundling.op_resolver import resolver_code
from tfcompress.data.digits import load_digits
from tfcompress.quantization.precision import read_rules

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())

NEEDS = {
    "pytorch.md": {"litert_torch": "torch"},
    "pytorch_mobile.md": {"litert_torch": "torch"},
    "microcontrollers.md": {"tflite_micro": "tflm", "ethosu": "ethos-u"},
}
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# What only a program has: such lines belong in a block of their language, run or with a reason.
CODE = re.compile(
    r"^\s*(?:#include|import \w|from \S+ import |for .+ in .+:|def \w+\(|class \w+.*:|.*;$)", re.MULTILINE
)


@each_page
def test_every_block_says_what_it_is(path, tmp_path):
    """A block is run, or is there to be read, or says why it is not run; the guides' YAML is lists of rules."""
    for block in pages.blocks(path.read_text()):
        where = f"{path.name}, line {block.line}"
        known = pages.RUN | pages.READ_ONLY | pages.NEVER_RUN
        assert block.language in known, f"{where}: ```{block.language} is of no known kind"
        assert block.reason or block.language not in pages.NEVER_RUN, f"{where}: say why it is not run"
        if block.language == "text":
            commands = re.findall(r"^(?:tfcompress \w+ --|python tools/|pip install )", block.code, re.MULTILINE)
            assert not commands, f"{where}: commands belong in ```bash"
            code = CODE.search(block.code)
            assert not code, f"{where}: {code[0]!r} belongs in a block of its language"
        if block.language == "yaml":
            rules = tmp_path / "rules.yaml"
            rules.write_text(block.code)
            assert read_rules(rules), f"{where}: no rules"


@pytest.mark.docs
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@each_page
def test_the_blocks_of_a_page_run(path, tmp_path, monkeypatch):
    found = [b for b in pages.blocks(path.read_text()) if b.language in pages.RUN and b.reason is None]
    if not found:
        return
    for module, extra in NEEDS.get(path.name, {}).items():
        pytest.importorskip(module, reason=f"the extra [{extra}] is not installed")
    monkeypatch.chdir(tmp_path)
    page = pages.Page(path, tmp_path)
    for block in found:
        if block.language == "kotlin" and not pages.has_kotlin():
            pytest.skip("no kotlinc on this machine (Debian: kotlin, default-jre-headless)")
        page.run(block)


@pytest.mark.docs
def test_the_program_for_a_microcontroller_is_that_of_the_pages_own_file():
    """Its C++ registers the operators of the file, and its arena is what a block of the page prints, and a tenth more."""
    page = (ROOT / "docs" / "microcontrollers.md").read_text()
    (program,) = (block.code for block in pages.blocks(page) if block.language == "cpp")
    samples = load_digits().x_train[:100]
    model = ROOT / "models" / "digits" / "digits.keras"
    recalibrated = tfcompress.CalibrationOptions(ranges="calibrated")
    result = tfcompress.convert(model, target="micro", representative_data=samples, calibration=recalibrated)
    registered = [line.strip() for line in program.splitlines() if "esolver" in line and line.endswith(";")]
    assert registered[:-1] == resolver_code(result.ops).splitlines()
    (measured,) = re.findall(r'estimates\["arena bytes"\]\)  # (\d+)', page)
    (kilobytes, named) = re.findall(r"arena\[(\d+) \* 1024\];  // what tflm measured, (\d+)", program)[0]
    assert named == measured
    assert 1.1 * int(measured) <= int(kilobytes) * 1024 <= 1.2 * int(measured)


@pytest.mark.docs
def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra [docs] is not installed")
    done = _built("--site-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text()
    assert "<blockquote>" not in reference, "an example was read as prose"
    assert reference.count('<span class="gp">&gt;&gt;&gt; </span>') == reference.count("&gt;&gt;&gt; ") > 100
    public = dict.fromkeys((f"tfcompress.{name}" for name in tfcompress.__all__ if name != "__version__"), "tfcompress")
    for name, where in sorted({**_imported(), **public}.items()):
        # Of a module, something in it.
        known = any(f'id="{place}"' in reference or f'id="{place}.' in reference for place in _places(name))
        assert known, f"docs/reference.md does not have {name}, which {where} has"
    assert {path.stem for path in PAGES[1:]} <= {path.stem for path in tmp_path.glob("*.html")}


@pytest.mark.docs
def test_the_reference_results_are_those_of_the_record(monkeypatch):
    """``python benchmarks/reference_tables.py`` would change nothing."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    tables, subjects = importlib.import_module("reference_tables"), importlib.import_module("reference").SUBJECTS
    record = tables.load()
    assert len(record) >= 9 and list(record) == [name for name in subjects if name in record]
    assert tables.PAGE.read_text() == tables.page(record, list(subjects))
    readme = tables.README.read_text()
    assert readme == tables.with_overview(readme, record)


@pytest.mark.docs
def test_a_dead_link_fails_the_build_of_the_site(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra [docs] is not installed")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[a link](nowhere.md)\n")
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\nnav: [index.md]\nplugins: [search]\nhooks: []\n"
    )
    done = _built("--config-file", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr


def _built(*options: object) -> subprocess.CompletedProcess:
    # Not with --quiet: that silences warnings before they are counted.
    command = [sys.executable, "-m", "mkdocs", "build", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _imported() -> dict[str, str]:
    """Returns what blocks import from this package and what prose names, ``tfcompress.module.name``, with a page of each."""
    found = {}
    for path in PAGES:
        text = path.read_text()
        for block in pages.blocks(text):
            if block.language != "python":
                continue
            for node in ast.walk(ast.parse(block.code)):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "tfcompress":
                    found |= {f"{node.module}.{alias.name}": path.name for alias in node.names}
        found |= dict.fromkeys(re.findall(r"`(tfcompress(?:\.\w+)+)", text), path.name)
    return found


def _places(name: str) -> set[str]:
    """Returns the dotted names of a public object: in the module that it is read from, and where it is defined."""
    home, _, last = name.rpartition(".")
    value, module = pkgutil.resolve_name(name), pkgutil.resolve_name(home)
    if isinstance(value, types.ModuleType):
        return {value.__name__}
    ours = [each for each in sys.modules if each.startswith("tfcompress.")]
    defined = {
        getattr(value, "__module__", ""),
        *(each for each in ours if last in getattr(sys.modules[each], "__all__", ())),
    }
    return {f"{each}.{last}" for each in {module.__name__, *defined}}


def _anchors(text: str) -> set[str]:
    """Returns the anchors of a page's headings as MkDocs and GitHub make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@each_page
def test_internal_links_lead_somewhere(path):
    text = FENCED.sub("", path.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name} links {link}"
        assert not anchor or anchor in _anchors(target.read_text()), (
            f"{path.name} links {link}, which has no such heading"
        )


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
