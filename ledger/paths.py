"""Write places in an event: as paths in an entry, and as JSON pointers in a refusal."""

from __future__ import annotations


def segment(name: str) -> str:
    """Write a member's name as one segment of a path (FORMAT.md 4.1)."""
    return name.replace("~", "~0").replace(".", "~1")


def pointer_to(path: str) -> str:
    """Write a path as a JSON pointer, which escapes other characters (RFC 6901 section 3)."""
    names = (part.replace("~1", ".").replace("~0", "~") for part in path.split("."))
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
