"""Which error a caller gets when the world, rather than an argument, is wrong.

Wrong arguments raise ``ValueError`` or ``TypeError``. Everything else that can go wrong on a user's machine raises one
of these, so that ``except TfcompressError`` is all a script needs and the command line prints one line:

    TfcompressError
     |- ModelError         a model file is missing, unreadable, corrupt or unsafe
     |- DataError          representative or labelled data is missing, malformed or does not fit the model
     |- TrainingError      a callback cannot work with this model or this backend
     |- SandboxError       the wall around a child process cannot be built, or what came out of it is no answer
     |- SignatureError     a model is not what its maker signed, or nobody who is trusted signed it
     |- ConversionError    a sound model cannot become the file that was asked for
     |   `- StrictError    the file would hold tensors that its target does not allow
     |- DeviceError        the interpreter or a device could not run the file
     `- OutputError        a result cannot be written where it was asked for

Every message says the rule, what was received and what to do, in one line. This module does not print anything.
"""

__all__ = [
    "ConversionError",
    "DataError",
    "DeviceError",
    "ModelError",
    "OutputError",
    "SandboxError",
    "SignatureError",
    "StrictError",
    "TfcompressError",
    "TrainingError",
]


class TfcompressError(Exception):
    """The parent of every error that this package raises about files, data, models and devices.

    Examples:
        >>> issubclass(ModelError, TfcompressError)
        True
    """


class ModelError(TfcompressError):
    """A model file is missing, not a model, corrupt, or asks for code that may not be run."""


class DataError(TfcompressError):
    """Representative or labelled data is missing, malformed, not finite or of another shape than the model's."""


class TrainingError(TfcompressError):
    """A training callback cannot work with this model, backend or state."""


class ConversionError(TfcompressError):
    """A sound model cannot become the file that was asked for."""


class StrictError(ConversionError):
    """The finished file holds float tensors although its target is integer only."""


class DeviceError(TfcompressError):
    """The interpreter, or the device it runs on, could not run the file."""


class OutputError(TfcompressError):
    """A result cannot be written where it was asked for."""


class SandboxError(TfcompressError):
    """The wall around a child process cannot be built as it was asked for, or what came out of it is no answer."""


class SignatureError(TfcompressError):
    """A model is not what its maker signed, or nobody who is trusted signed it."""


def reason(error: BaseException) -> str:
    """Returns the first line of another library's message, without its closing full stop, or its type's name.

    Examples:
        >>> reason(ValueError("No data left.\\nSee above."))
        'No data left'
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__
