"""The machines of a merged run on the page: how far apart they are, and which is unlike the others."""

from __future__ import annotations

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.analysis.machines import Spread, name_of, spread_of
from vheatbench.present.parts import Section, Table
from vheatbench.store.read import Run
from vheatbench.text import some


def machine_sections(run: Run, id_: str) -> list[Section]:
    """A section where the run was measured on several machines, else none.

    Args:
        run: of which a merged one knows its machines.
        id_: unique on the page.
    """
    if len(run.header.machines) < 2:
        return []
    spread = spread_of(run.header.machines)
    section = Section(id_, "Machines")
    table = f"{id_}-table"
    section.findings += [(one, table) for one in _findings(spread)]
    section.tables.append(_table(spread, table))
    return [section]


def _findings(spread: Spread) -> list[Finding]:
    found = []
    if spread.spread is not None:
        found.append(
            Finding(
                f"The {len(spread.standings)} machines of this run are {100 * spread.spread:.1f} % apart, from the "
                f"quickest to the slowest, in the {spread.cases} cases that all of them measured.",
                "machines",
                important=True,
            )
        )
    if spread.outlying:
        names = some([f"{name_of(one.machine)} ({one.slowdown:.2f} times)" for one in spread.outlying], 5)
        found.append(
            Finding(
                f"Unlike the others: {names}. Ratios of cases that were measured there stand; its times, images per "
                "second and watts do not compare with those of other machines, and its records say so.",
                "machines",
                important=True,
            )
        )
    return found


def _table(spread: Spread, id_: str) -> Table:
    rows = [
        (
            name_of(one.machine),
            one.machine.gpu_name or numbers.MISSING,
            f"{one.machine.records}",
            f"{one.slowdown:.3f}" if one.slowdown is not None else numbers.MISSING,
            "unlike the others" if one.outlying else "",
        )
        for one in sorted(spread.standings, key=lambda one: not one.outlying)
    ]
    return Table(
        id_,
        "Machines",
        "What all machines measured (the ceilings, and the cheapest group of cases): the median over these cases of a "
        "machine's time over the middle of all machines. A machine is unlike the others from 3 robust standard "
        "deviations on, at least 5 %, where there are three or more.",
        ("machine", "GPU", "records", "time over the middle", ""),
        rows,
        marked=len(spread.outlying),
    )
