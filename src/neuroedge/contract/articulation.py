"""Articulation: what the engine is asked, and what it answers of each expected phone."""

from typing import Final, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from neuroedge.contract.engine import EngineInput, EngineOutput
from neuroedge.contract.ports import AudioSource
from neuroedge.kit.articulation_findings import MAX_MISFIT_NATS, Confidence, PhoneType
from neuroedge.kit.phonology import Position, phones_of

MAX_WORDS: Final = 120
MAX_PHONES_OF_WORD: Final = 40
NOTE: Final = (
    "Observations for a professional to check by ear, not a diagnosis. Calibrated on synthetic voices, not validated "
    "on children; dialect and the patterns of another first language are no errors."
)
DialectName = Literal[
    "non_rhotic",
    "th_fronting",
    "th_stopping",
    "th_alveolar",
    "g_dropping",
    "h_dropping",
    "t_glottalling",
    "l_vocalisation",
    "final_cluster_reduction",
    "final_devoicing",
    "v_w_exchange",
]


class Input(EngineInput):
    """A recording of somebody saying known words."""

    audio: AudioSource = Field(description="The recording, 0.2 to 60 s: the expected words and nothing else.")
    repetitions: list[AudioSource] = Field(
        default_factory=list,
        max_length=4,
        description="More recordings of the same words by the same speaker: what is heard of all is judged together.",
    )
    text: str | None = Field(default=None, max_length=1000, description="The words expected, in English spelling.")
    expected_ipa: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_WORDS,
        description='Instead of `text`: each expected word in IPA, e.g. ["ɹæbɪt"], where spelling is not enough.',
    )
    child_age_years: float | None = Field(
        default=None,
        ge=1,
        le=120,
        allow_inf_nan=False,
        description="Age of the speaker in years (4.5 is four years and six months); norms reach from 2 to 17.",
    )
    dialect_patterns: list[DialectName] = Field(
        default_factory=list,
        max_length=20,
        description="Patterns of the speaker's dialect or first language; they are reported but are no errors.",
    )
    language: str = Field(
        default="en",
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$",
        max_length=35,
        description="Language of the words (BCP 47); only English.",
    )

    @field_validator("expected_ipa")
    @classmethod
    def _phones(cls, words: list[str] | None) -> list[str] | None:
        for word in words or []:
            found = phones_of(word[:200])
            if not 1 <= len(found) <= MAX_PHONES_OF_WORD or len(word) > 200:
                raise ValueError(f"'{word[:40]}' must have 1 to {MAX_PHONES_OF_WORD} phones")
        return words

    @model_validator(mode="after")
    def _one_expectation(self) -> "Input":
        if (self.text is None) == (self.expected_ipa is None):
            raise ValueError("give exactly one of 'text' and 'expected_ipa'")
        return self


class PhoneFinding(BaseModel):
    """An expected phone and what was heard of it."""

    word: int = Field(description="Index of its word in `words`.")
    expected: str = Field(description="The phone expected, in IPA.")
    heard: str | None = Field(description="The phone heard; null when it was left out or cannot be told.")
    type: PhoneType = Field(
        description="correct; substitution; omission; distortion: fits badly, yet nothing else fits better; dialect: "
        "differs by a pattern named in the request; connected_speech: weakened in a little word."
    )
    position: Position = Field(description="In its word: initial, medial or final; consonant clusters count as one.")
    start_s: float = Field(description="Start, in seconds; approximate (0.05 s).")
    end_s: float = Field(description="End, in seconds; approximate (0.1 s).")
    gop_nats: float = Field(description="Goodness of pronunciation: log share against all alternatives, at most 0.")
    p_error: float = Field(description="Calibrated probability (0..1) that it was not said as expected.")
    confidence: Confidence = Field(description="How far the finding may be relied on.")
    age_expected: bool | None = Field(
        description="For a difference in a consonant: whether it is still usual at the age given; null without norms."
    )
    acquired_at_years: int | None = Field(description="Year of age in which 90 % of children say it right; consonants.")
    features_changed: list[str] = Field(description="Distinctive features as heard, e.g. -voi, for a substitution.")
    processes: list[str] = Field(description="Phonological processes the difference may show.")
    dialect_pattern: str | None = Field(description="The pattern of the request that explains it.")


class Addition(BaseModel):
    """A phone that was said and not expected."""

    word: int = Field(description="Index of its word in `words`.")
    before: int = Field(description="Index in the word of the phone it stands before; the word's length at its end.")
    heard: str = Field(description="The phone heard, in IPA.")
    gain_nats: float = Field(description="How much likelier the recording is with it.")
    processes: list[str] = Field(description="Phonological processes it may show.")
    confidence: Confidence = Field(description="How far the finding may be relied on.")


class WordFinding(BaseModel):
    """An expected word."""

    word: str = Field(description="As given.")
    expected: str = Field(description="Its phones in IPA.")
    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    said_as_expected: bool = Field(description="Whether no error was found in it; dialect patterns are none.")
    p_error: float = Field(description="Highest probability of an error among its phones (0..1).")


class ProcessCount(BaseModel):
    """A phonological process over the whole recording."""

    name: str = Field(description="Name of the process.")
    definition: str = Field(description="What it is, with an example.")
    count: int = Field(description="How many of the differences may show it.")
    examples: list[str] = Field(description="Expected and heard phones of some, e.g. 'k→t in cat'.")


class SignalQuality(BaseModel):
    """How good the recording is."""

    duration_s: float = Field(description="Length, in seconds.")
    speech_s: float = Field(description="Seconds of speech found.")
    snr_db: float | None = Field(description="Speech over background, in dB; null when there is too little of either.")
    clipping_percent: float = Field(description="Share of samples in plateaus at full scale, in percent.")
    telephone_band: bool = Field(description="Whether there is nothing above 4 kHz: s, f and th then sound alike.")


class Output(EngineOutput):
    """Each expected phone with what was heard, and the sums over the recording."""

    phones: list[PhoneFinding] = Field(description="Each expected phone, in order; empty when nobody speaks.")
    additions: list[Addition] = Field(description="Phones said beyond the expected ones.")
    words: list[WordFinding] = Field(description="Each expected word.")
    heard_ipa: str = Field(description="What the recogniser hears when it expects nothing; about 1 phone in 7 is off.")
    pcc_percent: float | None = Field(description="Percentage of consonants correct; null without a reliable answer.")
    consonants: int = Field(description="Consonants expected: the number behind pcc_percent.")
    errors: int = Field(description="Substitutions, omissions, distortions and additions found.")
    errors_not_expected_at_age: int | None = Field(description="Those in consonants acquired before the age given.")
    processes: list[ProcessCount] = Field(description="Phonological processes, the most frequent first.")
    mismatch: float = Field(description="Distance (0..1) of what was heard from the expected phones.")
    misfit_nats: float | None = Field(
        description=f"Nats a phone by which other phones fit better; beyond {MAX_MISFIT_NATS} another text was said."
    )
    signal: SignalQuality = Field(description="Quality of the recording, of several that of the first used.")
    recordings: int = Field(description="How many recordings the findings rest on.")
    norms: str | None = Field(description="Source of the ages of acquisition; null when they say nothing of this age.")
    reliable: bool = Field(description="Whether nothing speaks against the answer; else see `warnings`.")
    warnings: list[str] = Field(description="What makes it unreliable, and what to mind.")
    note: str = Field(default=NOTE, description="What this answer is not.")
