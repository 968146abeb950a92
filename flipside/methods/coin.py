"""COIN (Shvetsov et al. 2024, arXiv:2404.12832): one pass of the inpainting generator; the change is the map."""

from __future__ import annotations

from typing import Literal

from flipside.methods.base.generator_pass import GeneratorPass
from flipside.methods.base.parameters import MethodParams


class CoinParams(MethodParams):
    """Section `methods.coin`."""

    needs: Literal["models/generators/coin"]
    """Folder of the trained generator."""


class Coin(GeneratorPass):
    """The change that the inpainting generator makes."""

    Params = CoinParams
