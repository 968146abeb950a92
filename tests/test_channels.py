"""Slices with several channels, from the drawn anomalies to the report: every generator, every method."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import open_truth
from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.checkpoint import Scratch
from flipside.core.runtime import Runtime, RuntimeParams
from flipside.core.store import SliceStore
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import find_generator
from tests.faults.project import done, run_stage, write_project
from tests.generators import toys
from tests.test_dvc_yaml import PARAMS, STAGES, base

NAMES = {3: ["red", "green", "blue"], 4: ["t1", "t1c", "t2", "flair"]}
# Methods of each kind, enough for a report in colour; the upper bound and the controls, which parameters name.
COLOURED = ("coin", "impact", "rise", "gradient", "supervised", "random", "intensity", "centre", "blur", "grey",
            "mean_healthy")
GENERATORS = {"coin": toys.COIN, "singla": toys.SINGLA, "coin_aligned": toys.ALIGNED, "impact": toys.IMPACT,
              "cx_gan": toys.CX_GAN, "flip_mask": toys.FLIP_MASK, "va_gan": toys.VA_GAN, "blobgan": toys.BLOBGAN,
              "stylegan": toys.STYLEGAN}


def several(images, count):
    """Slices (N,H,W) -> (N,C,H,W), each channel weaker than the one before; a single one stays (N,H,W)."""
    return images if count == 1 else torch.stack([images * (1 - 0.2 * number) for number in range(count)], dim=1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", PARAMS["generators"])
def test_generators_learn_and_make_images_of_all_channels(name, channels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    classifier, plain = toys.BlobClassifier(channels), toys.toy_data()
    data = TrainingSlices(several(plain.images, channels), plain.organ, plain.labels, plain.heights, classifier,
                          plain.runtime)
    kind = find_generator(name)
    small = {"steps": 5, "fine_tuning_steps": 2} if name == "impact" else {"steps": 5}
    params = kind.Params(**GENERATORS[name] | small)
    generator = kind(params, classifier, 0.005)
    before = {key: value.clone() for key, value in generator.network.state_dict().items()}
    trained = generator.train(data, 3, Scratch(name, params.model_dump()))
    assert any(not torch.equal(value, before[key]) for key, value in trained.network.state_dict().items())
    architecture = kind.architecture_of(params, classifier)
    assert architecture["image_channels"] == channels
    again = kind.build(json.loads(json.dumps(architecture)))
    again.load_state_dict(trained.network.state_dict())
    images = data.images_at(torch.arange(4))
    assert images.shape == (4, channels, toys.SIZE, toys.SIZE)
    made = made_by(name, again.eval(), images, classifier)
    assert made.shape == images.shape and made.isfinite().all()
    if channels > 1:  # a channel is not another's copy
        assert (made[:, 0] - made[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", PARAMS["generators"])
def test_generators_take_slices_that_are_no_squares_or_refuse_them_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    classifier, plain = toys.BlobClassifier(3), toys.toy_data()
    images, organ = (torch.cat([each, each[..., :8]], dim=-1) for each in (several(plain.images, 3), plain.organ))
    data = TrainingSlices(images, organ, plain.labels, plain.heights, classifier, plain.runtime)  # 16 x 24
    kind = find_generator(name)
    params = kind.Params(**GENERATORS[name] | {"steps": 2})
    generator = kind(params, classifier, 0.005)
    if name in ("blobgan", "stylegan"):
        with pytest.raises(ValueError, match=r"images of 16 x 16 pixels, the slices have \(16, 24\): double the size"):
            generator.train(data, 3, Scratch(name, params.model_dump()))
        return
    trained = generator.train(data, 3, Scratch(name, params.model_dump()))
    made = made_by(name, trained.network, data.images_at(torch.arange(4)), classifier)
    assert made.shape == (4, 3, 16, 24)


@torch.no_grad()
def made_by(name, network, images, classifier):
    """Images of a generator's network, of slices where it takes such, else of random numbers."""
    if name == "blobgan":
        return network.render(network.decode(network.encode(images)))
    if name == "stylegan":
        return network.render(network.encoded(images, torch.sigmoid(classifier(images))))
    if name == "impact":
        holes = torch.zeros_like(images[:, :1])
        holes[..., 4:8, 4:8] = 1
        made = network.inpaint(images, holes)
        assert torch.equal(made * (1 - holes), images * (1 - holes))
        return made
    if name == "coin_aligned":
        return network(images, classifier.pooled(classifier.features(images)))
    return network(images)


