"""Several sessions that are one graph: its parts, run one after the other, what crosses kept on the device."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from asap_export.runtime.session import Session, Tensor

__all__ = ["ChainedSession", "Link"]


class Link(NamedTuple):
    """One part of a graph, and the names of what it takes."""

    session: Session
    inputs: Collection[str]


class ChainedSession:
    """A ``Session`` on the parts of a graph, in the order in which they run.

    By name, a part is given inputs of the whole graph and outputs of earlier parts, which are on the device
    already. ``outputs`` are the whole graph's; what merely crosses is let go, unless it is wanted on the host.
    """

    def __init__(self, links: Sequence[Link], outputs: Collection[str]) -> None:
        self._links, self._outputs = tuple(links), tuple(outputs)

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        assert not into, "engines keep their caches where they made them"
        values = dict(inputs)
        for link in self._links:
            values |= link.session.run({name: values[name] for name in link.inputs}, on_host)
        crossing = [name for name in on_host if name in values]
        return {name: values[name] for name in (*self._outputs, *crossing)}

    def longest(self, name: str, axis: int) -> int | None:
        sizes = (link.session.longest(name, axis) for link in self._links if name in link.inputs)
        return min((size for size in sizes if size is not None), default=None)
