"""The models that are loaded, and the engine slot that each of them lives in.

    a slot is written only while nobody uses it: no session, and it is not the active one

Loading is slow (a file is read and checked), so it happens on the event loop's executor, never on the tick path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.v1 import model_pb2, prediction_pb2
from penstock_daemon import faults
from penstock_daemon.engine import Engine
from penstock_kernels.half_weights import round_to_half
from penstock_kernels.model import HorizonKind, Model, ModelError
from penstock_kernels.model_file import LoadedModel, default_model, load_model
from penstock_kernels.predictor import pack

_KINDS = {
    HorizonKind.NEXT_MOVE: prediction_pb2.Horizon.KIND_NEXT_MOVE,
    HorizonKind.EVENTS: prediction_pb2.Horizon.KIND_EVENTS,
    HorizonKind.TIME: prediction_pb2.Horizon.KIND_TIME,
}


@dataclass(eq=False)
class ModelEntry:
    """A loaded model and who uses it."""

    slot: int
    model: Model
    content_hash: bytes
    sessions: int = 0
    superseded: bool = False
    summary: model_pb2.ModelSummary = field(init=False)
    horizons: list[prediction_pb2.Horizon] = field(init=False)

    def __post_init__(self) -> None:
        """Render what Welcome says of it."""
        self.summary = model_pb2.ModelSummary(
            name=self.model.name,
            version=self.model.version,
            content_hash=self.content_hash,
            serial=self.serial,
            demonstration=self.model.demonstration,
            notice=self.model.notice,
        )
        self.horizons = [
            prediction_pb2.Horizon(
                name=horizon.name,
                kind=_KINDS[horizon.kind],
                events=horizon.events,
                duration_ns=horizon.duration_ns,
            )
            for horizon in self.model.horizons
        ]

    @property
    def serial(self) -> int:
        """What stands in prediction records."""
        return int.from_bytes(self.content_hash[:4], "big")

    def describe(self) -> model_pb2.DescribeModelResponse:
        """Return all about it."""
        return model_pb2.DescribeModelResponse(
            model=self.summary,
            units=self.model.units,
            topology=self.model.topology,
            features=list(self.model.features),
            rebuild_ticks=self.model.rebuild_ticks,
            metadata_json=json.dumps(self.model.training, sort_keys=True),
        )


class ModelTable:
    """Loads models into the engine's slots and remembers which is active.

    Args:
        engine: whose slots.
        folder: where ``read`` finds files; empty for nowhere.
        half: round reservoir weights to half precision when a model is read, for whichever device predicts.
    """

    def __init__(self, engine: Engine, folder: str, *, half: bool = False) -> None:
        self._engine = engine
        self._folder = folder
        self._half = half
        self._by_slot: dict[int, ModelEntry] = {}
        self._by_name: dict[str, ModelEntry] = {}
        self._active: ModelEntry | None = None

    @property
    def active(self) -> ModelEntry:
        """The model that new sessions get."""
        assert self._active is not None, "load_first comes before active"
        return self._active

    @property
    def entries(self) -> list[ModelEntry]:
        """The loaded models by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def load_first(self, active: str) -> ModelEntry:
        """Load the model that the configuration names, or the demonstration, and make it active.

        Args:
            active: a path, the name of a file in the model folder, or empty.

        Raises:
            ModelError: the file is refused, and why.
        """
        if not active:
            loaded = default_model()
        else:
            path = Path(active)
            if not path.exists() and self._folder:
                path = Path(self._folder) / active
                if not path.suffix:
                    path = path.with_suffix(".safetensors")
            loaded = load_model(path)
        self._active = self.place(self._weighed(loaded))
        return self._active

    def read(self, file: str) -> LoadedModel:
        """Read a model file of the model folder; slow, so call it off the event loop.

        Raises:
            SessionFault: there is no such file, or it is refused.
        """
        folder = self._folder
        if not folder:
            raise faults.not_found(
                "NO_MODEL_FOLDER", field="models.folder", value="empty", mend="configure the folder that holds models"
            )
        if not file or Path(file).name != file:
            raise faults.invalid(
                "MODEL_FILE_NAME", field="LoadModelRequest.file", value=file, mend="give a file name without a path"
            )
        path = Path(folder) / file
        try:
            found = path.is_file()
        except OSError:  # Such as a name that is too long for any file.
            found = False
        if not found:
            raise faults.not_found(
                "MODEL_FILE_MISSING", field="LoadModelRequest.file", value=file, mend=f"put the file into {folder}"
            )
        try:
            return self._weighed(load_model(path))
        except ModelError as error:
            raise faults.invalid("MODEL_REFUSED", field="LoadModelRequest.file", value=file, mend=str(error)) from error

    def _weighed(self, loaded: LoadedModel) -> LoadedModel:
        """Return *loaded* with the weights that are computed with; its hash stays that of the file."""
        return replace(loaded, model=round_to_half(loaded.model)) if self._half else loaded

    def place(self, loaded: LoadedModel) -> ModelEntry:
        """Put a model into a free slot under its name; one of the same name is superseded.

        Raises:
            ModelError: it is larger than a slot.
            SessionFault: every slot is in use.
        """
        self._free_superseded()
        free = [slot for slot in range(self._engine.sizes.model_slots) if slot not in self._by_slot]
        if not free:
            raise faults.exhausted(
                "MODEL_SLOTS",
                field="models.slots",
                value=self._engine.sizes.model_slots,
                mend="every slot is in use; raise models.slots, or close the sessions of superseded models",
            )
        model = loaded.model
        sizes = self._engine.sizes
        for key, value, bound in (
            ("units", model.units, sizes.units_max),
            ("inputs", len(model.features), sizes.inputs_max),
            ("fan_in", len(model.connections), sizes.fan_in_max),
            ("rebuild_ticks", model.rebuild_ticks, sizes.journal_ticks),
        ):
            if value > bound:
                raise ModelError(
                    f"model {model.name!r}: {key} was {value}, this daemon holds at most {bound}; raise models.units_max where "
                    "it is the units, or fit a smaller model"
                )
        packed = pack(model)
        # The others fit by the bounds above.
        if model.topology == "dense" and len(packed.weights) > sizes.weight_words:
            raise ModelError(
                f"model {model.name!r}: dense with {model.units} units it takes {len(packed.weights)} words, a slot of this "
                f"daemon has {sizes.weight_words}; raise models.dense_units_max to {model.units}, or fit a smaller model"
            )
        entry = ModelEntry(free[0], model, loaded.content_hash)
        self._engine.load_model(entry.slot, packed, entry.serial)
        before = self._by_name.get(model.name)
        if before is not None:
            before.superseded = True
        self._by_slot[entry.slot] = entry
        self._by_name[model.name] = entry
        return entry

    def find(self, name: str, *, field_name: str) -> ModelEntry:
        """Return the model of that name, or the active one for an empty name.

        Raises:
            SessionFault: there is none.
        """
        if not name:
            return self.active
        entry = self._by_name.get(name)
        if entry is None:
            known = ", ".join(sorted(self._by_name))
            raise faults.not_found(
                "MODEL_UNKNOWN",
                field=field_name,
                value=name,
                mend=f"loaded models are {known}; leave it empty for the active one",
            )
        return entry

    def activate(self, entry: ModelEntry) -> None:
        """Make a model the one of new sessions."""
        self._active = entry

    def _free_superseded(self) -> None:
        for slot, entry in list(self._by_slot.items()):
            if entry.superseded and entry.sessions == 0 and entry is not self._active:
                del self._by_slot[slot]