@pytest.fixture(scope="module", params=[3, 4])
def project(request, tmp_path_factory):
    """The small project, whose slices get more channels once they are split: with three of them up to the report, with
    four every method up to the metrics."""
    root = tmp_path_factory.mktemp("channels") / "project"
    root.mkdir()
    write_project(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    for role in ("classifier", "judge"):  # enough for some slices to be called abnormal
        params["classifiers"][role] |= {"epochs": 12, "steps_per_epoch": 10, "patience": 12}
    methods = params["methods"]  # every slice is searched and has some region
    methods["impact"] |= {"least_logit": -100.0, "threshold": 0.05, "lambda_area": 0.0, "lambda_total_variation": 0.0}
    for name in ("octet", "tace", "stylex"):
        methods[name]["margin"] = 0.49
    left_out = {"simulate_scans", "simulate_effects"}
    if request.param == 3:
        params["methods"] = {name: methods[name] for name in COLOURED}
        left_out |= {"train_segmenter", *PARAMS["generators"], *PARAMS["methods"]} - set(COLOURED)
    else:
        left_out |= {"report"}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for name in STAGES:
        if name == "draw_anomalies":
            add_channels(root / "data/filtered", request.param)
        if not left_out & {base(name), name.partition("@")[2]}:
            done(root, name)
    return root


def add_channels(folder: Path, count: int) -> None:
    images = torch.from_numpy(np.load(folder / "images.npy")).float()
    np.save(folder / "images.npy", several(images, count).numpy().astype(np.float16))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"channels": NAMES[count]}))


def test_an_anomaly_is_drawn_in_every_channel_alike(project):
    store, filtered = (SliceStore.open(project / f"data/{name}") for name in ("slices", "filtered"))
    assert store.channels == filtered.channels > 1
    sources = filtered.index["slice_id"]
    row = int(store.rows("test", label=1)[0])
    before = filtered.images[int(np.flatnonzero(sources == store.index["source_slice_id"][row])[0])].astype(float)
    added = store.images[row].astype(float) - before  # (C,H,W)
    lesion = open_truth(project / "data/truth", store.organ.shape)[row] > 0
    assert (added[:, lesion] > 0).all()
    free = (store.images[row] < 1).all(axis=0)  # not clipped in any
    np.testing.assert_allclose(added[:, free].max(axis=0), added[:, free].min(axis=0), atol=2e-3)
    clean = np.load(project / "data/clean/clean.npy", mmap_mode="r")
    assert clean.shape[1:] == store.images.shape[1:]


def methods_of(project):
    return list(yaml.safe_load((project / "params.yaml").read_text())["methods"])


def test_a_map_has_one_value_per_pixel_and_a_counterfactual_all_channels(project):
    store = SliceStore.open(project / "data/slices")
    for method in methods_of(project):
        found = Explanations.open(project / f"data/explanations/{method}")
        rows = [list(store.index["slice_id"]).index(slice_id) for slice_id in found.index["slice_id"]]
        assert found.attribution.shape == (len(rows), *store.sides), method
        assert np.ptp(found.attribution, axis=(1, 2)).max() > 0, method
        for name in ("counterfactual", "abnormal"):
            images = getattr(found, name)
            assert images is None or images.shape == (len(rows), *store.images.shape[1:]), method
        if found.roi is not None:
            assert found.roi.shape == found.attribution.shape, method
        if method in ("coin", "singla", "va_gan", "octet", "tace", "stylex"):
            change = np.abs(store.images[rows].astype(float) - found.counterfactual.astype(float)).mean(axis=1) / 2
            np.testing.assert_allclose(found.attribution, change, atol=2e-3, err_msg=method)


