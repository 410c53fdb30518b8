"""Turning what people type into values: comma lists, devices, shards."""

from __future__ import annotations

import re
from typing import Any

from vheatbench.errors import UserError


def comma_list(text: str | None) -> list[str] | None:
    """``a,b`` to a list; None stays None. Raises UserError for an empty list or entry."""
    if text is None:
        return None
    values = [part.strip() for part in text.split(",")]
    if not all(values):
        raise UserError(f"{text!r} has an empty value: give values separated by commas")
    return values


def numbers_or_words(text: str | None) -> list[Any] | None:
    """As :func:`comma_list`, whole numbers as int."""
    values = comma_list(text)
    return None if values is None else [int(v) if re.fullmatch(r"-?[0-9]{1,18}", v) else v for v in values]


def booleans(text: str | None, option: str, others: tuple[str, ...] = ()) -> list[Any] | None:
    """``true,false`` to a list of bool; words in ``others`` stay words."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    known: dict[str, Any] = {**words, **{word: word for word in others}}
    values = comma_list(text)
    if values is None:
        return None
    for value in values:
        if value.lower() not in known:
            choice = f"none of true, false, {', '.join(others)}" if others else "neither true nor false"
            raise UserError(f"{option}: {value!r} is {choice}")
    return [known[value.lower()] for value in values]


def duration(text: str | None, option: str) -> float | None:
    """``90``, ``90s``, ``3m`` or ``1.5h`` to seconds. Raises UserError for anything else, and for no time at all."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(s|m|min|h)?\s*", text)
    seconds = float(match[1]) * {"h": 3600, "m": 60, "min": 60}.get(match[2] or "s", 1) if match else 0.0
    if seconds <= 0:
        raise UserError(f"{option} {text!r}: give a time such as 90s, 3m or 1.5h")
    return seconds


def shard(text: str | None) -> tuple[int, int] | None:
    """``2/5`` to (2, 5). Raises UserError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text!r}: give i/n with 1 <= i <= n, for example 2/5")
    return int(match[1]), int(match[2])


def device_numbers(text: str) -> list[int] | None:
    """``0,1`` to [0, 1], each once; ``all`` to None. Raises UserError for anything else."""
    if text == "all":
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,4}", word) for word in words):
        raise UserError(f"--devices {text!r}: give GPU numbers such as 0,1, or all")
    return list(dict.fromkeys(map(int, words)))


def device_kind(text: str) -> tuple[str, int | None]:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` to kind and index."""
    match = re.fullmatch(r"(auto|cpu|cuda)(?::([0-9]{1,4}))?", text)
    if not match or (match[2] and match[1] != "cuda"):
        raise UserError(f"unknown device {text!r}: auto, cpu, cuda or cuda:INDEX")
    return match[1], int(match[2]) if match[2] else None


def resolution_of(text: str, option: str = "--resolution") -> tuple[int, int]:
    """``224`` or ``480x640`` to height and width. Raises UserError."""
    from vheatbench.suites import parse_resolution

    try:
        return parse_resolution(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def resolutions_of(text: str | None) -> list[tuple[int, int]]:
    """Several by commas, each once; none for None. Raises UserError."""
    return list(dict.fromkeys(resolution_of(word) for word in comma_list(text) or []))


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UserError where a word is none of the allowed ones."""
    if value not in allowed:
        raise UserError(f"{option} {value!r} is not allowed; allowed: {', '.join(allowed)}")
