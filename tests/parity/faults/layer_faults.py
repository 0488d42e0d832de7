"""Faults among the layers: masks, caches, weights, positions, the head."""

import onnx_ir as ir

from faults.fault import Change, Decoder, Named
from faults.structure import exchange, input_of, kept_gathers, last_norm, last_position, late_valid, origin

__all__ = ["layer_faults"]


def layer_faults(decoder: Decoder) -> Named:
    """All of one form; ``decoder`` is a sound one."""
    for make in (_soft_mask, _caches, _layers, _positions_and_masks, _head):
        yield from make(decoder)


def _soft_mask(decoder: Decoder) -> Named:
    kind = "soft mask"

    def nowhere(d: Decoder) -> None:
        _attend_causally(d, d.attention[d.scoring_layer])

    def elsewhere(also: bool) -> Change:
        def moved(d: Decoder) -> None:
            causal, soft = d.attention[0], d.attention[d.scoring_layer]
            if not also:
                _attend_causally(d, soft)
            _attend_softly(d, causal, soft)

        return moved

    yield kind, "none", nowhere
    yield kind, "on layer 0 instead", elsewhere(also=False)
    yield kind, "on layer 0, too", elsewhere(also=True)


def _attend_causally(d: Decoder, soft: ir.Node) -> None:
    if not d.on_cpu:
        soft.replace_input_with(3, input_of(d.attention[0], 3))
        return
    like = d.attention[0]
    inputs = [*soft.inputs[:5], *soft.inputs[7:]]
    attributes = {name: like.attributes[name] for name in ("heads", "kv_heads")}
    attributes |= {"scale": soft.attributes["scale"]}
    rows = d.make("CausalAttention", *inputs, domain=soft.domain, outputs=3, **attributes)
    d.replace(soft.outputs[0], rows)


def _attend_softly(d: Decoder, causal: ir.Node, soft: ir.Node) -> None:
    if d.on_cpu:
        inputs = [*causal.inputs[:5], *soft.inputs[5:]]
        rows = d.make("SoftMaskedAttention", *inputs, domain=soft.domain, outputs=5, **dict(soft.attributes))
        d.replace(causal.outputs[0], rows)
        return
    mask = d.only("AsapMask")
    inputs = [*causal.inputs[:2], *mask.inputs[2:]]
    bias = d.make("AsapMask", *inputs, domain=mask.domain, outputs=3, **dict(mask.attributes))
    query = causal.inputs[0]
    causal.replace_input_with(3, d.make("CastLike", bias, query))


def _caches(decoder: Decoder) -> Named:
    kind = "caches"
    layers, scoring = len(decoder.attention), decoder.scoring_layer
    pairs = {(0, 1), (scoring + 1, scoring + 2), (scoring + 1, layers - 1)}
    swaps = {
        f"{part} of layers {a} and {b}": (f"{a}.{part}", f"{b}.{part}")
        for a, b in sorted(pairs)
        for part in ("key", "value")
    }
    swaps |= {
        f"key and value of layer {layer}": (f"{layer}.key", f"{layer}.value")
        for layer in sorted({0, scoring, scoring + 1, layers - 1})
    }

    def given(a: str, b: str) -> Change:
        def swapped(d: Decoder) -> None:
            exchange(d.value(f"past_key_values.{a}"), d.value(f"past_key_values.{b}"))

        return swapped

    def told(a: str, b: str) -> Change:
        def swapped(d: Decoder) -> None:
            one, other = (d.value(f"present.{name}") for name in (a, b))
            places = [d.graph.outputs.index(value) for value in (one, other)]
            one.name, other.name = other.name, one.name
            d.graph.outputs[places[0]], d.graph.outputs[places[1]] = other, one

        return swapped

    def attends(layer: int) -> Change:
        def swapped(d: Decoder) -> None:
            node = d.attention[layer]
            key, value = input_of(node, 1), input_of(node, 2)
            node.replace_input_with(1, value)
            node.replace_input_with(2, key)

        return swapped

    for name, (a, b) in swaps.items():
        yield kind, f"past: {name} change places", given(a, b)
        yield kind, f"present: {name} change places", told(a, b)
    for layer in sorted({0, scoring, scoring + 1, layers - 1}):
        yield kind, f"layer {layer} takes values for keys and keys for values", attends(layer)


