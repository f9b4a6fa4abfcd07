"""What must be shown nowhere: keys that servers are asked with, and what the environment names like a secret."""

from __future__ import annotations

import os
import re

_NAMED = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
"""What the names of variables with a secret in them have."""
_SHORTEST = 6
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_keys: set[str] = set()


def is_a_key(variable: str) -> None:
    """Note that an environment variable holds a key, whatever its name."""
    _keys.add(variable)


def without_secrets(text: str) -> str:
    """Return text without what variables hold that are keys or named like secrets, and without passwords of URLs."""
    secret = {value for name, value in os.environ.items() if _NAMED.search(name) and len(value) >= _SHORTEST}
    secret |= {os.environ.get(name, "") for name in _keys} - {""}
    for value in sorted(secret, key=len, reverse=True):
        text = text.replace(value, "***")
    return _IN_ADDRESS.sub("***", text)
