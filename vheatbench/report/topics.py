"""The questions of a reader, in order, and what the page's runs have to say to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vheatbench.present.parts import Section

TOPICS = {
    "cost": "Cost as the resolution grows",
    "operator": "The operator",
    "sees": "What it sees",
    "heat": "How heat moves",
    "learned": "What it learns",
    "paper": "Beside the paper",
    "change": "Did it change",
    "machines": "How far apart its machines are",
}
"""Titles of the topics that sections belong to. After them every page has the machine, the records, and how to read."""

MOST_OPEN = 3
"""Sections of a topic that are open; of more only the first is."""


@dataclass(frozen=True)
class Block:
    """A section under its topic."""

    section: Section
    label: str = ""
    """The run that it is of, where there are several."""
    folded: bool = False
    open: bool = True


@dataclass
class Topic:
    """One question, with the sections that answer it."""

    name: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"topic-{self.name}"

    @property
    def title(self) -> str:
        return TOPICS[self.name]


class Answers(Protocol):
    """What a topic takes from the part of the page that is of one run."""

    @property
    def label(self) -> str: ...
    @property
    def models(self) -> list[Section]: ...
    @property
    def operators(self) -> list[Section]: ...
    @property
    def studies(self) -> dict[str, list[Section]]: ...
    @property
    def papers(self) -> list[Section]: ...
    @property
    def machines(self) -> list[Section]: ...


def topics_of(parts: Sequence[Answers], across: Section, changes: Sequence[Section]) -> list[Topic]:
    """The topics that there is something to say to.

    Args:
        parts: one of each run.
        across: the runs side by side, empty where there is nothing to compare.
        changes: verdicts and trends.
    """
    topics = {name: Topic(name) for name in TOPICS}
    if not across.empty:
        topics["cost"].blocks.append(Block(across))
    for part in parts:
        label = part.label if len(parts) > 1 else ""
        own = {
            "cost": part.models,
            "operator": part.operators,
            "paper": part.papers,
            "machines": part.machines,
            **part.studies,
        }
        for name, sections in own.items():
            folded = len(sections) > MOST_OPEN
            topics.get(name, topics["learned"]).blocks += [
                Block(section, label, folded, open=place == 0) for place, section in enumerate(sections)
            ]
    topics["change"].blocks += [Block(section) for section in changes]
    return [topic for topic in topics.values() if topic.blocks]
