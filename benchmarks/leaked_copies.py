"""What copies that stand in a data set's training and in its test part do to a classifier's accuracy.

`make leaked-copies` or `python -m benchmarks.leaked_copies`, in a folder where `dvc repro` has run on a data set with a
test part of its own (profile `brain_mri`). Three classifiers with the settings of `classifiers.classifier` and the same
seed are trained apart from the pipeline, without its augmented copies: one on the training part as it was published,
one on as few images of it as the duplicate guard leaves, drawn at random, and one on those that the guard leaves.
"""

from __future__ import annotations

import numpy as np
import torch

from flipside.classifiers.networks.backbones import build_classifier, predict_logits
from flipside.classifiers.scores import classification_metrics
from flipside.classifiers.training import ClassifierParams, train
from flipside.cohort import duplicates
from flipside.cohort.extracted import Extracted
from flipside.cohort.selection import FilterParams, slice_labels
from flipside.cohort.windowing import choose_windows, window_slices
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch
from flipside.core.files import read_json
from flipside.core.params import load_section, load_value
from flipside.core.runtime import Runtime
from flipside.core.store import SliceStore


def main() -> None:
    params, seed = load_section("classifiers.classifier", ClassifierParams), load_value("seed", int)
    filters, runtime = load_section("filter", FilterParams), runtimes.start(seed)
    extracted, guarded = Extracted.open("data/extracted"), SliceStore.open("data/filtered")
    manifest = read_json("data/filtered/manifest.json")
    index = extracted.index
    given = extracted.scans.set_index("scan_id")["given_split"].loc[index["scan_id"]].to_numpy()
    if not {"train", "test"} <= set(given):
        raise SystemExit(f"data/extracted is of `{manifest['dataset']}`, which has no test part of its own")
    labels = torch.as_tensor(slice_labels(index, manifest["lesion_threshold_px"])).float()
    shape = extracted.images.shape
    arrays = (np.empty(shape, np.float16), *np.empty((2, shape[0], *shape[-2:]), np.uint8))
    windows = choose_windows(filters, extracted, index.assign(split=given))
    window_slices(extracted, np.arange(len(index)), windows, arrays)
    images = torch.as_tensor(arrays[0])

    # Positions of each part: published, with a share of the training part for validation; and as the guard split it.
    rng = np.random.default_rng(seed)
    training = rng.permutation(np.flatnonzero(given == "train"))
    held = round(filters.val_fraction * len(training))
    published = {"val": training[:held], "train": training[held:], "test": np.flatnonzero(given == "test")}
    position = {name: place for place, name in enumerate(index["slice_id"])}
    own = guarded.index.assign(place=guarded.index["slice_id"].map(position))
    kept = {split: own.loc[own["split"] == split, "place"].to_numpy(copy=True) for split in ("val", "train", "test")}

    # Test images that have a copy, of the same bytes or nearly so, in the training part.
    copies = duplicates.find_identical(index["sha256"].to_numpy(), labels.numpy(), given).links()
    hashes, informative = duplicates.perceptual_hashes(extracted.images, np.arange(len(index)))
    hashed, patients = np.flatnonzero(informative), index["patient_id"].to_numpy()
    near = hashed[duplicates.near_identical_pairs(hashes[informative], patients[hashed], filters.duplicate_distance)]
    tied = duplicates.patient_groups(patients, np.concatenate([near, copies]))
    group = np.array([tied[patient] for patient in patients])
    seen = np.isin(group[published["test"]], group[training])

    fewer = {split: rows[: len(kept[split])] for split, rows in published.items()}
    rows = {"published": published, "as few": fewer, "guarded": kept}
    models = {name: trained(name, images, labels, parts, params, seed, runtime) for name, parts in rows.items()}
    print(f"{'training part':<14}{'images':>6}  {'test images':<52}{'n':>5}{'accuracy':>10}{'AUC':>8}")
    for name, what, test in (
        ("published", "the published test part", published["test"]),
        ("published", "those of it with a (near-)copy in the training part", published["test"][seen]),
        ("published", "those without", published["test"][~seen]),
        ("published", "what the guard leaves of the test part", kept["test"]),
        ("as few", "what the guard leaves of the test part", kept["test"]),
        ("guarded", "what the guard leaves of the test part", kept["test"]),
    ):
        scores = classification_metrics(predict_logits(models[name], images[test], runtime), labels[test])
        print(f"{name:<14}{len(rows[name]['train']):>6}  {what:<52}{scores['n']:>5}{scores['accuracy']:>10.3f}"
              f"{scores['auc']:>8.3f}")


def trained(name: str, images: torch.Tensor, labels: torch.Tensor, parts: dict[str, np.ndarray],
            params: ClassifierParams, seed: int, runtime: Runtime) -> torch.nn.Module:
    """A classifier from the images (N,H,W) and labels (N,) at the parts' positions."""
    torch.manual_seed(seed)
    classifier = runtime.place(build_classifier(params.architecture, params.width, pretrained=params.pretrained))
    scratch = Scratch(f"leaked_copies/{name}", [params.model_dump(), seed])
    sets = {split: torch.as_tensor(parts[split]) for split in ("train", "val")}
    train(classifier, params, seed, *((images[rows], labels[rows]) for rows in sets.values()), runtime, scratch)
    scratch.clear()
    return classifier


if __name__ == "__main__":
    main()