def _layers(decoder: Decoder) -> Named:
    """Two layers, or parts of them, change places."""
    kind = "layers"
    layers, scoring = len(decoder.attention), decoder.scoring_layer
    pairs = {(0, 1), (scoring, scoring + 1), (scoring + 1, scoring + 2), (layers - 2, layers - 1)}
    parts = {
        "": "",
        "the MLPs of ": "mlp.",
        "the attention of ": "self_attn.",
        "the norms of ": "input_layernorm.",
    }

    def change(a: int, b: int, part: str) -> Change:
        def swapped(d: Decoder) -> None:
            start = "decoder.language_model.layers."
            for name in [name for name in d.graph.initializers if name.startswith(f"{start}{a}.{part}")]:
                twin = name.replace(f"{start}{a}.", f"{start}{b}.", 1)
                exchange(d.graph.initializers[name], d.graph.initializers[twin])

        return swapped

    for a, b in sorted(pair for pair in pairs if pair[0] >= 0):
        for name, part in parts.items() if (a, b) == (scoring, scoring + 1) else [("", "")]:
            yield kind, f"{name}layers {a} and {b} change places", change(a, b, part)

    def heads(layer: int) -> Change:
        def swapped(d: Decoder) -> None:
            node = d.attention[layer]
            query = input_of(node, 0)
            if not d.on_cpu:
                order = d.constant([1, 0, *range(2, query.shape[1])])
                node.replace_input_with(0, d.make("Gather", query, order, axis=1))
                return
            count = node.attributes["heads"].as_int()
            split = d.make("Reshape", query, d.constant([0, 0, count, -1]))
            turned = d.make("Gather", split, d.constant([1, 0, *range(2, count)]), axis=2)
            node.replace_input_with(0, d.make("Reshape", turned, d.constant([0, 0, -1])))

        return swapped

    for layer in sorted({0, scoring, scoring + 1, layers - 1}):
        yield kind, f"heads 0 and 1 of layer {layer} change places", heads(layer)


def _positions_and_masks(decoder: Decoder) -> Named:
    kind = "positions and masks"

    def shifted(d: Decoder) -> None:
        position = d.value("position_ids")
        d.replace(position, d.make("Add", position, d.constant(1)))

    def late_shifted(d: Decoder) -> None:
        (gathered,) = (node for node in kept_gathers(d) if origin(node) == "position_ids")
        position = gathered.outputs[0]
        d.replace(position, d.make("Add", position, d.constant(1)))

    def unpadded(name: str) -> Change:
        def open_to_padding(d: Decoder) -> None:
            valid = d.value("attention_mask") if name == "all" else late_valid(d)
            if name == "all":
                (cast,) = (
                    user for user, _ in valid.uses() if user.op_type == "Cast" and user.graph is d.graph
                )
                valid = cast.outputs[0]
            d.replace(valid, d.make("Or", valid, d.make("Not", valid)))

        return open_to_padding

    def early_for_late(d: Decoder) -> None:
        """Sine and cosine of the first tokens for those that were kept."""
        rotation = [node for node in d.find("RotaryEmbedding") if node.graph is d.graph]
        before, behind = rotation[0], rotation[-1]
        for number in (1, 2):
            old = input_of(behind, number)
            like = d.make("Shape", old, start=1, end=2)
            first = d.make("Slice", input_of(before, number), d.constant([0]), like, d.constant([1]))
            d.replace(old, first)

    def turned(d: Decoder) -> None:
        for node in d.find("RotaryEmbedding"):
            sine, cosine = input_of(node, 2), input_of(node, 1)
            node.replace_input_with(1, sine)
            node.replace_input_with(2, cosine)

    yield kind, "every position one too large", shifted
    yield kind, "positions behind the cut one too large", late_shifted
    yield kind, "cosine and sine of the first K behind the cut", early_for_late
    yield kind, "cosine and sine change places", turned
    yield kind, "padding is seen", unpadded("all")
    yield kind, "padding is seen behind the cut", unpadded("late")


def _head(decoder: Decoder) -> Named:
    kind = "head"

    def no_norm(d: Decoder) -> None:
        norm = last_norm(d)
        d.replace(norm.outputs[0], input_of(norm, 0))

    def other_norm(d: Decoder) -> None:
        norm = last_norm(d)
        weight = next(
            v for name, v in d.graph.initializers.items() if name.endswith(".0.input_layernorm.weight")
        )
        norm.replace_input_with(1, weight)

    def position(back: int | None) -> Change:
        def other(d: Decoder) -> None:
            last = last_position(d)
            hidden = input_of(last, 0)
            place = d.constant([0])
            if back is not None:
                length = d.make("Shape", hidden, start=1, end=2)
                place = d.make("Max", d.make("Sub", length, d.constant([back])), place)
            d.replace(last.outputs[0], d.make("Gather", hidden, place, axis=1))

        return other

    yield kind, "no norm", no_norm
    yield kind, "another layer's norm", other_norm
    yield kind, "logits of the position before the last", position(2)
    yield kind, "logits of the first position", position(None)
