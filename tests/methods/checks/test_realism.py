"""Distances between populations and between maps: against closed forms, slow references and the libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import nn

from flipside.classifiers.networks.backbones import ARCHITECTURES, build_classifier
from flipside.classifiers.networks.perceptual import map_distance
from flipside.classifiers.networks.view import maps_by_size
from flipside.methods.checks import realism
from flipside.methods.checks.perceptual import classifier_features
from flipside.methods.checks.realism import (
    BOTH_DIRECTIONS,
    Realism,
    RealismParams,
    add_both_directions,
    frechet_distance,
    kernel_distance,
    measure_populations,
)

PARAMS = RealismParams(batch_size=4, kid_subset_size=6, kid_subsets=20)


def sample(count: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """Features whose sample mean and covariance are exactly the given ones."""
    drawn = np.random.default_rng(seed).normal(size=(count, len(mean)))
    drawn -= drawn.mean(axis=0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_is_the_closed_form_of_two_gaussians():
    means = np.array([[0.0, 1.0], [2.0, -1.0]])
    first, second = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([[1.0, -0.6], [-0.6, 3.0]])
    product = first @ second  # trace of the root of a 2 x 2 matrix: sqrt(trace + 2 sqrt(determinant))
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 8 + np.trace(first) + np.trace(second) - 2 * root
    found = frechet_distance(sample(50, means[0], first, 1), sample(70, means[1], second, 2))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("features", [5, 60])  # more and fewer features than images
def test_frechet_distance_is_pytorch_fids_whatever_the_number_of_features(features):
    generator = np.random.default_rng(0)
    real = generator.normal(size=(14, features)) * generator.uniform(0, 2, features)
    fake = np.maximum(generator.normal(size=(17, features)), 0)
    direct = calculate_frechet_distance(real.mean(0), np.cov(real, rowvar=False), fake.mean(0),
                                        np.cov(fake, rowvar=False))
    assert frechet_distance(real, fake) == pytest.approx(direct, rel=1e-6)
    assert frechet_distance(fake, real) == pytest.approx(direct, rel=1e-6)
    assert 0 <= frechet_distance(real, real) < 1e-5
    assert frechet_distance(real, real + 1) == pytest.approx(features, rel=1e-6)  # |shift|^2


def test_features_that_never_move_have_a_distance():
    assert frechet_distance(np.zeros((5, 3)), np.zeros((6, 3))) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(np.zeros((5, 3)), np.ones((6, 3))) == pytest.approx(3, abs=1e-4)


def slow_unbiased_mmd(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [np.mean([kernel(x, y) for i, x in enumerate(side) for j, y in enumerate(side) if i != j])
              for side in (first, second)]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in first for y in second])


def test_kernel_distance_is_unbiased_for_the_whole_sets_value():
    generator = np.random.default_rng(0)
    real, fake = generator.normal(size=(16, 3)), generator.normal(size=(21, 3)) + 0.4
    params = PARAMS.model_copy(update={"kid_subsets": 1500})
    mean, deviation = kernel_distance(real, fake, params, seed=1)
    standard_error = deviation / np.sqrt(1500)
    assert abs(mean - slow_unbiased_mmd(real, fake)) < 4 * standard_error
    biased = np.mean([((side @ side.T / 3 + 1) ** 3).diagonal().mean() for side in (real, fake)]) / 6
    assert biased > 10 * standard_error  # what the biased estimate would add shows at this precision
    assert kernel_distance(real, fake, params, seed=1) == (mean, deviation)


def test_a_draw_never_has_more_than_half_of_the_smaller_side():
    generator = np.random.default_rng(0)
    real, fake = generator.normal(size=(8, 3)), generator.normal(size=(9, 3))
    params = RealismParams(batch_size=4, kid_subset_size=1000, kid_subsets=50)
    halves = params.model_copy(update={"kid_subset_size": 4})
    assert kernel_distance(real, fake, params, 0) == kernel_distance(real, fake, halves, 0)
    assert kernel_distance(real, fake, params, 0)[1] > 0.01  # the whole sets would have no spread


@pytest.fixture
def populations():
    """Features of 40 slices, half of them called abnormal, and of their counterfactuals, in three spaces."""
    generator = np.random.default_rng(3)
    dims = {"classifier": 4, "inception_64": 3, "inception_768": 5, "inception_2048": 90}
    scans = {space: generator.normal(size=(40, dim)) for space, dim in dims.items()}
    counterfactuals = {space: features + generator.normal(0.2, 0.1, features.shape) for space, features in
                       scans.items()}
    return scans, counterfactuals, np.arange(40) % 2 == 0, np.arange(40) % 3 != 0


def test_each_name_is_measured_on_its_own_population(populations):
    scans, counterfactuals, called, healthy = populations
    found = measure_populations(scans, counterfactuals, called, healthy, PARAMS, seed=0)
    for space, name in (("classifier", "fd_clf"), ("inception_64", "fid_64"), ("inception_2048", "fid_2048")):
        real = scans[space][healthy]
        assert found.metrics[name] == pytest.approx(frechet_distance(real, counterfactuals[space][called]))
        assert found.metrics[f"{name}_unchanged"] == pytest.approx(frechet_distance(real, scans[space][called]))
    for dims in (64, 768, 2048):
        expected = frechet_distance(scans[f"inception_{dims}"], counterfactuals[f"inception_{dims}"])
        assert found.metrics[f"fid_{dims}_coin"] == pytest.approx(expected)
    for space, name in (("classifier", "kid_clf"), ("inception_2048", "kid")):
        expected = kernel_distance(scans[space][healthy], counterfactuals[space][called], PARAMS, 0)
        assert (found.metrics[name], found.metrics[f"{name}_std"]) == expected
    assert [found.metrics[f"n_realism{side}"] for side in ("", "_real", "_coin")] == [20, 26, 40]
    assert not found.missing
    # Only the 90 features are more than the images.
    assert set(found.cautions) == {"fid_2048", "fid_2048_unchanged", "fid_2048_coin"}
    assert "20 counterfactuals of slices called abnormal and 26 healthy slices for 90" in found.cautions["fid_2048"]
    assert "40 counterfactuals and as many scans for 90" in found.cautions["fid_2048_coin"]


def test_both_directions_take_each_sure_slices_counterfactual_on_the_other_side(populations):
    scans, counterfactuals, *_ = populations
    generator = np.random.default_rng(5)
    abnormal = {space: features + generator.normal(0.9, 0.1, features.shape) for space, features in scans.items()
                if space.startswith("inception")}
    f_x = generator.uniform(0, 1, 40)
    f_x[:4] = 0.8, 0.8001, 0.5, 0.1999  # the first and the third are not sure
    result = Realism()
    add_both_directions(result, scans, counterfactuals, abnormal, f_x, 0.8)
    down, up = np.flatnonzero(f_x > 0.8), np.flatnonzero(f_x < 0.2)
    assert 1 in down and 3 in up and not {0, 2} & {*down, *up}
    assert result.metrics.pop("n_realism_both_directions") == len(down) + len(up) > 6
    assert set(result.metrics) == set(BOTH_DIRECTIONS)
    for dims in (64, 768, 2048):
        space = f"inception_{dims}"
        expected = frechet_distance(np.concatenate([scans[space][down], scans[space][up]]),
                                    np.concatenate([counterfactuals[space][down], abnormal[space][up]]))
        assert result.metrics[f"fid_{dims}_both_directions"] == pytest.approx(expected, rel=1e-5)
    assert "as many scans for 90 features" in result.cautions["fid_2048_both_directions"]


def test_where_the_classifier_is_sure_of_no_slice_there_is_no_distance_in_both_directions(populations):
    scans, counterfactuals, *_ = populations
    result = Realism()
    add_both_directions(result, scans, counterfactuals, {"inception_64": scans["inception_64"]}, np.full(40, 0.5), 0.8)
    assert result.metrics == {"n_realism_both_directions": 0}
    assert "there are 0 counterfactuals in both directions" in result.missing["fid_64_both_directions"]


@pytest.mark.parametrize(("called", "healthy", "absent"), [
    (1, 20, {"fd_clf", "fd_clf_unchanged", "kid_clf"}), (20, 0, {"fd_clf", "fd_clf_unchanged", "kid_clf"}),
    (3, 20, {"kid_clf"}),
])
def test_too_few_images_leave_the_number_out_and_say_how_many_there_were(called, healthy, absent):
    features = {"classifier": np.random.default_rng(0).normal(size=(40, 2))}
    found = measure_populations(features, features, np.arange(40) < called, np.arange(40) >= 40 - healthy, PARAMS, 0)
    assert set(found.missing) == absent and not absent & set(found.metrics)
    assert all(f"there are {called} " in reason and f"{healthy} healthy" in reason
               for reason in found.missing.values())


def test_a_root_that_pytorch_fid_cannot_take_is_told_and_the_rest_goes_on(populations, monkeypatch):
    def fails(mu1, *_):
        if len(mu1) == 3:
            raise ValueError("Imaginary component 0.02")
        return float("nan") if len(mu1) == 5 else 1.0

    monkeypatch.setattr(realism, "calculate_frechet_distance", fails)
    found = measure_populations(*populations, PARAMS, 0)
    assert "Imaginary component 0.02" in found.missing["fid_64"] and "nan" in found.missing["fid_768"]
    assert found.metrics["fd_clf"] == 1.0 and "fid_64" not in found.metrics


@pytest.mark.parametrize("architecture", ["small_resnet", *ARCHITECTURES])
def test_maps_of_each_size_end_with_the_classifiers_own_features(architecture):
    torch.manual_seed(0)
    classifier = build_classifier(architecture, width=8, pretrained=False).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        maps = maps_by_size(classifier.trunk, images)
        torch.testing.assert_close(maps[-1], classifier.features(images))
    sizes = [tuple(each.shape[-2:]) for each in maps]
    assert len(maps) >= 4 and sizes == sorted(set(sizes), reverse=True)


def test_earlier_maps_are_not_overwritten_by_later_layers():
    torch.manual_seed(0)
    trunk = build_classifier("resnet18", width=0, pretrained=False).eval().trunk
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        maps = maps_by_size(trunk, images)
        stem = trunk[:3](images)
        torch.testing.assert_close(maps[0], stem)
        torch.testing.assert_close(maps[1], trunk[4](trunk[3](stem)))


def test_map_distance_is_the_slow_reference_and_blind_to_contrast():
    torch.manual_seed(0)
    shapes = [(2, 3, 4, 4), (2, 5, 2, 2)]
    first, second = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    expected = np.zeros(2)
    for a, b in zip(first, second, strict=True):
        for image in range(2):
            places = [(i, j) for i in range(a.shape[2]) for j in range(a.shape[3])]
            expected[image] += np.mean([float(((a[image, :, i, j] / a[image, :, i, j].norm())
                                               - (b[image, :, i, j] / b[image, :, i, j].norm())).square().sum())
                                        for i, j in places]) / 2
    np.testing.assert_allclose(map_distance(first, second), expected, rtol=1e-5)
    assert map_distance(first, [3 * each for each in first]).max() < 1e-6
    torch.testing.assert_close(map_distance(first, [-each for each in first]), torch.full((2,), 4.0))


def test_features_and_distances_do_not_depend_on_the_batch(runtime):
    torch.manual_seed(0)
    classifier = build_classifier("small_resnet", width=8, pretrained=False).eval()
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (7, 32, 32)).astype(np.float16)
    others = images.copy()
    others[3:] = generator.uniform(-1, 1, (4, 32, 32))
    pooled, pooled_others, distances = classifier_features(classifier, images, others, runtime, 3)
    for part, whole in zip(classifier_features(classifier, images, others, runtime, 7),
                           (pooled, pooled_others, distances), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        x = torch.as_tensor(images).float().unsqueeze(1)
        np.testing.assert_allclose(pooled, classifier.pooled(classifier.features(x)), rtol=1e-5)
    assert (distances[:3] == 0).all() and (distances[3:] > 0.01).all()


def test_a_trunk_of_its_own_kind_is_one_layer():
    class Own(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + 1

    torch.testing.assert_close(maps_by_size(Own(nn.ReLU()), torch.zeros(1, 1, 4, 4))[-1], torch.ones(1, 1, 4, 4))
