"""Chat templates as public checkpoints have them, in parts that a program without Jinja puts together."""

import pytest
from tokenizers import Tokenizer

from asap_export.bundle import TemplateInfo, TurnParts
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.tokenizer import tokenizer_json
from asap_export.runtime.prompt import PromptReader, Turn
from asap_export.runtime.template import NotInParts, prompt_info, put_together, template_parts

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
def reader(random_checkpoint) -> PromptReader:
    return PromptReader(random_checkpoint, open_checkpoint(random_checkpoint).spec)


@pytest.fixture
def with_template(reader):
    """The reader with another template."""
    own = reader.processor.chat_template

    def given(template) -> PromptReader:
        reader.processor.chat_template = template
        return reader

    yield given
    reader.processor.chat_template = own


def test_the_parts_of_vicunas_template(reader) -> None:
    first = TurnParts("USER: ", "<image>\n", "", " ASSISTANT:")
    later = TurnParts("</s>USER: ", "<image>\n", "", " ASSISTANT:")
    assert template_parts(reader) == TemplateInfo(False, first, later)


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
    assert template_parts(with_template(template)) == TemplateInfo(
        trims, TurnParts(*first), TurnParts(*later)
    )


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
        template_parts(with_template(template))
    assert str(said.value).startswith(reason) and "\n" not in str(said.value)
    info, because = prompt_info(with_template(template))
    assert info.template is None and because == str(said.value)
    assert (info.image_token, info.bos_token) == ("<image>", "<s>")


@pytest.mark.parametrize("template", [INSTRUCTIONS, HEADERS, CHATML, IMAGES_FIRST])
def test_parts_and_tokenizer_json_give_the_readers_ids(with_template, template) -> None:
    reader = with_template(template)
    info, _ = prompt_info(reader)
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
