"""What is learned: true features, dead latents that come back, decoder rows that stay on length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from superposition import FEATURES, PRESENT, WIDTH, Superposition, run, trainer_for
from torch import Generator, Tensor

from neuron_explainer.config import TrainSettings
from neuron_explainer.errors import ConfigError
from neuron_explainer.subjects.autoencoder import top_k
from neuron_explainer.train.loop import Schedule
from neuron_explainer.train.median import geometric_median
from neuron_explainer.train.objectives import Objective, Relu, TopK
from neuron_explainer.train.resampling import resample
from neuron_explainer.train.weights import Weights

TOPK, RELU = TopK.of(PRESENT, WIDTH), Relu(0.3)


def _settings(steps: int, batch: int = 256) -> TrainSettings:
    return TrainSettings(tokens=steps * batch, batch=batch, lr=5e-3)


@pytest.mark.parametrize(("objective", "steps"), [(TOPK, 500), (RELU, 900)], ids=["topk", "relu"])
def test_the_features_of_a_superposition_are_recovered(objective: Objective, steps: int) -> None:
    toy, settings = Superposition.of(0), _settings(steps)
    trainer = trainer_for(toy, objective, settings, 2 * FEATURES)
    assert toy.recovered(trainer.weights) < 0.7  # random directions are no features
    run(trainer, toy, settings)
    assert toy.recovered(trainer.weights) >= 0.95


@pytest.mark.parametrize("objective", [TOPK, RELU], ids=["topk", "relu"])
def test_decoder_rows_have_length_one_after_every_step(objective: Objective) -> None:
    toy, settings = Superposition.of(1), _settings(20, batch=64)
    trainer = trainer_for(toy, objective, settings, 2 * FEATURES)
    for _ in range(20):
        before = trainer.weights.decoder.detach().clone()
        trainer.update(toy.rows(64) / trainer.unit)
        lengths = trainer.weights.decoder.detach().norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
        assert not torch.equal(before, trainer.weights.decoder)


def test_what_would_change_a_rows_length_is_taken_off_its_gradient() -> None:
    toy = Superposition.of(2)
    weights = Weights(torch.zeros(WIDTH), FEATURES, 1.0, Generator().manual_seed(0))
    outcome = TOPK(weights, toy.rows(64), torch.zeros(FEATURES, dtype=torch.bool), 1.0)
    torch.autograd.backward(outcome.loss)
    assert weights.decoder.grad is not None
    whole = weights.decoder.grad.clone()
    weights.remove_parallel()
    left = weights.decoder.grad
    decoder = weights.decoder.detach()
    assert (left * decoder).sum(dim=1).abs().max() < 1e-6 < (whole * decoder).sum(1).abs().max()
    along = (whole - left) @ decoder.T
    torch.testing.assert_close(whole - left, along.diagonal()[:, None] * decoder)


def _dead_at_the_end(spare: int) -> int:
    """Of as many latents as features, half begin a hundred times too short to be among the k."""
    toy, settings = Superposition.of(0), _settings(400, batch=128)
    trainer = trainer_for(toy, TopK(PRESENT, spare), settings, FEATURES)
    with torch.no_grad():
        trainer.weights.encoder[FEATURES // 2 :] *= 0.01
    run(trainer, toy, settings)
    return int(trainer.dead.sum())


def test_the_auxiliary_loss_revives_dead_latents() -> None:
    assert _dead_at_the_end(spare=0) == FEATURES // 2
    assert _dead_at_the_end(spare=8) < FEATURES // 4


def test_dead_latents_are_resampled_at_rows_that_are_badly_reconstructed() -> None:
    generator = Generator().manual_seed(0)
    weights = Weights(torch.zeros(4), 6, 2.0, generator)
    optimizer = torch.optim.Adam(weights.parameters())
    rows = torch.eye(4) * 3
    torch.autograd.backward(
        weights.raw(rows).square().sum() + weights.decode(torch.ones(1, 6)).sum()
    )
    optimizer.step()
    weights.restore_lengths()
    dead = torch.tensor([True, False, True, False, False, False])
    before = {name: tensor.detach().clone() for name, tensor in weights.named_parameters()}
    remainder = torch.zeros(4, 4)
    remainder[1] = 1.0  # the only row with an error
    assert resample(weights, optimizer, rows, remainder, dead, generator) == 2
    direction = rows[1] - weights.bias.detach()
    direction = direction / direction.norm()
    fifth = 0.2 * before["encoder"][~dead].norm(dim=1).mean()
    for place in (0, 2):
        torch.testing.assert_close(weights.decoder[place].detach(), direction)
        torch.testing.assert_close(weights.encoder[place].detach(), fifth * direction)
        assert weights.encoder_bias[place] == 0
        for parameter in (weights.decoder, weights.encoder, weights.encoder_bias):
            assert not optimizer.state[parameter]["exp_avg"][place].any()
            assert not optimizer.state[parameter]["exp_avg_sq"][place].any()
    for name in ("encoder", "encoder_bias", "decoder"):
        assert torch.equal(getattr(weights, name)[~dead], before[name][~dead])
    assert optimizer.state[weights.encoder]["exp_avg"][~dead].any()


def test_without_dead_latents_or_errors_nothing_is_resampled() -> None:
    generator = Generator().manual_seed(0)
    weights = Weights(torch.zeros(4), 6, 1.0, generator)
    optimizer = torch.optim.Adam(weights.parameters())
    before = weights.decoder.detach().clone()
    nothing, everything = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
    rows = torch.ones(3, 4)
    assert resample(weights, optimizer, rows, rows, nothing, generator) == 0
    assert resample(weights, optimizer, rows, rows * 0, everything, generator) == 0
    assert torch.equal(weights.decoder.detach(), before)


def test_the_auxiliary_loss_is_a_32nd_of_what_dead_latents_leave_of_the_remainder() -> None:
    toy = Superposition.of(4)
    weights = Weights(torch.zeros(WIDTH), FEATURES, 1.0, Generator().manual_seed(0))
    rows, dead = toy.rows(32), torch.arange(FEATURES) < 5
    outcome = TOPK(weights, rows, dead, 1.0)
    raw = weights.raw(rows)[:, :5].detach()
    revived = top_k(raw, 5) @ weights.decoder.detach()[:5]  # five are fewer than the spare ones
    left = (outcome.remainder - revived).square().mean()
    torch.testing.assert_close(outcome.loss, outcome.error + left / 32)
    alive = TOPK(weights, rows, torch.zeros_like(dead), 1.0)
    assert torch.equal(alive.loss, alive.error)
    assert torch.equal(alive.error, outcome.error)


def test_the_spare_latents_are_a_power_of_two_at_half_the_width() -> None:
    assert [TopK.of(8, width).spare for width in (2, 24, 128, 768, 4096)] == [1, 8, 64, 256, 512]


def test_the_l1_penalty_is_in_units_of_the_rows_length_and_warms_up() -> None:
    toy = Superposition.of(5)
    weights = Weights(torch.zeros(WIDTH), FEATURES, 1.0, Generator().manual_seed(0))
    rows, alive = toy.rows(32), torch.zeros(FEATURES, dtype=torch.bool)
    whole, half = (Relu(0.3)(weights, rows, alive, warmth) for warmth in (1.0, 0.5))
    penalty = 0.3 * whole.latents.sum(dim=1).mean() / WIDTH**0.5
    torch.testing.assert_close(whole.loss, whole.error + penalty)
    torch.testing.assert_close(half.loss, half.error + penalty / 2)


@given(
    steps=st.integers(1, 3000),
    warm_up=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
    where=st.floats(0, 1, exclude_max=True),
)
def test_rates_rise_stay_and_fall(steps: int, warm_up: float, decay: float, where: float) -> None:
    schedule = Schedule(steps, warm_up, decay)
    step = int(where * steps)
    assert 0 < schedule.rate(step) <= 1
    if warm_up * steps <= step + 1 and step <= (1 - decay) * steps - 1e-6 * steps:
        assert schedule.rate(step) == pytest.approx(1)
    if step + 1 < min(warm_up * steps, steps * (1 - decay)):
        assert schedule.rate(step) < schedule.rate(step + 1)
    if step >= max(warm_up, 1 - decay) * steps and step + 1 < steps and decay * steps > 1:
        assert schedule.rate(step) > schedule.rate(step + 1)


@given(
    points=st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1),
    shift=st.floats(-10, 10, width=32),
)
def test_the_geometric_median_is_near_all_points_and_moves_with_them(
    points: list[list[float]], shift: float
) -> None:
    rows = torch.tensor(points, dtype=torch.float64)

    def total(point: Tensor) -> float:
        return float((rows - point).norm(dim=1).sum())

    found = geometric_median(rows)
    assert total(found) <= total(rows.mean(dim=0)) * (1 + 1e-6) + 1e-6
    spread = float((rows - rows.mean(dim=0)).norm(dim=1).max())
    moved = geometric_median(rows + shift) - shift
    assert total(moved) <= total(found) * (1 + 1e-3) + 1e-3 * spread + 1e-6


def test_outliers_do_not_move_the_geometric_median() -> None:
    rows = torch.zeros(9, 2)
    rows[:3] = 1000.0
    assert geometric_median(rows).norm() < 1e-2
    assert rows.mean(dim=0).norm() > 100


def test_a_loss_beyond_all_numbers_ends_the_training() -> None:
    toy, settings = Superposition.of(6), TrainSettings(tokens=64, batch=8, lr=1e30)
    trainer = trainer_for(toy, RELU, settings, FEATURES)
    run(trainer, toy, settings)
    with pytest.raises(ConfigError, match=r"at step 8 of 8 the loss is no finite number .* --lr"):
        trainer.recent()
