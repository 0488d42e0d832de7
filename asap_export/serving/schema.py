"""What clients of OpenAI's chat completions send: every field that is heeded, and no other."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["ChatRequest", "ImagePart", "Message", "TextPart"]


class _Strict(BaseModel):
    """Unknown fields are refused: what is ignored in silence is an answer to another question."""

    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    """Text within a message."""

    type: Literal["text"]
    text: str


class _ImageUrl(_Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = (
        None  # images have the resolution that the model gives them
    )

    @field_validator("detail")
    @classmethod
    def _one_resolution(cls, detail: str | None) -> str | None:
        if detail == "low":
            raise ValueError("this server has one resolution; leave detail out, and lower keep instead")
        return detail


class ImagePart(_Strict):
    """An image within a message: a data URI, or a URL where the server allows those."""

    type: Literal["image_url"]
    image_url: _ImageUrl


class Message(_Strict):
    """A turn of the conversation, or what stands before it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: None = None


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class _ResponseFormat(_Strict):
    type: Literal["text"]


class ChatRequest(_Strict):
    """The body of a request for a chat completion.

    ``keep``, ``keep_ratio`` or ``budget`` replaces the bundle's budget of visual tokens. They, ``top_k``,
    ``min_p``, ``repetition_penalty``, ``no_repeat_ngram_size`` and ``min_tokens`` are no fields of OpenAI's
    (``extra_body``). Where a field is left out, the checkpoint's own settings hold.
    """

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    keep: Annotated[int, Field(ge=1)] | None = None
    keep_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    budget: Annotated[float, Field(gt=0)] | None = None
    # Fields of OpenAI's that say what happens here anyway.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    response_format: _ResponseFormat | None = None
    user: str | None = None  # goes into the log

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _zero(cls, value: Any) -> Any:
        return 0 if value == 0 else value  # Literal takes no 0.0

    @model_validator(mode="after")
    def _agree(self) -> "ChatRequest":
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise ValueError("max_tokens and max_completion_tokens differ; leave one of them out")
        if sum(value is not None for value in (self.keep, self.keep_ratio, self.budget)) > 1:
            raise ValueError("give at most one of keep, keep_ratio and budget")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Of the answer."""
        return self.max_completion_tokens or self.max_tokens
