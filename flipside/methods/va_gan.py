"""VA-GAN (Baumgartner et al. 2018, arXiv:1711.08998): the change that makes an image pass for healthy is the map."""

from __future__ import annotations

from typing import Literal

from flipside.methods.base.generator_pass import GeneratorPass
from flipside.methods.base.parameters import MethodParams


class VaGanParams(MethodParams):
    """Section `methods.va_gan`."""

    needs: Literal["models/generators/va_gan"]
    """Folder of the trained generator."""


class VaGan(GeneratorPass):
    """The change that makes an image pass for healthy."""

    Params = VaGanParams
    # Trained on labels alone: its maps show what separates the classes and say nothing about any classifier. The
    # randomisation check reveals that.
    explains_any_classifier = True
