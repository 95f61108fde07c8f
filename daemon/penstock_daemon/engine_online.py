"""The engine's tick with an online readout, and what stands in its place where a daemon allows none.

    m.online is None      predict_online is nothing, and nothing of it is compiled: a third of a first start
    m.online is there     predict_online learns from the labels that a tick makes known, then predicts it, corrected

Which of the two is decided by the type of the buffers, when the engine is compiled, and never again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from penstock_kernels import predictor
from penstock_kernels.online import online_adjust, online_observe
from penstock_kernels.readout import calibrate_step, outputs_step

_compile = njit(nogil=True, cache=True, error_model="numpy")


def predict_online(m: Any, header: Any, weights: Any, state: int, online: int, tick: Any, advance: bool) -> None:
    """Learn from a tick and predict it, for a state with the readout *online*; compiled code alone calls this.

    Args:
        m: Buffers. The state, the readout, inputs, scratch and forecasts are overwritten.
        header: of the session's model.
        weights: of the session's model.
        state: a row of m.states.
        online: a row of m.online.
        tick: one record of a ring; its features are in m.inputs.
        advance: the tick only updates the state: it is not predicted, and m.forecasts stays as it was.
    """
    raise NotImplementedError("predict_online is for compiled code; see _choose")


@overload(predict_online, strict=False)
def _choose(m: Any, header: Any, weights: Any, state: Any, online: Any, tick: Any, advance: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    if isinstance(m.types[m.fields.index("online")], types.NoneType):
        return lambda m, header, weights, state, online, tick, advance: None  # noqa: ARG005  # As above.

    def learn_and_predict(m: Any, header: Any, weights: Any, state: Any, online: Any, tick: Any, advance: Any) -> None:
        _learn_and_predict(m, header, weights, state, online, tick, advance)

    return learn_and_predict


@_compile
def _learn_and_predict(m: Any, header: Any, weights: Any, state: int, online: int, tick: Any, advance: bool) -> None:
    """Learn from the labels that a tick makes known, then predict it with the outputs corrected.

    A tick that only advances a state tells its book and its time alone: no row of it is kept, so of those that rebuild
    a state nothing is learned twice.
    """
    words, values = m.online.words[online], m.online.values[online]
    online_observe(words, values, np.int64(tick.ts_recv), tick.bid_px, tick.ask_px)
    predictor.advance_step(header, weights, m.states[state], m.inputs, m.scratch)
    if not advance:
        outputs_step(header, weights, m.scratch, m.forecasts)
        online_adjust(words, values, m.forecasts, m.inputs, m.scratch)
        calibrate_step(header, weights, m.forecasts)
