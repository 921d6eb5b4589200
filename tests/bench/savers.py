"""Who is killed in `survival`: loops that save after every step, each the way its own documentation does it.

All train the same transformer over bytes with AdamW and dropout, from one seed, on the same shuffled chunks. A saver can
do two things: `storm` saves for ever, and tells of each save when it begins and when its library calls it done; `go_on`
loads the newest state by the library's own means, makes a step and a save on top of it, and tells where it came from and
how far it got.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from ampd_bytegpt.model import ByteTransformer
from ampd_bytegpt.spec import Options
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

CONTEXT, BATCH, SEED, LR = 32, 4, 1, 3e-4
MODEL: dict[str, Any] = {
    "context": CONTEXT,
    "layers": 2,
    "width": 192,
    "heads": 2,
    "ngram_rows": 2048,
    "dropout": 0.1,
}
CHUNKS = 200  # fifty steps an epoch: a resume at the twelfth is in the middle of one
LOSSES: list[str] = []
"""What the models of this process gave in training: a stock Trainer has them nowhere to the last bit."""
BEGINS = 0
Tell = Callable[[int], None]
"""A save BEGINS, or that of a step is done."""


class Saver(Protocol):
    """One way to keep a run; `last` is the step after which to stop, 0 for never."""

    def storm(self, directory: Path, tell: Tell, every: int = 1, last: int = 0) -> None:
        """Train from the start, save after every `every`th step, and tell of each save when it is done."""
        ...

    def go_on(self, directory: Path, tell: Tell, last: int = 0) -> None:
        """Load the newest state, tell its step, and train on to `last`; without one, a step and a save, told too."""
        ...


class Net(nn.Module):
    """The transformer with its loss, in the form that all of them take."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.body = ByteTransformer(Options(**MODEL))

    def forward(self, text: Tensor) -> dict[str, Tensor]:
        """{"loss": nats per byte}."""
        logits_BTV = self.body(text[:, :-1])
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), text[:, 1:].flatten())
        if self.training:
            LOSSES.append(float(loss).hex())
        return {"loss": loss}


