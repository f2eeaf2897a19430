"""loss-network: fetches or checks the VGG weights that losses are measured with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.commands.arguments import add_command
from trainer.loss_network import download_loss_network, load_loss_network

if TYPE_CHECKING:
    import argparse

    from trainer.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "loss-network",
        "fetch or check the loss network",
        "Check a file of VGG weights, or fetch torchvision's VGG-19 first.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add(
        "file",
        type=Path,
        nargs="?",
        default=Path("runs/loss_network/vgg19.safetensors"),
        metavar="FILE",
        help="where the weights are, or shall be",
    )
    add("--download", action="store_true", help="fetch 548 MB, keep the 80 MB of convolutions")


def run(options: argparse.Namespace) -> None:
    """Fetch where asked to, check, and say which layers there are."""
    if options.download:
        download_loss_network(options.file)
    network = load_loss_network(options.file)
    print(f"{options.file}: {network.layer_names[0]} to {network.layer_names[-1]}")
