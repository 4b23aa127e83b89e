"""What is asked and told of whose voice it is: the schemas of the engine speaker."""

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.ports import AudioSource
from neuroedge.kit.speaker_scores import Decision


class GivenVoice(BaseModel):
    """A voice to compare with."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=200, description="What the answer calls it.")
    samples: list[AudioSource] = Field(min_length=1, max_length=10, description="Recordings of this person alone.")


class VoiceSpan(BaseModel):
    """A stretch of the recording."""

    model_config = ConfigDict(extra="forbid")

    start_s: float = Field(ge=0, le=1e6, allow_inf_nan=False, description="Start, in seconds.")
    end_s: float = Field(ge=0, le=1e6, allow_inf_nan=False, description="End, in seconds.")


class VoicePart(BaseModel):
    """What one speaker says in the recording, as diarization tells it."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=200, description="What the answer calls it.")
    spans: list[VoiceSpan] = Field(min_length=1, max_length=20_000, description="Where this speaker speaks.")


class SpeechQuality(BaseModel):
    """How good a basis the speech is."""

    speech_s: float = Field(description="Seconds of speech.")
    snr_db: float | None = Field(description="Speech over background in dB; null where it cannot be told.")
    clipping_percent: float = Field(description="Share of samples in plateaus at full scale, in percent.")
    other_speech_s: float | None = Field(
        description="Seconds that seem to be another person's; null where that was not looked at."
    )
    flaws: list[str] = Field(description="too_little_speech, several_speakers, too_noisy, clipped.")


class VoiceCandidate(BaseModel):
    """How much the speech sounds like one voice."""

    id: str = Field(description="Of the request's voice, or of the organisation's.")
    name: str | None = Field(description="Of the organisation's voice; null for one of the request.")
    score: float = Field(description="Cosine of the speaker vectors after centring, -1 to 1.")
    llr: float | None = Field(
        description="Natural log-likelihood ratio, one person over two; null when the encoder is not calibrated."
    )
    p_same: float | None = Field(description="Probability that it is this person, were there no other candidates.")
    p_candidate: float | None = Field(description="Probability that it is this one of all candidates, or nobody.")
    decision: Decision = Field(description="same, different or uncertain at the error rates of the calibration.")


class VoicePartAnswer(BaseModel):
    """Who one speaker of the recording is."""

    id: str = Field(description="The part's id; audio when none were named.")
    quality: SpeechQuality | None = Field(description="Of its speech; null when there was nobody to compare with.")
    candidates: list[VoiceCandidate] = Field(description="Best first, at most `top`.")
    identified: str | None = Field(description="Id of the candidate it is; null: nobody, or not sure.")
    reliable: bool = Field(description="Whether the speech is a good enough basis.")
    warnings: list[str] = Field(description="What makes the answer unreliable.")


class GivenVoiceAnswer(BaseModel):
    """How good the samples of a voice of the request are."""

    id: str = Field(description="The voice's id.")
    samples: list[SpeechQuality] = Field(description="Of each sample, in the order given.")


class VoiceCalibration(BaseModel):
    """How decisions are made."""

    same_llr: float = Field(description="At or above it: the same person.")
    different_llr: float = Field(description="At or below it: another person.")
    far: float = Field(description="False acceptances the first was chosen for, as a share of comparisons.")
    frr: float = Field(description="False rejections the second was chosen for, as a share of comparisons.")
    source: str = Field(description="Speech it was fitted on.")
