"""Runs whose page has every kind of chart, hostile names, and a reader of pages."""

from __future__ import annotations

from html.parser import HTMLParser

from support.records import ceiling, failed, operator, record, run_of

SIZES = (224, 320, 448, 640)

EVIL = '<script>alert("x")</script>\' onmouseover="y" &amp; \u202egnirts 🔥 $x$'


def a_run(**header):
    records = [
        record(subject, size, factor * (size / 224) ** (2 * alpha))
        for size in SIZES
        for subject, factor, alpha in (("vheat-t", 0.1, 1.1), ("swin-t", 0.12, 1.0), ("vit-s", 0.08, 1.4))
    ]
    records.append(failed("vit-s", 1024, "oom", "out of memory: tried to allocate 9 GiB"))
    records[0].warnings.append("noisy: the median is known to ±40% only")
    return run_of(records, **header)


GRIDS = (14, 28, 56)

OPERATORS = {
    "op/heat": 1.5, "op/heat-official": 1.5, "op/heat-matmul": 1.5, "op/attention": 2.0, "op/attention-flash": 2.0,
    "op/attention-math": 2.0, "op/window-attention": 1.0, "op/linear-attention": 1.0, "op/depthwise-conv": 1.0,
}  # fmt: skip


def operator_run(parts=("core", "layer"), modes=("infer", "forward_backward"), roof=True):
    records = [
        operator(
            subject, grid, (1 + i) * 1e-5 * (grid / 14) ** (2 * alpha),
            flop=900 * grid ** (2 * alpha), case={"part": part, "mode": mode},
        )
        for part in parts for mode in modes for i, (subject, alpha) in enumerate(OPERATORS.items()) for grid in GRIDS
    ]  # fmt: skip
    records[9].subject["kernel"] = "flash for <CPU>"
    if roof:
        records += [ceiling("ceiling/copy", 2e10), ceiling("ceiling/matmul", 2e11)]
    return run_of(records, suite="operator-scaling")


class Page(HTMLParser):
    """Collects what the tests ask for, and checks that tags are closed in order."""

    VOID = frozenset(("meta", "br", "link", "img", "input", "hr"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values.get("href", ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
