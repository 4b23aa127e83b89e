"""Anthropic's Messages API: the same paths, bodies, events and errors."""

from neuroedge.http.anthropic.errors import anthropic_error

REFUSALS = dict.fromkeys(("/v1/messages", "/v1/messages/count_tokens"), anthropic_error)
"""How http/middleware.py refuses a body or a header of these paths before a route sees it."""
