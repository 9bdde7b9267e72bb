"""The request context as it is stored: key by key, secret keys encrypted.

This is the one place that turns a request context into stored text and back. A secret leaves it in clear text only for
user code: in `ctx.request_context`, and in the `request_context` of a callback.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from orchestrator.codec import decode, encode, name_text, require_name, require_readable, unpack, with_text_keys
from orchestrator.codec.tags import PREFIX
from orchestrator.engine.settings import Settings
from orchestrator.errors import SecretUnavailable, ValueNotSerializable

_SECRET = f'{PREFIX}{{"$secret":'  # no user's value begins like this: the codec doubles the `$` of such a key
_END = "}}"
_WHERE = "request_context"
_HIDDEN = "***"


def shown_context(stored: Mapping[str, str]) -> dict[str, Any]:
    """Decode stored texts for somebody who looks at the run. A secret is `"***"`, and needs no key for that."""
    return {key: _HIDDEN if text.startswith(_SECRET) else decode(text) for key, text in stored.items()}


def resource_text(given: object) -> str:
    """Return a resource id as text; "" for none. Raises ValueError for a text that no store can keep."""
    # Runs are found by this text. `str.__str__`, because a `StrEnum` or another subclass may format itself differently.
    try:
        text = "" if given is None else str.__str__(given if isinstance(given, str) else str(given))
    except RecursionError:
        raise ValueError(f"the resource id is a {type(given).__name__} that is nested too deeply for a text") from None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"resource id {text!r} has a lone surrogate, which is no text") from None
    return require_name(text, "the resource id")


class RequestContext(dict[str, Any]):
    """A request context as user code gets it: a dict that does not show its secrets where it is printed."""

    # Contexts end up in logs, and error trackers print what the frames of a traceback hold.

    def __init__(self, values: Mapping[str, Any], secret_keys: frozenset[str]) -> None:
        super().__init__(values)
        self._secret_keys = secret_keys

    def __repr__(self) -> str:
        return repr({key: _HIDDEN if key in self._secret_keys else value for key, value in self.items()})


class Contexts:
    """Writes and reads request contexts. Raises `SecretUnavailable` where a key or a library for secrets is missing.

    The first of the secret keys encrypts, and each of them decrypts. What is encrypted names the run and the key that
    it belongs to: copied elsewhere in the store, it is refused.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret_keys = frozenset(settings.secret_context_keys)
        self._packing = settings.packing
        # Made here, so that a wrong setting ends the start of a process and not a step in the middle of a run.
        self._fernets = [_fernet(secret) for secret in settings.reveal_secret_keys()]
        if self._secret_keys and not self._fernets:
            names = ", ".join(sorted(self._secret_keys))
            text = f"`orchestrator_secret_context_keys` names {names}: set `orchestrator_secret_key` to encrypt with"
            raise SecretUnavailable(text)

    def encode_all(self, run_id: str, values: Mapping[Any, Any]) -> dict[str, str | None]:
        """Encode the values as stored texts. Raises `ValueNotSerializable` or `PayloadTooLarge`, naming the key."""
        # Each key is stored by itself, so that two steps that run side by side keep each other's keys.
        texts = {key: self._text(key, value) for key, value in with_text_keys(values, _WHERE).items()}
        return {key: self._seal(run_id, key, text) for key, text in texts.items()}

    def read(self, run_id: str, stored: Mapping[str, str]) -> RequestContext:
        """Decode stored texts to plain values. Raises `SecretUnavailable` where a secret cannot be decrypted."""
        values = {key: decode(self._unseal(run_id, key, text)) for key, text in stored.items()}
        secret = {key for key, text in stored.items() if text.startswith(_SECRET)}
        return self.protect(values, secret)

    def protect(self, values: Mapping[str, Any], more: set[str] = set()) -> RequestContext:  # noqa: B006
        """Return a request context that hides its secrets where it is printed."""
        return RequestContext(values, self._secret_keys | more)

    def require_readable(self, run_id: str, stored: Mapping[str, str]) -> None:
        """Raise `SecretUnavailable` or `CompressionUnavailable` where one of these texts cannot be read here."""
        require_readable(self._unseal(run_id, key, text) for key, text in stored.items())

    def patch(
        self, run_id: str, before: Mapping[str, str], after: Mapping[Any, Any], step: str = ""
    ) -> dict[str, str | None]:
        """Return the keys that `step` has changed: to set, or (None) to delete. `before` are stored texts.

        Raises as `encode_all` does.
        """
        # A key 6 is stored as "6", so a step that reads the context and writes `[6]` leaves both. The one that still
        # has its old value gives way.
        where = f"{_WHERE} of step {step!r}" if step else _WHERE
        changes: dict[str, str | None] = {}
        found: set[str] = set()
        for key, value in after.items():
            name = name_text(key, where)
            text = self._text(name, value)
            found.add(name)
            # Compared in clear text: each encryption of the same secret differs, and would count as a change.
            if name in before and self._is_same(run_id, name, before[name], text):
                continue
            if name in changes:
                raise ValueNotSerializable(f"{where} has two keys that both become {name!r}", where=where, field=name)
            changes[name] = self._seal(run_id, name, text)
        return {name: None for name in before if name not in found} | changes

    def _text(self, key: str, value: Any) -> str:
        return encode(value, where=f"request_context[{key!r}]", limit=self._packing.limit)

    def _is_same(self, run_id: str, key: str, stored: str, text: str) -> bool:
        # Stored before its key became a secret one: the value is written again, encrypted now.
        is_exposed = key in self._secret_keys and not stored.startswith(_SECRET)
        return not is_exposed and unpack(self._unseal(run_id, key, stored)) == text

    def _seal(self, run_id: str, key: str, text: str) -> str:
        # Compressed first: what is encrypted looks like chance, which nothing makes shorter.
        packed = self._packing.pack(text)
        if key not in self._secret_keys or not self._fernets:
            return packed
        # Lone surrogates pass, as everywhere in the codec: a secret comes back as it went in.
        clear = json.dumps([run_id, key, packed])
        token = self._fernets[0].encrypt(clear.encode()).decode()
        return f"{_SECRET}{json.dumps(token)}{_END}"

    def _unseal(self, run_id: str, key: str, stored: str) -> str:
        # A key that is no longer a secret one still has its encrypted value: the stored text says which it is.
        if not stored.startswith(_SECRET):
            return stored
        if not self._fernets:
            text = f"request_context[{key!r}] is stored encrypted: set the `orchestrator_secret_key` it is from"
            raise SecretUnavailable(text)
        clear = self._decrypt(key, stored)
        if clear[:2] != [run_id, key]:
            text = f"request_context[{key!r}] holds a secret of another run or key: it is not read"
            raise SecretUnavailable(text)
        return str(clear[2])

    def _decrypt(self, key: str, stored: str) -> list[Any]:
        token = json.loads(stored[len(_SECRET) : -len(_END)]).encode()
        for fernet in self._fernets:
            try:
                clear: list[Any] = json.loads(fernet.decrypt(token))
            except _invalid_token():
                continue
            return clear
        text = f"request_context[{key!r}] cannot be decrypted: none here is the `orchestrator_secret_key` it is from"
        raise SecretUnavailable(text)


@functools.cache
def _fernet(secret: str) -> Any:
    """The cipher whose key is made from this setting."""
    try:
        from cryptography.fernet import Fernet
    except ImportError as error:
        text = "`orchestrator_secret_key` needs the package cryptography: pip install celery-orchestrator[secrets]"
        raise SecretUnavailable(text) from error
    # A setting may be a password that is easy to guess. `scrypt` makes guessing slow. The salt is fixed, because every
    # process has to come to the same key.
    key = hashlib.scrypt(secret.encode(), salt=b"celery-orchestrator", n=2**14, r=8, p=1, dklen=32)
    return Fernet(base64.urlsafe_b64encode(key))


def _invalid_token() -> type[Exception]:
    from cryptography.fernet import InvalidToken

    return InvalidToken
