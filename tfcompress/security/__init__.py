"""Who made this model, and what may it do to the machine that opens it?

In: a file or a bundle, keys or certificates. Out: a signature, or what one vouches for; what a file would run.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .encryption import decrypt as decrypt
    from .encryption import encrypt as encrypt
    from .encryption import generate_encryption_key as generate_encryption_key
    from .encryption import load_encryption_key as load_encryption_key
    from .keys import generate_keys as generate_keys
    from .required import SignedFile as SignedFile
    from .required import copy_signed as copy_signed
    from .required import read_signed as read_signed
    from .robustness import AdversarialTraining as AdversarialTraining
    from .robustness import AttackOptions as AttackOptions
    from .robustness import Robustness as Robustness
    from .robustness import art_classifier as art_classifier
    from .scanning import Scan as Scan
    from .scanning import scan as scan
    from .signing import Verified as Verified
    from .signing import sign as sign
    from .signing import verify as verify
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "encryption": ["decrypt", "encrypt", "generate_encryption_key", "load_encryption_key"],
            "keys": ["generate_keys"],
            "required": ["SignedFile", "copy_signed", "read_signed"],
            "robustness": ["AdversarialTraining", "AttackOptions", "Robustness", "art_classifier"],
            "scanning": ["Scan", "scan"],
            "signing": ["Verified", "sign", "verify"],
        },
    )
