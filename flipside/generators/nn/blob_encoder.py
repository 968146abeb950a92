"""The encoder of a blob generator: images -> h."""

from __future__ import annotations

from typing import Any

from flipside.generators.nn.stylegan_layers import ResidualTrunk


def build_encoder(architecture: dict[str, Any]) -> ResidualTrunk:
    """The encoder that fits a generator, from what the generator's `model.json` keeps as its architecture."""
    side = architecture["size_in"] * 2 ** (len(architecture["channels"]) - 1)
    return ResidualTrunk(side, architecture["encoder_channels"], architecture["layout_width"], False,
                         architecture.get("image_channels", 1))  # absent: from before there were several
