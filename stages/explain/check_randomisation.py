"""Stage: does one method's map depend on the classifier's weights? Shuffle them, draw it again, compare."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from stages.classify.backbones import load_classifier
from stages.common import runtime as runtimes
from stages.common.files import write_json
from stages.common.params import announce, load_section, load_value, stage_main
from stages.common.store import SliceStore
from stages.explain.method import CLASSIFIER, Context, ExplainParams, load_method
from stages.explain.randomisation import SanityParams, choose_slices, draw_maps, similarities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, help="a name under `methods` in params.yaml")
    name = parser.parse_args().method

    # Parameters, classifier, slices.
    module = load_method(name)
    params = load_section("sanity", SanityParams)
    batch_size = load_section("explain", ExplainParams).batch_size
    method_params = load_section(f"methods.{name}", module.MethodParams)
    seed = load_value("seed", int)
    announce(f"check_randomisation {name}", seed=seed, sanity=params, **{name: method_params})
    store = SliceStore.open("data/slices")
    rows = choose_slices(store, params.slices, seed)

    # Maps under trained and shuffled weights.
    if method_params.needs != CLASSIFIER and not getattr(module, "TRAINED_WITHOUT_CLASSIFIER", False):
        found = {"reason": f"it explains with {method_params.needs}, which was trained against the classifier and "
                           "would have to be trained again against a shuffled one"}
    elif len(rows) == 0:
        found = {"reason": "the test split has no slice labelled abnormal"}
    else:
        runtime = runtimes.start(seed)
        classifier = load_classifier(CLASSIFIER, runtime)
        images = torch.as_tensor(np.array(store.images[rows]), device=runtime.device).float().unsqueeze(1)  # (B,1,H,W)
        organ = torch.as_tensor(np.array(store.organ[rows]), device=runtime.device)  # (B,H,W)
        found = similarities(
            lambda network: draw_maps(module.Method(method_params, Context(network, runtime, seed)), images, rows,
                                      organ, batch_size),
            classifier, images, params.draws, seed)
        found["changed"] = min(found["spearman_all"], found["ssim_all"]) < params.threshold
        found |= {"threshold": params.threshold, "draws": params.draws, "n_slices": len(rows),
                  "n_patients": int(store.index["patient_id"].iloc[rows].nunique())}

    # Outputs.
    write_json(f"data/sanity/{name}.json", found)
    print(f"{name}: no check of its maps: {found['reason']}" if "reason" in found else
          f"{name}: maps under shuffled weights {'differ' if found['changed'] else 'DO NOT DIFFER'}: |rho| "
          f"{found['spearman_all']:.3f}, SSIM {found['ssim_all']:.3f} ({len(rows)} slices, {params.draws} draws)")


if __name__ == "__main__":
    stage_main(main)
