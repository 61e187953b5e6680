"""What a stack trains with, said briefly."""

import numpy as np

from grok_utils.studies import Courses


def courses_of(batch_sizes, members, rate=1e-3, decay=0.5, beta1=0.9, beta2=0.98, drawn=True):
    """Courses of batch sizes [blocks] or [blocks, M]; the others broadcast to [blocks, M]."""
    sizes = np.array(batch_sizes)
    sizes = sizes[:, None] if sizes.ndim == 1 else sizes
    shape = len(sizes), members
    return Courses(*(np.broadcast_to(value, shape) for value in (sizes, rate, decay, beta1, beta2)), drawn)


def varied(batch_sizes, members, **changes):
    """Courses in which every hyper-parameter differs by member and changes block by block."""
    block, member = np.arange(len(batch_sizes))[:, None], np.arange(members)
    courses = {"rate": 1e-3 * (1 + member) / (1 + block), "decay": 0.5 + 0.25 * member - 0.05 * block}
    courses |= {"beta1": 0.85 + 0.02 * member + 0.01 * block, "beta2": 0.95 + 0.01 * member - 0.002 * block}
    return courses_of(batch_sizes, members, **courses | changes)
