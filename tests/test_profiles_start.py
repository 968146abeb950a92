"""Every profile's networks at their real sizes: two steps of every training and one batch of every explanation.

The stages' own mains run with a profile's parameters, but for steps, batches and numbers of slices. What two profiles
have in common runs once. Profiles of larger images than the default's take up to many minutes and gigabytes each:
`make profiles-start` runs them too.
"""

import functools
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import write_truth
from flipside.classifiers.networks.backbones import load_classifier, predict_logits
from flipside.cli import demo
from flipside.cli.profile import read_profile
from flipside.core import paths
from flipside.core.checkpoint import check_weights
from flipside.core.files import content_digest
from flipside.core.image_size import image_shape
from flipside.core.params import value_at
from flipside.core.runtime import Runtime, RuntimeParams
from flipside.core.store import INDEX_COLUMNS, SliceStore, write_store
from flipside.published.ablations import edited
from tests.parameters import ROOT, project_parameters, write_parameters
from tests.test_dvc_yaml import base, resolved_stages
from tests.test_dvc_yaml import paths as names_of

PROFILES = sorted(file.stem for file in (ROOT / "profiles").glob("*.yaml"))
STARTED = ("cut_patches", "train_classifier", "train_generator", "train_encoder", "train_segmenter",
           "train_supervised", "invert", "find_attributes", "explain")
LARGE_SIDE = 256  # from here on only shapes are tested where nobody asks for more: tests/test_large_profiles.py
DEFAULT_SIDE = 64
ASKED_FOR = bool(os.environ.get("FLIPSIDE_LARGE_PROFILES"))
ONE_MEANING = 0.005  # `lesion_fraction` scales weights of losses, so that it would tell equal networks apart
# Steps, batches and counts of slices, at most; all else is the profile's. 0 stays 0. Every second step is one of those
# that come seldom: the generator's, those with a penalty, those on sampled images.
CUT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "steps": 2, "fine_tuning_steps": 2, "first_steps": 2,
       "images": 2, "masks": 4, "per_slice": 2, "slices": 1, "draws": 1, "halve_every": 1, "generator_every": 2,
       "r1_every": 2, "path_length_every": 2, "sampled_every": 2}
# Blocks of a pipeline that go by other sizes than squares; their sentence says what to do.
REFUSED = {"ddsm_masses": ("blobgan", "stylegan", "octet", "tace", "stylex")}
# What stops an untrained network's image: the bounds that a mask or a search has to pass.
UNTRAINED = {"methods.impact.least_logit": -1e6}


def cut(node: Any) -> Any:
    """Parameters with fewer steps, smaller batches and fewer slices."""
    if not isinstance(node, dict):
        return node
    return {key: min(value, CUT[key]) if key in CUT and isinstance(value, int) else cut(value)
            for key, value in node.items()}


@functools.cache
def own_parameters() -> dict[str, Any]:
    return project_parameters()


@functools.cache
def parameters(profile: str) -> dict[str, Any]:
    """A profile's parameters, cut."""
    values = own_parameters()
    params = edited({key: value for key, value in values.items() if key != "datasets"}, read_profile(profile))
    for section in ("mass_patches", "classifiers", "generators", "segmenter", "encoders", "inversions", "attributes",
                    "explain", "methods", "sanity"):
        params[section] = cut(params[section])
    for block in params["classifiers"].values():  # 0: as many as the training split fills
        block["steps_per_epoch"] = block["steps_per_epoch"] or 2
    params = edited(params, UNTRAINED)
    params["explain"]["splits"] = ["test"]
    params["pseudo_masks"]["verify"] = False  # an untrained classifier is never sure
    params |= {"lesion_fraction": ONE_MEANING, "seed": 1,
               "runtime": {"device": "cpu", "precision": "float32", "threads": 1 if not ASKED_FOR else 0}}
    if profile == "demo":
        params["methods"] = {name: params["methods"][name] for name in demo.METHODS}
        params["generators"] = {name: params["generators"][name] for name in demo.GENERATORS}
        params |= {"encoders": {}, "inversions": {}, "attributes": {}}
    return params | {"datasets": values["datasets"]}


def channels_of(params: dict[str, Any]) -> int:
    """Channels of the slices of a profile's data set."""
    image = params["datasets"][params["dataset"]].get("image")
    return len(image) if isinstance(image, dict) else 1


