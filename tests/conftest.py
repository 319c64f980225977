"""What all tests share: the environment before TensorFlow starts, and the real data outside the project.

``shared_root`` and ``shared_data`` lead to models and data that are not part of the project. A test that asks for one of
them gets the marker ``shared`` and is skipped where they are absent; where they are present, a skipped one of these tests
fails the run. A run that notes what passed (``--passed``) may skip those whose extra is not installed: the run of the rest
(``--without``) has every extra and takes them over.
"""

import gc
import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest
from devicelab import adb, adb_server, boards, lab, phone, spare_board  # noqa: F401 - fixtures

os.environ.pop("TF_USE_LEGACY_KERAS", None)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

# Modules that only tests of PyTorch models import; doctest would look into it.
collect_ignore = [] if importlib.util.find_spec("torch") else ["torch_models.py"]

SHARED_FIXTURES = {"shared_root", "shared_data"}


def find_shared() -> Path | None:
    """Returns the folder of shared data, None where it is absent."""
    named = os.environ.get("TFCOMPRESS_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared"
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def shared_root() -> Path:
    folder = find_shared()
    if folder is None:
        named = os.environ.get("TFCOMPRESS_SHARED")
        place = f"TFCOMPRESS_SHARED={named}" if named else "../shared"
        pytest.skip(f"shared data absent: no folder data in {place}")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared_root: Path) -> Path:
    return shared_root / "data"


@pytest.fixture
def toolkit_schedules(monkeypatch):
    """TFMOT's own schedules; its import asks for Keras 2 in the environment, which is undone."""
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    return pytest.importorskip("tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule")


def pytest_addoption(parser):
    parser.addoption("--passed", type=Path, help="write the names of the tests that passed to this file")
    parser.addoption("--without", type=Path, help="leave out the tests that this file names")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if SHARED_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("shared")
        # An address differs from process to process, and the workers of one run must agree on names.
        assert " at 0x" not in item.nodeid, f"{item.nodeid}: name this case with ids="
    if config.option.without is not None:
        names = set(config.option.without.read_text().splitlines())
        left_out = [item for item in items if item.nodeid in names]
        items[:] = [item for item in items if item.nodeid not in names]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish(session):
    # TensorFlow's and Keras's own objects live as long as the process, and traces make many short-lived ones: looking
    # through all of them every 700 new ones is a tenth of the tests' processor time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _skipped(reporter) -> list:
    return reporter.stats.get("skipped", [])


def _reason(report) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _is_left_to_the_rest(config, report) -> bool:
    return config.option.passed is not None and _reason(report).startswith("the extra [")


def _forbidden_skips(config) -> list[str]:
    """Returns the tests that had their shared data and were skipped all the same."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or find_shared() is None:
        return []
    shared = [report for report in _skipped(reporter) if "shared" in getattr(report, "keywords", ())]
    return sorted({report.nodeid for report in shared if not _is_left_to_the_rest(config, report)})


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    # Workers of pytest-xdist hand their reports to the controller, which alone sees them all.
    is_worker = hasattr(session.config, "workerinput")
    if is_worker:
        return
    if exitstatus == pytest.ExitCode.OK and _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.config.option.passed is not None:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        passed = {report.nodeid for report in reporter.stats.get("passed", []) if report.when == "call"}
        session.config.option.passed.write_text("\n".join(sorted(passed)))


def pytest_terminal_summary(terminalreporter, config):
    reasons = Counter(_reason(report) for report in _skipped(terminalreporter))
    if reasons:
        terminalreporter.section("skipped tests by reason")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} skipped: {reason}")
    for nodeid in _forbidden_skips(config):
        terminalreporter.line(f"FAILED {nodeid}: skipped although the shared data is present", red=True)
