"""Stage: slices -> a frozen classifier (`--role classifier`) or the independent judge (`--role judge`).

It is trained, or the user's own is imported (`source`); either leaves the same files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from flipside.classifiers.blocks import ClassifierBlock
from flipside.classifiers.importing import ForeignParams, ask, check_answers, check_methods, import_classifier
from flipside.classifiers.networks.backbones import Classifier, build_classifier, predict_logits
from flipside.classifiers.scores import classification_metrics, confusion_table, height_auc, roc_table
from flipside.classifiers.training import train
from flipside.core import paths, ranks
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, save_model
from flipside.core.files import atomic_folder, write_json, write_metrics
from flipside.core.history import write_history
from flipside.core.params import announce, load_section, load_value, read_params, stage_main
from flipside.core.store import SliceStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=["classifier", "judge"], required=True)
    role = parser.parse_args().role

    # Parameters.
    params = load_section(f"classifiers.{role}", ClassifierBlock).root
    seed = load_value("seed", int) + (0 if isinstance(params, ForeignParams) else params.seed_offset)
    runtime = runtimes.start_training(seed, *([] if isinstance(params, ForeignParams) else [params.batch_size]))
    if ranks.is_writer():
        announce(f"train_classifier {role}", seed=seed, **{role: params})
    store = SliceStore.open(paths.SLICES)
    sets = {split: labelled(store, split) for split in ("train", "val", "test")}
    heights = {split: torch.as_tensor(store.index["relative_height"].to_numpy("float32")[store.rows(split)])
               for split in sets}
    scratches: list[Scratch] = []
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    code: tuple[str, Path] | None = None
    classifier: Classifier
    network: torch.nn.Module

    if isinstance(params, ForeignParams):  # Import, and what must hold before any work; the report has the same scores.
        classifier = own = import_classifier(role, params, sets["val"][0], runtime)
        images, labels = (torch.cat([sets[split][part] for split in ("val", "test")]) for part in (0, 1))
        for warning in check_answers(role, own, ask(own, images, runtime), labels):
            print(warning, flush=True)
        methods = read_params().get("methods", {}) if role == "classifier" else {}  # can refuse, changes no output
        print(check_methods(role, own, images, runtime, methods), flush=True)
        network, architecture, code = own.network, dict(vars(own.form)), params.code
    else:  # Training (a strongly supervised classifier first on patches).
        network = classifier = runtime.place(
            build_classifier(params.architecture, params.width, params.pretrained, store.channels))
        fingerprint_of = [params.model_dump(), seed, store.fingerprint]
        if params.pretraining == paths.PATCHES:
            patches = SliceStore.open(paths.PATCHES)
            print(f"{role}: STRONG SUPERVISION, pre-trained on {len(patches.index)} patches cut with lesion masks")
            fingerprint_of.append(patches.fingerprint)
            scratches.append(Scratch(f"train_classifier/{role}_patches", fingerprint_of))
            train(classifier, params, seed, labelled(patches, "train"), labelled(patches, "val"), runtime, scratches[0])
            classifier.requires_grad_(True)
        scratches.append(Scratch(f"train_classifier/{role}", fingerprint_of))
        result = train(classifier, params, seed, sets["train"], sets["val"], runtime, scratches[-1], heights["train"])
        architecture = {"architecture": params.architecture, "width": params.width, "image_channels": store.channels}
        history, best = result["history"], result["best"]
    ranks.end()

    # Scores on slices that no training here saw.
    logits = {split: predict_logits(classifier, sets[split][0], runtime) for split in ("val", "test")}
    metrics = classification_metrics(logits["test"], sets["test"][1])
    if params.pretraining == paths.PATCHES:
        metrics["strongly_supervised"] = 1  # not to be compared with the AUC of one on image-level labels
    metrics["val_auc"] = classification_metrics(logits["val"], sets["val"][1])["auc"]
    metrics["height_auc"] = height_auc(*((sets[split][1], heights[split]) for split in ("train", "test")))

    # Outputs.
    with atomic_folder(paths.training_report(role)) as curves:
        write_history(curves, history, step="epoch")
        write_json(curves / "parameters.json", params.model_dump(mode="json"))
        roc_table(logits["test"], sets["test"][1]).to_csv(curves / "roc.csv", index=False)
        confusion_table(logits["test"], sets["test"][1]).to_csv(curves / "confusion.csv", index=False)
    write_metrics(paths.classifier_metrics(role), metrics)
    save_model(paths.classifier(role), network, {
        "architecture": architecture, "parameters": params.model_dump(), "seed": seed,
        "data_fingerprint": store.fingerprint, "final": best}, code)
    for each in scratches:
        each.clear()
    print(f"{role}: AUC {metrics['auc']:.3f}, accuracy {metrics['accuracy']:.3f} on {metrics['n']} test slices; "
          f"{runtime.describe()}, {runtime.describe_peak_memory()}")


def labelled(store: SliceStore, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N,H,W) or (N,C,H,W) float16 and labels (N,) float of one split; both classes must be there."""
    rows = store.rows(split)
    labels = torch.as_tensor(store.index["label"].to_numpy()[rows]).float()
    if not 0 < labels.sum() < len(labels):
        raise ValueError(f"the {split} split has {len(labels)} slices, {int(labels.sum())} of them abnormal; "
                         "a classifier needs both classes in every split: add scans or change the split's seed")
    return torch.as_tensor(store.images[rows]), labels


if __name__ == "__main__":
    stage_main(main)
