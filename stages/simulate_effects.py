"""Stage: parameters -> the effect-map images of the data set `synthetic_effect` (data/raw/synthetic_effect)."""

from __future__ import annotations

from flipside.cohort.effects import EffectParams, write_images
from flipside.core.params import announce, check_all, load_section, load_value, stage_main
from flipside.core.progress import progress

OUTPUT = "data/raw/synthetic_effect"


def main() -> None:
    # Parameters. As one of the pipeline's first stages it refuses a wrong params.yaml as a whole.
    check_all()
    params = load_section("synthetic_effect", EffectParams)
    seed = load_value("seed", int)
    announce("simulate_effects", seed=seed, synthetic_effect=params)

    # Images and where their effect is, written into a folder that takes its name when it is whole.
    write_images(params, seed, OUTPUT, progress(range(params.images), "simulating effects"))
    print(f"{params.images} images in {OUTPUT}/images")


if __name__ == "__main__":
    stage_main(main)
