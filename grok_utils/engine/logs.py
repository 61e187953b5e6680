"""What a log holds, and by which of its logs a run ends early."""

import numpy as np
from jaxtyping import Bool, Float

from grok_utils.schedules import BLOCK
from grok_utils.studies import THRESHOLD

MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # then the columns of a study's measures


def diverged(logs: Float[np.ndarray, "logs *of columns"]) -> Bool[np.ndarray, " logs *of"]:
    """Whether, by each of `logs`, a loss was not finite."""
    losses = logs[..., [MEASURED.index("train_loss"), MEASURED.index("val_loss")]]
    return np.logical_or.accumulate(~np.isfinite(losses).all(axis=-1))


def early_end(logs: Float[np.ndarray, "logs M columns"], stop_after: int | None) -> int | None:
    """After how many of `logs` a run ends early; None where, by them, it does not.

    That is at the first log by which every member has kept 99 % for `stop_after` updates, or has diverged.
    """
    if stop_after is None:
        return None
    log, above = np.arange(len(logs))[:, None], logs[..., MEASURED.index("val_accuracy")] > np.float32(THRESHOLD)
    row = log - np.maximum.accumulate(np.where(above, -1, log))  # how many logs in a row have been above
    settled = ((row > stop_after // BLOCK) | diverged(logs)).all(axis=1)
    return int(settled.argmax()) + 1 if settled.any() else None
