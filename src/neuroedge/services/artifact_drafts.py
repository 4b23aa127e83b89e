"""What callers send of an artifact: a new one, given or to be generated, and changes of one."""

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.errors import TooLarge
from neuroedge.contract.ports import Visibility
from neuroedge.kit.artifact_checks import MAX_SLIDES, Type, format_of, require_together
from neuroedge.services.memory_drafts import Tags, without_nul

MAX_CONTENT_BYTES: Final = 2 * 1024 * 1024
MAX_CONTEXT: Final = 50
MAX_INSTRUCTION: Final = 20_000
_OF_ORDER: Final = ("context_ids", "max_tokens", "model", "local_only", "background")


def _text(text: str) -> str:
    """The text. Raises ValueError for what UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a surrogate pair, which is no text") from error
    return without_nul(text)


Text = Annotated[str, AfterValidator(_text)]
Title = Annotated[Text, Field(min_length=1, max_length=200)]
Note = Annotated[Text, Field(max_length=2000)]


class Order(BaseModel):
    """What a language model shall write."""

    model_config = ConfigDict(extra="forbid")

    instruction: Annotated[Text, Field(min_length=1, max_length=MAX_INSTRUCTION)] | None = Field(
        default=None, description="What a language model shall write, or change in the present version."
    )
    context_ids: list[UUID] = Field(
        default_factory=list, max_length=MAX_CONTEXT, description="Memories to write from, the most important first."
    )
    max_tokens: int = Field(default=1024, ge=16, le=32_768, description="Longest artifact to generate, in tokens.")
    model: str | None = Field(default=None, max_length=200, description="provider/model; the organisation's otherwise.")
    local_only: bool = Field(default=False, description="Nothing of it may leave the machine.")
    background: bool = Field(
        default=False, description="Answer at once with 202 and generate in a job that survives a restart."
    )

    def request(self) -> dict[str, Any]:
        """As it is kept until it is done."""
        return self.model_dump(mode="json", include={"instruction", *_OF_ORDER} - {"background"})

    def _check_order(self, *, content: str | None) -> None:
        if content is not None and self.instruction is not None:
            raise ValueError("give either content or an instruction")
        given = self.model_fields_set.intersection(_OF_ORDER)
        if self.instruction is None and given:
            raise ValueError(f"{', '.join(sorted(given))} need an instruction")


class ArtifactDraft(Order):
    """A new artifact: `content` as it is, or an `instruction`."""

    type: Type = Field(description="document (Markdown), code, table, diagram (Mermaid), json or slides (an outline).")
    content: Text | None = Field(default=None, description=f"The artifact, at most {MAX_CONTENT_BYTES} bytes of UTF-8.")
    title: Title | None = Field(default=None, description="Its name; found in the artifact otherwise.")
    tags: Tags = Field(default_factory=list, description="Labels.")
    format: str | None = Field(
        default=None, max_length=50, description="Of code its language, such as python; of a table csv or json."
    )
    json_schema: dict[str, Any] | None = Field(
        default=None, description="For the type json: the JSON Schema (2020-12) each version must be valid by."
    )
    slides: int | None = Field(default=None, ge=1, le=MAX_SLIDES, description="How many slides.")
    visibility: Visibility = Field(default="private", description="Who may see it.")
    session_id: UUID | None = Field(default=None, description="The conversation it belongs to.")
    message_id: UUID | None = Field(default=None, description="The message of that conversation.")
    note: Note | None = Field(default=None, description="A remark on this version.")

    @model_validator(mode="after")
    def _together(self) -> "ArtifactDraft":
        """One source of content, and only what the type has."""
        self._check_order(content=self.content)
        if self.content is None and self.instruction is None:
            raise ValueError("give content or an instruction")
        if self.message_id is not None and self.session_id is None:
            raise ValueError("a message_id needs its session_id")
        self.format = format_of(self.type, self.format)
        require_together(self.type, schema=self.json_schema, slides=self.slides)
        return self


class ArtifactChanges(Order):
    """What to change; another content, given or by instruction, makes a new version."""

    content: Text | None = Field(default=None, description="The new version as it is.")
    title: Title | None = None
    tags: Tags | None = None
    visibility: Visibility | None = None
    expected_version: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="409 unless this is the present version; as If-Match."
    )
    note: Note | None = Field(default=None, description="A remark on the new version.")

    @model_validator(mode="after")
    def _some(self) -> "ArtifactChanges":
        """At least one change, and null is none."""
        self._check_order(content=self.content)
        named = self.model_fields_set - {"expected_version", "note", *_OF_ORDER}
        if not named:
            raise ValueError("name at least one field to change")
        if wrong := sorted(name for name in named if getattr(self, name) is None):
            raise ValueError(f"null is no value of {', '.join(wrong)}")
        return self


def require_size(content: str) -> None:
    """Raise TooLarge for more content than an artifact holds."""
    if len(content.encode()) > MAX_CONTENT_BYTES:
        raise TooLarge(
            f"an artifact has at most {MAX_CONTENT_BYTES} bytes", hint="split it, or send it to POST /v1/documents"
        )
