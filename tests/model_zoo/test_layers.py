import numpy as np
import pytest
import torch

from model_zoo.layers import Grain, InstanceNorm, normalization_layer, pad_to_multiple


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (7, 9), (16, 16), (17, 30)])
def test_pad_to_multiple_agrees_with_numpy_reflection(size: tuple[int, int]) -> None:
    x = torch.arange(size[0] * size[1], dtype=torch.float32).view(1, 1, *size)

    padded = pad_to_multiple(x, multiple=4, minimum=16)

    height, width = padded.shape[-2:]
    expected = np.pad(
        x[0, 0].numpy(),
        ((0, height - size[0]), (0, width - size[1])),
        mode="reflect",
    )
    assert (height % 4, width % 4) == (0, 0)
    assert min(height, width) >= 16
    np.testing.assert_array_equal(padded[0, 0].numpy(), expected)


def test_pad_to_multiple_leaves_a_fitting_size_alone() -> None:
    x = torch.rand(1, 3, 16, 20)

    assert pad_to_multiple(x, multiple=4, minimum=16) is x


def test_instance_norm_equals_the_formula_of_the_paper() -> None:
    x = torch.randn(2, 3, 5, 7) * 4 + 1
    norm = InstanceNorm(3)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)

    mean = x.mean((2, 3), keepdim=True)
    variance = x.var((2, 3), unbiased=False, keepdim=True)
    expected = (x - mean) / torch.sqrt(variance + 1e-5)
    expected = expected * norm.weight.view(1, 3, 1, 1) + norm.bias.view(1, 3, 1, 1)

    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def test_instance_norm_keeps_its_statistics_in_fp32_for_half_precision() -> None:
    """A flat picture with a faint ramp: bf16 statistics would lose the ramp altogether."""
    x = (1 + torch.linspace(0, 0.02, 64).view(1, 1, 8, 8)).bfloat16()

    normalized = InstanceNorm(1)(x)

    assert normalized.dtype is torch.bfloat16
    torch.testing.assert_close(normalized.float(), InstanceNorm(1)(x.float()), atol=0.02, rtol=0)


def test_instance_norm_computes_the_same_in_training_and_evaluation() -> None:
    x = torch.randn(2, 3, 8, 8)
    norm = InstanceNorm(3)

    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert not [name for name in norm.state_dict() if "running" in name]


def test_normalization_layer_when_unknown_then_names_the_choices() -> None:
    with pytest.raises(ValueError, match="instance, batch"):
        normalization_layer("layer", 3)  # type: ignore[arg-type]


def test_grain_is_the_same_each_time_scales_with_contrast_and_knows_no_batch_mates() -> None:
    photos = torch.rand(3, 3, 40, 600)

    grained = Grain(0.1)(photos)

    assert torch.equal(grained, Grain(0.1)(photos))
    torch.testing.assert_close(Grain(0.1)(photos[1:2]), grained[1:2])
    torch.testing.assert_close(Grain(0.1)(0.25 * photos + 0.5), 0.25 * grained + 0.5)
    ratio = (grained - photos).std() / photos.std()
    assert 0.08 < ratio < 0.12
    assert not Grain(0.1).state_dict()


def test_grain_does_not_repeat_within_an_even_area() -> None:
    noise = Grain(0.1)(torch.full((1, 1, 320, 640), 0.5))[0, 0] - 0.5

    assert noise.std() > 0
    for shift in (251, 311):
        rolled = torch.stack([noise[:, :-shift].flatten(), noise[:, shift:].flatten()])
        assert torch.corrcoef(rolled)[0, 1] < 0.7
