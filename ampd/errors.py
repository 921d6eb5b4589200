"""Every error that ampd raises on purpose, sorted by who must act.

    AmpdError
    |-- ConfigError        the operator: the job file or a value is wrong        (exit 2)
    |-- CommandError       the operator: a command could not be carried out      (exit by code)
    |-- JobConflictError   the operator: another daemon or worker has the job    (exit 6)
    |-- PluginError        the plugin's author: a spec, option or build is wrong (exit 2)
    |-- PipelineError      the plugin's author: a stage broke the window's laws  (exit 1)
    |-- WorkloadError      the workload's author: windows or loss are not usable (exit 1)
    |-- CheckpointError    the operator: no usable state, or none could be saved (exit 1)
    `-- LinkError          us: supervisor and worker do not understand each other (exit 1)

A message says what was given, what was expected, where, and what to do. Numeric trouble (overflow, NaN)
is never an exception: it is an Outcome with a verdict.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a process of ours ends with; the same in `ampd` and `ampctl`, and in both `--help` texts."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNREACHABLE = 4
    REJECTED = 5
    CONFLICT = 6
    TIMED_OUT = 7
    ROLLED_BACK = 8
    INTERRUPTED = 130


class AmpdError(Exception):
    """Root of the tree; catch it to catch everything that ampd raises on purpose."""

    exit_code: ExitCode = ExitCode.FAILED


class ConfigError(AmpdError):
    """A job file, key or value is wrong; `field` is the dotted key where it is known."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class CommandError(AmpdError):
    """A command reached nobody, or was refused; `code` says which and becomes the exit code."""

    def __init__(self, message: str, *, code: str, exit_code: ExitCode, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code
        self.hint = hint


class JobConflictError(AmpdError):
    """Another daemon, or a worker that outlived its daemon, has the job directory or the socket."""

    exit_code = ExitCode.CONFLICT


class PluginError(AmpdError):
    """A plugin is not installed, or what it names cannot be used; says distribution and entry point."""

    exit_code = ExitCode.USAGE


class PipelineError(AmpdError):
    """A stage broke a law of the window: no verdict, two stages in a slot that takes one."""


class WorkloadError(AmpdError):
    """A workload gave windows or a loss that cannot be trained on."""


class CheckpointError(AmpdError):
    """A checkpoint could not be written, or none that can be trusted was found."""


class LinkError(AmpdError):
    """A message between supervisor and worker could not be understood."""
