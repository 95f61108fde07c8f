"""The model file: one ``.safetensors`` whose metadata is JSON, read strictly and written to the same bytes each time.

    8 bytes      length of the JSON header, little-endian
    header       {"__metadata__": {"format", "format_version", "model": JSON, "sha256"}, name: {dtype, shape, offsets}}
    data         the tensors, contiguous, in the order of the header

No pickle and no code: nothing in the file is ever run. Whatever is wrong with a file raises ModelError with a
sentence that names field, value and mend; a file with any byte changed is refused. It is read once and never mapped,
so that it can be replaced while a daemon runs.

    model_to_bytes(model_from_bytes(data))  ==  data
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock_kernels.model import Calibration, Horizon, HorizonKind, Model, ModelError

FORMAT: Final = "penstock-model"
FORMAT_VERSION: Final = "2"
FILE_BYTES_MAX: Final = 256 * 2**20
HEADER_BYTES_MAX: Final = 16 * 2**20

_LENGTH_BYTES: Final = 8
_TENSORS: Final[dict[str, tuple[str, str]]] = {  # Name: its type in safetensors, and NumPy's.
    "recurrent": ("F32", "<f4"),
    "connections": ("I64", "<i8"),
    "input_weights": ("F32", "<f4"),
    "bias": ("F32", "<f4"),
    "leak": ("F32", "<f4"),
    "memory_gains": ("F32", "<f4"),
    "feature_mean": ("F64", "<f8"),
    "feature_scale": ("F64", "<f8"),
    "readout": ("F32", "<f4"),
}
_FIELDS: Final[dict[str, type]] = {  # Of the metadata's "model", beside the tensors.
    "name": str,
    "version": str,
    "topology": str,
    "time_base": str,
    "memory_lags": int,
    "products": int,
    "seed": int,
    "features": list,
    "clip": float,
    "horizons": list,
    "calibration": list,
    "rebuild_ticks": int,
    "demonstration": bool,
    "notice": str,
    "training": dict,
}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and the hash of the file it came from."""

    model: Model
    content_hash: bytes  # sha256 of the file, 32 bytes.

    @property
    def serial(self) -> int:
        """The first 32 bits of the content hash, big-endian: what stands in prediction records."""
        return int.from_bytes(self.content_hash[:4], "big")


def default_model_path() -> Path:
    """Return where the embedded default model lies."""
    return Path(__file__).with_name("default_model.safetensors")


def default_model() -> LoadedModel:
    """Return the embedded default model, a demonstration.

    Raises:
        ModelError: the installation lacks it.
    """
    return load_model(default_model_path())


