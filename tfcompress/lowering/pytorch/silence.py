"""How PyTorch and its converter are kept from writing to the terminal: by their own settings, so that nothing else goes unheard."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

from ...system import converter_silenced
from ...system.quiet import Counted

__all__ = ["quietly"]

LOGGERS = ("torch", "torch.utils._pytree", "torchao")


class QuietExport(Counted):
    """litert-torch's progress lines, which a variable of the environment turns off, and the warnings of PyTorch's loggers."""

    variable = "LITERT_TORCH_SHOW_PROGRESS"

    def __init__(self) -> None:
        super().__init__()
        self.before: str | None = None
        self.levels: dict[str, int] = {}

    def change(self) -> None:
        """Turns them off."""
        self.before = os.environ.get(self.variable)
        os.environ[self.variable] = "n"
        for name in LOGGERS:
            self.levels[name] = logging.getLogger(name).level
            logging.getLogger(name).setLevel(logging.ERROR)

    def restore(self) -> None:
        """Puts both settings back."""
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        if self.before is None:
            os.environ.pop(self.variable, None)
        else:
            os.environ[self.variable] = self.before


EXPORT = QuietExport()


@contextlib.contextmanager
def quietly(*, debug: bool = False) -> Iterator[None]:
    """Runs the body without the log lines and warnings of PyTorch and litert-torch, which address their own authors."""
    export = contextlib.nullcontext() if debug else EXPORT
    with converter_silenced(debug=debug), export, warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        yield
