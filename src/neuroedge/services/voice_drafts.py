"""What callers send of a person whose voice is enrolled: who, what the person agreed to, for how long."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.ports import VoicePurpose
from neuroedge.services.memory_drafts import Plain, Time
from neuroedge.stores.voices import Consent

MAX_KEPT_DAYS: Final = 1825
_AHEAD: Final = timedelta(minutes=5)
"""Clocks differ; consent of tomorrow is none."""

Name = Annotated[str, Plain, Field(min_length=1, max_length=200)]
ExternalId = Annotated[str, Plain, Field(min_length=1, max_length=200)]
Labels = Annotated[dict[Name, Name], Field(max_length=20)]
KeptDays = Annotated[int, Field(ge=1, le=MAX_KEPT_DAYS)]


class ConsentRequired(InvalidInput):
    """A voice may not be kept, or not be used for this: nobody who may do so has agreed."""

    code = "consent_required"


class ConsentDraft(BaseModel):
    """What the person, or a child's guardian, agreed to. You must be able to prove it."""

    model_config = ConfigDict(extra="forbid")

    given_by: Name = Field(description="Who agreed: the person, or the guardian of a child.")
    at: Time = Field(description="When (ISO 8601 with offset).")
    purposes: list[VoicePurpose] = Field(
        min_length=1,
        max_length=3,
        description="verify: check a claimed identity; identify: find who of the enrolled it is; label_recordings: "
        "name the speakers of recordings.",
    )
    text_version: Name = Field(description="Which version of your consent text was agreed to.")
    minor: bool = Field(description="Whether the person is a child: then `guardian` must be given.")
    guardian: Name | None = Field(default=None, description="Name and relation of the guardian who agreed for a child.")

    def checked(self) -> Consent:
        """As it is stored. Raises ConsentRequired for a child without a guardian, InvalidInput for a time to come."""
        if self.minor and self.guardian is None:
            raise ConsentRequired(
                "a child's voice may not be kept without the consent of a guardian",
                hint="give `guardian`: the name and relation of who agreed",
                errors=[{"loc": ("consent", "guardian"), "msg": "required for a minor", "type": "missing"}],
            )
        if self.at > datetime.now(UTC) + _AHEAD:
            raise InvalidInput(
                "the consent is given in the future",
                errors=[{"loc": ("consent", "at"), "msg": "lies in the future", "type": "value_error"}],
            )
        return Consent(
            given_by=self.given_by,
            at=self.at,
            purposes=tuple(dict.fromkeys(self.purposes)),
            text_version=self.text_version,
            minor=self.minor,
            guardian=self.guardian,
        )


class VoiceDraft(BaseModel):
    """A person to enrol."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="What recordings call the person.")
    external_id: ExternalId | None = Field(default=None, description="What another system calls the person.")
    labels: Labels = Field(default_factory=dict, description="Anything to give back with the voice.")
    consent: ConsentDraft | None = Field(default=None, description="Without it nothing is kept.")
    keep_days: KeptDays = Field(default=365, description="Days after which the voice is deleted.")

    def agreed(self) -> Consent:
        """The consent. Raises ConsentRequired without one."""
        if self.consent is None:
            raise ConsentRequired(
                "a voice is personal data that identify someone: it is kept only with that person's consent",
                hint="give `consent`: given_by, at, purposes, text_version, minor (and guardian for a child)",
                errors=[{"loc": ("consent",), "msg": "field required", "type": "missing"}],
            )
        return self.consent.checked()


class VoiceChanges(BaseModel):
    """What to change; what is not given stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    external_id: ExternalId | None = Field(default=None, description="null removes it.")
    labels: Labels | None = None
    consent: ConsentDraft | None = Field(default=None, description="Takes the place of what was agreed to before.")
    keep_days: KeptDays | None = Field(default=None, description="Days from now after which the voice is deleted.")

    @model_validator(mode="after")
    def _some(self) -> "VoiceChanges":
        """At least one change, and null only where nothing is a value."""
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        wrong = [n for n in sorted(self.model_fields_set - {"external_id"}) if getattr(self, n) is None]
        if wrong:
            raise ValueError(f"null is no value of {', '.join(wrong)}")
        return self
