"""What every generator in GENERATORS promises; a new one is tested by being there."""

import pytest
import torch

from model_zoo.generators import GENERATORS
from model_zoo.generators.johnson import johnson
from model_zoo.layers import Generator

every_generator = pytest.mark.parametrize("name", GENERATORS)


def build(name: str, normalization: str = "instance", **arguments: float) -> Generator:
    torch.manual_seed(7)
    generator = GENERATORS[name](normalization=normalization, **arguments)
    # Scaled so that the answers fill a good part of [0, 1]: a flat grey would prove nothing.
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return generator.eval().requires_grad_(requires_grad=False)


def to_uint8(photos: torch.Tensor) -> torch.Tensor:
    return photos.clamp(0, 1).mul(255).round().to(torch.int16)


@pytest.fixture
def photo() -> torch.Tensor:
    """A picture with edges, a ramp, a flat part and texture, in [0.1, 0.9]."""
    torch.manual_seed(3)
    y, x = torch.meshgrid(torch.linspace(0, 1, 72), torch.linspace(0, 1, 90), indexing="ij")
    picture = torch.stack([x, y, (x + y) / 2])
    picture[:, 10:30, 10:40] = 0.8
    picture[:, 40:60, 50:80] += 0.2 * torch.rand(3, 20, 30)
    return (0.1 + 0.8 * picture.clamp(0, 1))[None]


@every_generator
@pytest.mark.parametrize("size", [(1, 1), (2, 300), (15, 16), (64, 64), (97, 338)])
def test_answer_has_exactly_the_size_of_the_photograph(name: str, size: tuple[int, int]) -> None:
    photos = torch.rand(1, 3, *size)

    painted = build(name)(photos)

    assert painted.shape == photos.shape
    assert torch.isfinite(painted).all()


@every_generator
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_photograph_gives_a_finite_answer(name: str, value: float) -> None:
    painted = build(name)(torch.full((1, 3, 40, 40), value))

    assert torch.isfinite(painted).all()


@every_generator
def test_batch_mates_do_not_matter(name: str, photo: torch.Tensor) -> None:
    generator = build(name)
    mates = torch.rand(3, *photo.shape[1:])

    alone = to_uint8(generator(photo))[0]
    in_batch = to_uint8(generator(torch.cat([mates[:2], photo, mates[2:]])))[2]

    assert (alone - in_batch).abs().max() <= 1
    assert alone.unique().numel() > 16


@every_generator
@pytest.mark.parametrize("grain", [0.0, 0.1])
@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.3), (0.25, 0.0), (1.1, -0.1)])
def test_instance_normalization_makes_the_answer_independent_of_contrast(
    name: str, photo: torch.Tensor, gain: float, offset: float, grain: float
) -> None:
    """The paper's point: the style, not the photograph, sets the contrast of the answer."""
    generator = build(name, grain=grain)

    difference = to_uint8(generator(photo)) - to_uint8(generator(gain * photo + offset))

    assert difference.abs().max() <= 2


@every_generator
def test_batch_normalization_lets_the_photographs_contrast_through(
    name: str, photo: torch.Tensor
) -> None:
    generator = build(name, "batch")
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    generator.train()(photo)  # running statistics as training would leave them
    generator.eval()

    difference = to_uint8(generator(photo)) - to_uint8(generator(0.5 * photo + 0.3))

    assert difference.abs().max() > 2


@every_generator
def test_grain_gives_an_even_area_something_to_paint_from(name: str, photo: torch.Tensor) -> None:
    photo[..., :56] = 1.0  # a white background, wider than the network sees

    even = build(name)(photo)[..., 20:52, :4].std((2, 3)).mean()
    grained = build(name, grain=0.1)(photo)[..., 20:52, :4].std((2, 3)).mean()

    assert grained > 3 * even


@every_generator
def test_no_convolution_before_a_normalization_has_a_bias(name: str) -> None:
    convolutions = [m for m in build(name).modules() if isinstance(m, torch.nn.Conv2d)]

    with_bias = [c for c in convolutions if c.bias is not None]

    assert [c.out_channels for c in with_bias] == [3]


@every_generator
def test_gradients_reach_every_parameter(name: str) -> None:
    generator = GENERATORS[name]().train()

    generator(torch.rand(1, 3, 32, 32)).square().mean().backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_johnson_has_the_published_number_of_parameters() -> None:
    """1,679,235 as in fast-neural-style ports, less the biases that a normalization removes."""
    parameters = sum(p.numel() for p in johnson().parameters())
    removed_biases = 32 + 64 + 128 + 10 * 128 + 64 + 32

    assert parameters + removed_biases == 1_679_235
