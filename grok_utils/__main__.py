"""`python -m grok_utils`: what the Makefile calls to plan a study, make its runs and build its report."""

import argparse
import gc
import io
import signal
import sys
from collections.abc import Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from grok_utils.pipeline.kernel import Kernel
    from grok_utils.studies import Study

if __name__ == "__main__":  # before what takes seconds to load: Ctrl-C ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while a notebook runs, `execution` handles it
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # nbformat's validator loads it in 0.8 s for nothing

from grok_utils.errors import BadInput, Damaged, Failed, one_line, require, with_remedy
from grok_utils.store.files import require_clone, write_text


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong and where the usage is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{one_line(message)} (see {self.prog} --help)\n")


def folder(text: str) -> Path:
    """The path of a folder, which an empty word is not."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not the path of a folder")
    return Path(text)


def parser() -> Parser:
    """The command line."""
    of_all = Parser(add_help=False)
    of_all.add_argument("--results", type=folder, default=Path("results"), help="folder of all results")
    of_study = Parser(add_help=False, parents=[of_all])
    of_study.add_argument("study", help="a name in notebooks/studies, or the path of a .yaml file")
    of_study.add_argument("--precision", help="instead of the study's precision")
    of_runs = Parser(add_help=False, parents=[of_study])
    of_runs.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    of_runs.add_argument("--threads", type=int, default=1, help="CPU threads of a run (default 1)")

    top = Parser(prog="python -m grok_utils", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, like: Parser, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[like], help=text, description=text)

    command("evidence", of_all, "build results/tuned and results/evidence/report.html, and results/README.md")
    command("select", of_all, "derive the study files of the tuned answer's next stage from the records before")
    site = command("site", of_all, "collect the pages that results/README.md names in a folder, with it as their index")
    site.add_argument("--out", type=folder, default=Path("site"), help="the site's folder (default site)")
    plan = command("plan", of_runs, "check the study; print how many runs go side by side, as -j, and those missing")
    plan.add_argument("--seeds-per-run", type=int, default=1, help="seeds that one run trains at once (default 1)")
    elsewhere = "the runs will be on other machines: do not ask whether this one can carry them out"
    plan.add_argument("--elsewhere", action="store_true", help=elsewhere)
    run = command("run", of_runs, "make the records of one arm and its seeds by executing run.ipynb")
    run.add_argument("--schedule", required=True, help="the arm")
    run.add_argument("--seeds", required=True, help="such as 0, 0,1,2 or 0..9")
    report = command("report", of_study, "build report.html from the study's records")
    after = "a command to carry out first, which makes the records; if it fails, there is no report"
    report.add_argument("--after", nargs=argparse.REMAINDER, metavar="COMMAND", help=after)
    command("pdf", of_study, "print report.html, built where absent, as report.pdf (also of `tuned` and `evidence`)")
    command("status", of_study, "say what is done, running, failed and missing, and how long is left")
    verify = command("verify", of_study, "check the records and their code, and train one of them again for a minute")
    verify.add_argument("--record", help="the one to train again, such as linear-seed0 (default: any)")
    return top


def carried_out(a: argparse.Namespace, kernel: "Kernel | None") -> Iterator[str]:
    """Carry out one command, with a `kernel` for the first notebook that it executes; yields the lines that it says."""
    # After --help: PyTorch takes a second to load, papermill and nbconvert, which few commands need, another.
    from grok_utils.pipeline import plan
    from grok_utils.pipeline.parameters import make_run, on_this_machine
    from grok_utils.pipeline.settings import check_seeds
    from grok_utils.pipeline.study_files import load_study

    if a.command == "select":
        from grok_utils.tuned.stages import derive

        yield from derive(a.results)
        return
    if a.command in ("site", "evidence", "report", "pdf"):
        from grok_utils.page import build

        if a.command == "site":
            yield f"the site: open {build.build_site(a.results, a.out)}"
        elif a.command == "evidence":
            from grok_utils.evidence import index, members
            from grok_utils.page.prose import lacking
            from grok_utils.pipeline.execution import from_notebooks
            from grok_utils.pipeline.kernel import Kernel
            from grok_utils.tuned_page.reading import studies_of

            pages = {"evidence": map(load_study, members.STUDIES), "tuned": chain(*studies_of().values())}
            waits = {page: lacking(studies, a.results) for page, studies in pages.items()}
            read = f"reading.read_ahead({from_notebooks(a.results)!r}, reading.Path('studies'))"
            second = Kernel(ahead=f"from grok_utils.tuned_page import reading; {read}; del reading")
            if not any(waits.values()):  # its records are read while the first page is built
                second.start()
            kernels = {"evidence": kernel, "tuned": second}
            try:
                for page, waits_for in waits.items():  # each reads tables of the one before
                    if waits_for:
                        yield f"{page}: no page yet, it waits for {waits_for}"
                        break
                    yield f"{page}: read {build.build_page(a.results, page, kernel=kernels[page])}"
                    write_text(a.results / "README.md", index.index(a.results))
            finally:
                second.stop()
        else:
            many = a.command == "pdf" and a.study in build.PAGES  # a page of many studies is of no one study
            of = a.study if many else load_study(a.study, a.precision)
            make = build.print_page if a.command == "pdf" else partial(build.build_page, kernel=kernel)
            file = make(a.results, of, a.study, a.precision)
            yield f"{file.parent.name}: read {file}"
        return
    study = load_study(a.study, a.precision)
    if a.command == "plan":
        require(a.seeds_per_run >= 1, "seeds-per-run", a.seeds_per_run, "a whole number from 1 on")
        for arm in study.arms:
            run = make_run(study, arm.name, study.seeds[: a.seeds_per_run], a.results, a.device, a.threads)
            if not a.elsewhere:
                on_this_machine(run)
        if runs := plan.planned_runs(study, a.results, a.seeds_per_run, a.device):
            yield f"-j{plan.side_by_side(runs, a.threads)}"
        for run in runs:
            yield f"run/{run.arm.name}/{','.join(map(str, run.seeds))}"
    elif a.command == "run":
        from grok_utils.pipeline.execution import execute_run

        run = make_run(study, a.schedule, check_seeds(a.seeds), a.results, a.device, a.threads)
        execute_run(on_this_machine(run), a.study, kernel)
    elif a.command == "verify":
        from grok_utils.pipeline.verify import verify

        yield from verify(study, a.results, a.record)
    else:
        yield from plan.status_lines(study, a.results, a.study)


def begin(a: argparse.Namespace, kernel: "Kernel") -> int:
    """Start `kernel`: for a report after a command, once what is left of its work has begun; returns its exit code."""
    from grok_utils.pipeline.kernel import wait_for

    @cache
    def study() -> "Study":
        from grok_utils.pipeline.study_files import load_study

        return load_study(a.study, a.precision)

    def nearly() -> bool:
        from grok_utils.pipeline.plan import all_begun

        return all_begun(study(), a.results)

    def get_ready() -> None:
        kernel.start()
        import grok_utils.page.export  # noqa: F401

    code = wait_for(a.after, nearly, get_ready) if getattr(a, "after", None) else 0
    if not code:
        kernel.start()
    return code


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; 0 if all went well, else one line on stderr and 2 for bad input, 1 for a failure."""
    a, kernel = parser().parse_args(arguments), None
    try:
        require_clone()
        if a.command in ("run", "report", "evidence"):
            from grok_utils.pipeline.kernel import Kernel

            wake = "import grok_utils.engine.machine; grok_utils.engine.machine.wake({!r})"
            kernel = Kernel(a.threads, wake.format(a.device)) if a.command == "run" else Kernel()
            if code := begin(a, kernel):
                return code
        for line in carried_out(a, kernel):
            print(line)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except (Damaged, Failed, OSError) as error:
        print(with_remedy(error), file=sys.stderr)
        return 1
    finally:
        if kernel:
            kernel.stop()
    return 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # with PYTHONUNBUFFERED a line's end comes apart, another's line between
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)
    try:
        sys.exit(main())
    finally:
        gc.freeze()  # to collect all that was loaded, as Python does when it ends, takes it half a second
