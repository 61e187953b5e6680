"""What a run trains on: the path it takes, whether this machine has it and holds it, and PyTorch's own switches."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from jaxtyping import Float64

from grok_utils.engine import products
from grok_utils.engine.beside import compile_beside
from grok_utils.errors import BadInput
from grok_utils.schedules import BLOCK
from grok_utils.studies import PROTOCOL, ExecutionPath, Run, Shape
from grok_utils.tasks import OPERATIONS, count_pairs, count_train

# Examples' forward passes from which torch.compile earns its minute of compiling on a CPU: eager needs some 18 µs each
# and compiled saves a quarter.
COMPILE_FROM = 20_000_000
APART_FROM = 130  # examples a batch in the default shape: side by side took a sixth less at 100, more at 160
PROCESS_BYTES = 3 * 2**29  # that a process takes of a GPU before its stack: CUDA's context and compiled code


def on_cuda(device: str) -> bool:
    """Whether `device` (auto, cpu or cuda) is a GPU here: `auto` takes one where PyTorch sees one."""
    return device != "cpu" and torch.cuda.is_available()


def wake(device: str) -> None:
    """Have a GPU set up for this process where `device` is one, beside what else it does: a first use waits for that.

    Many processes that begin at once wait for seconds.
    """
    if on_cuda(device):
        threading.Thread(target=torch.zeros, args=(1,), kwargs={"device": "cuda"}, daemon=True).start()


def cores() -> int:
    """How many of this machine's cores the process may use."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1


def has_compiler(device: str) -> bool:
    """Whether torch.compile finds what it calls: Triton and a C compiler for CUDA; CXX, by default g++, for a CPU."""
    names: tuple[str, ...] = (os.environ.get("CXX", "g++"),)
    if device == "cuda":
        names = ("gcc", "clang", "cc") if importlib.util.find_spec("triton") is not None else ()
    return sys.platform == "linux" and any(shutil.which(name) for name in names)


def has_kernels(path: ExecutionPath, shape: Shape) -> bool:
    """Whether our own kernels serve: compiled on a GPU, with powers of 2 of heads and of numbers in one, up to 256."""
    width, heads, _ = shape
    tiles = heads & (heads - 1) == 0 and width & (width - 1) == 0 and width <= 256
    return path.device == "cuda" and path.compiled and tiles


def has_tf32() -> bool:
    """Whether the GPU's tensor cores multiply in tf32 (Ampere on), of which products in float32 are made too."""
    return torch.cuda.get_device_capability() >= (8, 0)


def has_avx512() -> bool:
    """Whether PyTorch uses AVX-512 on this CPU and the compiler knows its flags, asked without compiling."""
    flags = ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-E", "-x", "c++", os.devnull)
    used = torch.backends.cpu.get_cpu_capability() == "AVX512" and has_compiler("cpu")
    return used and subprocess.run([os.environ.get("CXX", "g++"), *flags], capture_output=True).returncode == 0


def one_by_one(path: ExecutionPath, shape: Shape, batch_size: float) -> bool:
    """Whether members are computed one after another, each by oneDNN's products, which know no stacks.

    That is so on a CPU in float32, but not uncompiled for small members, of small batches on average: there each call
    on its own costs more than the products save. It hangs on nothing of a member's neighbours, as no bit may.
    """
    fits = path.device == "cpu" and path.precision == "float32" and products.AVAILABLE
    return fits and (path.compiled or size_of_pass(shape) * batch_size >= APART_FROM)


def set_up(path: ExecutionPath) -> None:
    """All of PyTorch's process-wide switches, as `path` wants them."""
    torch.set_num_threads(path.threads)
    if path.device == "cuda":
        torch.set_float32_matmul_precision("high" if path.precision == "tf32" else "highest")
    if path.compiled:
        # On a CPU one C++ file a graph, not one a kernel, for which headers would be precompiled first: half a minute.
        torch._inductor.config.cpp_wrapper = path.device == "cpu"
        torch._inductor.config.cpp_cache_precompile_headers = path.device != "cpu"
        if path.device == "cpu":
            compile_beside()
        if path.device == "cpu" and has_avx512():  # else Inductor compiles to see what it can: 5 s of a first run
            torch._inductor.config.cpp.vec_isa_ok = True
        torch._inductor.config.deterministic = path.device == "cuda"  # no benchmarking that could choose other code
        torch._inductor.config.combo_kernels = path.device == "cuda"  # small kernels launched together: a tenth
        # The caches know our operators by name: compiled code would keep gradients that have been edited since.
        here = Path(__file__).parent
        source = b"".join(file.read_bytes() for file in [*sorted(here.glob("gpu/*.py")), here / "products.py"])
        torch.compiler.config.cache_key_tag = hashlib.sha256(source).hexdigest()
        torch._dynamo.config.automatic_dynamic_shapes = False  # only the batch size changes, and it is marked
        # Past 8 variants in a process, PyTorch would go on uncompiled with no more than a warning.
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit
        torch._dynamo.config.fail_on_recompile_limit_hit = True


