"""A blocking client of BrainService for tests: it makes its methods of the messages alone."""

from types import TracebackType
from typing import Any

import grpc

from neuroedge.grpc import brain_pb2

SERVICE = "aivo.brain.BrainService"


class BrainClient:
    """Calls with one token."""

    def __init__(self, channel: grpc.Channel, *, token: str | None = None) -> None:
        self.channel = channel
        self.token = token

    def __enter__(self) -> "BrainClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.channel.close()

    def call(
        self, method: str, message: Any = None, *, data: bytes | None = None, timeout_s: float | None = 60, **more: str
    ) -> Any:
        """The answer, or grpc.RpcError; `data`: these bytes instead of a message, `more`: other metadata."""
        answer = getattr(brain_pb2, f"{method}Response")
        stub = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda given: given if isinstance(given, bytes) else given.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        metadata += [(name.replace("_", "-"), value) for name, value in more.items()]
        made, call = stub.with_call(message if data is None else data, timeout=timeout_s, metadata=metadata)
        self.initial = dict(call.initial_metadata())
        return made


def problem_of(error: grpc.RpcError) -> brain_pb2.Problem:
    """What the trailing metadata tell."""
    told = dict(error.trailing_metadata())
    problem = brain_pb2.Problem.FromString(told["neuroedge-problem-bin"])
    assert told["neuroedge-code"] == problem.code
    assert told["x-request-id"] == problem.request_id
    return problem
