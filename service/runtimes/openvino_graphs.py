"""OpenVINO graphs of passes: one an architecture, its weights put in for each style.

To trace and translate a pass takes most of a second of Python; styles share their architecture,
and to put other weights in takes milliseconds.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Hashable

_ANY = -1
_KEPT = 32
"""Graphs without weights that are kept: more than a zoo has, and an end to what reloads leave."""


class Graphs:
    """Makes graphs for pixels of any number and size.

    Args:
        openvino: the module, imported by the runtime in its own way.
    """

    def __init__(self, openvino: Any) -> None:
        self._openvino = openvino
        self._without_weights: OrderedDict[Hashable, Any] = OrderedDict()
        # A model thread makes graphs of tiles while another thread loads the next zoo.
        self._making = threading.Lock()

    def make(self, architecture: str, module: nn.Module, example: tuple[Tensor, ...]) -> Any:
        """Give the graph of ``module``.

        Args:
            architecture: equal only for modules that differ in nothing but their weights.
            module: a pass, in evaluation mode.
            example: its inputs; the first is pixels, of two pictures. Those that have two entries,
                too, have as many as there are pictures.
        """
        key = architecture, type(module)
        weights = _weights(module)
        with self._making:
            if key not in self._without_weights:
                self._without_weights[key] = self._translate(module, example, weights)
            self._without_weights.move_to_end(key)
            if len(self._without_weights) > _KEPT:
                self._without_weights.popitem(last=False)
            graph = self._without_weights[key].clone()
        for tensor, placed in zip(
            weights.values(), graph.get_parameters()[len(example) :], strict=True
        ):
            constant = self._openvino.op.Constant(tensor.detach().numpy())
            placed.output(0).replace(constant.output(0))
            graph.remove_parameter(placed)
        return graph

    def _translate(
        self, module: nn.Module, example: tuple[Tensor, ...], weights: dict[str, Tensor]
    ) -> Any:
        shapes = [[_ANY, _ANY, _ANY, 3]]
        for tensor in example[1:]:
            one_a_picture = tensor.dim() and len(tensor) == len(example[0])
            shapes.append([_ANY, *tensor.shape[1:]] if one_a_picture else list(tensor.shape))
        shapes += [list(tensor.shape) for tensor in weights.values()]
        with warnings.catch_warnings():
            # Of traced branches: the passes have none that depends on the picture.
            warnings.simplefilter("ignore")
            return self._openvino.convert_model(
                _WeightsAsInputs(module, tuple(weights), len(example)),
                example_input=(*example, *weights.values()),
                input=[self._openvino.PartialShape(shape) for shape in shapes],
            )


class _WeightsAsInputs(nn.Module):
    """A copy of a module as a function of its weights, too, which follow its own inputs."""

    def __init__(self, module: nn.Module, names: tuple[str, ...], input_count: int) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        self.places = [
            (self.module.get_submodule(owner), leaf)
            for owner, _, leaf in (name.rpartition(".") for name in names)
        ]
        self.input_count = input_count
        for owner, leaf in self.places:
            delattr(owner, leaf)  # or it would be a constant of the graph

    def forward(self, *inputs: Tensor) -> Any:
        for (owner, leaf), weight in zip(self.places, inputs[self.input_count :], strict=True):
            setattr(owner, leaf, weight)
        return self.module(*inputs[: self.input_count])


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """All that training has set; what a seed has set is of the architecture."""
    return {
        name: tensor.detach()
        for name, tensor in module.state_dict().items()
        if torch.is_floating_point(tensor)
    }
