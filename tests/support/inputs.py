"""Parameters of every kind, good and bad."""

from hypothesis import strategies as st

from grok_utils.studies import Study
from support.studies import TINY

HUGE = 10**400

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*TINY, "linear", "x_plus_y", "bf16", 10**6, 10**9, 97, 0.5, "1e-3", "../x", HUGE])
)


PARAMETERS = {"schedule": "linear", "seeds": [0], "device": "cpu"}


values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


names = st.sampled_from([*Study.__dataclass_fields__, "lerning_rate"])


arm_settings = st.dictionaries(st.sampled_from(["schedule", "batch_size", "control", "window", "order"]), scalars)
