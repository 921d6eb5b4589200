"""What a daemon needs before it may listen on TCP: an address, a key of its own, and somebody to let in.

All three are looked at before anything is started. A port without keys would be the open control socket that others
have been broken into by, and a daemon that lets nobody in is a mistake that shows hours later, when it is needed.
"""

from __future__ import annotations

import msgspec

from ampd.control import allowed, keyring, tcp
from ampd.control.allowed import AllowList
from ampd.control.keyring import KeyPair
from ampd.control.tcp import Remote
from ampd.errors import ConfigError

_ALLOW = "ampctl keys allow NAME 'PUBLIC KEY' --role view"


class Gate(msgspec.Struct, frozen=True):
    """Where to listen, who we are, and who may come in."""

    where: Remote
    own: KeyPair
    allowed: AllowList
    names: tuple[str, ...]
    """Who was in the list when it was read."""


def read(listen: str) -> Gate | None:
    """Everything for `[control] listen`, None where it is empty; raises ConfigError for what is missing or unsafe."""
    if not listen:
        return None
    directory = keyring.directory()
    key, file = directory / f"{keyring.SERVER}.key", directory / allowed.FILE
    if not key.exists():
        raise _refused(f"TCP needs a key of the daemon, and there is no {key}", "ampctl keys new --server")
    try:
        where, own = tcp.parse(listen), keyring.read(key)
        listed = allowed.load(file) if file.exists() else {}
    except ConfigError as error:
        raise _refused(str(error), error.hint) from None
    if not listed:
        raise _refused(f"TCP needs somebody to let in, and {file} allows nobody", _ALLOW)
    return Gate(where, own, AllowList(file), tuple(listed))


def _refused(reason: str, hint: str) -> ConfigError:
    return ConfigError(f"control.listen: {reason}", field="control.listen", hint=hint)