def write_slices(root: Path, params: dict[str, Any]) -> None:
    """Noise with a bright square in every second slice, its label and its lesion mask."""
    height, width = image_shape(params["image_size"])
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    count, channels = len(splits), channels_of(params)
    generator = np.random.default_rng(0)
    images = generator.uniform(-0.6, -0.2, (count, channels, height, width)).astype(np.float16)
    lesion = np.zeros((count, height, width), np.uint8)
    lesion[::2, height // 4 : height // 2, width // 4 : width // 2] = 1
    images += lesion[:, None].astype(np.float16)
    index = pd.DataFrame({
        "slice_id": [f"scan{n}:0" for n in range(count)], "source_slice_id": [f"scan{n}:0" for n in range(count)],
        "draw": 0, "scan_id": [f"scan{n}" for n in range(count)], "patient_id": [str(n) for n in range(count)], "z": 0,
        "relative_height": 0.5, "spacing_row_mm": 1.0, "spacing_col_mm": 1.0, "spacing_z_mm": 1.0,
        "native_rows": height, "native_cols": width, "label": (np.arange(count) + 1) % 2, "split": splits,
        "organ_px": height * width, "source_file": "x.nii.gz"})
    write_store(root / paths.SLICES, images[:, 0] if channels == 1 else images, np.ones_like(lesion),
                index[INDEX_COLUMNS])
    write_truth(root / paths.TRUTH, lesion)


def even_out(classifier: Path) -> None:
    """Shift an untrained classifier's bias so that it calls one of the two test slices abnormal."""
    store = SliceStore.open(paths.SLICES)
    runtime = Runtime(RuntimeParams(device="cpu", precision="float32", threads=1))
    logits = predict_logits(load_classifier(classifier, runtime, store.channels), store.images[store.rows("test")],
                            runtime)
    assert logits.isfinite().all()
    weights = load_file(classifier / "model.safetensors")
    save_file(weights | {"linear.bias": weights["linear.bias"] - logits.mean()}, classifier / "model.safetensors")


class Started:
    """Stages that ran once, by all that they depend on, and the folders of what they wrote."""

    def __init__(self, root: Path):
        self.root = root
        self.done: dict[str, Path] = {}

    def run(self, profile: str) -> list[str]:
        """Start a profile's stages in a project of its own; what another profile has started is linked. Gives the
        names of those that refused."""
        params, project = parameters(profile), self.root / profile
        project.mkdir()
        write_parameters(project, params)
        write_slices(project, params)
        os.chdir(project)
        made = {name: f"slices {image_shape(params['image_size'])} {channels_of(params)}"
                for name in (paths.SLICES, paths.TRUTH)}
        refused = []
        for name, stage in resolved_stages(params).items():
            if base(name) not in STARTED:
                continue
            if name.partition("@")[2] in REFUSED.get(profile, ()):
                with pytest.raises(ValueError, match=r"pixels|not found"):
                    call(stage["cmd"])
                refused.append(name)
                continue
            needs = [params["methods"][name.partition("@")[2]]["needs"]] if base(name) == "explain" else []
            # In the suite a stage runs once for equal parameters of its own, whatever the models that it is given.
            rests_on = [image_shape(params["image_size"]), channels_of(params)] if not ASKED_FOR else [
                made[path] for path in sorted({*names_of(stage["deps"]), *needs}) if path in made]
            own = {key: value_at(params, key) for key in names_of(stage["params"]) if key != "lesion_fraction"}
            signature = content_digest([stage["cmd"], own, rests_on])
            outputs = [Path(path) for path in names_of(stage["outs"])]
            if signature in self.done:
                for path in outputs:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(self.done[signature] / path)
            else:
                call(stage["cmd"])
                if base(name) == "train_classifier":
                    even_out(outputs[0])
                check(name, outputs)
                self.done[signature] = project
            made |= {str(path): signature for path in outputs}
        return refused


def call(command: str) -> None:
    """A stage's main, with the arguments of its command line."""
    module, *arguments = command.split()[2:]
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()


def check(name: str, outputs: list[Path]) -> None:
    """Models have weights that are numbers, explanations maps that are."""
    assert all(path.exists() for path in outputs)
    for path in outputs:
        if (path / "model.safetensors").is_file():
            check_weights(load_file(path / "model.safetensors"), name)
    if base(name) == "explain":
        maps = Explanations.open(outputs[0]).attribution
        assert maps.shape[0] == 2 and np.isfinite(maps).all(), name
        json.loads((outputs[0] / "timing.json").read_text())


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    return Started(tmp_path_factory.mktemp("profiles"))


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """Torch hub's cache with untrained weights under the names of the published ones, for the profiles that ask."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "hub-of-profiles"))
    return lambda params: write_untrained(params)


def write_untrained(params: dict[str, Any]) -> None:
    import torchvision

    wanted = {block["architecture"] for block in params["classifiers"].values() if block["pretrained"]}
    wanted |= {block["perceptual_features"] for block in params["generators"].values()
               if block.get("perceptual_features", "none") != "none"}
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for architecture in wanted:
        file = folder / Path(torchvision.models.get_model_weights(architecture).DEFAULT.url).name
        if not file.exists():
            torch.save(torchvision.models.get_model(architecture, weights=None).state_dict(), file)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_training_and_every_explanation_starts(profile, started, hub, monkeypatch):
    monkeypatch.chdir(ROOT)
    params = parameters(profile)
    if max(image_shape(params["image_size"])) > DEFAULT_SIDE and not ASKED_FOR:
        pytest.skip(f"images of {params['image_size']} pixels take minutes, with the published widths gigabytes too: "
                    "`make profiles-start` (FLIPSIDE_LARGE_PROFILES=1) runs them")
    if profile == "smoke" and not ASKED_FOR:
        pytest.skip("tests/test_pipeline.py runs this profile whole")
    monkeypatch.setattr(sys, "argv", sys.argv)
    hub(params)
    refused = started.run(profile)
    assert {name.partition("@")[2] for name in refused} == set(REFUSED.get(profile, ()))
