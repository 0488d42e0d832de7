"""Chat templates as public checkpoints have them: in parts that are put together without Jinja, or whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from asap_export.bundle import PromptInfo, TemplateInfo, TurnParts
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.tokenizer import tokenizer_json
from asap_export.errors import UserError
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.runtime import jinja
from asap_export.runtime.jinja import jinja_renderer
from asap_export.runtime.template import Turn, WholeTemplate, put_together
from asap_export.runtime.template_parts import NotInParts, prompt_info, self_contained, template_parts

CONTENT = (
    "{% for part in message.content %}{% if part.type == 'image' %}{{ '<image>\n' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}"
)
INSTRUCTIONS = (  # as Mistral's
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] "
    + CONTENT
    + " [/INST]{% else %} {{ message.content[0].text }}{{ eos_token }}{% endif %}{% endfor %}"
)
HEADERS = (  # as Llama 3's, which trims
    "{% for message in messages %}{{ '<|header|>' + message.role + '<|end_header|>\n\n' }}"
    + CONTENT.replace("part.text", "part.text | trim")
    + "<|turn_end|>{% endfor %}{{ '<|header|>assistant<|end_header|>\n\n' if add_generation_prompt }}"
)
CHATML = (  # as Qwen2's, which brings a system message of its own
    "{% if messages[0].role != 'system' %}{{ '<|from|>system\nBe kind.<|to|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|from|>' + message.role + '\n' }}"
    + CONTENT
    + "{{ '<|to|>\n' }}{% endfor %}{{ '<|from|>assistant\n' if add_generation_prompt }}"
)
IMAGES_FIRST = (  # on a line of their own
    "{% for message in messages %}{{ message.role }}:"
    "{% for part in message.content if part.type == 'image' %}<image>"
    "{% if loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %};{% endfor %}"
)
NUMBERED = "{% for message in messages %}{{ loop.index }}. " + CONTENT + ";{% endfor %}"
PICTURES = (
    "{% for message in messages %}"
    + CONTENT.replace("<image>", "' ~ loop.index ~ '<image>")
    + ";{% endfor %}"
)
SHOUTING = (
    "{% for message in messages %}" + CONTENT.replace("part.text", "part.text | upper") + ";{% endfor %}"
)
TWICE = "{% for message in messages %}" + CONTENT * 2 + ";{% endfor %}"
FORGETFUL = "{% for message in messages[-1:] %}" + CONTENT + "{% endfor %}"
DATED = "{{ strftime_now('%d %b') }} " + CHATML
STRICT = "{{ raise_exception('only one image') if messages[0].content | length > 2 }}" + CHATML


@pytest.fixture(scope="module")
def reader(random_checkpoint) -> ProcessorReader:
    return ProcessorReader(random_checkpoint, open_checkpoint(random_checkpoint).spec)


@pytest.fixture
def with_template(reader, monkeypatch):
    """The reader with another template."""

    def given(template: str | None) -> ProcessorReader:
        processor = reader.processor
        monkeypatch.setattr(processor, "chat_template", template)
        whole = WholeTemplate(processor.apply_chat_template if template else None, processor.image_token)
        monkeypatch.setattr(reader, "template", whole)
        return reader

    return given


def parts_of(reader: ProcessorReader) -> TemplateInfo:
    return template_parts(reader.template, reader.processor.chat_template)


def info_of(reader: ProcessorReader) -> tuple[PromptInfo, str | None]:
    return prompt_info(reader.template, reader.processor.chat_template, reader.tokenizer.bos_token)


def test_the_parts_of_vicunas_template(reader) -> None:
    first = TurnParts("USER: ", "<image>\n", "", " ASSISTANT:")
    later = TurnParts("</s>USER: ", "<image>\n", "", " ASSISTANT:")
    assert parts_of(reader) == TemplateInfo(False, first, later)


@pytest.mark.parametrize(
    ("template", "trims", "first", "later"),
    [
        (
            INSTRUCTIONS,
            False,
            ("<s>[INST] ", "<image>\n", "", " [/INST]"),
            ("</s>[INST] ", "<image>\n", "", " [/INST]"),
        ),
        (
            HEADERS,
            True,
            (
                "<|header|>user<|end_header|>\n\n",
                "<image>\n",
                "",
                "<|turn_end|><|header|>assistant<|end_header|>\n\n",
            ),
            (
                "<|turn_end|><|header|>user<|end_header|>\n\n",
                "<image>\n",
                "",
                "<|turn_end|><|header|>assistant<|end_header|>\n\n",
            ),
        ),
        (
            CHATML,
            False,
            (
                "<|from|>system\nBe kind.<|to|>\n<|from|>user\n",
                "<image>\n",
                "",
                "<|to|>\n<|from|>assistant\n",
            ),
            ("<|to|>\n<|from|>user\n", "<image>\n", "", "<|to|>\n<|from|>assistant\n"),
        ),
        (IMAGES_FIRST, False, ("user:", "<image>", "\n", ";"), (";user:", "<image>", "\n", ";")),
    ],
    ids=["instructions", "headers", "chatml", "images first"],
)
def test_the_parts_of_other_templates(with_template, template, trims, first, later) -> None:
    assert parts_of(with_template(template)) == TemplateInfo(trims, TurnParts(*first), TurnParts(*later))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (NUMBERED, "writes turn 3 with 0 images and the text 'What is on the mat?' in a way of its own"),
        (PICTURES, "writes turn 1 with 2 images"),
        (SHOUTING, "does not write the user's text once"),
        (TWICE, "does not write the user's text once"),
        (FORGETFUL, "refuses a conversation: expected a chat template that repeats earlier answers"),
        (DATED, "writes the date"),
        (STRICT, "refuses a conversation: only one image"),
        (None, "is missing"),
    ],
)
def test_a_template_that_does_more_stays_whole_and_the_reason_is_said(
    with_template, template, reason
) -> None:
    with pytest.raises(NotInParts) as said:
        parts_of(with_template(template))
    assert str(said.value).startswith(reason) and "\n" not in str(said.value)
    info, because = info_of(with_template(template))
    assert info.template is None and because == str(said.value)
    assert (info.image_token, info.bos_token) == ("<image>", "<s>")


@pytest.mark.parametrize("template", [INSTRUCTIONS, HEADERS, CHATML, IMAGES_FIRST])
def test_parts_and_tokenizer_json_give_the_readers_ids(with_template, template) -> None:
    reader = with_template(template)
    info, _ = info_of(reader)
    tokenizer = Tokenizer.from_str(tokenizer_json(reader.processor, "here"))
    text = " Grüße,\n\n猫 and \u3000 </s>? "
    written = put_together(info.template.first, info.template.trims, text, 0, info.image_token)
    special = not written.startswith(info.bos_token)
    assert tokenizer.encode(written, add_special_tokens=special).ids == reader.read(text).input_ids.tolist()

    end = tokenizer.token_to_id("</s>")
    written = put_together(info.template.later, info.template.trims, text, 0, info.image_token)
    ids = tokenizer.encode(written.removeprefix("</s>"), add_special_tokens=False).ids
    assert [end, *ids] == reader.read_turn([Turn("Who?", 0, "He.")], text, [], end).input_ids.tolist()


def test_marks_in_the_text_stand_for_the_images() -> None:
    parts = TurnParts("Q:", "<image>", "|", ":A")
    assert put_together(parts, False, "two", 2, "<image>") == "Q:<image><image>|two:A"
    assert put_together(parts, False, "none", 0, "<image>") == "Q:none:A"
    assert put_together(parts, True, " in <image> ", 1, "<image>") == "Q:in <image>:A"


TRAINED = "{% for message in messages %}" + (
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content[0].text }}{{ eos_token }}{% endgeneration %}"
    "{% else %}  {%- if loop.first %}{{ bos_token }}{% endif %}\n"
    "  {% set said = namespace(images=0) %}\n"
    "  {% for part in message.content %}{% if part.type == 'text' %}{% break %}{% endif %}"
    "{% set said.images = said.images + 1 %}<image>{% endfor %}"
    "[{{ said.images }}] {{ message.content | tojson }}{% endif %}{% endfor %}"
    "{{ 'tools' if tools else 'no tools' }} {{ strftime_now('%Y') }} {{ documents is none }}"
    "{{ '->' if add_generation_prompt }}"
)
HISTORY = [Turn("Who is in <image>?", 1, "He & <she>."), Turn("Ä 猫?", 2, "Yes.\n")]


@pytest.mark.parametrize(
    "template",
    [INSTRUCTIONS, HEADERS, CHATML, IMAGES_FIRST, NUMBERED, PICTURES, TWICE, DATED, TRAINED],
)
def test_whole_templates_are_rendered_as_transformers_renders_them(with_template, template) -> None:
    reader = with_template(template)
    alone = self_contained(template, reader.tokenizer.special_tokens_map)
    ours, theirs = WholeTemplate(jinja_renderer(alone), "<image>"), reader.template
    for text, images in (("What?", 0), (" <b>'is'</b>\n", 2), ("In <image>?", 1), ("\ue000", 1)):
        assert ours.first(text, images) == theirs.first(text, images)
        assert ours.later(HISTORY, text, images) == theirs.later(HISTORY, text, images)


def test_a_template_without_special_tokens_of_its_own_is_told_them() -> None:
    told = self_contained(
        "\n  {{ bos_token }}{{ eos_token }}\n", {"bos_token": '<"s\\>', "eos_token": "<é🙂>"}
    )
    assert jinja_renderer(told)([], add_generation_prompt=True) == '\n  <"s\\><é🙂>'


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only one image') }}", "only one image"),
        ("{{ messages[99].content[0] }}", "has no element 99"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_refuses_or_reaches_out_gets_one_line(template, reason) -> None:
    whole = WholeTemplate(jinja_renderer(template), "<image>")
    with pytest.raises(UserError, match=f"found that it refuses: .*{reason}") as said:
        whole.first("What?", 0)
    assert "\n" not in str(said.value)


def test_what_is_no_template_is_refused() -> None:
    for source in ("{% for %}", "{{ 1 | no_such_filter }}", "{{ " + "(" * 3000, "{% if 1 %}" * 3000):
        with pytest.raises(UserError, match="expected a conversation that the chat template takes"):
            WholeTemplate(jinja_renderer(source), "<image>").first("What?", 0)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "at most 5 s and 1 GiB",
        ),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ 'a' * 10**10 }}", "MemoryError"),
        ("{{ '{:99999999}'.format(5) }}", "it writes more than 16,777,216 characters"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "maximum recursion depth"),
        ("{% include '/etc/passwd' %}", "no loader for this environment"),
    ],
    ids=["nested loops", "range", "memory", "long text", "recursion", "include"],
)
def test_a_template_without_an_end_or_measure_gets_one_line(template, reason) -> None:
    render = jinja_renderer(template)
    with pytest.raises(UserError, match=reason) as said:
        render([], add_generation_prompt=True)
    assert "\n" not in str(said.value)


def test_a_template_that_took_too_long_once_is_asked_again() -> None:
    render = jinja_renderer(
        "{{ messages | length }}{% for i in range(99999 if messages else 1) %}"
        "{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(UserError, match="at most 5 s"):
        render([{"role": "user"}], add_generation_prompt=True)
    assert render([], add_generation_prompt=True) == "0"


def test_the_time_is_each_conversations_own(monkeypatch) -> None:
    """A server asks for thousands of them. These take a tenth of a second each, and more than one together."""
    monkeypatch.setattr(jinja, "_CPU_SECONDS", 1)
    render = jinja_renderer(
        "{{ messages | length }}{% for i in range(80) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )
    for _ in range(25):
        assert render([], add_generation_prompt=True) == "0"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("USER: hello ASSISTANT:", "found one that drops it"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}", "found one for text alone"),
    ],
)
def test_no_question_is_asked_in_a_damaged_prompt(template, reason) -> None:
    whole = WholeTemplate(jinja_renderer(template), "<image>")
    with pytest.raises(UserError, match=reason):
        whole.first("What is on the mat?", 0)
    with pytest.raises(UserError):
        whole.later(HISTORY, "What is on the mat?", 0)


FRAGMENTS = st.sampled_from(
    [
        "{% for message in messages %}", "{% endfor %}", "{% if loop.first %}", "{% else %}", "{% endif %}",
        "{{ message.content[0].text }}", "{{ message['role'] | upper }}", "{{ messages | tojson }}",
        "{{ bos_token }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ messages[9].content }}",
        "{% set x = 'a' * 10**9 %}{{ x }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% generation %}", "{% endgeneration %}", "{#", "#}", "{{", "%}", "{{ ''.__class__.__mro__ }}",
        "<image>", "ASSISTANT:", "\n", "é\x00",
    ]
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(FRAGMENTS, max_size=8))
def test_any_template_gives_text_or_one_line(fragments: list[str]) -> None:
    """Whatever it is: it ends in time, and nothing but a refusal comes out of it."""
    whole = WholeTemplate(jinja_renderer("".join(fragments)), "<image>")
    try:
        text = whole.first("What is on the mat?", 1)
    except UserError as error:
        assert "\n" not in str(error) and not str(error).endswith(":")
    else:
        assert isinstance(text, str)
