import torch

from model_zoo.checkpoints import build_generator
from trainer.batch_statistics import statistics_of


def test_own_statistics_are_those_of_training_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    generator = build_generator("johnson_half", {"normalization": "batch"}).eval()
    photos = torch.rand(3, 3, 48, 48)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}

    with torch.no_grad(), statistics_of(generator, "own"):
        own = generator(photos)
    with torch.no_grad(), statistics_of(generator, "running"):
        running = generator(photos)

    assert all(torch.equal(before[name], t) for name, t in generator.state_dict().items())
    assert not generator.training
    assert torch.equal(running, generator(photos))
    with torch.no_grad():
        trained = generator.train()(photos)
    torch.testing.assert_close(own, trained)
    assert (own - running).abs().mean() > 0.01
