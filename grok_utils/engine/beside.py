"""On a CPU, g++ compiles one graph while PyTorch traces the next. In: what to call. Out: its code, on its way.

PyTorch waits for g++ after each graph, and with `torch.compile` nothing is compiled but what is called.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from threading import Thread
from typing import Any

only_compile = ContextVar("only_compile", default=False)


class NotYet(Exception):
    """Code was called that is only to be compiled."""


def begun(task: Callable[[], object]) -> Future[None]:
    """The end of `task`, in a thread of its own. What fails PyTorch tries again, and says why, when it is needed."""
    ended: Future[None] = Future()

    def work() -> None:
        try:
            with contextlib.suppress(Exception):
                task()
        finally:
            ended.set_result(None)

    Thread(target=work, daemon=True).start()
    return ended


def compile_beside() -> None:
    """Have PyTorch's compiled code for a CPU wait for g++ when it is called, not when its graph has been traced."""
    from torch._inductor.codecache import CppWrapperCodeCache  # seconds of imports

    def load(cls: type[CppWrapperCodeCache], *arguments: Any, **options: Any) -> Callable[..., Any]:
        # Not PyTorch's own pool, which with one thread does all at once, in a lock that it waits for again.
        options["submit_fn"] = begun
        loaded = cls.load_pybinding_async(*arguments, **options)

        def call(*inputs: Any) -> Any:
            if only_compile.get():
                raise NotYet
            return loaded()(*inputs)

        return call

    CppWrapperCodeCache.load_pybinding = classmethod(load)  # type: ignore[assignment, method-assign]


def compile_for(f: Callable[..., object], *arguments: object) -> None:
    """Call `f` up to the first compiled code that it calls, and so have that compiled; without, the whole of it."""
    token = only_compile.set(True)
    try:
        with contextlib.suppress(NotYet):
            f(*arguments)
    finally:
        only_compile.reset(token)
