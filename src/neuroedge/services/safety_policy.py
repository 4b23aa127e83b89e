"""What an organisation wants done about what is found in its texts, pass by pass and category by category."""

from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Action = Literal["allow", "flag", "mask", "block"]
Stage = Literal["input", "context", "output"]
Category = Literal["hate", "offensive", "injection", "personal_data", "names"]
CATEGORIES: Final[tuple[Category, ...]] = ("hate", "offensive", "injection", "personal_data", "names")
STRICTNESS: Final[dict[Action, int]] = {"allow": 0, "flag": 1, "mask": 2, "block": 3}


class Rule(BaseModel):
    """What happens when a category's p reaches the threshold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Action = Field(
        default="allow",
        description="allow: not even looked for; flag: noted; mask: replaced in the text; block: the text is refused.",
    )
    threshold: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False, description="From which p on.")
    types: list[Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,40}$")]] | None = Field(
        default=None, min_length=1, max_length=50, description="Of personal data and names: only these types."
    )


class PassPolicy(BaseModel):
    """Rules of one pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=True, description="false switches the whole pass off.")
    hate: Rule = Rule()
    offensive: Rule = Rule()
    injection: Rule = Rule()
    personal_data: Rule = Rule()
    names: Rule = Rule()
    review: list[Literal["flag", "mask", "block"]] = Field(
        default_factory=list, max_length=3, description="Texts treated so go to the review queue, words included."
    )

    @cached_property
    def rules(self) -> dict[Category, Rule]:
        """Those that ask for something, none when the pass is off; every call asks several times."""
        if not self.enabled:
            return {}
        every: dict[Category, Rule] = {name: getattr(self, name) for name in CATEGORIES}
        return {name: rule for name, rule in every.items() if rule.action != "allow"}

    def changes_text(self) -> bool:
        """Whether any rule can keep words back."""
        return any(rule.action in ("mask", "block") for rule in self.rules.values())


class SafetyPolicy(BaseModel):
    """Of an organisation; what is left out is as the platform has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: PassPolicy = PassPolicy(
        hate=Rule(action="flag"), injection=Rule(action="flag"), personal_data=Rule(action="flag")
    )
    context: PassPolicy = PassPolicy(injection=Rule(action="flag"))
    # Flagged, not blocked: to block or mask, an answer is held back sentence by sentence, and the head is not sure
    # enough to decide that for everybody.
    output: PassPolicy = PassPolicy(
        hate=Rule(action="flag", threshold=0.9), personal_data=Rule(action="flag"), review=["block"]
    )
    when_unchecked: Literal["flag", "block"] = Field(
        default="flag", description="What happens to a text that cannot be judged now, a model being away."
    )
