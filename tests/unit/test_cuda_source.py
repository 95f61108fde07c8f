"""The text of the CUDA kernels and their plans: numbers are those of Python, and a plan says what a block needs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from penstock.v1.records import TICK_DTYPE
from penstock_kernels import elementary, features, packed
from penstock_kernels.cuda import layout, source
from penstock_kernels.half_weights import nearest_half
from penstock_kernels.packed import pack
from support.models import random_model

SHARED = 227 * 1024


@pytest.fixture(scope="module")
def defined():
    return dict(re.findall(r"^#define (\w+) (.+)$", source.defines({"PENSTOCK_THREADS": 256}), re.MULTILINE))


def test_every_number_is_defined_as_python_has_it(defined):
    assert int(defined["PACKED_LEAK_OFFSET"]) == packed.LEAK_OFFSET
    assert int(defined["FEATURES_RUNNING_WORDS"]) == features.RUNNING_WORDS
    assert int(defined["LAYOUT_DONE_CLOCK_NS"]) == layout.DONE_CLOCK_NS
    assert int(defined["PENSTOCK_THREADS"]) == 256
    assert float(defined["FEATURES_TICK_SIZE_GROWTH"]) == 1.0 + 2.0**-10
    assert defined["FEATURES_UNDEFINED_PRICE"] == f"{2**63 - 1}LL"
    assert defined["LAYOUT_BELL_STOP"] == "(-1)"


def test_float32_constants_keep_their_type_and_their_bits(defined):
    for position, value in enumerate(elementary._TANH_Q):
        literal = defined[f"ELEMENTARY_TANH_Q_{position}"]
        assert literal.endswith("f")
        assert np.float32(literal[:-1]) == value
    assert np.float32(defined["ELEMENTARY_LN2_LOW_FLOAT32"].strip("()f")) == elementary._LN2_LOW_FLOAT32


def test_offsets_are_those_of_the_records(defined):
    for prefix, dtype in (
        ("HEAD", layout.WORK_HEAD_DTYPE),
        ("SLOT", layout.WORK_SLOT_DTYPE),
        ("RESULT", layout.RESULT_DTYPE),
        ("TICK", TICK_DTYPE),
    ):
        for field in dtype.names:
            assert int(defined[f"{prefix}_{field.upper()}"]) == dtype.fields[field][1]


def test_no_name_is_defined_twice_with_another_value():
    seen = {}
    for name, value in re.findall(r"^#define (\w+) (.+)$", source.defines({}), re.MULTILINE):
        assert seen.setdefault(name, value) == value


def test_arguments_come_in_their_order(defined):
    assert re.findall(r"unsigned long long (\w+)", defined["PENSTOCK_PARAMETERS"]) == list(layout.ARGUMENTS)
    assert defined["PENSTOCK_GATHERED"] == f"Arguments{{{', '.join(layout.ARGUMENTS)}}}"


def test_a_text_includes_nothing_and_says_which_kernel_it_has():
    for plan in (
        source.plan_predict(64, 80, 0, SHARED),
        source.plan_small(source.ECHO),
        source.plan_small(source.CLOCK),
    ):
        assert "#include" not in plan.source
        assert re.search(rf'extern "C" __global__ void [^;{{]*{plan.name}\(PENSTOCK_PARAMETERS\)', plan.source)
        assert "--fmad=false" in plan.options


@pytest.mark.parametrize("units", [1, 64, 512, 1024, 4096])
def test_states_of_up_to_4096_units_lie_in_shared_memory_of_any_card(units):
    plan = source.plan_predict(units, packed.padded(units) * 3 // 2 + 208, 96, 99 * 1024)
    assert plan.scratch_words == 0
    assert plan.shared_bytes <= 99 * 1024
    assert plan.threads % 32 == 0
    assert 224 <= plan.threads <= 512


def test_larger_states_lie_in_scratch():
    plan = source.plan_predict(65_536, 98_500, 96, SHARED)
    assert plan.scratch_words == packed.padded(65_536 + 98_500 + 96)
    assert plan.shared_bytes < 8 * 1024
    assert "#define PENSTOCK_SCRATCH 1" in plan.source


def test_what_shared_memory_is_left_takes_the_weights_of_the_readout():
    small, large = source.plan_predict(1024, 1072, 0, SHARED), source.plan_predict(4096, 4176, 0, SHARED)
    assert f"#define PENSTOCK_READOUT_WORDS {12 * 1072}\n" in small.source
    assert small.shared_bytes == source.BLOCK_BYTES + 4 * (1024 + 1072 + 12 * 1072)
    assert SHARED - 64 < large.shared_bytes <= SHARED


def test_a_state_on_the_device_is_x_of_padded_units_and_the_memory():
    assert source.device_state_words(50, 21) == 64 + 21


@pytest.mark.parametrize("topology", ["cyclic", "sparse", "dense"])
@pytest.mark.parametrize("units", [50, 140])
def test_half_words_are_the_weights_and_whom_a_unit_hears(topology, units):
    model = nearest_half(random_model(1, units=units, fan_in=3, topology=topology))
    header, weights = (whole := pack(model)).header, whole.weights
    halves = source.half_precision(header, weights)
    assert len(halves) == source.half_words(header) == header[packed.LEAK_OFFSET]
    words = weights[: len(halves)]
    heard = halves.view(np.float16).astype(np.float32) != words
    if topology != "sparse":
        assert not heard.any()
    np.testing.assert_array_equal(halves[heard], words.view(np.int32)[heard])
    assert set(halves[heard].tolist()) <= set(range(units))


def test_weights_that_are_no_halves_are_refused_with_the_mend():
    model = pack(random_model(1, units=64))
    with pytest.raises(ValueError, match=r"weights must be rounded to half precision.*word=\d+.*round the model"):
        source.half_precision(model.header, model.weights)
