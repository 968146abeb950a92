"""Methods on classifiers of the user's: explained where the network allows it, refused in a sentence where not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core.checkpoint import Scratch
from flipside.core.params import load_section, read_params
from flipside.core.paths import CLASSIFIER, SLICES
from flipside.core.runtime import Runtime, RuntimeParams, seed_everything
from flipside.core.store import SliceStore
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import find_generator
from flipside.generators.codes.reconstruction import observer_of
from flipside.methods.base.feature_maps import FeatureMapParams
from flipside.methods.base.method import Context, find_method
from flipside.methods.base.randomisation import SanityParams, check_randomisation
from flipside.methods.checks.method_realism import RealismMeter
from flipside.methods.checks.realism import RealismParams
from flipside.methods.grad_cam import GradCAM
from tests.classifiers.foreign_fixture import BLOCKS, run_stage, write_classifier, write_slices
from tests.methods.conftest import PARAMS, TOY_GENERATOR, TOY_GENERATORS

OF_THE_CLASSIFIER = sorted(name for name, block in read_params(PARAMS)["methods"].items()
                           if block["needs"] in (CLASSIFIER, SLICES))
REFUSED = {("cam", kind) for kind in ("convnext", "vit", "torchscript")} | {
    (name, "torchscript") for name in ("grad_cam", "layer_cam", "score_cam")}
SEARCHING = ("impact", "octet", "stylex", "tace")  # with a model of their own, by the classifier's answers
CONTROLS = set(read_params(PARAMS)["report"]["controls"])  # the same whatever the classifier: asked about one alone
CHEAP = {"rise": {"masks": 16, "grid": 4}, "layer_cam": {"strides": "last"}, "score_cam": {"strides": "last"}}
CPU = RuntimeParams(device="cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """`projects(kind)`: a project in which that classifier was imported by the stage."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(made[kind])
                write_slices()
                run_stage(write_classifier(kind), patch)
        return made[kind]

    return make


@pytest.fixture
def imported(projects, monkeypatch):
    """`imported(kind)`: its context, in its project."""
    def enter(kind):
        monkeypatch.chdir(projects(kind))
        runtime = Runtime(CPU)
        torch.set_flush_denormal(False)
        return Context(load_classifier(CLASSIFIER, runtime, 1), runtime, seed=3)

    return enter


def build(name, context):
    method_class = find_method(name)
    params = load_section(f"methods.{name}", method_class.Params, PARAMS).model_copy(update=CHEAP.get(name, {}))
    if name == "score_cam" and len(context.classifier.form.layers) == 5:  # the ResNet: 64 maps instead of 512
        params = params.model_copy(update={"strides": [2]})
    return method_class(params, context)


def slices(rows=slice(8, 10)):
    """Images (B,1,H,W): a healthy slice and one with a square."""
    return torch.as_tensor(np.load("data/slices/images.npy")[rows]).float()[:, None]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in OF_THE_CLASSIFIER for kind in BLOCKS
                                            if name not in CONTROLS or kind == "python"])
def test_a_map_of_every_method_or_a_refusal(name, kind, imported):
    context = imported(kind)
    if (name, kind) in REFUSED:
        with pytest.raises(ValueError, match=r"(feature maps|linear layer).*take (the method|`cam`) out of `methods`"):
            build(name, context)
        return
    images = slices()
    batch = build(name, context)(images, torch.arange(2), torch.ones_like(images[:, 0], dtype=torch.uint8))
    assert batch.attribution.shape == (2, 32, 32)
    assert 0 <= batch.attribution.min() and batch.attribution.max() <= 1
    if name in ("rise", "gradient"):  # the others keep the positive part alone, of which there may be none
        assert batch.attribution.flatten(1).std(dim=1).min() > 0
    if batch.counterfactual is not None:
        assert batch.counterfactual.shape == images.shape


@pytest.mark.parametrize("kind", ["vit", "torchscript"])
@pytest.mark.parametrize("name", [*SEARCHING, "flip_mask"])
def test_methods_with_a_model_of_their_own_explain_it(name, kind, imported, prepared_needs, planted, monkeypatch):
    context, (images, _), asked = imported(kind), planted, []
    method_class = find_method(name)
    params = load_section(f"methods.{name}", method_class.Params, PARAMS)
    few = {"steps": 3, "first_steps": 3}
    params = params.model_copy(update={key: value for key, value in few.items() if hasattr(params, key)})
    prepared_needs(params.needs)
    method = method_class(params, context)
    answers = context.classifier.answers
    monkeypatch.setattr(context.classifier, "answers", lambda images: asked.append(1) or answers(images))
    batch = method(images, torch.arange(4), torch.ones_like(images[:, 0], dtype=torch.uint8))
    assert batch.attribution.shape == (4, 32, 32)
    assert 0 <= batch.attribution.min() and batch.attribution.max() <= 1
    assert batch.counterfactual is None or batch.counterfactual.shape == images.shape
    assert bool(asked) == (name in SEARCHING)


