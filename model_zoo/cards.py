"""Cards and the manifest: what a zoo holds, read from manifest.toml and verified by checksum."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHIPPED_ZOO = Path(__file__).parent
"""The zoo that travels inside this package."""

STYLE_ID_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""Lower-case words joined by hyphens: safe in a URL, a metric label and a file name."""


_KINDS: dict[str, tuple[type, str]] = {
    "str": (str, "a string"),
    "int": (int, "a whole number"),
    "Mapping[str, Any]": (dict, "a table"),
}


class ZooError(Exception):
    """A zoo cannot be used as it is; the message names the file and what to do."""


class UnknownStyleError(ZooError):
    """The manifest holds no style of that id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleCard:
    """Everything about one style but its tensors.

    ``weights`` and ``preview`` are paths relative to the zoo's folder. ``quality`` holds measured
    figures and may be empty; ``training`` says how the weights came to be. Styles of one
    conditional network share its weights, each is its ``style_row``. ``mixes_as`` is the id of
    such a style that stands for this one where styles are mixed.
    """

    style_id: str
    title: str
    artist: str
    year: str
    generator: str
    weights: str
    sha256: str
    preview: str
    picture_license: str
    weights_license: str
    description: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    style_row: int = 0
    mixes_as: str = ""

    def __post_init__(self) -> None:
        if not STYLE_ID_PATTERN.fullmatch(self.style_id):
            raise ZooError(
                f"style id {self.style_id!r} must be lower-case letters, digits and single hyphens"
            )
        for name in ("weights", "preview"):
            path = Path(getattr(self, name))
            if path.is_absolute() or ".." in path.parts:
                raise ZooError(
                    f"style {self.style_id!r}: {name} {str(path)!r} must lie inside the zoo"
                )
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ZooError(f"style {self.style_id!r}: sha256 must be 64 hexadecimal digits")

    @property
    def has_noise(self) -> bool:
        """Whether the generator draws noise from a seed, as its argument of that name says."""
        return bool(self.arguments.get("noise_channels", 0))

    @property
    def architecture(self) -> str:
        """Equal only for generators that differ in nothing but their weights."""
        return f"{self.generator} {sorted(self.arguments.items())}"

    @property
    def network(self) -> str:
        """Equal only for styles that one and the same network paints, in this zoo or another.

        By checksum: a file may be replaced under the same name while its styles are served.
        """
        return f"{self.architecture} {self.sha256}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The cards of one zoo, in shipped order.

    ``zoo`` is the folder that holds ``manifest.toml``, ``weights/`` and ``previews/``.
    """

    zoo: Path
    cards: tuple[StyleCard, ...]

    @classmethod
    def read(cls, zoo: Path) -> Manifest:
        """Read ``zoo/manifest.toml``; files are only opened by :meth:`verify` or on use.

        Raises:
            ZooError: the manifest is absent, not TOML, or holds a card that is not valid.
        """
        path = zoo / "manifest.toml"
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ZooError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ZooError(f"{path}: is not valid TOML: {error}") from error
        unknown = set(document) - {"style"}
        if unknown:
            raise ZooError(f"{path}: unknown key {min(unknown)!r}; only [[style]] entries belong")
        entries = document.get("style", [])
        if not isinstance(entries, list):
            raise ZooError(f"{path}: write [[style]], an array of tables, not [style]")
        cards = tuple(_card(entry, position, path) for position, entry in enumerate(entries, 1))
        seen: set[str] = set()
        for card in cards:
            if card.style_id in seen:
                raise ZooError(f"{path}: style id {card.style_id!r} appears twice")
            seen.add(card.style_id)
        rows = {card.style_id for card in cards if card.style_row}
        for card in cards:
            if card.mixes_as and card.mixes_as not in rows:
                raise ZooError(
                    f"{path}: style {card.style_id!r} mixes as {card.mixes_as!r}, "
                    "which is no style with a style_row"
                )
        return cls(zoo, cards)

    def verify(self) -> None:
        """Compare every weights file with its card's checksum and see that previews are whole.

        Raises:
            ZooError: naming the first file that is absent or differs.
        """
        for card in self.cards:
            path = self.weights_path(card)
            check_sha256(path, card, file_sha256(path))
            preview = self.preview_path(card)
            if not preview.is_file():
                raise ZooError(f"{preview}: preview is missing; export it again")
            if not _is_whole_jpeg(preview):
                raise ZooError(f"{preview}: preview is damaged or no JPEG; export it again")

    def card(self, style_id: str) -> StyleCard:
        """Return the card of ``style_id``.

        Raises:
            UnknownStyleError: no such style; the message lists those there are.
        """
        for card in self.cards:
            if card.style_id == style_id:
                return card
        known = ", ".join(card.style_id for card in self.cards) or "none"
        raise UnknownStyleError(f"no style {style_id!r} in {self.zoo}; there are: {known}")

    def weights_path(self, card: StyleCard) -> Path:
        """Path of the safetensors file of ``card``."""
        return self.zoo / card.weights

    def preview_path(self, card: StyleCard) -> Path:
        """Path of the JPEG preview of ``card``."""
        return self.zoo / card.preview

    def __iter__(self) -> Iterator[StyleCard]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        ZooError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error})") from error


def _is_whole_jpeg(path: Path) -> bool:
    """Whether it begins and ends as a JPEG does; a copy that broke off ends otherwise."""
    data = path.read_bytes()
    return data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")


def check_sha256(path: Path, card: StyleCard, actual: str) -> None:
    """See that a weights file with the checksum ``actual`` is the one that ``card`` describes.

    Raises:
        ZooError: it is not.
    """
    if actual != card.sha256:
        raise ZooError(
            f"{path}: sha256 is {actual}, its card says {card.sha256}; "
            "restore the file or export the style again"
        )


def _card(entry: Any, position: int, path: Path) -> StyleCard:
    where = f"{path}: [[style]] number {position}"
    if not isinstance(entry, dict):
        raise ZooError(f"{where} is not a table")
    if isinstance(entry.get("style_id"), str):
        where += f" ({entry['style_id']})"
    known = {f.name: str(f.type) for f in fields(StyleCard)}
    for key, value in entry.items():
        if key not in known:
            raise ZooError(f"{where}: unknown key {key!r}; known: {', '.join(known)}")
        expected, kind = _KINDS[known[key]]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ZooError(f"{where}: {key} must be {kind}, not {value!r}")
    try:
        return StyleCard(**entry)
    except TypeError as error:
        missing = str(error).rpartition("argument")[2].lstrip("s: ")
        raise ZooError(f"{where}: missing {missing}") from error
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from error
