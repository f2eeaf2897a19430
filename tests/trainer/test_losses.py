from dataclasses import replace

import pytest
import torch

from tests.trainer.conftest import vgg_tensors
from trainer.errors import TrainerError
from trainer.loss_network import CAFFE, LossNetwork
from trainer.losses import (
    LossWeights,
    PerceptualLoss,
    check_reachable,
    content_loss,
    gram_matrix,
    style_loss,
    total_variation,
)

WEIGHTS = LossWeights(
    content_layers=("relu2_2",),
    content_weight=1.0,
    style_layers=("relu1_2", "relu3_1"),
    style_weight=10.0,
    style_scales=(1.0, 0.5),
    total_variation_weight=0.1,
)


def test_gram_matrix_equals_the_sum_by_hand() -> None:
    """Two channels of 2x2: G = F F^T / (2 * 2 * 2)."""
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])

    expected = torch.tensor([[[30.0, -2.0], [-2.0, 2.0]]]) / 8

    torch.testing.assert_close(gram_matrix(features), expected)


def test_gram_matrix_of_bf16_features_is_that_of_fp32_within_its_precision() -> None:
    features = torch.randn(2, 16, 24, 20).relu() * 1000

    gram = gram_matrix(features.bfloat16())

    assert gram.dtype is torch.float32
    torch.testing.assert_close(
        gram, gram_matrix(features.bfloat16().float()), rtol=5e-3, atol=gram.max().item() * 1e-3
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_gram_matrix_gradient_equals_finite_differences(channels_last: bool) -> None:
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)

    assert torch.autograd.gradcheck(gram_matrix, features.requires_grad_())


def test_content_loss_is_the_squared_error_over_the_mean_square() -> None:
    target = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    features = torch.tensor([[[[1.0, 0.0], [2.0, 2.0]]]])

    torch.testing.assert_close(content_loss(features, target), torch.tensor([5.0 / 6.0]))


def test_style_loss_is_the_squared_error_over_the_squared_norm() -> None:
    target = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    gram = torch.tensor([[[3.0, 1.0], [1.0, 2.0]]])

    torch.testing.assert_close(style_loss(gram, target), torch.tensor([6.0 / 25.0]))


def test_total_variation_is_the_mean_square_of_both_differences() -> None:
    photo = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])

    torch.testing.assert_close(total_variation(photo), torch.tensor([(0 + 4) / 2 + (1 + 9) / 2]))


@pytest.mark.parametrize("loss", [content_loss, style_loss])
def test_losses_of_a_dead_target_are_finite(loss) -> None:  # type: ignore[no-untyped-def]
    target = torch.zeros(1, 2, 4, 4) if loss is content_loss else torch.zeros(1, 2, 2)

    assert torch.isfinite(loss(torch.ones_like(target), target)).all()


def perceptual_loss(scale: float = 1.0) -> PerceptualLoss:
    """With weights of the first layer times ``scale``: all activations scale with it."""
    tensors = vgg_tensors()
    tensors["conv1_1.weight"] = tensors["conv1_1.weight"] * scale
    return PerceptualLoss(LossNetwork(tensors, CAFFE), style_picture(), WEIGHTS)


def style_picture() -> torch.Tensor:
    return torch.rand(1, 3, 80, 96, generator=torch.Generator().manual_seed(0))


def test_objective_is_the_weighted_sum_and_zero_where_nothing_differs() -> None:
    loss = perceptual_loss()
    style = style_picture()

    terms = loss(style, loss.content_targets(style))

    torch.testing.assert_close(terms.content, torch.zeros(1))
    torch.testing.assert_close(terms.style, torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms.objective, 0.1 * total_variation(style), atol=1e-4, rtol=0)


def test_losses_do_not_depend_on_the_scale_of_the_loss_networks_activations() -> None:
    """So that a style weight means the same for Caffe's and torchvision's weights."""
    torch.manual_seed(1)
    photo, stylized = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    results = []
    for scale in (1.0, 37.0):
        loss = perceptual_loss(scale)
        results.append(loss(stylized, loss.content_targets(photo)).objective)

    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=0)


