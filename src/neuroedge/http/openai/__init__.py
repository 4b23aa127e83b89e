"""OpenAI's API: the same paths, bodies, events and errors."""

from neuroedge.http.openai.errors import openai_error

_OTHERS = (
    *("embeddings", "moderations", "rerank", "files"),
    *("audio/transcriptions", "audio/translations", "audio/speech", "audio/voices"),
)
REFUSALS = {
    **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/responses"), openai_error),
    **dict.fromkeys((f"/v1/{name}" for name in _OTHERS), openai_error),
}
"""How http/middleware.py refuses a body or a header of these paths before a route sees it."""
