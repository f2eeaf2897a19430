"""Keys: who a caller is, by the hash of the key it sends. ``python -m service.keys`` makes one.

The service is told hashes alone, so that its environment and whoever reads it cannot call it. Keys
are 256 random bits: nobody can guess one, and a hash that is made to be slow would gain nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import re
import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENTRY = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]{0,63})=)?([0-9a-f]{64})")
_KEY_BYTES = 32
_NAME_OF_HASH_LENGTH = 8


class KeyRingError(ValueError):
    """A list of hashes cannot be read; the message does not repeat what stands there."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Known keys: the owner's name by the SHA-256 of each. An owner may have several."""

    owners: Mapping[bytes, str]

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read hashes in hexadecimal, by comma, each alone or as ``NAME=HASH``.

        An owner without a name is called by the first digits of the hash.

        Raises:
            KeyRingError: saying which entry is wrong.
        """
        owners: dict[bytes, str] = {}
        entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
        for number, entry in enumerate(entries, 1):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise KeyRingError(
                    f"entry {number} of {len(entries)} is no SHA-256 in lower-case hexadecimal, "
                    "nor NAME=HASH; `python -m service.keys NAME` makes a key and its entry"
                )
            digest = bytes.fromhex(match[2])
            if digest in owners:
                raise KeyRingError(f"entry {number} has a hash that stands there already")
            owners[digest] = match[1] or match[2][:_NAME_OF_HASH_LENGTH]
        return cls(owners)

    def owner(self, key: str) -> str | None:
        """Name of the owner of ``key``, in a time that does not tell how much of it is right."""
        # As it came: header values are decoded as Latin-1.
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        found = None
        for known, name in self.owners.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found

    def __len__(self) -> int:
        return len(self.owners)


def make_key() -> str:
    """A new key, of letters, digits, ``-`` and ``_``."""
    return f"atelier_{secrets.token_urlsafe(_KEY_BYTES)}"


def hash_key(key: str) -> str:
    """What the service is told of ``key``: its SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode("latin-1")).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a new key and its entry for the settings."""
    parser = argparse.ArgumentParser(prog="python -m service.keys", description=main.__doc__)
    parser.add_argument("name", help="whose key it is: letters, digits, '.', '_' and '-'")
    name = parser.parse_args(arguments).name
    key = make_key()
    entry = f"{name}={hash_key(key)}"
    if not _ENTRY.fullmatch(entry):
        parser.error(f"{name!r} is no name: up to 64 letters, digits, '.', '_' and '-'")
    sys.stdout.write(
        f"key, for {name} alone; it is shown only now:\n  {key}\n"
        f"entry for ATELIER_API_KEYS or ATELIER_ADMIN_KEYS:\n  {entry}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
