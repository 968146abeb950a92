import numpy as np
import pytest

from flipside.metrics.families.signed_map import signed_correlation


def test_a_map_that_takes_away_what_was_added_scores_one_and_its_opposite_minus_one():
    effect = np.zeros((5, 8, 8))
    effect[:, 2:5, 3:6] = 0.4
    effect[:, 6, 6] = -0.2  # a part that was made darker
    noise = np.random.default_rng(0).normal(size=(8, 8))
    change = np.stack([-effect[0], effect[1], np.zeros((8, 8)), -3 * effect[3] + 0.7, noise])
    found = signed_correlation(change, effect)
    expected = np.corrcoef(-noise.ravel(), effect[0].ravel())[0, 1]
    np.testing.assert_allclose(found, [1, -1, 0, 1, expected], atol=1e-12)


def test_of_several_channels_their_mean_counts():
    generator = np.random.default_rng(1)
    change, effect = generator.normal(size=(2, 4, 3, 8, 8))
    np.testing.assert_allclose(signed_correlation(change, effect),
                               signed_correlation(change.mean(axis=1), effect.mean(axis=1)))
    assert signed_correlation(-effect, effect) == pytest.approx(np.ones(4))
