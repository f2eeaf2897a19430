import pytest
import torch

from model_zoo.generators import GENERATORS
from trainer.averaging import WeightAverage


def with_weights(value: float) -> torch.nn.Module:
    generator = GENERATORS["texture_net"]()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(value)
    return generator


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_average_follows_the_weights_as_fast_as_its_decay_says(decay: float) -> None:
    generator = with_weights(1.0)
    average = WeightAverage(generator, decay)  # type: ignore[arg-type]
    expected = 1.0
    for number in range(40):
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.fill_(float(number))
        average.update(generator)  # type: ignore[arg-type]
        # The first update takes the weights as they are; early on the average follows faster.
        now = 0.0 if number == 0 else min(decay, (1 + number) / (10 + number))
        expected = now * expected + (1 - now) * number

    assert average.generator.to_rgb.bias[0].item() == pytest.approx(expected, rel=1e-5)


def test_average_goes_on_from_its_state() -> None:
    generator = with_weights(1.0)
    first = WeightAverage(generator, 0.9)  # type: ignore[arg-type]
    first.update(generator)  # type: ignore[arg-type]
    second = WeightAverage(with_weights(5.0), 0.9)  # type: ignore[arg-type]
    second.load_state(first.state())

    for average in (first, second):
        average.update(with_weights(2.0))  # type: ignore[arg-type]

    for one, other in zip(first.generator.parameters(), second.generator.parameters(), strict=True):
        assert torch.equal(one, other)
