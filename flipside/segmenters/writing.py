"""What a stage leaves of a segmenter: the model, its learning curves and its time."""

from __future__ import annotations

from typing import Any

from torch import nn

from flipside.core import paths
from flipside.core.checkpoint import save_model
from flipside.core.files import atomic_folder, write_json
from flipside.core.history import write_history
from flipside.core.params import Params
from flipside.core.runtime import Runtime
from flipside.generators.base.state import Trained


def write_segmenter(name: str, networks: nn.ModuleDict, architecture: dict[str, Any], trained: Trained,
                    parameters: dict[str, Params], about: dict[str, Any], runtime: Runtime) -> None:
    """`models/segmenters/<name>` and `reports/training/<name>_segmenter`.

    networks: as `build_segmenter` makes them of `architecture`; about: what `model.json` records besides.
    """
    described = {section: params.model_dump(mode="json") for section, params in parameters.items()}
    with atomic_folder(paths.training_report(f"{name}_segmenter")) as report:
        write_history(report, trained.history, step="step")
        write_json(report / "parameters.json", described)
        write_json(report / "timing.json", {
            "seconds": trained.seconds, "steps": trained.history[-1]["step"] if trained.history else 0,
            "device": runtime.describe()})
    save_model(paths.segmenter(name), networks, {
        "architecture": architecture, "parameters": described, **about,
        "final": trained.history[-1] if trained.history else {}})
    print(f"{name}: segmenter trained in {trained.seconds:.0f} s; {runtime.describe()}, "
          f"{runtime.describe_peak_memory()}")
