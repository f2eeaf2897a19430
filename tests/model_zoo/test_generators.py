"""What every generator in GENERATORS promises; a new one is tested by being there."""

import inspect
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch

from model_zoo.generators import GENERATORS
from model_zoo.generators.johnson import johnson
from model_zoo.generators.texture_net import texture_net
from model_zoo.layers import Generator, InstanceNorm, Padding

every_generator = pytest.mark.parametrize("name", GENERATORS)
GRAINED = [n for n, build in GENERATORS.items() if "grain" in inspect.signature(build).parameters]
BATCH_NORMALIZED = [
    n for n, build in GENERATORS.items() if "normalization" in inspect.signature(build).parameters
]
NORMALIZED_DECODERS = ["johnson", "johnson_half"]
every_grained_generator = pytest.mark.parametrize("name", GRAINED)
CONTRASTS = pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.3), (0.25, 0.0), (1.1, -0.1)])


def build(name: str, normalization: str = "instance", **arguments: Any) -> Generator:
    torch.manual_seed(7)
    if name in BATCH_NORMALIZED:
        arguments["normalization"] = normalization
    generator = GENERATORS[name](**arguments)
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


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in GENERATORS),
        *((name, {"grain": 0.1}) for name in GRAINED),
        *((name, {"grain": 0.1, "normalize_decoder": False}) for name in NORMALIZED_DECODERS),
        ("texture_net", {"noise_channels": 3}),
    ],
)
@CONTRASTS
def test_instance_normalization_makes_the_answer_independent_of_contrast(
    name: str, arguments: dict[str, Any], photo: torch.Tensor, gain: float, offset: float
) -> None:
    """The paper's point: the style, not the photograph, sets the contrast of the answer."""
    generator = build(name, **arguments)

    difference = to_uint8(generator(photo)) - to_uint8(generator(gain * photo + offset))

    assert difference.abs().max() <= 2


@pytest.mark.parametrize("name", BATCH_NORMALIZED)
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


@every_grained_generator
def test_grain_gives_an_even_area_something_to_paint_from(name: str, photo: torch.Tensor) -> None:
    photo[..., :56] = 1.0  # a white background, wider than the network sees

    even = build(name, grain=0.0)(photo)[..., 20:52, :4].std((2, 3)).mean()
    grained = build(name, grain=0.1)(photo)[..., 20:52, :4].std((2, 3)).mean()

    assert grained > 3 * even


@every_generator
def test_no_convolution_before_a_normalization_has_a_bias(name: str) -> None:
    pairs = [
        pair
        for module in build(name).modules()
        if isinstance(module, torch.nn.Sequential)
        for pair in pairwise(module)
        if isinstance(pair[0], torch.nn.Conv2d)
    ]

    has_bias = {isinstance(after, InstanceNorm): c.bias is not None for c, after in pairs}

    assert has_bias.pop(True) is False
    assert has_bias in ({}, {False: True})


@every_generator
def test_gradients_reach_every_parameter(name: str) -> None:
    generator = GENERATORS[name]().train()

    generator(torch.rand(1, 3, 32, 32)).square().mean().backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


@every_generator
@pytest.mark.parametrize("padding", get_args(Padding))
def test_padding_decides_what_the_border_sees_and_nothing_else(
    name: str, photo: torch.Tensor, padding: Padding
) -> None:
    reflected, padded = build(name)(photo), build(name, padding=padding)(photo)

    assert padded.shape == photo.shape
    assert torch.equal(padded, reflected) is (padding == "reflect")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {"padding": "mirror"}) for name in GENERATORS),
        *((name, {"normalization": "layer"}) for name in BATCH_NORMALIZED),
    ],
)
def test_an_unknown_switch_is_named_with_its_choices(name: str, arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"'(mirror|layer)' must be one of"):
        GENERATORS[name](**arguments)


@pytest.mark.parametrize("name", NORMALIZED_DECODERS)
def test_a_decoder_without_normalization_has_biases_instead(name: str) -> None:
    plain, bare = build(name), build(name, normalize_decoder=False)

    assert [b[1].bias is None for b in plain.decoder] == [True, True]
    assert [b[1].bias is None for b in bare.decoder] == [False, False]
    assert not [m for m in bare.decoder.modules() if isinstance(m, InstanceNorm)]


def test_noise_gives_one_picture_a_seed_whatever_the_batch(photo: torch.Tensor) -> None:
    generator = build("texture_net", noise_channels=3)

    first, again, other = (to_uint8(generator(photo, [seed])) for seed in (1, 1, 2))
    together = to_uint8(generator(photo.repeat(3, 1, 1, 1), [2, 1, 1]))

    assert torch.equal(first, again)
    assert (first - other).abs().float().mean() > 1
    assert (together[0] - other[0]).abs().max() <= 1
    assert (together[1] - first[0]).abs().max() <= 1


def test_noise_without_seeds_is_fresh_in_training_and_fixed_afterwards(
    photo: torch.Tensor,
) -> None:
    generator = build("texture_net", noise_channels=3)

    assert torch.equal(generator(photo), generator(photo))
    generator.train()
    assert not torch.equal(generator(photo), generator(photo))


def test_texture_net_maps_are_never_smaller_than_2_by_2() -> None:
    """A 1 x 1 map has no variance: instance normalization would wipe out the coarsest scale."""
    smallest = []
    generator = build("texture_net")
    for module in generator.modules():
        if isinstance(module, InstanceNorm):
            module.register_forward_hook(lambda _m, x, _y: smallest.append(min(x[0].shape[-2:])))

    generator(torch.rand(1, 3, 5, 40))

    assert min(smallest) == 2


def test_texture_net_has_the_parameters_of_the_authors_layout() -> None:
    """Convolutions by hand: blocks of 8 a scale, joins of 16 to 48, 48 to RGB with a bias."""
    blocks = 6 * (3 * 8 * 9 + 8 * 8 * 9 + 8 * 8)
    joins = sum((8 * i) ** 2 * (9 + 9 + 1) for i in range(2, 7))

    convolutions = [m for m in texture_net().modules() if isinstance(m, torch.nn.Conv2d)]

    total = sum(p.numel() for c in convolutions for p in c.parameters())
    assert total == blocks + joins + 48 * 3 + 3


def test_johnson_has_the_published_number_of_parameters() -> None:
    """1,679,235 as in fast-neural-style ports, less the biases that a normalization removes."""
    parameters = sum(p.numel() for p in johnson().parameters())
    removed_biases = 32 + 64 + 128 + 10 * 128 + 64 + 32

    assert parameters + removed_biases == 1_679_235
