"""Our kernels: each launched where it is met; or none, and all that a pass would launch compiled side by side."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, update_wrapper
from typing import Any

import torch
import triton
from torch import Tensor

ahead = ContextVar("ahead", default=False)


class Loading(ThreadPoolExecutor):
    """Threads that compile kernels and load each on the GPU, for which Triton calls a C compiler once more."""

    def submit(self, compiled: Callable[[], Any]) -> Future[Any]:  # type: ignore[override]
        """The kernel that `compiled()` gives, once it can be launched."""

        def loaded() -> Any:
            kernel = compiled()
            kernel.run  # noqa: B018
            return kernel

        return super().submit(loaded)


@contextmanager
def compiled_ahead() -> Iterator[None]:
    """Of a pass within it no `kernel` is launched, so its numbers are void; they are compiled, many at a time.

    Compiled one after another, as a pass meets them, they take a fresh machine some 20 s.
    """
    before = ahead.set(True)
    try:
        # PyTorch would go backward in a thread of its own, where these contexts do not hold.
        one_thread, pool = torch.autograd.set_multithreading_enabled(False), Loading()
        with one_thread, pool, triton.AsyncCompileMode(pool):
            yield
    finally:
        ahead.reset(before)


class TritonKernel:
    """A function of Triton's, launched by `kernel[grid](...)` unless it is `compiled_ahead`."""

    def __init__(self, function: Callable[..., None], sizes: tuple[str, ...]) -> None:
        self.jitted = triton.jit(do_not_specialize=sizes)(function)
        update_wrapper(self, function)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        return partial(self.jitted.warmup, grid=grid) if ahead.get() else self.jitted[grid]


def kernel(*sizes: str) -> Callable[[Callable[..., None]], TritonKernel]:
    """What makes a function a kernel: compiled once for all of these `sizes`, of which alignment says nothing."""
    return lambda function: TritonKernel(function, sizes)


def strides_of(*tensors: Tensor | None) -> tuple[int, ...]:
    """How many numbers lie between a member's of each of `tensors` and the next's."""
    return tuple(0 if tensor is None else tensor.stride(0) for tensor in tensors)
