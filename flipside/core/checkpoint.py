"""Trained models on disk (safetensors + JSON, never a pickle), and the scratch space from which a stage resumes."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from flipside.core import paths, ranks
from flipside.core.files import atomic_file, atomic_folder, content_digest, read_json, write_json

SCHEMA_VERSION = 1  # raise it when the meaning of a scratch checkpoint changes: older ones are then not resumed
MODEL_FILES = ("model.safetensors", "model.json")  # of a trained model's folder

Network = TypeVar("Network", bound=torch.nn.Module)


class CheckpointError(ValueError):
    """A model folder that is missing, damaged or made for another architecture."""


def save_model(path: Path | str, module: torch.nn.Module, description: dict[str, Any],
               code: tuple[str, Path] | None = None) -> None:
    """`model.safetensors` + `model.json` (architecture arguments, parameters, seed, data fingerprint, final losses).

    code: name and origin of a file that goes along, where the network is built by one of the user's.

    Raises FloatingPointError for weights that are NaN or infinite, DiskFullError.
    """
    check_weights(module.state_dict(), f"{path} is not written")
    with atomic_folder(path) as folder:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        write_json(folder / "model.json", description)
        if code is not None:
            shutil.copyfile(code[1], folder / code[0])


def read_description(path: Path | str) -> dict[str, Any]:
    """`model.json` of a model; CheckpointError where there is none."""
    file = Path(path) / "model.json"
    if not file.is_file():
        raise CheckpointError(f"{file} not found: run the stage that trains it (`dvc repro`)")
    return read_json(file)


def load_weights(path: Path | str, module: Network) -> Network:
    """Load a folder's weights into a module, which is returned frozen and in eval mode.

    Raises CheckpointError where they are missing, damaged or made for another architecture.
    """
    file = Path(path) / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file} not found: run the stage that trains it (`dvc repro`)")
    try:
        module.load_state_dict(load_file(file))
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged ({error}): delete it and run `dvc repro`") from None
    except RuntimeError as error:
        raise CheckpointError(f"{file} doesn't fit the architecture that model.json names: {error}") from None
    for parameter in module.parameters():  # TorchScript's modules have no `requires_grad_` of their own
        parameter.requires_grad_(False)
    return module.eval()


class Scratch:
    """A stage's resumable state in `.scratch/<stage>/<fingerprint>/state.pt`, git-ignored and undeclared to DVC.

    The fingerprint covers the stage's parameters, its data and the schema version. State with another fingerprint
    belongs to other parameters: it is ignored, with a message.
    """

    def __init__(self, stage: str, fingerprint_of: Any):
        self.folder = Path(paths.SCRATCH) / stage.replace("/", "_")
        self.fingerprint = content_digest([fingerprint_of, SCHEMA_VERSION])[:16]
        self.file = self.folder / self.fingerprint / "state.pt"

    def load(self) -> dict[str, Any] | None:
        """The last saved state of the same run; None, with a message where it can't be used, to start again.

        Raises RuntimeError where ranks would begin with different states.
        """
        state = self._read()
        ranks.check_alike(int(self.fingerprint[:15], 16), int(state["step"]) if state else 0)
        return state

    def _read(self) -> dict[str, Any] | None:
        if self.file.is_file():
            try:
                state = torch.load(self.file, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
                print(f"{self.folder.name}: {self.file} is damaged ({str(error).splitlines()[0]}); starting afresh")
                return None
            print(f"resuming {self.folder.name} at step {state['step']} from {self.file}")
            return state
        if self.folder.is_dir() and any(self.folder.glob("*/state.pt")):
            print(f"{self.folder.name}: parameters or data changed since the unfinished run; starting afresh")
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Save the state atomically; `state["step"]` is the number of steps done. Of several ranks the writer does.

        Raises FloatingPointError for a state with NaN or infinity, which would only fail again, and DiskFullError.
        Either way the state saved before is kept.
        """
        check_weights(state, f"the training failed before step {state['step']}; {self.kept}")
        if not ranks.is_writer():
            return
        written = io.BytesIO()  # torch's own writer doesn't say why it failed
        torch.save(state, written)
        with atomic_file(self.file) as temporary:
            temporary.write_bytes(written.getbuffer())

    @property
    def kept(self) -> str:
        """What a run that has to stop leaves, for its message."""
        return f"the last good state is kept in {self.file}" if self.file.is_file() else "no state was saved yet"

    def clear(self) -> None:
        """Delete every saved state of this stage."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_finite(losses: Mapping[str, torch.Tensor | float], step: int, scratch: Scratch) -> None:
    """Stop at the first loss that is NaN or infinite, naming loss and step; the last good checkpoint is kept."""
    for name, value in losses.items():
        if not torch.isfinite(torch.as_tensor(value)):
            raise FloatingPointError(f"loss `{name}` became {float(value)} at step {step}; {scratch.kept}. "
                                     "Lower the learning rate or the loss's weight and run again")


def check_weights(state: Any, consequence: str, name: str = "") -> None:
    """Refuse tensors that hold NaN or infinity, anywhere in nested mappings and lists, naming the first of them."""
    if isinstance(state, torch.Tensor):
        if not torch.isfinite(state).all():
            raise FloatingPointError(f"`{name}` holds NaN or infinity: {consequence}. "
                                     "Lower the learning rate or the loss's weight and run again")
    elif isinstance(state, dict):
        for key, value in state.items():
            check_weights(value, consequence, f"{name}.{key}".lstrip("."))
    elif isinstance(state, (list, tuple)):
        for position, value in enumerate(state):
            check_weights(value, consequence, f"{name}[{position}]")