def load_model(path: str | os.PathLike[str]) -> LoadedModel:
    """Read and check the model file at *path*.

    Raises:
        ModelError: there is no such file, or it is not a model that this version can run.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise ModelError(
            f"model file can't be read: path={os.fspath(path)}: {exc.strerror}; "
            "name an existing .safetensors file, or make one with penstock-train fit"
        ) from exc
    try:
        return LoadedModel(model_from_bytes(data), hashlib.sha256(data).digest())
    except ModelError as exc:
        raise ModelError(f"model file is refused: path={os.fspath(path)}: {exc}") from exc


def save_model(model: Model, path: str | os.PathLike[str]) -> LoadedModel:
    """Write *model* to *path*, aside first and then renamed, so that there is never half a file.

    Raises:
        ModelError: the file can't be written.
    """
    data = model_to_bytes(model)
    target = Path(path)
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            aside = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                aside.chmod(0o644)
                aside.replace(target)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
    except OSError as exc:
        raise ModelError(
            f"model file can't be written: path={target}: {exc.strerror}; name a folder that exists and is writable"
        ) from exc
    return LoadedModel(model, hashlib.sha256(data).digest())


def metadata_json(model: Model) -> str:
    """Return all of *model* but its arrays, the training report included, as JSON with sorted keys."""
    described: dict[str, Any] = {name: getattr(model, name) for name in _FIELDS}
    described["features"] = list(model.features)
    described["horizons"] = [{**asdict(horizon), "kind": horizon.kind.name} for horizon in model.horizons]
    described["calibration"] = [
        {name: float(value) for name, value in asdict(calibration).items()} for calibration in model.calibration
    ]
    described["clip"] = float(model.clip)
    return json.dumps(described, allow_nan=False, sort_keys=True, separators=(",", ":"))


def model_to_bytes(model: Model) -> bytes:
    """Return the file of *model*: the same bytes for the same model, on every machine and in every process."""
    tensors: dict[str, Any] = {}
    body = b""
    for name, (safe_type, array_type) in _TENSORS.items():
        array = np.ascontiguousarray(getattr(model, name), dtype=array_type)
        offsets = [len(body), len(body) + array.nbytes]
        tensors[name] = {"dtype": safe_type, "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    described = metadata_json(model)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": described,
        "sha256": _checksum(described, body),
    }
    header = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # The format aligns its data by spaces.
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + body


def _checksum(described: str, body: bytes | memoryview) -> str:
    digest = hashlib.sha256(described.encode(errors="surrogatepass"))
    digest.update(body)
    return digest.hexdigest()


def model_from_bytes(data: bytes) -> Model:
    """Return the model that the file *data* holds.

    Raises:
        ModelError: it is not a model that this version can run.
    """
    try:
        header, body = _split(data)
        described = _described(header, body)
        tensors = _tensors(header, body)
        horizons = tuple(_horizon(item) for item in described.pop("horizons"))
        calibration = tuple(_calibration(item) for item in described.pop("calibration"))
        features = tuple(described.pop("features"))
        return Model(**described, **tensors, horizons=horizons, calibration=calibration, features=features)
    except RecursionError as exc:
        raise ModelError("metadata is nested too deep; train the model again") from exc


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    if len(data) > FILE_BYTES_MAX:
        raise ModelError(f"file must be at most {FILE_BYTES_MAX} bytes; is it a penstock model?")
    if len(data) < _LENGTH_BYTES:
        raise ModelError(f"file is truncated: bytes={len(data)}; copy it again")
    header_bytes = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if header_bytes > HEADER_BYTES_MAX:
        raise ModelError(f"header must be at most {HEADER_BYTES_MAX} bytes: header={header_bytes}; is it .safetensors?")
    if len(data) < _LENGTH_BYTES + header_bytes:
        raise ModelError(f"file is truncated: bytes={len(data)}, header={header_bytes}; copy it again")
    header = _json_object("header", data[_LENGTH_BYTES : _LENGTH_BYTES + header_bytes])
    return header, memoryview(data)[_LENGTH_BYTES + header_bytes :]


def _json_object(name: str, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:  # UnicodeDecodeError is one too.
        raise ModelError(f"{name} is not JSON: {exc!s:.80}; copy or train the model again") from exc
    if not isinstance(value, dict):
        raise ModelError(f"{name} must be a JSON object: {name}={value!r:.80}; copy or train the model again")
    return value


def _described(header: dict[str, Any], body: memoryview) -> dict[str, Any]:
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else None
        raise ModelError(f"format must be {FORMAT!r}: format={found!r:.80}; make the file with penstock-train fit")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"format_version must be {FORMAT_VERSION!r}: format_version={metadata.get('format_version')!r:.80}; "
            "train the model again with this version of penstock"
        )
    text = metadata.get("model")
    if set(metadata) != {"format", "format_version", "model", "sha256"} or not isinstance(text, str):
        raise ModelError(
            f"metadata must hold format, format_version, model and sha256: found={sorted(metadata)!r:.200}; "
            "train the model again"
        )
    if metadata["sha256"] != _checksum(text, body):
        raise ModelError(
            f"sha256 must be that of the content: sha256={metadata['sha256']!r:.80}; the file is damaged or was cut: "
            "copy it again"
        )
    described = _json_object("model", text)
    if set(described) != set(_FIELDS):
        wrong = sorted(set(described) ^ set(_FIELDS))
        raise ModelError(f"model must have exactly its fields: missing or unknown={wrong!r:.200}; train it again")
    for name, kind in _FIELDS.items():
        value = described[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ModelError(f"{name} must be {kind.__name__}: {name}={value!r:.80}; train the model again")
    return described


def _tensors(header: dict[str, Any], body: memoryview) -> dict[str, Any]:
    if set(header) != set(_TENSORS):
        wrong = sorted(set(header) ^ set(_TENSORS))
        raise ModelError(f"tensors must be exactly the model's: missing or unknown={wrong!r:.200}; train it again")
    tensors: dict[str, Any] = {}
    position = 0
    for name, (safe_type, array_type) in _TENSORS.items():
        entry = header[name]
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ModelError(f"{name} must have dtype, shape and data_offsets: {name}={entry!r:.80}; train it again")
        if entry["dtype"] != safe_type:
            raise ModelError(f"{name} must be {safe_type}: dtype={entry['dtype']!r:.80}; train the model again")
        shape = entry["shape"]
        if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= FILE_BYTES_MAX for size in shape):
            raise ModelError(f"{name} must have a shape of whole numbers: shape={shape!r:.80}; train the model again")
        if len(shape) > 2:
            raise ModelError(f"{name} must have at most 2 dimensions: shape={shape!r:.80}; train the model again")
        end = position + math.prod(shape) * np.dtype(array_type).itemsize
        if entry["data_offsets"] != [position, end]:
            raise ModelError(f"{name} must lie at {[position, end]}: data_offsets={entry['data_offsets']!r:.80}")
        if end > len(body):
            raise ModelError(f"file is truncated: {name} ends at {end}, data has {len(body)} bytes; copy it again")
        tensors[name] = np.frombuffer(body[position:end], dtype=array_type).reshape(shape)
        position = end
    if position != len(body):
        raise ModelError(f"file has {len(body) - position} bytes after its last tensor; copy it again")
    return tensors


def _horizon(item: Any) -> Horizon:
    if not isinstance(item, dict) or set(item) != set(Horizon.__dataclass_fields__):
        raise ModelError(f"horizon must have name, kind, events and duration_ns: horizon={item!r:.80}; train it again")
    if not isinstance(item["kind"], str) or item["kind"] not in HorizonKind.__members__:
        known = ", ".join(HorizonKind.__members__)
        raise ModelError(f"horizon kind must be one of {known}: kind={item['kind']!r:.80}; train the model again")
    return Horizon(**{**item, "kind": HorizonKind[item["kind"]]})


def _calibration(item: Any) -> Calibration:
    if not isinstance(item, dict) or set(item) != set(Calibration.__dataclass_fields__):
        raise ModelError(f"calibration must have exactly its fields: calibration={item!r:.80}; train the model again")
    return Calibration(**item)