# --- work ----------------------------------------------------------------------------------------------------------


def choose_path(run: Run) -> ExecutionPath:
    """The path by fixed rules: CUDA where `auto` finds it; compiled where a compiler exists and the work repays it.

    On a GPU models are compiled only together with the kernels of attention.
    """
    device = "cuda" if on_cuda(run.device) else "cpu"
    compiled = has_compiler(device) and forward_passes(run) >= COMPILE_FROM
    path = ExecutionPath(device, run.arm.settings.precision, compiled, run.threads)
    # Of PyTorch 2.11 on an H100, attention compiled instead of a kernel has wrong gradients, by combined kernels.
    return path if device == "cpu" or has_kernels(path, run.arm.settings.shape) else replace(path, compiled=False)


def forward_passes(run: Run, updates: int | None = None) -> int:
    """The work of the run, or of its first `updates`, in forward passes of the default shape: three an example."""
    return int(work_by_block(run)[: None if updates is None else updates // BLOCK].sum())


def work_by_block(run: Run) -> Float64[np.ndarray, " blocks"]:
    """The forward passes of each block of 10 updates with its validation."""
    s = run.arm.settings
    validation = {o: count_pairs(o, s.modulus) - count_train(o, s.modulus, s.train_fraction) for o in s.operations}
    pairs = sum(validation[m.operation] for m in run.members)
    return size_of_pass(s.shape) * (3 * BLOCK * run.courses.batch_size.sum(axis=1) + pairs)


def size_of_pass(shape: Shape) -> float:
    """What an example's products cost in this shape, of what they cost in the default one."""
    return shape.blocks * shape.width**2 / (PROTOCOL.blocks * PROTOCOL.width**2)


# --- memory --------------------------------------------------------------------------------------------------------


def member_bytes(batch_size: int, elements: int, path: ExecutionPath, shape: Shape = PROTOCOL.shape) -> int:
    """Bytes that a member takes, roughly: parameters six times over with all that AdamW keeps, an update, validation.

    In the default shape an example of an update takes 46 kB on a CPU with 97 classes and 192 kB with 1,999. On a GPU
    all pairs are validated at once, at 4.5 kB each, or 3 where our own kernels serve: with them an H100 took 26 MB a
    member at its peak in float32 at batch 512, 31 in tf32.
    """
    size = shape.width * shape.blocks / (PROTOCOL.width * PROTOCOL.blocks)
    example, pair = 40_000 * size + 70 * elements, (3_000 if has_kernels(path, shape) else 4_500) * size
    pairs = elements**2 // 2 if path.device == "cuda" else 0
    activations = int(batch_size * example + pairs * pair) // (2 if path.precision == "bf16" else 1)
    return activations + 60 * elements**2 + 6 * 4 * parameters_of(elements, shape)


def parameters_of(elements: int, shape: Shape) -> int:
    """How many parameters a decoder for a task of so many `elements` has."""
    width, _, blocks = shape
    return blocks * width * (12 * width + 13) + (2 * width + 1) * elements + 9 * width


def stack_size(run: Run) -> tuple[int, int]:
    """The number of members of the run's stack and the bytes that one takes."""
    s = run.arm.settings
    elements = max(OPERATIONS[operation].elements or s.modulus for operation in s.operations)
    each = member_bytes(int(run.batch_sizes.max()), elements, choose_path(run), s.shape)
    return len(run.members), each


def require_fit(run: Run) -> None:
    """Raise BadInput unless the run's stack fits into this machine's memory, or into the GPU's were it free."""
    (members, each), cuda = stack_size(run), on_cuda(run.device)
    memory = torch.cuda.get_device_properties(0).total_memory - PROCESS_BYTES if cuda else psutil.virtual_memory().total
    if members * each > memory:
        raise does_not_fit(members, len(run.seeds), each, memory)


def does_not_fit(members: int, seeds: int, each: int, memory: int) -> BadInput:
    """The error of a stack of too many `members`, of `seeds` seeds, that take `each` bytes of `memory`."""
    fit = memory // each
    advice = f"take SEEDS_PER_RUN={fit * seeds // members}" if fit * seeds >= members else "take smaller batches"
    return BadInput(
        f"seeds: a stack of {members} members needs some {members * each / 2**30:,.1f} GiB of memory, more than the "
        f"{memory / 2**30:,.1f} here, which hold about {fit}: {advice}, fewer cells or operations, or fewer "
        "runs at a time (-j)"
    )


def runs_that_fit(runs: list[Run]) -> int:
    """How many of the runs the GPU's free memory holds side by side, whichever they are; at least one."""
    largest = max(members * each for members, each in map(stack_size, runs))
    return max(1, torch.cuda.mem_get_info()[0] // (PROCESS_BYTES + largest))
