"""The model file: the same bytes each time, readable by others, and refused with a sentence when it is not right."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from penstock_kernels.model import Model, ModelError
from penstock_kernels.model_file import (
    FILE_BYTES_MAX,
    default_model,
    default_model_path,
    load_model,
    metadata_json,
    model_from_bytes,
    model_to_bytes,
    save_model,
)
from support.models import random_model

MODEL = random_model(1, units=20, fan_in=3, training={"auc": 0.75, "files": ["a"], "words": "ümlaut"})
DATA = model_to_bytes(MODEL)
ARRAYS = (
    "recurrent",
    "connections",
    "input_weights",
    "bias",
    "leak",
    "memory_gains",
    "feature_mean",
    "feature_scale",
    "readout",
)


def header_of(data: bytes) -> dict:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_header(header: dict, data: bytes = DATA) -> bytes:
    """Return *data* under another header, with a checksum that fits it."""
    body = data[8 + int.from_bytes(data[:8], "little") :]
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and isinstance(metadata.get("model"), str) and "sha256" in metadata:
        metadata["sha256"] = hashlib.sha256(metadata["model"].encode() + body).hexdigest()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def with_model(**changes: object) -> bytes:
    header = header_of(DATA)
    described = json.loads(header["__metadata__"]["model"])
    for name, value in changes.items():
        if value is None:
            del described[name]
        else:
            described[name] = value
    header["__metadata__"]["model"] = json.dumps(described)
    return with_header(header)


def with_tensor(name: str, **changes: object) -> bytes:
    header = header_of(DATA)
    header[name] |= changes
    return with_header(header)


def assert_same(left: Model, right: Model) -> None:
    for name in ARRAYS:
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
        assert getattr(left, name).dtype == getattr(right, name).dtype
    assert metadata_json(left) == metadata_json(right)
    assert (left.horizons, left.calibration, left.features) == (right.horizons, right.calibration, right.features)


def test_a_saved_model_is_loaded_to_the_bit(tmp_path):
    path = tmp_path / "model.safetensors"
    saved = save_model(MODEL, path)
    loaded = load_model(path)
    assert_same(loaded.model, MODEL)
    assert loaded.content_hash == saved.content_hash == hashlib.sha256(path.read_bytes()).digest()
    assert loaded.serial == int.from_bytes(loaded.content_hash[:4], "big")
    assert model_to_bytes(loaded.model) == DATA


def test_the_bytes_are_the_same_in_another_process():
    code = (
        "import hashlib; from support.models import random_model;"
        "from penstock_kernels.model_file import model_to_bytes;"
        "model = random_model(1, units=20, fan_in=3, training={'words': 'ümlaut', 'files': ['a'], 'auc': 0.75});"
        "print(hashlib.sha256(model_to_bytes(model)).hexdigest())"
    )
    folder = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == hashlib.sha256(DATA).hexdigest()


def test_the_file_is_safetensors_to_everybody_else():
    tensors = safetensors.numpy.load(DATA)
    assert set(tensors) == set(ARRAYS)
    for name in ARRAYS:
        assert np.array_equal(tensors[name], getattr(MODEL, name))


@pytest.mark.parametrize("length", [0, 7, 8, 100, len(DATA) // 2, len(DATA) - 1])
def test_a_cut_file_is_refused(tmp_path, length):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(DATA[:length])
    with pytest.raises(ModelError, match=r"cut\.safetensors: .*(cut|truncated).*copy it again"):
        load_model(path)


@pytest.mark.parametrize(
    ("sentence", "data"),
    [
        ("at most 16777216 bytes", b"PK\x03\x04 this is a zip, not a model" + bytes(100)),
        ("header is not JSON", (4).to_bytes(8, "little") + b"\xff\xfe{}"),
        ("header must be a JSON object: header=[]", (2).to_bytes(8, "little") + b"[]"),
        ("metadata is nested too deep", (100_000).to_bytes(8, "little") + b"[" * 100_000),
        ("format must be 'penstock-model': format=None", safetensors.numpy.save({"bias": np.zeros(4, np.float32)})),
        ("format must be 'penstock-model': format='other'", with_header({"__metadata__": {"format": "other"}})),
        ("at most 268435456 bytes", bytes(FILE_BYTES_MAX + 1)),
        ("sha256 must be that of the content", DATA + b"x"),
        ("model must have exactly its fields: missing or unknown=['notice']", with_model(notice=None)),
        ("model must have exactly its fields: missing or unknown=['extra']", with_model(extra=1)),
        ("seed must be int: seed=True", with_model(seed=True)),
        ("features must be list: features='imbalance'", with_model(features="imbalance")),
        ("features must be of this version's list", with_model(features=[{}])),
        ("training must be JSON without NaN", with_model(training={"auc": float("nan")})),
        ("clip must be a number of at most 1e+09 in size: clip=inf", with_model(clip=float("inf"))),
        ("horizon must have name, kind, events and duration_ns", with_model(horizons=[{"name": "next"}])),
        (
            "horizon kind must be one of NEXT_MOVE, EVENTS, TIME: kind='SOON'",
            with_model(horizons=[{"name": "next", "kind": "SOON", "events": 0, "duration_ns": 0}]),
        ),
        ("calibration must have exactly its fields: calibration=7", with_model(calibration=[7])),
        ("bias must be F32: dtype='F16'", with_tensor("bias", dtype="F16")),
        ("bias must have a shape of whole numbers: shape=[-20]", with_tensor("bias", shape=[-20])),
        ("bias must have a shape of whole numbers: shape=[2.0]", with_tensor("bias", shape=[2.0])),
        ("bias must have at most 2 dimensions", with_tensor("bias", shape=[1, 1, 20])),
        ("bias must lie at [", with_tensor("bias", shape=[21])),
        ("bias must lie at [", with_tensor("bias", data_offsets=[0, 80])),
        ("recurrent must have shape (fan_in, units) = (3, 20)", with_tensor("recurrent", shape=[20, 3])),
        ("bias must have shape (units,)", with_tensor("bias", shape=[1, 20])),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_with_name_and_value(sentence, data):
    with pytest.raises(ModelError, match=re.escape(sentence)):
        model_from_bytes(data)


def test_another_format_version_is_refused_with_the_mend():
    header = header_of(DATA)
    header["__metadata__"]["format_version"] = "1"
    with pytest.raises(ModelError, match=r"format_version must be '2': format_version='1'; train the model again"):
        model_from_bytes(with_header(header))


def test_a_missing_or_unknown_tensor_is_named():
    for name, entry in (("bias", None), ("extra", {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})):
        header = header_of(DATA)
        header.pop(name, None)
        if entry:
            header[name] = entry
        with pytest.raises(ModelError, match=rf"missing or unknown=\['{name}'\]"):
            model_from_bytes(with_header(header))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_its_place(value):
    start = 8 + int.from_bytes(DATA[:8], "little") + 4 * (20 + 5)
    data = DATA[:start] + np.float32(value).tobytes() + DATA[start + 4 :]
    with pytest.raises(ModelError, match=r"recurrent must be finite .*: recurrent\[1, 5\]="):
        model_from_bytes(with_header(header_of(data), data))


def test_a_missing_file_and_a_folder_are_refused_by_path(tmp_path):
    with pytest.raises(ModelError, match=r"path=.*none\.safetensors: No such file.*penstock-train fit"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="Is a directory"):
        load_model(tmp_path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(MODEL, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="can't be written"):
        save_model(MODEL, tmp_path / "folder")
    with pytest.raises(ModelError, match="can't be written"):
        save_model(MODEL, tmp_path / "none" / "model.safetensors")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "model.safetensors"]
    assert path.read_bytes() == DATA


def test_the_embedded_default_model_is_a_demonstration_or_says_how_to_make_it():
    if default_model_path().exists():
        model = default_model().model
        assert model.demonstration
        assert model.notice
    else:
        with pytest.raises(ModelError, match="penstock-train fit"):
            default_model()
