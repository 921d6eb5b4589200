"""Where a job's sockets live, and which of them somebody listens on.

Every job has a runtime directory with three unix sockets and a lock. The daemon makes it, `ampctl` looks for it in
the same places, so both sides are here. A socket file proves nothing: a killed daemon leaves its own behind. The
only question with an honest answer is put to the kernel, by connecting: refused means that nobody listens. That is
why there is no pid file to go stale, and why finding the daemon never signals or trusts a pid.

The kernel takes at most 107 bytes of a unix socket's path. libzmq reports a longer one as a bare "File name too
long"; here it is refused with the path, its length and what to set.
"""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ampd.errors import CommandError, ConfigError, ExitCode

CONTROL = "control.sock"
EVENTS = "events.sock"
LINK = "link.sock"
PULSE = "pulse"
LOCK = "lock"
MAX_PATH_BYTES = 107
"""sun_path of unix(7) is 108 bytes, and the last is a NUL."""
_SYSTEM_ROOT = Path("/run/ampd")


class Presence(enum.Enum):
    """What a connect to a unix socket met."""

    LISTENING = enum.auto()
    STALE = enum.auto()
    ABSENT = enum.auto()
    FORBIDDEN = enum.auto()


class Endpoint(msgspec.Struct, frozen=True):
    """A daemon's control socket; `job` names its runtime directory."""

    job: str
    path: Path

    @property
    def address(self) -> str:
        """As ZeroMQ writes it."""
        return f"ipc://{self.path}"


def runtime_directory(job_name: str) -> Path:
    """Where the daemon of this job puts its sockets: the first of the places that the environment offers."""
    given = os.environ.get("AMPD_RUNTIME_DIR")
    if given:
        return Path(given) / job_name
    service = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if service:
        return _in_service_directory(Path(service), job_name)
    if os.geteuid() == 0 or os.access(_SYSTEM_ROOT, os.W_OK | os.X_OK):
        return _SYSTEM_ROOT / job_name
    return _user_root() / job_name


def socket_path(directory: Path, name: str) -> Path:
    """The path of a socket in a runtime directory; raises ConfigError where the kernel would refuse it."""
    path = directory / name
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise ConfigError(
            f"the socket path {path} has {length} bytes; a unix socket takes at most {MAX_PATH_BYTES}",
            hint="set AMPD_RUNTIME_DIR to a shorter directory",
        )
    return path


