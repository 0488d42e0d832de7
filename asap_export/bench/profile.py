"""What ONNX Runtime's profile of a decoder says: where the time of a run went, and how much of it ASAP took."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx

__all__ = ["mean_summary", "name_nodes", "summaries"]

_MARK, _NO_MARK = "Asap", "Dense"
_EVERY_DECODER = (  # graphs/cpu: a dense decoder has them too
    "Plain",
    "CausalMask",
    "CausalAttention",
    "Heads",
    "Rows",
    "Appended",
)
_ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
_RUN, _NODE_SUFFIX = "model_run", "_kernel_time"


def name_nodes(model: onnx.ModelProto) -> None:
    """Name nodes of every function with "Asap" in front, or "Dense" where a dense decoder has it, in loops too.

    They have none, and ONNX Runtime names an inlined node after its operator; a name of its own it keeps, behind
    the name of the function.
    """
    for function in model.functions:
        mark = _NO_MARK if function.name in _EVERY_DECODER else _MARK
        _name(function.node, function.name if function.name.startswith(mark) else f"{mark}.{function.name}")


def _name(nodes: Iterable[onnx.NodeProto], prefix: str) -> None:
    for number, node in enumerate(nodes):
        node.name = f"{prefix}/{node.op_type}_{number}"
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _name(attribute.g.node, node.name)


def summaries(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A summary of each run in a profile's events, in order.

    "seconds" is the whole run; "operators" the seconds of each operator type outside ASAP, from most to least;
    "asap" those of its nodes by function; "shares" of "asap", "attention", "matrix products" and "rest" add up
    to 1, what ONNX Runtime does between nodes being in the last. A node in a loop or a branch counts itself,
    the node around it only what is left: every microsecond counts once."""
    nodes = [event for event in events if event.get("cat") == "Node" and _is_kernel(event)]
    runs = [event for event in events if event.get("cat") == "Session" and event["name"] == _RUN]
    return [_summary(run, [node for node in nodes if _holds(run, node)]) for run in runs]


def _summary(run: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    operators: Counter[str] = Counter()
    asap: Counter[str] = Counter()
    for operator, names, own in _own_times(nodes):
        marked = next((name for name in reversed(names) if _MARK in name or _NO_MARK in name), _NO_MARK)
        if _NO_MARK in marked or operator in _ATTENTION:  # under the soft mask, too: a dense layer attends
            operators[operator] += own
        else:
            asap[_function(marked)] += own
    total = max(1, run["dur"])
    parts = {
        "asap": sum(asap.values()),
        "attention": sum(time for name, time in operators.items() if name in _ATTENTION),
        "matrix products": sum(
            time for name, time in operators.items() if "MatMul" in name or name == "Gemm"
        ),
    }
    shares = {name: time / total for name, time in parts.items()}
    return {
        "seconds": total / 1e6,
        "shares": shares | {"rest": 1 - sum(shares.values())},
        "operators": {name: time / 1e6 for name, time in operators.most_common()},
        "asap": {name: time / 1e6 for name, time in asap.most_common()},
    }


def _own_times(nodes: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[str], int]]:
    """Of each node the operator, the names of those around it and its own, and its time without those within."""
    threads: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
    for node in nodes:
        threads[node.get("tid")].append(node)
    for found in threads.values():
        around: list[dict[str, Any]] = []
        within = {id(node): 0 for node in found}
        names: dict[int, list[str]] = {}
        for node in sorted(found, key=lambda node: (node["ts"], -node["dur"])):
            while around and not _holds(around[-1], node):
                around.pop()
            names[id(node)] = [outer["name"] for outer in around] + [node["name"]]
            if around:
                within[id(around[-1])] += node["dur"]
            if node["args"]["op_name"] in ("Loop", "If", "Scan"):
                around.append(node)
        for node in found:
            yield node["args"]["op_name"], names[id(node)], max(0, node["dur"] - within[id(node)])


def _holds(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    end = outer["ts"] + outer["dur"]
    return bool(outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= end)


def _is_kernel(event: dict[str, Any]) -> bool:
    return str(event["name"]).endswith(_NODE_SUFFIX) and "op_name" in event.get("args", {})


def _function(name: str) -> str:
    """ "AsapMask" of "_inlfunc_AsapMask_AsapMask/Where_69_kernel_time"; helpers go by their own names."""
    behind = name[name.rindex(_MARK) :]
    return behind.removeprefix(f"{_MARK}.").split("/")[0].split("_")[0]


def mean_summary(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the runs' seconds, of each share and of each node's time."""
    count = len(several)

    def mean(part: str) -> dict[str, float]:
        total: Counter[str] = Counter()
        for one in several:
            total.update(one[part])
        return {name: value / count for name, value in total.most_common()}

    parts = {part: mean(part) for part in ("shares", "operators", "asap")}
    return {"seconds": sum(one["seconds"] for one in several) / count, **parts}
