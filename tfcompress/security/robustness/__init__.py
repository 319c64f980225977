"""How do files answer under attack and in bad weather, and what can be done about it?

In: ``.tflite`` files, labelled samples, the Keras model whose gradients attacks follow. Out: a ``Robustness``: accuracy with
intervals, calibration, suspicious classes. And a callback that trains against such attacks.
"""

from typing import TYPE_CHECKING

from ...system.lazy import lazy_exports

if TYPE_CHECKING:
    from .adversarial_training import AdversarialTraining as AdversarialTraining
    from .art_estimator import art_classifier as art_classifier
    from .assessment import robustness as robustness
    from .class_disagreement import Disagreement as Disagreement
    from .class_disagreement import disagreement as disagreement
    from .corruptions import CORRUPTIONS as CORRUPTIONS
    from .corruptions import corrupt as corrupt
    from .gradient_attacks import fgsm as fgsm
    from .gradient_attacks import gradients_of as gradients_of
    from .gradient_attacks import pgd as pgd
    from .pixel_range import PixelRange as PixelRange
    from .result import AttackOptions as AttackOptions
    from .result import FileRobustness as FileRobustness
    from .result import Robustness as Robustness
    from .result import Share as Share
    from .square_attack import square as square
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "adversarial_training": ["AdversarialTraining"],
            "art_estimator": ["art_classifier"],
            "assessment": ["robustness"],
            "corruptions": ["CORRUPTIONS", "corrupt"],
            "class_disagreement": ["Disagreement", "disagreement"],
            "gradient_attacks": ["fgsm", "gradients_of", "pgd"],
            "pixel_range": ["PixelRange"],
            "result": ["AttackOptions", "FileRobustness", "Robustness", "Share"],
            "square_attack": ["square"],
        },
    )