@pytest.mark.parametrize("kind", ["convnext", "resnet", "python"])
def test_grad_cam_is_captums_of_the_same_layer(kind, imported):
    context, images = imported(kind), slices()
    classifier = context.classifier
    params = FeatureMapParams(needs=CLASSIFIER, strides="last")
    found = GradCAM(params, context).coarse_maps(images)[0]
    layer = classifier.network.get_submodule(classifier.form.layers[-1])
    expected = LayerGradCam(classifier, layer).attribute(images, relu_attributions=True)[:, 0].detach()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_grad_cam_of_a_transformer_is_of_its_patches_in_their_places(imported):
    context, images = imported("vit"), slices()
    classifier, kept = context.classifier, []
    found = GradCAM(FeatureMapParams(needs=CLASSIFIER, strides="last"), context).coarse_maps(images)[0]
    norm = classifier.network.blocks[-1].norm1
    handle = norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = classifier(images.clone().requires_grad_())
    handle.remove()
    gradient, = torch.autograd.grad(logits.sum(), kept)
    tokens, slopes = kept[0][:, 1:].detach(), gradient[:, 1:]  # (B,16,C): without the class token
    assert slopes.abs().max() > 0
    for row in range(len(images)):
        weights = slopes[row].mean(dim=0)
        for place in range(16):  # row by row of the 4 x 4 patches
            expected = float((weights * tokens[row, place]).sum().clamp(min=0))
            assert found[row, place // 4, place % 4].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["vit", "torchscript"])
@pytest.mark.parametrize("name", sorted(read_params(PARAMS)["generators"]))
def test_every_generator_learns_against_it(name, kind, imported):
    context, generator = imported(kind), find_generator(name)
    params = load_section(f"generators.{name}", generator.Params, PARAMS)
    params = params.model_copy(update=TOY_GENERATORS.get(name, TOY_GENERATOR) | {"steps": 2, "batch_size": 4})
    if hasattr(params, "fine_tuning_steps"):
        params = params.model_copy(update={"fine_tuning_steps": 1})
    data = TrainingSlices.from_store(SliceStore.open("data/slices"), context.classifier, context.runtime)
    seed_everything(0)
    trained = generator(params, context.classifier, 0.005)
    history = trained.train(data, 0, Scratch("toy", name)).history
    assert history and all(np.isfinite(value) for row in history for value in row.values())
    perceptual = trained.details().get("perceptual")
    assert perceptual in (None, "lpips", "pixels" if kind == "torchscript" else "perceptual_clf")


def test_what_a_torchscript_file_hides_is_said_where_it_is_missed(imported, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(Path("nothing").absolute()))
    context, images = imported("torchscript"), slices()
    observer = observer_of(context.classifier)
    assert observer.name == "pixels"
    one, other = observer(images), observer(images.flip(0))
    expected = torch.stack([(torch.nn.functional.avg_pool2d(images - images.flip(0), size)).square().mean(dim=(1, 2, 3))
                            for size in (1, 2, 4)]).mean(dim=0)
    torch.testing.assert_close(observer.perceptual(one, other), expected)
    store, sanity = SliceStore.open("data/slices"), SanityParams(slices=2, draws=1, threshold=0.9)
    method, params = find_method("gradient"), load_section("methods.gradient", find_method("gradient").Params, PARAMS)
    assert "TorchScript" in check_randomisation(method, params, context, store, sanity, 2)["reason"]
    meter = RealismMeter(store.index.iloc[store.rows("test")], store.images[store.rows("test")], context.classifier,
                         load_section("realism", RealismParams, PARAMS), context.runtime, 0, 0.8)
    warnings = [text for text in meter.warnings(False) if "fd_clf" in text]
    assert len(warnings) == 1 and "neither feature maps nor features" in warnings[0]


def test_shuffled_weights_of_a_transformer_change_its_maps(imported):
    context = imported("vit")
    store, sanity = SliceStore.open("data/slices"), SanityParams(slices=2, draws=1, threshold=0.9)
    method, params = find_method("gradient"), load_section("methods.gradient", find_method("gradient").Params, PARAMS)
    found = check_randomisation(method, params, context, store, sanity, 2)
    assert found["changed"] and found["spearman_all"] < 0.9