class Chunks(Dataset[dict[str, Tensor]]):
    """Random bytes: nothing here depends on what is learned."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self._text = torch.randint(0, 256, (CHUNKS, CONTEXT + 1), generator=generator)

    def __len__(self) -> int:
        return len(self._text)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"text": self._text[place]}


class Loop:
    """A loop by hand over the chunks, in whatever order they come: what is kept of it is not its data's place."""

    def __init__(self) -> None:
        self.net, self.step = Net(), 0
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=LR)
        self._batches = self._endless()

    def advance(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        self.net(**next(self._batches))["loss"].backward()
        self.optimizer.step()
        self.step += 1

    def _endless(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield from DataLoader(Chunks(), batch_size=BATCH, shuffle=True)


class Store(Protocol):
    """Where a loop by hand puts its state."""

    def save(self, loop: Loop, directory: Path) -> None: ...

    def load(self, loop: Loop, directory: Path) -> None: ...


class ByHand:
    """A loop by hand that saves into a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def storm(self, directory: Path, tell: Tell, every: int = 1, last: int = 0) -> None:
        """Train and save in turns."""
        loop = Loop()
        while not last or loop.step < last:
            loop.advance()
            if loop.step % every == 0:
                tell(BEGINS)
                self._store.save(loop, directory)
                tell(loop.step)

    def go_on(self, directory: Path, tell: Tell, last: int = 0) -> None:
        """Load, step, save."""
        loop = Loop()
        self._store.load(loop, directory)
        tell(loop.step)
        loop.advance()
        self._store.save(loop, directory)
        tell(loop.step)


class TorchSave:
    """torch.save onto one path."""

    def save(self, loop: Loop, directory: Path) -> None:
        """The recipe of torch's tutorial."""
        state = {"step": loop.step, "model": loop.net.state_dict(), "optimizer": loop.optimizer.state_dict()}
        torch.save(state, directory / "state.pt")

    def load(self, loop: Loop, directory: Path) -> None:
        """The same, back."""
        state = torch.load(directory / "state.pt", weights_only=True)
        loop.net.load_state_dict(state["model"])
        loop.optimizer.load_state_dict(state["optimizer"])
        loop.step = state["step"]


class Distributed:
    """torch.distributed.checkpoint: over one directory, or into one for each step, of which the newest is loaded."""

    def __init__(self, *, is_one: bool, trusts_metadata: bool = False) -> None:
        self._is_one = is_one
        self._trusts_metadata = trusts_metadata

    def save(self, loop: Loop, directory: Path) -> None:
        """`dcp.save` of what `get_state_dict` gives."""
        place = directory / ("state" if self._is_one else f"step-{loop.step:06d}")
        state_dict_saver.save(_sharded(loop), checkpoint_id=place)

    def load(self, loop: Loop, directory: Path) -> None:
        """The newest directory; the newest that has its metadata, which is written last, where that is looked for."""
        mark = ".metadata" if self._trusts_metadata else "."
        place = max(path for path in directory.iterdir() if (path / mark).exists())
        state = _sharded(loop)
        state_dict_loader.load(state, checkpoint_id=place)
        set_state_dict(
            loop.net, loop.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
        loop.step = int(state["step"])


def _sharded(loop: Loop) -> dict[str, Any]:
    model, optimizer = get_state_dict(loop.net, loop.optimizer)
    return {"step": torch.tensor(loop.step), "model": model, "optimizer": optimizer}


class HuggingFace:
    """Trainer with `resume_from_checkpoint=True`."""

    def __init__(self) -> None:
        self._transformers: Any = importlib.import_module("transformers")

    def storm(self, directory: Path, tell: Tell, every: int = 1, last: int = 0) -> None:
        """`save_steps`, and the last two kept."""

        def begin(state: Any, _control: Any) -> None:
            if state.global_step % every == 0:
                tell(BEGINS)

        def saved(state: Any, _control: Any) -> None:
            tell(state.global_step)

        self._trainer(directory, every, last, on_step_end=begin, on_save=saved).train()

    def go_on(self, directory: Path, tell: Tell, last: int = 0) -> None:
        """The library finds the newest."""
        begun: list[int] = []

        def begin(state: Any, _control: Any) -> None:
            if not begun:
                begun.append(state.global_step)
                tell(state.global_step)

        def saved(state: Any, control: Any) -> None:
            tell(state.global_step)
            control.should_training_stop = True

        every = 10**6 if last else 1
        trainer = self._trainer(directory, every, last, on_step_begin=begin, on_save=saved)
        trainer.train(resume_from_checkpoint=True)

    def _trainer(self, directory: Path, every: int, last: int, **hooks: Callable[[Any, Any], None]) -> Any:
        def hooked(hook: Callable[[Any, Any], None]) -> Callable[..., None]:
            return lambda _self, _arguments, state, control, **_more: hook(state, control)

        methods = {name: hooked(hook) for name, hook in hooks.items()}
        teller = type("Teller", (self._transformers.TrainerCallback,), methods)
        arguments = self._transformers.TrainingArguments(
            output_dir=str(directory), max_steps=last or 10**6, save_strategy="steps", save_steps=every,
            save_total_limit=2, per_device_train_batch_size=BATCH, learning_rate=LR, lr_scheduler_type="constant",
            logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, seed=SEED, max_grad_norm=0.0,
        )  # fmt: skip
        return self._transformers.Trainer(
            model=Net(), args=arguments, train_dataset=Chunks(), callbacks=[teller()]
        )


class Lightning:
    """Lightning's Trainer with a ModelCheckpoint that keeps the last; the newest file is given to `fit`."""

    def __init__(self) -> None:
        self._lightning: Any = importlib.import_module("pytorch_lightning")

    def storm(self, directory: Path, tell: Tell, every: int = 1, last: int = 0) -> None:
        """A save is done when the next batch begins."""

        def begin(trainer: Any) -> None:
            if trainer.global_step and trainer.global_step % every == 0:
                tell(trainer.global_step)

        def end(trainer: Any) -> None:
            if trainer.global_step % every == 0:
                tell(BEGINS)

        self._fit(directory, every, last, None, on_train_batch_start=begin, on_train_batch_end=end)

    def go_on(self, directory: Path, tell: Tell, last: int = 0) -> None:
        """The file of the highest step."""
        newest = max(directory.glob("*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
        begun: list[int] = []

        def begin(trainer: Any) -> None:
            begun.append(trainer.global_step)
            if len(begun) <= 2:
                tell(trainer.global_step)
            if len(begun) == 2 and not last:
                trainer.should_stop = True

        self._fit(directory, 10**6 if last else 1, last, newest, on_train_batch_start=begin)

    def _fit(
        self, directory: Path, every: int, last: int, newest: Path | None, **hooks: Callable[[Any], None]
    ) -> None:
        lightning = self._lightning
        lightning.seed_everything(SEED, verbose=False)

        def hooked(hook: Callable[[Any], None]) -> Callable[..., None]:
            return lambda _self, trainer, *_more: hook(trainer)

        methods = {name: hooked(hook) for name, hook in hooks.items()}
        teller = type("Teller", (lightning.Callback,), methods)
        keep = lightning.callbacks.ModelCheckpoint(
            dirpath=directory, filename="{step}", every_n_train_steps=every, save_top_k=1
        )
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_steps=last or -1, max_epochs=-1, logger=False, callbacks=[teller(), keep],
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=directory,
        )  # fmt: skip
        loader = DataLoader(Chunks(), batch_size=BATCH, shuffle=True)
        trainer.fit(_module(lightning), loader, ckpt_path=newest)


def _module(lightning: Any) -> Any:
    methods = {
        "training_step": lambda self, batch, _number: self.net(**batch)["loss"],
        "configure_optimizers": lambda self: torch.optim.AdamW(self.parameters(), lr=LR),
    }
    module = type("Module", (lightning.LightningModule,), methods)()
    module.net = Net()
    return module


SAVERS: dict[str, Callable[[], Saver]] = {
    "torch.save onto one path": lambda: ByHand(TorchSave()),
    "DCP, one directory": lambda: ByHand(Distributed(is_one=True)),
    "DCP, a directory a step, the newest": lambda: ByHand(Distributed(is_one=False)),
    "DCP, a directory a step, the newest with .metadata": lambda: ByHand(
        Distributed(is_one=False, trusts_metadata=True)
    ),
    "Hugging Face Trainer": HuggingFace,
    "Lightning": Lightning,
    "Lightning, temporary files elsewhere": Lightning,
}
"""By the name of the row; the last two differ in what `survival` puts into TMPDIR."""
