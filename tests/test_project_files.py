"""What stands beside the code: versions agree, links and paths lead somewhere, every check has one place for its settings."""

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from test_layering import ON_DEVICE

import tfcompress

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
# In backticks: a path below a folder of ours, perhaps with options behind it, or a file's name alone.
FOLDERS = r"(?:tfcompress|tests|docs|tools|benchmarks|examples|models|calibration_data|\.ci)/[\w./-]*"
PATH = re.compile(rf"`({FOLDERS})(?: -[^`]*)?`|`(\w+\.(?:py|md|toml))`")
each_page = pytest.mark.parametrize("name", PAGES)


def headings(text: str) -> list[str]:
    return re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    unreleased, newest, *_ = headings((ROOT / "CHANGELOG.md").read_text())
    (version,) = re.findall(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert unreleased == "Unreleased"
    assert citation["version"] == newest == version == tfcompress.__version__


def test_the_citation_has_what_its_schema_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert f"license = {citation['license']}\n" in (ROOT / "setup.cfg").read_text()


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    for heading in re.findall(r"^## (.+)$", text, re.MULTILINE):
        assert re.fullmatch(r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_new_names_of_the_changelog_are_there():
    rows = re.findall(r"^ *\| (.+) \| (.+) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    names = {name for _, now in rows for name in re.findall(r"(?:tfc|tfcompress)(?:\.\w+)+", now)}
    assert len(names) > 10
    for name in names:
        assert pkgutil.resolve_name(name.replace("tfc.", "tfcompress.")) is not None


@each_page
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
        target, _, anchor = link.partition("#")
        if re.match(r"https?://", link):
            continue
        assert (ROOT / target).exists(), f"{name} links {link}"
        text = (ROOT / target).read_text() if anchor else ""
        slugs = [
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall("^#+ (.+)$", text, re.MULTILINE)
        ]
        assert not anchor or anchor in slugs, f"{name} links {link}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_files_that_are_named_exist(name):
    paths = [path or alone for path, alone in PATH.findall((ROOT / name).read_text())]
    assert len(paths) > 5
    # A file's name alone is that of one in the package, or at the root.
    assert not [path for path in paths if not (ROOT / path).exists() and not any(ROOT.glob(f"tfcompress/**/{path}"))]


def test_tables_and_types_that_contributing_names_are_in_their_files():
    for line in re.findall(r"^\d\. (.+(?:\n   .+)*)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE):
        for sentence in re.split(r"(?<=\.) (?=`t)", line):
            (file, *_) = [*(path for path, _ in PATH.findall(sentence) if path), ""]
            code = (ROOT / file).read_text() if file.endswith(".py") else None
            for name in re.findall(r"`([A-Z][A-Za-z_]+)`", sentence) if code else ():
                assert re.search(rf"\b{name}\b", code) or name == "Negative", f"{file}: no {name}"


# One place for the settings and versions of the checks.


def lint_commands() -> list[str]:
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return [line.removeprefix("\t@").replace("$(RUN)", ".venv/bin/python") for line in recipe[1].splitlines()]


def test_pre_commit_runs_what_make_lint_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hooks,) = [repository["hooks"] for repository in config["repos"]]
    assert [hook["entry"] for hook in hooks] == lint_commands()
    assert {hook["language"] for hook in hooks} == {"system"}
    assert not any(hook["pass_filenames"] for hook in hooks)


def test_the_checks_are_pinned_and_have_no_settings_besides():
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^ruff==\S+$", pinned, re.MULTILINE) and re.search(r"^mypy==\S+$", pinned, re.MULTILINE)
    assert not any("--" in command.replace("--check", "") for command in lint_commands())
    assert not list(ROOT.glob(".ruff.toml")) and "[tool.ruff" not in (ROOT / "pyproject.toml").read_text()


def test_what_runs_on_a_board_is_checked_for_its_python():
    settings = tomllib.loads((ROOT / "ruff.toml").read_text())
    older = {
        path.relative_to(ROOT / "tfcompress")
        for pattern in settings["per-file-target-version"]
        for one in spread(pattern)
        for path in ROOT.glob(one)
        if path.suffix == ".py"
    }
    on_device = {
        path.relative_to(ROOT / "tfcompress")
        for name in ON_DEVICE
        for place in [ROOT / "tfcompress" / name.replace(".", "/")]
        for path in (place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")])
    }
    assert older == on_device


def spread(pattern: str) -> list[str]:
    """Returns the patterns that one with ``{a,b}`` stands for."""
    start, brace, rest = pattern.partition("{")
    choices, _, end = rest.partition("}")
    return [f"{start}{choice}{end}" for choice in choices.split(",")] if brace else [pattern]


def test_ci_runs_make_lint():
    text = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make lint \|\| lint=failed$", text, re.MULTILINE)
    assert 'echo "make lint: $lint"' in text and "$lint == passed" in text
