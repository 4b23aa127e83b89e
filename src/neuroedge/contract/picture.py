"""What can be said of a picture: parts of the engine vision's answer, which others use too."""

from typing import Literal

from pydantic import BaseModel, Field


class PictureColour(BaseModel):
    """A main colour."""

    hex: str = Field(description="As HTML writes it: #rrggbb.")
    share: float = Field(description="Part of the picture nearest to it, 0 to 1.")


class PictureFacts(BaseModel):
    """What was measured, and what the file says of itself."""

    width_px: int = Field(description="As it is to be seen: turned as its EXIF data say.")
    height_px: int = Field(description="As it is to be seen.")
    format: str = Field(description="PNG, JPEG, TIFF, WEBP, GIF or BMP.")
    mode: str = Field(description="How colours are kept: L, RGB, RGBA, CMYK, P, I;16 …")
    frames: int = Field(description="Frames of an animation or pages of a TIFF file.")
    transparent: bool = Field(description="Whether it has transparency.")
    exif_orientation: int = Field(description="EXIF's 1 to 8, as in the file; 1: as it is to be seen.")
    taken_at: str | None = Field(description="By the camera's clock (ISO 8601, without zone); null: not told.")
    has_location: bool = Field(description="Whether the file tells where it was taken.")
    location: tuple[float, float] | None = Field(
        description="Latitude and longitude in degrees (WGS 84), only where `location` asked for it."
    )
    brightness: float = Field(description="Mean light, 0 (black) to 1 (white).")
    contrast: float = Field(description="Standard deviation of light, 0 to 0.5.")
    sharpness: float = Field(
        description="Variance of the Laplacian of light in 0 to 255; under 100 is often blur. Compare like with like."
    )
    colourfulness: float = Field(description="Hasler & Süsstrunk's M: 0 grey, 33 moderate, 109 extreme.")
    colours: list[PictureColour] = Field(description="Main colours, the commonest first.")
    perceptual_hash: str = Field(description="64 bits in hexadecimal; near pictures differ in few bits.")


class PictureSafety(BaseModel):
    """Whether it shows nudity."""

    p_unsafe: float = Field(description="The model's probability of nudity, 0 to 1; not calibrated on your pictures.")
    verdict: Literal["safe", "unsure", "unsafe"] = Field(
        description="safe below 0.2, unsafe above 0.8, as the model's authors advise; unsure: let a person look."
    )
    model: str = Field(description="Catalogue id of the model.")


class PictureVector(BaseModel):
    """The picture as a vector."""

    vector: list[float] = Field(description="L2-normalised.")
    dim: int = Field(description="Its length.")
    method: str = Field(description="clip, siglip, or colour-gradient-1; vectors of different methods do not compare.")
    model: str | None = Field(description="Catalogue id of the model; null: made without one.")


class PictureLabel(BaseModel):
    """How well a phrase fits."""

    label: str = Field(description="As it was given.")
    p: float = Field(description="Probability: among the given labels (clip), or of itself (siglip); not calibrated.")
    cosine: float = Field(description="Of picture and phrase, -1 to 1.")


class PictureSimilarity(BaseModel):
    """How near another picture is."""

    cosine: float = Field(description="Of both vectors by the method of `embedding`, -1 to 1.")
    hash_distance_bits: int = Field(description="0 to 64; up to about 8: the same picture, scaled or compressed anew.")
    method: str = Field(description="That of the vectors.")
