"""Settings and parameters of every kind, good and bad."""

import pytest
from hypothesis import strategies as st

from grok_utils.errors import BadInput
from grok_utils.pipeline.settings import RETIRED
from grok_utils.pipeline.study_files import OF_STUDY
from grok_utils.schedules import CONTROLS, SCHEDULES
from grok_utils.studies import DEFAULTS, HYPER
from support.studies import TINY

HUGE = 10**400
PARAMETERS = {"schedule": "linear", "seeds": [0], "device": "cpu"}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*TINY, "linear", "x_plus_y", "all", "bf16", 10**6, 10**9, 97, 0.5, "1e-3", "../x", HUGE])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([*OF_STUDY, "arms", "schedules", "grid", *DEFAULTS, *RETIRED, "lerning_rate"])

# What is mostly right, so that what is wrong lies deep.
rates = st.sampled_from([0, 1.0e-3, 0.25, 0.5, 1, 16]) | scalars
updates = st.sampled_from([0, 10, 30, 60, 70]) | scalars
schedule = st.fixed_dictionaries(
    {},
    optional={
        "schedule": st.sampled_from([*SCHEDULES]) | scalars,
        "lo": rates,
        "hi": rates,
        "length": updates,
        "control": st.sampled_from([*CONTROLS]) | scalars,
        "window": updates,
        "order": st.integers(0, 3) | scalars,
    },
)
following = st.fixed_dictionaries(
    {"follows": st.just("batch_size") | schedule | scalars},
    optional={"value": rates, "at": rates, "power": st.sampled_from([-0.5, 0, 0.5]) | scalars},
)
courses = rates | schedule | following
courses |= st.dictionaries(st.sampled_from(["x_plus_y", "x_minus_y", "permutation"]), courses, min_size=1)
mappings = st.dictionaries(
    st.sampled_from([*HYPER, "operations", "modulus"]), st.lists(rates | st.just("x_plus_y"), max_size=3), max_size=3
)
grids = mappings | st.lists(mappings, max_size=3) | scalars
arm_settings = st.dictionaries(st.sampled_from([*HYPER]), courses, max_size=3) | st.fixed_dictionaries(
    {},
    optional={"batch_size": courses, "grid": grids, "operations": st.just(["x_plus_y"]) | values, "modulus": scalars},
)


def message(call, *arguments, **named):
    """The one line of the BadInput that `call` raises."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **named)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    return text