def test_methods_without_counterfactual_are_those_of_one_channel(project):
    methods = set(methods_of(project))
    makers = {method for method in methods
              if Explanations.open(project / f"data/explanations/{method}").counterfactual is not None}
    assert {"coin", "impact", "tace", "stylex"} & methods <= makers and not {"rise", "cam", "intensity"} & makers


def test_intensity_is_the_mean_of_the_channels(project):
    store, found = SliceStore.open(project / "data/slices"), Explanations.open(project / "data/explanations/intensity")
    row = list(store.index["slice_id"]).index(found.index["slice_id"][0])
    mean = store.images[row].astype(float).mean(axis=0)
    expected = (mean - mean.min()) / np.ptp(mean)
    np.testing.assert_allclose(found.attribution[0], expected, atol=2e-3)


def test_everything_is_measured(project):
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert set(metrics) == set(methods_of(project))
    for method in {"coin", "impact", "cx_gan", "octet", "stylex"} & set(metrics):
        assert {"l1", "ssim", "perceptual_clf", "iou_val", "fd_clf"} <= set(metrics[method]), method
    store = SliceStore.open(project / "data/slices")
    for role in ("classifier", "judge"):
        description = json.loads((project / f"models/classifiers/{role}/model.json").read_text())
        assert description["architecture"]["image_channels"] == store.channels


def test_the_report_says_which_channels_there_are(project):
    store = SliceStore.open(project / "data/slices")
    page = project / "reports/report.html"
    if store.channels == 4:
        done(project, "report")
        assert "Slices have 4 channels (t1, t1c, t2, flair); pictures show t1 alone" in page.read_text()
    else:
        assert "Slices have 3 channels (red, green, blue); pictures show them in colour" in page.read_text()


def test_a_classifier_refuses_slices_with_other_channels(project):
    file = project / "data/slices/images.npy"
    images = np.load(file)
    try:
        np.save(file, images[:, 0])
        ended = run_stage(project, "explain@rise")
    finally:
        np.save(file, images)
    assert ended.status == 1
    assert f"trained on slices with {images.shape[1]} channels, these have 1: train it on them" in ended.output


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_backbones_refuse_another_number_of_channels_when_they_are_asked(channels):
    classifier = build_classifier("small_resnet", 8, pretrained=False, image_channels=channels).eval()
    assert classifier(torch.zeros(2, channels, 32, 32)).shape == (2,)
    with pytest.raises(ValueError, match=f"{channels} channels?, these have 2: train it on them"):
        classifier(torch.zeros(2, 2, 32, 32))


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_a_photographs_weights_give_grey_the_same_maps_whatever_the_number_of_channels(channels):
    """The stem of three channels is torchvision's own; grey in all channels of another one looks the same to it."""
    torch.manual_seed(0)
    rgb = build_classifier("resnet18", 0, pretrained=False, image_channels=3).trunk[0]
    torch.manual_seed(0)
    other = build_classifier("resnet18", 0, pretrained=False, image_channels=channels).trunk[0]
    grey = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(other(grey.expand(-1, channels, -1, -1)), rgb(grey.expand(-1, 3, -1, -1)), rtol=1e-4,
                               atol=1e-5)


def test_runtime_places_images_of_several_channels():
    runtime = Runtime(RuntimeParams(device="cpu", threads=1))
    data = toys.toy_data()
    batch = TrainingSlices(several(data.images, 3), data.organ, data.labels, data.heights, toys.BlobClassifier(3),
                           runtime).batch(torch.arange(2), torch.Generator().manual_seed(0))
    assert batch.images.shape == (2, 3, toys.SIZE, toys.SIZE) and batch.organ.shape == (2, 1, toys.SIZE, toys.SIZE)
