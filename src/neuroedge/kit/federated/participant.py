"""A participant of federations: the client's side of rounds, over any HTTP client that the caller opens.

    http = httpx.Client(base_url="https://neuroedge.example", headers={"Authorization": "Bearer sk-ne-…"}, timeout=30)
    me = Participation.register(http, federation_id=federation, name="school-a", private_key=key)
    version, weights = me.weights()
    round_id = me.running_round()
    me.send_update(round_id, {name: trained[name] - weights[name] for name in weights}, samples=120)

In secure aggregation the same update goes through `SecureRound`, whose `step` is called until it says that it is over.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol

import numpy as np

from neuroedge.kit.federated import aggregation, secure, signing, weights
from neuroedge.kit.federated.secure import PublicKeys
from neuroedge.kit.federated.weights import Vector, Weights

_PATH: Final = "/v1/federations"
Standing = Literal["waiting", "sent", "over"]


class Answer(Protocol):
    """What an HTTP client answers with; httpx.Response is one."""

    @property
    def status_code(self) -> int:
        """Of HTTP."""
        ...

    def json(self) -> Any:
        """The body."""
        ...


class Http(Protocol):
    """What asks; httpx.Client is one. It carries address, token and timeouts."""

    def request(self, method: str, url: str, *, json: Any = None) -> Answer:
        """Ask once."""
        ...


class ParticipationError(Exception):
    """The server refused; `status` and `code` say why."""

    def __init__(self, status: int, body: Any) -> None:
        told = body if isinstance(body, dict) else {}
        super().__init__(f"{status}: {told.get('detail') or told}")
        self.status = status
        self.code = told.get("code")


class Participation:
    """One client of one federation. The private key never leaves it."""

    def __init__(self, http: Http, *, federation_id: str, client_id: str, private_key: bytes) -> None:
        self._http = http
        self._key = private_key
        self.federation_id = federation_id
        self.client_id = client_id

    @classmethod
    def register(cls, http: Http, *, federation_id: str, name: str, private_key: bytes) -> "Participation":
        """Register under a name, or come back under it. `private_key` is of `signing.new_private_key`."""
        public_key = base64.b64encode(signing.public_key_of(private_key)).decode()
        draft = {"name": name, "public_key": public_key}
        told = _asked(http, "POST", f"{_PATH}/{federation_id}/clients", draft)
        return cls(http, federation_id=federation_id, client_id=told["id"], private_key=private_key)

    def weights(self) -> tuple[int, dict[str, Vector]]:
        """The newest version of the model, with its number."""
        told = self.ask("GET", "/weights")
        return told["version"], weights.of_npz(base64.b64decode(told["npz"]))

    def settings(self) -> dict[str, Any]:
        """How the federation's rounds work."""
        settings: dict[str, Any] = self.ask("GET", "")["settings"]
        return settings

    def running_round(self) -> str | None:
        """The id of the round that takes messages now."""
        newest = self.ask("GET", "/rounds?limit=1")["rounds"]
        return newest[0]["id"] if newest and newest[0]["state"] in ("open", "collecting") else None

    def send_update(self, round_id: str, update: Weights, *, samples: int = 1) -> bool:
        """Send trained weights minus the base's; whether they are new to the server."""
        return self.send(round_id, "update", weights.to_npz(update), samples=samples)

    def send(self, round_id: str, kind: str, payload: bytes, *, samples: int = 1) -> bool:
        """Send a signed message; whether it is new to the server. Again is fine."""
        draft = {
            "client_id": self.client_id,
            "kind": kind,
            "samples": samples,
            "payload": base64.b64encode(payload).decode(),
            "signature": base64.b64encode(self._signature(round_id, kind, payload, samples)).decode(),
        }
        return not self.ask("POST", f"/rounds/{round_id}/messages", draft)["known"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Below the federation's address. Raises ParticipationError."""
        return _asked(self._http, method, f"{_PATH}/{self.federation_id}{path}", body)

    def _signature(self, round_id: str, kind: str, payload: bytes, samples: int) -> bytes:
        text = signing.signed_text(
            federation_id=self.federation_id,
            round_id=round_id,
            client_id=self.client_id,
            kind=kind,
            samples=samples,
            payload=payload,
        )
        return signing.sign(self._key, text)


class SecureRound:
    """A client's part in one round of secure aggregation; call `step` until it says "over".

    `trusted` holds others' registered public keys by client id, learned otherwise than from this server; without it
    the server's word is taken for them, and a server that lies about keys could read updates.
    """

    def __init__(
        self, me: Participation, round_id: str, update: Weights, *, trusted: Mapping[str, bytes] | None = None
    ) -> None:
        self._me, self._id, self._update, self._trusted = me, round_id, update, trusted
        self._part = secure.Participant(me=me.client_id, round_id=round_id)
        self._sent: set[str] = set()
        self._clients = 0
        self._bound = float(me.settings()["clip_norm"])

    def step(self) -> Standing:
        """Send what the phase asks for. Raises ValueError where going on would give this client's update away."""
        inbox = self._me.ask("GET", f"/rounds/{self._id}/inbox/{self._me.client_id}")
        state, phase = inbox["round"]["state"], inbox["round"]["phase"]
        if state not in ("open", "collecting"):
            return "over"
        if phase in self._sent:
            return "waiting"
        self._me.send(self._id, phase, self._message(phase, inbox))
        self._sent.add(phase)
        return "sent"

    def _message(self, phase: str, inbox: Mapping[str, Any]) -> bytes:
        if phase == "keys":
            return _bytes(asdict(self._part.public))
        if phase == "shares":
            keys = {told["client_id"]: self._keys_of(told) for told in inbox["keys"]}
            self._clients = len(keys)
            return _bytes(self._part.shares(keys))
        if phase == "masked":
            shapes = weights.shapes_of(self._update)
            vector, _ = aggregation.clip(weights.flat(self._update, shapes)[np.newaxis], self._bound)
            masked = self._part.masked(vector[0], inbox["senders"], bound=self._bound, clients=self._clients)
            return secure.to_bytes(masked)
        sealed = {name: base64.b64decode(text) for name, text in inbox["shares"].items()}
        return _bytes(self._part.unmask(sealed, inbox["survivors"]))

    def _keys_of(self, told: Mapping[str, Any]) -> PublicKeys:
        payload = base64.b64decode(told["payload"])
        text = signing.signed_text(
            federation_id=self._me.federation_id,
            round_id=self._id,
            client_id=told["client_id"],
            kind="keys",
            samples=told["samples"],
            payload=payload,
        )
        public_key = base64.b64decode(told["public_key"])
        if self._trusted is not None and self._trusted.get(told["client_id"]) != public_key:
            raise ValueError(f"client {told['client_id']} is none that this client trusts")
        if not signing.genuine(public_key, base64.b64decode(told["signature"]), text):
            raise ValueError(f"the keys of client {told['client_id']} are not signed by it")
        keys = json.loads(payload)
        return PublicKeys(**{name: base64.b64decode(keys[name]) for name in ("cipher", "masks", "own")})


def _bytes(named: Mapping[str, bytes]) -> bytes:
    return json.dumps({name: base64.b64encode(value).decode() for name, value in named.items()}).encode()


def _asked(http: Http, method: str, url: str, body: Any) -> Any:
    answer = http.request(method, url, json=body)
    told = answer.json()
    if answer.status_code >= 400:
        raise ParticipationError(answer.status_code, told)
    return told
