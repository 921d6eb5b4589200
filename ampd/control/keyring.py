"""Key files: where they lie, how they are made, and when one is not to be trusted.

A peer over TCP is its CURVE key, so a key is a file with the habits of ssh: `NAME.key` is the secret half, for its
owner's eyes only, `NAME.pub` may be given to anybody, and a secret that others can read is refused instead of used.
The pair is libzmq's own, in Z85, which needs no quoting in TOML and single quotes in a shell.

One directory serves a machine or a user: the daemon's pair and allow-list (`allowed`) lie in it on one side, the
pairs of clients on the other. Where it is follows the same rule for both, so that `ampctl keys` and `ampd start`
cannot mean two different ones.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import msgspec
import zmq

from ampd.errors import ConfigError

SERVER = "server"
"""The name of the daemon's own pair."""
NAME = "[A-Za-z0-9_-]{1,32}"
_SYSTEM = Path("/etc/ampd/keys")
_KEY = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")


class KeyPair(msgspec.Struct, frozen=True):
    """Both halves in Z85; printing one shows the public half only."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r})"


class Credentials(msgspec.Struct, frozen=True):
    """What a client needs: the key that the daemon must prove, and its own."""

    server: str
    own: KeyPair


def directory() -> Path:
    """AMPD_KEYS_DIR; else /etc/ampd/keys for root and whoever may look into it; else the user's own."""
    given = os.environ.get("AMPD_KEYS_DIR")
    if given:
        return Path(given)
    if os.geteuid() == 0 or os.access(_SYSTEM, os.R_OK | os.X_OK):
        return _SYSTEM
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ampd" / "keys"


def pair() -> KeyPair:
    """A new pair, in memory only."""
    while True:
        public, secret = (half.decode() for half in zmq.curve_keypair())
        if not public.startswith("-"):  # a command line would take it for an option
            return KeyPair(public, secret)


def make(where: Path, name: str) -> KeyPair:
    """A new pair in `where`/NAME.key and NAME.pub; raises ConfigError, and never replaces one."""
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{name!r} cannot name a key: expected letters, digits, - and _, at most 32")
    made = pair()
    prepare(where)
    _write(where / f"{name}.key", made.secret, 0o600)
    _write(where / f"{name}.pub", made.public, 0o644)
    return made


def prepare(where: Path) -> None:
    """Make the directory, for its owner only."""
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the directory of keys {where}: {error.strerror}", hint="set AMPD_KEYS_DIR"
        ) from None


def read(path: Path) -> KeyPair:
    """The pair of a secret key's file; raises ConfigError where it is no key, or others can read or replace it."""
    secret = read_trusted(path, forbidden=0o077).strip()
    if not is_key(secret):
        raise ConfigError(f"{path} is not a secret key: expected 40 characters of Z85", hint=_MAKE)
    return KeyPair(zmq.curve_public(secret.encode()).decode(), secret)


def public(given: str) -> str:
    """A public key that is given itself, or as a file; raises ConfigError."""
    path = Path(given)
    found = given if not path.is_file() else path.read_text(encoding="utf-8", errors="replace").strip()
    if not is_key(found):
        raise ConfigError(
            f"{given!r} is neither a public key (40 characters of Z85) nor a file with one",
            hint="quote a key in single quotes, or give the path of a .pub file",
        )
    return found


def is_key(text: str) -> bool:
    """Whether libzmq would take it."""
    if not _KEY.fullmatch(text):
        return False
    try:
        zmq.curve_public(text.encode())
    except (zmq.ZMQError, ValueError):
        return False
    return True


def clients(where: Path) -> list[Path]:
    """The secret keys of clients in a directory."""
    return sorted(path for path in where.glob("*.key") if path.stem != SERVER)


def read_trusted(path: Path, *, forbidden: int) -> str:
    """A file's text; raises ConfigError where its mode has a `forbidden` bit, or somebody else could swap it."""
    try:
        with path.open(encoding="utf-8") as file:
            check(path, os.fstat(file.fileno()), forbidden)
            check(path.parent, path.parent.stat(), 0o022)
            return file.read()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint=_MAKE) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text") from None


def check(path: Path, found: os.stat_result, forbidden: int) -> None:
    """Raise ConfigError where a file or directory is not only in our hands, or root's."""
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path} belongs to uid {found.st_uid}; it must be of uid {os.geteuid()} or root")
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        may = "read" if forbidden & 0o044 else "write"
        raise ConfigError(
            f"others may {may} {path}: its mode is {mode:04o}", hint=f"chmod {mode & ~forbidden:04o} {path}"
        )


_MAKE = "make one with `ampctl keys new NAME`; for a daemon with `ampctl keys new --server`"


def _write(path: Path, text: str, mode: int) -> None:
    """Write a new file, which belongs to whom its directory belongs to: root makes keys for a daemon's user."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists, and a key is never replaced", hint="move it away, or choose another name"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="set AMPD_KEYS_DIR") from None
    with os.fdopen(descriptor, "w") as file:
        give(descriptor, path.parent)
        os.fchmod(descriptor, mode)
        file.write(text + "\n")


def give(descriptor: int, where: Path) -> None:
    """Give a new file to the owner of its directory, where we are root."""
    if os.geteuid() == 0:
        owner = where.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
