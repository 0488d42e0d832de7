"""Chat templates that loop, fill the memory, reach out, or damage the prompt: at an export, and in a bundle.

C++ has no Jinja: it reads the parts in a manifest.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from case import Case, copied, replaced
from damaged_bundles import rewrite_manifest

__all__ = ["WHOLE", "template_cases"]

_PARTS = (
    "{% for part in message.content %}{% if part.type == 'image' %}{{ '<image>' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}"
)
_SAID = "{% for message in messages %}" + _PARTS + ";{% endfor %}"
# Of which no parts can be made, so that its bundle brings it.
WHOLE = "{% for message in messages %}{{ loop.index }}. " + _PARTS + ";{% endfor %}"
_LOOP = "{% for i in range(99999) %}"
TEMPLATES = {
    "a long range": "{% for i in range(10**9) %}{% endfor %}" + WHOLE,
    "nested loops": _LOOP * 3 + "{% endfor %}" * 3 + WHOLE,
    "loops that write": _LOOP * 2 + "a" + "{% endfor %}" * 2,
    "endless recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}" + WHOLE,
    "a gigabyte of text": "{{ 'a' * 10**9 }}" + WHOLE,
    "a gigabyte that is not written": "{% set a = 'a' * 10**9 %}{% set b = a ~ a %}" + WHOLE,
    "doubled sixty times": "{% set n = namespace(x='a') %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a list of a billion": "{{ ([0] * 10**9) | length }}" + WHOLE,
    "a wide format": "{{ '%1000000000d' % 5 }}" + WHOLE,
    "a wide format method": "{{ '{:1000000000}'.format(5) }}" + WHOLE,
    "a wide centre": "{{ 'a' | center(10**9) }}" + WHOLE,
    "a billion slices": "{{ range(99999) | slice(10**9) | list }}" + WHOLE,
    "long separators": "{{ range(99999) | join('a' * 10**6) }}" + WHOLE,
    "a large power": "{{ (9 ** 9 ** 9) % 7 }}" + WHOLE,
    "much filler text": "{{ lipsum(n=100000) }}" + WHOLE,
    "refuses all": "{{ raise_exception('no') }}",
    "refuses with lines": "{{ raise_exception('no\n\nTraceback\x1b[31m') }}",
    "refuses users": "{% if messages[0].role == 'user' %}{{ raise_exception('users') }}{% endif %}" + WHOLE,
    "without marks": WHOLE.replace("<image>", ""),
    "two marks for one": WHOLE.replace("<image>", "<image><image>"),
    "text alone": "{% for message in messages %}{{ message.role }}: {{ message.content }} {% endfor %}",
    "text by addition": "{% for message in messages %}{{ message.role + ': ' + message.content }} {% endfor %}",
    "without the question": "USER: <image> ASSISTANT:",
    "empty": "",
    "an unknown filter": "{{ messages | no_such_filter }}",
    "an unknown test": "{{ messages is no_such_test }}",
    "an unknown tag": "{% no_such_tag %}",
    "an unknown function": "{{ no_such_function() }}",
    "not closed": "{% for message in messages %}",
    "import": "{% import 'os' as os %}{{ os.system('true') }}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "classes": "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "the attr filter": "{{ ('' | attr('__class__')).mro() }}",
    "format to attributes": "{{ '{0.__class__.__mro__}'.format('') }}",
    "changes messages": "{{ messages.clear() }}" + WHOLE,
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep conditions": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "a zero byte": "\0" + _SAID,
    "division by zero": "{{ 1 / 0 }}",
}
# Nothing is damaged by these: what they reach for is empty or refused in a note, or they only take a moment.
_HARMLESS = ("a large power", "a zero byte", "format to attributes")


def _noted(_: Path, printed: str) -> bool:
    """Whether the export says that questions will meet a template that is not like others."""
    return not {"prompts", "images"}.isdisjoint(json.loads(printed)["missing"])


def template_cases(sound: Path, bundle: Path, images: Path) -> Iterator[Case]:
    """From ``sound``, a checkpoint, and ``bundle``, made of it with ``WHOLE``."""
    for name, template in TEMPLATES.items():

        def exported(folder: Path, template: str = template) -> list[str | Path]:
            model = copied(sound, folder / "model")
            replaced(model / "chat_template.jinja", template.encode())
            return ["--model", model, "--output", folder / "out.bundle", "--plan", "--json"]

        def asked(folder: Path, template: str = template) -> list[str | Path]:
            changed = copied(bundle, folder / "in.bundle")
            replaced(changed / "chat_template.jinja", template.encode())
            manifest = (changed / "manifest.json").read_bytes()
            replaced(changed / "manifest.json", manifest)
            rewrite_manifest(changed, "chat_template.jinja")
            question = ["--image", images / "mat.png", "--prompt", "What?", "--max-new-tokens", "1"]
            return [changed, *question]

        plain = name == "a zero byte"  # a template like others, which writes one
        kind = "template at an export"
        yield Case(
            kind, name, exported, harmless=True, rightly=lambda *ends, plain=plain: plain or _noted(*ends)
        )
        yield Case(
            "template of a bundle", name, lambda folder, a=asked: ["run", *a(folder)], name in _HARMLESS
        )
