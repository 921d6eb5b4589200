"""Mark and restore what an attempt changes besides gradients: random generators and module buffers.

A replay without this has other dropout masks and counts a batch twice in BatchNorm; a skipped attempt leaves NaN in
running statistics for good. Gradients need no mark (every attempt starts by clearing them), and parameters none
either (only the loop's commit changes them).

Cost per window: torch's CPU generator about 3 us, a device generator a little more; all floating buffers of a dtype
are views of one flat tensor, so that a mark is one copy however many buffers a model has. Python's and NumPy's
generators cost ten times that, so they are marked only where the workload declares `host_rng`.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ampd.engine.mark import Mark
from ampd.engine.workload import Capturing, Randomised, Workload


class Rewind:
    """Takes marks of one model and its generators and goes back to them; for the loop's thread only."""

    def __init__(
        self, model: nn.Module, device: torch.device, workload: Workload, *, host_rng: bool = False
    ) -> None:
        self._device = device
        self._host_rng = host_rng
        self._workload = workload if isinstance(workload, Capturing) else None
        self._own = dict(workload.generators) if isinstance(workload, Randomised) else {}
        self._buffers = FlatBuffers(model)

    def mark(self, *, rng: bool = True) -> Mark:
        """The present state; `rng` False leaves the generators out, where nothing will be replayed."""
        return Mark(
            buffers=self._buffers.copy(),
            generators=self.generators() if rng else {},
            workload=self._workload.capture() if self._workload is not None else None,
        )

    def restore(self, mark: Mark) -> None:
        """Go back to `mark`; it stays usable."""
        self.restore_state(mark)
        self.set_generators(mark.generators)

    @property
    def unjudged(self) -> frozenset[str]:
        """Buffers that were not finite when training began, such as masks of -inf; they are as they should be."""
        return self._buffers.unjudged

    def strays(self) -> Tensor:
        """A (1,) float32 tensor: 0 where all buffers are finite (or unjudged), NaN otherwise; no host sync."""
        return self._buffers.strays()

    def restore_state(self, mark: Mark) -> None:
        """Put back all but the generators: what a window that was not applied must not leave behind."""
        self._buffers.paste(mark.buffers)
        if self._workload is not None and mark.workload is not None:
            self._workload.restore(dict(mark.workload))

    def flats(self) -> tuple[Tensor, ...]:
        """All buffers themselves, one tensor for each dtype and device."""
        return self._buffers.flats()

    def select_buffers(self, found: Tensor, mark: Mark) -> None:
        """Put the buffers back where `found` is 1, on the device; no host sync."""
        self._buffers.select(found, mark.buffers)

    def generators(self) -> dict[str, Any]:
        """The states of every generator that a replay draws from; tensors, or plain data that JSON can hold."""
        states: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        if self._own:
            states["own"] = {name: generator.get_state() for name, generator in self._own.items()}
        if self._host_rng:
            states["python"] = random.getstate()
            states["numpy"] = _numpy_state()
        return states

    def set_generators(self, states: Mapping[str, Any]) -> None:
        """Set every generator that `states` holds."""
        if "cpu" in states:
            torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self._device)
        for name, state in states.get("own", {}).items():
            self._own[name].set_state(state)
        if "python" in states:
            version, internal, gauss = states["python"]
            random.setstate((version, tuple(internal), gauss))
        if "numpy" in states:
            _set_numpy_state(states["numpy"])


class FlatBuffers:
    """A model's buffers as views of one flat tensor per dtype and device, so that copying them is cheap.

    A module that replaces a buffer by a new tensor (instead of writing into it) leaves its flat view; that is
    noticed by address at the next copy, and the buffers are gathered again.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        named = dict(model.named_buffers())
        self.unjudged = frozenset(name for name, buffer in named.items() if not torch.isfinite(buffer).all())
        self._flats: list[Tensor] = []
        self._judged: list[Tensor] = []
        device = next((tensor.device for tensor in chain(model.parameters(), named.values())), None)
        self._fine = torch.zeros(1, device=device)
        # The dicts and not the modules, so that parts which are kept for a model do not keep the model alive.
        self._views: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        self._gather()

    def copy(self) -> tuple[Tensor, ...]:
        """The present contents, one tensor for each dtype and device."""
        return tuple(flat.clone() for flat in self.flats())

    def flats(self) -> tuple[Tensor, ...]:
        """What the buffers are views of."""
        self._follow_replaced()
        return tuple(self._flats)

    def paste(self, contents: Sequence[Tensor]) -> None:
        """Write back what `copy` gave."""
        for flat, content in zip(self._flats, contents, strict=True):
            flat.copy_(content)
        for buffers, name, view in self._views:
            buffers[name] = view

    def select(self, found: Tensor, contents: Sequence[Tensor]) -> None:
        """Write back what `copy` gave where `found` (a (1,) flag) is 1; a select, since 0 times NaN is NaN."""
        self._follow_replaced()
        for flat, content in zip(self._flats, contents, strict=True):
            torch.where(found.to(torch.bool), content, flat, out=flat)

    def strays(self) -> Tensor:
        """x - x is 0 for every finite x and NaN for the others; summed over all buffers that are judged."""
        self._follow_replaced()
        if not self._judged:
            return self._fine
        return torch.stack([(flat - flat).sum().float() for flat in self._judged]).sum().reshape(1)

    def _follow_replaced(self) -> None:
        """Gather again where a module put a new tensor in the place of a view."""
        if not all(buffers[name] is view for buffers, name, view in self._views):
            self._gather()

    def _gather(self) -> None:
        self._flats, self._views, self._judged = [], [], []
        owners: dict[int, list[tuple[dict[str, Tensor | None], str]]] = {}
        groups: dict[tuple[torch.dtype, torch.device, bool], dict[int, Tensor]] = {}
        for path, module in self._model.named_modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:  # one that several modules share stays one
                    is_judged = (
                        buffer.is_floating_point() and f"{path}.{name}".lstrip(".") not in self.unjudged
                    )
                    owners.setdefault(id(buffer), []).append((module._buffers, name))
                    groups.setdefault((buffer.dtype, buffer.device, is_judged), {})[id(buffer)] = buffer
        for (_dtype, _device, is_judged), buffers in groups.items():
            self._flatten(buffers, owners)
            self._judged += self._flats[-1:] if is_judged else []

    def _flatten(
        self, buffers: Mapping[int, Tensor], owners: Mapping[int, list[tuple[dict[str, Tensor | None], str]]]
    ) -> None:
        flat = torch.cat([buffer.detach().reshape(-1) for buffer in buffers.values()])
        offset = 0
        for identity, buffer in buffers.items():
            view = flat[offset : offset + buffer.numel()].view(buffer.shape)
            for owner, name in owners[identity]:
                owner[name] = view
                self._views.append((owner, name, view))
            offset += buffer.numel()
        self._flats.append(flat)


def _numpy_state() -> dict[str, Any]:
    """The state of NumPy's global generator; NumPy is imported only where a workload uses it."""
    kind, keys, position, has_gauss, gauss = importlib.import_module("numpy.random").get_state()
    return {
        "kind": kind, "keys": torch.from_numpy(keys.astype("int64")),
        "position": int(position), "has_gauss": int(has_gauss), "gauss": float(gauss),
    }  # fmt: skip


def _set_numpy_state(state: Mapping[str, Any]) -> None:
    importlib.import_module("numpy.random").set_state(
        (
            state["kind"],
            state["keys"].numpy().astype("uint32"),
            state["position"],
            state["has_gauss"],
            state["gauss"],
        )
    )
