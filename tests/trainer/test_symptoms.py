import torch

from trainer.symptoms import EARLIEST_STEP, Symptoms


def test_a_clipped_answer_is_told_once_and_says_what_to_do() -> None:
    symptoms = Symptoms()
    clipped = torch.rand(2, 3, 32, 32) * 3 - 1

    (sentence,) = symptoms.look(200, clipped)

    assert "step 200: 6" in sentence
    assert "lower optimization.learning_rate" in sentence
    assert symptoms.look(210, clipped) == []


def test_a_flat_answer_is_told() -> None:
    (sentence,) = Symptoms().look(200, torch.full((1, 3, 32, 32), 0.5))

    assert "nearly one flat colour" in sentence


def test_a_healthy_answer_and_the_first_steps_are_not() -> None:
    symptoms = Symptoms()

    assert symptoms.look(200, torch.rand(1, 3, 32, 32)) == []
    assert symptoms.look(EARLIEST_STEP - 1, torch.full((1, 3, 32, 32), 7.0)) == []