def probe(path: Path) -> Presence:
    """Whether anybody listens on a unix socket, by connecting; never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(os.fspath(path))
        except FileNotFoundError:
            return Presence.ABSENT
        except PermissionError:
            return Presence.FORBIDDEN
        except BlockingIOError:  # its backlog is full: somebody listens, and is slow
            return Presence.LISTENING
        except (ConnectionRefusedError, NotADirectoryError):
            return Presence.STALE
    return Presence.LISTENING


def find(job: str | None, endpoint: str | None) -> Endpoint:
    """The one daemon that is meant; raises CommandError or ConfigError where there is none, or more than one.

    `endpoint` (an ipc:// address, a socket or a runtime directory) is taken as it is; else `job` names one of the
    running daemons; else the only running daemon is meant.
    """
    if endpoint is not None:
        return _named(endpoint)
    seen = {found: probe(found.path) for found in _candidates()}
    if job is not None:
        return _of_job(job, seen)
    running = _with(Presence.LISTENING, seen)
    if len(running) == 1:
        return running[0]
    if running:
        raise ConfigError(
            f"{len(running)} daemons are running: {_names(running)}", hint=f"pick one: --job {running[0].job}"
        )
    raise _nobody("no daemon is running", seen)


def running() -> list[Endpoint]:
    """Every daemon's control socket that somebody listens on, and that this user may know of."""
    return [found for found in _candidates() if probe(found.path) in (Presence.LISTENING, Presence.FORBIDDEN)]


def holder(path: Path) -> int | None:
    """The pid that the daemon of a control socket wrote into its lock; None where it cannot be read."""
    try:
        return int((path.parent / LOCK).read_text())
    except (OSError, ValueError):
        return None


def unreachable(path: Path, presence: Presence) -> CommandError:
    """The error for a socket that cannot be talked to; `presence` is anything but LISTENING."""
    match presence:
        case Presence.FORBIDDEN:
            return CommandError(
                f"no permission to connect to {path} as uid {os.geteuid()}", code="FORBIDDEN",
                exit_code=ExitCode.UNREACHABLE,
                hint="run as the daemon's user, or have [control] group name a group of yours",
            )  # fmt: skip
        case Presence.STALE:
            what = f"nobody listens on {path}: its daemon has ended"
        case _:
            what = f"there is no socket {path}"
    return CommandError(
        what,
        code="NOT_RUNNING",
        exit_code=ExitCode.NOT_RUNNING,
        hint="start it: ampd start --config JOB.toml",
    )


def _in_service_directory(service: Path, job_name: str) -> Path:
    """systemd's RuntimeDirectory=ampd/NAME is the job's own; any other may be shared, so it gets a subdirectory."""
    return service if service.parent.name == "ampd" else service / job_name


def _user_root() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    return Path(given) / "ampd" if given else Path(f"/tmp/ampd-{os.geteuid()}")  # checked for its owner


def _roots() -> Iterator[Path]:
    """Where to look: AMPD_RUNTIME_DIR alone where it is set, so that it cannot lead to a daemon elsewhere."""
    given = os.environ.get("AMPD_RUNTIME_DIR")
    if given:
        yield Path(given)
        return
    yield _SYSTEM_ROOT
    user = _user_root()
    if user.is_dir() and user.stat().st_uid == os.geteuid():  # anyone may make a directory in /tmp
        yield user


def _candidates() -> list[Endpoint]:
    found = (path.parent for root in _roots() for path in sorted(root.glob(f"*/{CONTROL}")))
    return [Endpoint(directory.name, socket_path(directory, CONTROL)) for directory in found]


def _named(endpoint: str) -> Endpoint:
    scheme, found, rest = endpoint.partition("://")
    if found and scheme != "ipc":
        raise ConfigError(
            f"--endpoint {endpoint}: {scheme} is not served; expected a unix socket or tcp",
            hint="for example --endpoint ipc:///run/ampd/JOB/control.sock or --endpoint tcp://HOST:5555",
        )
    path = Path(rest if found else endpoint)
    path = path / CONTROL if path.is_dir() else path
    presence = probe(socket_path(path.parent, path.name))
    if presence is not Presence.LISTENING:
        raise unreachable(path, presence)
    return Endpoint(path.parent.name, path)


def _of_job(job: str, seen: dict[Endpoint, Presence]) -> Endpoint:
    named = {found: presence for found, presence in seen.items() if found.job == job}
    for found, presence in sorted(named.items(), key=lambda item: item[1] is not Presence.LISTENING):
        if presence is Presence.LISTENING:
            return found
        raise unreachable(found.path, presence)
    raise _nobody(f"no daemon of job {job!r} is running", seen)


def _nobody(message: str, seen: dict[Endpoint, Presence]) -> CommandError:
    running, forbidden = _with(Presence.LISTENING, seen), _with(Presence.FORBIDDEN, seen)
    if running:
        hint = f"running: {_names(running)}"
    elif forbidden:
        return unreachable(forbidden[0].path, Presence.FORBIDDEN)
    else:
        hint = f"start one: ampd start --config JOB.toml (looked in {', '.join(map(str, _roots()))})"
    return CommandError(message, code="NOT_RUNNING", exit_code=ExitCode.NOT_RUNNING, hint=hint)


def _with(presence: Presence, seen: dict[Endpoint, Presence]) -> list[Endpoint]:
    return [found for found, what in seen.items() if what is presence]


def _names(endpoints: list[Endpoint]) -> str:
    return ", ".join(found.job for found in endpoints)