def test_losses_of_a_batch_are_those_of_each_picture() -> None:
    loss = perceptual_loss()
    torch.manual_seed(2)
    photos, stylized = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)

    together = loss(stylized, loss.content_targets(photos)).objective
    second = loss(stylized[1:], loss.content_targets(photos[1:])).objective

    torch.testing.assert_close(together[1:], second, rtol=1e-4, atol=0)


def test_gradient_of_the_objective_equals_finite_differences() -> None:
    loss = perceptual_loss()
    loss.network.double()
    loss.targets = [{k: v.double() for k, v in t.items()} for t in loss.targets]
    photo = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    stylized = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(stylized)

    def objective(picture: torch.Tensor) -> torch.Tensor:
        return loss(picture, loss.content_targets(photo)).objective.sum()

    objective(stylized).backward()
    step = 1e-9  # small, lest a ReLU or a pool switches in between
    with torch.no_grad():
        difference = objective(stylized + step * direction) - objective(stylized - step * direction)

    assert stylized.grad is not None
    slope = (stylized.grad * direction).sum()
    torch.testing.assert_close(difference / (2 * step), slope, rtol=1e-4, atol=1e-6)


def test_when_a_layer_is_out_of_reach_then_names_it() -> None:
    network = LossNetwork(vgg_tensors(), CAFFE)

    with pytest.raises(TrainerError, match=r"relu4_2.*relu1_1 to relu3_2"):
        check_reachable(replace(WEIGHTS, style_layers=("relu1_1", "relu4_2")), network)


def test_when_a_layer_is_out_of_reach_then_the_nearest_recipe_that_runs_is_proposed() -> None:
    """The authors' own recipe, on a network that ends earlier."""
    authors = replace(
        WEIGHTS,
        content_layers=("relu4_2",),
        style_layers=("relu1_2", "relu2_2", "relu3_2", "relu4_2"),
        style_scales=(1.0,),
    )
    network = LossNetwork(vgg_tensors(), CAFFE)

    with pytest.raises(TrainerError) as raised:
        check_reachable(authors, network)

    assert 'content_layers = ["relu3_2"]' in str(raised.value)
    assert 'style_layers = ["relu1_2", "relu2_2", "relu3_2"]' in str(raised.value)
    assert "style_scales = [1.0, 0.5]" in str(raised.value)
    nearest = replace(authors, content_layers=("relu3_2",), style_layers=("relu1_2", "relu2_2"))
    check_reachable(nearest, network)


def test_absolute_losses_are_sums_of_mean_squared_errors_over_layers() -> None:
    """As the sources have them: by hand from the activations, with pixels in 0..255."""
    weights = replace(WEIGHTS, kind="absolute", style_scales=(1.0,))
    network, picture = LossNetwork(vgg_tensors(), CAFFE), torch.rand(1, 3, 64, 64)
    loss = PerceptualLoss(network, picture, weights)
    photo, painted = torch.rand(2, 1, 3, 48, 48)

    terms = loss(painted, loss.content_targets(photo))

    layers = (*weights.content_layers, *weights.style_layers)
    of = {n: network.activations(x, layers) for n, x in (("photo", photo), ("style", picture))}
    mine = network.activations(painted, layers)
    content = sum((mine[n] - of["photo"][n]).square().mean() for n in weights.content_layers)
    style = sum(
        (gram_matrix(mine[n]) - gram_matrix(of["style"][n])).square().mean()
        for n in weights.style_layers
    )
    steps = [255 * painted.diff(dim=d).square().mean() for d in (2, 3)]
    variation = sum(steps) * 255 * 3 * 48 * 48
    torch.testing.assert_close(terms.content[0], content)
    torch.testing.assert_close(terms.style[0], style)
    torch.testing.assert_close(terms.total_variation[0], variation)


def test_when_the_style_picture_is_too_small_for_a_scale_then_says_so() -> None:
    with pytest.raises(TrainerError, match="raise size_px or drop the scale"):
        PerceptualLoss(LossNetwork(vgg_tensors(), CAFFE), torch.rand(1, 3, 60, 60), WEIGHTS)
