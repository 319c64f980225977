"""From text to the ids that a text model takes, by a rule that is short enough to be written again in another language.

A tokenizer is its vocabulary, a text file of one token per line beside the model, and the rule below; ``bundle`` writes
both as Python and as Kotlin. It knows English and the signs of Latin-1; it neither learns sub-words nor normalises Unicode.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..errors import DataError
from ..system import write_atomically

__all__ = ["Tokenizer", "Unit"]

Unit = Literal["word", "character"]
PADDING, UNKNOWN = 0, 1
RESERVED = ("<end>", "<unknown>")  # longer than one sign and no letters: no token of a text reads like them
# ASCII and Latin-1 without their control signs; a blank is a token of characters only.
_WORDS = re.compile(r"[a-z']+|[0-9]+|[\x21-\x7e\xa1-\xff]")
_CHARACTERS = re.compile(r"[\x20-\x7e\xa1-\xff]")
_CAPITALS = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})


@dataclass(frozen=True)
class Tokenizer:
    """Splits text and numbers its parts: call it with texts.

    Words: A to Z become a to z; a token is a run of letters a to z and apostrophes, a run of digits 0 to 9, or one other
    sign of U+0021 to U+007E or U+00A1 to U+00FF; a run of digits counts as so many zeros, up to 12. Characters: each sign of
    U+0020 to U+007E or U+00A1 to U+00FF as it is. Everything else only separates. The id of a token is its line in the
    vocabulary, from 0; 1 for a token that is not there. Ids behind ``length`` are cut off, and 0 fills up what is missing.

    Args:
        vocabulary: "<end>", "<unknown>" and the tokens, in order of their ids.
        length: ids of a text. Default: 64.
        unit: "word" or "character". Default: "word".

    Raises:
        ValueError: an unknown unit, no length, or a vocabulary that does not start with the reserved lines or repeats
            itself.

    Examples:
        >>> tokenizer = Tokenizer.learned_from(["Call 0800 now!", "call me now"], size=6, length=6)
        >>> tokenizer.vocabulary
        ('<end>', '<unknown>', 'call', 'now', '!', '0000')
        >>> tokenizer(["CALL 1234 please"])
        array([[2, 5, 1, 0, 0, 0]], dtype=int32)
    """

    vocabulary: tuple[str, ...]
    length: int = 64
    unit: Unit = "word"

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}. Received: unit={self.unit!r}.")
        if self.length < 1:
            raise ValueError(f"length must be above 0. Received: length={self.length}.")
        if self.vocabulary[: len(RESERVED)] != RESERVED or len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError(
                f"A vocabulary is {', '.join(RESERVED)} and tokens, each once. Received: {len(self.vocabulary)} lines, first "
                f"{self.vocabulary[:2]}."
            )

    def __repr__(self) -> str:
        return f"Tokenizer({len(self.vocabulary)} {self.unit} tokens, length {self.length})"

    @classmethod
    def learned_from(cls, texts: Iterable[str], *, size: int, length: int = 64, unit: Unit = "word") -> "Tokenizer":
        """Returns a tokenizer of the most frequent tokens; those as frequent come in the order of their signs.

        Args:
            texts: what the model learns from.
            size: lines of the vocabulary, at most.
            length: ids of a text. Default: 64.
            unit: "word" or "character". Default: "word".
        """
        empty = cls(RESERVED, length, unit)
        counts = Counter(token for text in texts for token in empty.split(text))
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        return cls((*RESERVED, *ranked[: max(0, size - len(RESERVED))]), length, unit)

    def split(self, text: str) -> list[str]:
        """Returns the tokens of a text.

        Examples:
            >>> Tokenizer(RESERVED).split("Don't pay £25!")
            ["don't", 'pay', '£', '00', '!']
        """
        if self.unit == "character":
            return _CHARACTERS.findall(text)
        tokens = _WORDS.findall(text.translate(_CAPITALS))
        return ["0" * min(len(token), 12) if token[0] in "0123456789" else token for token in tokens]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the ids of texts, (n, length) int32."""
        ids = np.full((len(texts), self.length), PADDING, np.int32)
        for row, text in zip(ids, texts, strict=True):
            found = [self._ids.get(token, UNKNOWN) for token in self.split(text)[: self.length]]
            row[: len(found)] = found
        return ids

    def text(self, ids: Iterable[int]) -> str:
        """Returns the tokens of ids up to the first 0, words with blanks between them.

        Examples:
            >>> Tokenizer((*RESERVED, "a", "b"), unit="character").text([2, 3, 0, 2])
            'ab'
        """
        tokens = []
        for number in ids:
            if number == PADDING:
                break
            tokens.append(self.vocabulary[number])
        return ("" if self.unit == "character" else " ").join(tokens)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes the vocabulary, one token per line in UTF-8, each line ended by a line feed.

        Raises:
            OutputError: the file exists or cannot be written.
        """
        return write_atomically(path, self.vocabulary_text(), overwrite=overwrite)

    def vocabulary_text(self) -> str:
        """Returns what ``save`` writes."""
        return "".join(f"{token}\n" for token in self.vocabulary)

    @classmethod
    def load(cls, path: str | os.PathLike, *, length: int = 64, unit: Unit = "word") -> "Tokenizer":
        """Returns the tokenizer of a vocabulary that ``save`` wrote.

        Raises:
            DataError: the file cannot be read, or is no vocabulary.

        Examples:
            >>> import tempfile
            >>> first = Tokenizer.learned_from(["to be or not to be"], size=4)
            >>> Tokenizer.load(first.save(Path(tempfile.mkdtemp()) / "vocabulary.txt")) == first
            True
        """
        try:
            lines = Path(path).read_bytes().decode("utf-8").split("\n")
            return cls(tuple(lines[:-1]), length, unit)
        except OSError as error:
            raise DataError(f"The vocabulary must be readable. Received: {path} ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise DataError(f"The vocabulary must be UTF-8. Received: {path} ({error.reason}).") from error
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
