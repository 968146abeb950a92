"""Training on several ranks: the weights of one process, a killed rank that costs no more than a kill, and refusals."""

import pytest
import torch

from flipside.core import ranks
from flipside.generators.coin_aligned import AlignedBatch, CoinAligned
from tests.core.ranks_fixture import TRAININGS, run_ranks, train_all, train_cx_gan
from tests.generators.toys import ALIGNED, LESION, BlobClassifier, batch_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of every training on one rank, and on each of two."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    assert run_ranks(1, train_all, alone) == [0]
    assert run_ranks(2, train_all, together) == [0, 0]
    return [torch.load(file) for file in (alone / "0.pt", together / "0.pt", together / "1.pt")]


@pytest.mark.parametrize("name", TRAININGS)
def test_two_ranks_end_with_the_weights_of_one(weights, name):
    alone, first, second = (each[name] for each in weights)
    assert alone.keys() == first.keys()
    for key, expected in alone.items():
        assert torch.equal(first[key], second[key]), key  # to the last bit, or they would drift apart
        torch.testing.assert_close(first[key], expected, rtol=1e-5, atol=1e-5,
                                   msg=lambda text, key=key: f"{key}: {text}")


def test_a_rank_that_is_killed_costs_the_steps_since_the_last_save_on_any_number_of_ranks(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
    assert run_ranks(1, train_cx_gan, straight, None) == [0]
    first, second = run_ranks(2, train_cx_gan, killed, 1)
    assert second == 9 and first not in (0, None) and not (killed / "cx_gan.pt").exists()
    saved, = killed.glob(".scratch/cx_gan/*/state.pt")
    assert torch.load(saved)["step"] == 10
    assert run_ranks(1, train_cx_gan, killed, None) == [0]
    expected, resumed = (torch.load(folder / "cx_gan.pt") for folder in (straight, killed))
    for key, tensor in expected.items():
        torch.testing.assert_close(resumed[key], tensor, rtol=1e-5, atol=1e-5)


def test_a_batch_that_the_ranks_cannot_share_is_refused_before_any_of_them_starts(monkeypatch):
    with pytest.raises(ValueError, match="the 15 slices of a batch can't be shared equally by 2 ranks: change "
                                         "`batch_size`"):
        ranks.launch("cpu", 2, (16, 15))
    monkeypatch.setattr(ranks, "count", lambda: 4)
    images = torch.zeros(2, 1, 16, 16)
    batch = batch_of(images, kind=AlignedBatch, healthy=images, features=None)
    gan = CoinAligned(CoinAligned.Params(**ALIGNED | {"penalty_share": 0.3}), BlobClassifier(), LESION)
    with pytest.raises(ValueError, match="the 3 slices of a batch whose gradients are penalised .* `penalty_share`"):
        gan.discriminator_loss(batch, images)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="2 ranks on this machine need as many GPUs, torch sees 0"):
            ranks.launch("cuda", 2)
