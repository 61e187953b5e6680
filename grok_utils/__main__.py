"""`python -m grok_utils`: what the Makefile calls to plan a study, make its runs and build its report."""

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":  # before what takes seconds to load: Ctrl-C ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while a notebook runs, `execution` handles it
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # nbformat's validator loads it in 0.8 s for nothing

from grok_utils.errors import BadInput, Damaged, Failed, one_line, require, with_remedy
from grok_utils.store.files import require_clone


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong and where the usage is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{one_line(message)} (see {self.prog} --help)\n")


def parser() -> Parser:
    """The command line."""
    top = Parser(prog="python -m grok_utils", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    about = {
        "plan": "check the study; print how many runs go side by side here, as -j, and what is missing: run/ARM/SEEDS",
        "run": "make the records of one arm and its seeds by executing run.ipynb",
        "report": "build report.html from the study's records",
        "pdf": "print report.html, built where it is absent, as report.pdf (`tuned`, `evidence`: of many studies)",
        "status": "say what is done, running, failed and missing, and how long is left",
        "verify": "check the records, and the code that made them, and train one of them again for a minute",
    }
    of_all = {
        "evidence": "build results/tuned and results/evidence/report.html, and results/README.md, from all records",
        "site": "collect the pages that results/README.md names in a folder, with it as their index",
        "select": "derive the study files of the tuned answer's next stage from the records of the stage before",
    }
    for name, text in of_all.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--results", type=folder, default=Path("results"), help="folder of all results")
        command.set_defaults(study=name, precision=None)
        if name == "site":
            command.add_argument("--out", type=folder, default=Path("site"), help="the site's folder (default site)")
    for name, text in about.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("study", help="a name in notebooks/studies, or the path of a .yaml file")
        command.add_argument("--results", type=folder, default=Path("results"), help="folder of all results")
        command.add_argument("--precision", help="instead of the study's precision")
        if name in ("plan", "run"):
            command.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
            command.add_argument("--threads", type=int, default=1, help="CPU threads of a run (default 1)")
        if name == "plan":
            command.add_argument(
                "--seeds-per-run", type=int, default=1, help="seeds that one run trains at once (default 1)"
            )
            elsewhere = "the runs will be on other machines: do not ask whether this one can carry them out"
            command.add_argument("--elsewhere", action="store_true", help=elsewhere)
        if name == "verify":
            command.add_argument("--record", help="the one to train again, such as linear-seed0 (default: any)")
        if name == "run":
            command.add_argument("--schedule", required=True, help="the arm")
            command.add_argument("--seeds", required=True, help="such as 0 or 0,1,2")
    return top


def folder(text: str) -> Path:
    """The path of a folder, which an empty word is not."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not the path of a folder")
    return Path(text)


def seeds_from(text: str) -> list[int]:
    """The seeds of `0,1,2`; BadInput where that is no list of whole numbers."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise BadInput(f"seeds: {text!r} is not a list of whole numbers such as 0,1,2") from None


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; 0 if all went well, else one line on stderr and 2 for bad input, 1 for a failure."""
    a = parser().parse_args(arguments)
    try:
        require_clone()
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    # After --help: PyTorch takes a second to load, papermill and nbconvert, which few commands need, another.
    from grok_utils.pipeline import plan, status
    from grok_utils.pipeline.parameters import make_run, on_this_machine
    from grok_utils.pipeline.settings import check_seeds
    from grok_utils.pipeline.study_files import load_study

    try:
        if a.command == "select":
            from grok_utils.tuned.stages import derive

            for line in derive(a.results):
                print(line, flush=True)
            return 0
        if a.command == "site":
            from grok_utils.page import build

            print(f"the site: open {build.build_site(a.results, a.out)}")
            return 0
        if a.command in ("evidence", "report", "pdf"):
            from grok_utils.page import build

            # A page of many studies is of no one study.
            names = [a.study] if a.command == "pdf" and a.study in build.PAGES else []
            names = [*build.PAGES] if a.command == "evidence" else names
            make = build.print_page if a.command == "pdf" else build.build_page
            for of in names or [load_study(a.study, a.precision)]:
                page = make(a.results, of, a.study, a.precision)
                print(f"{of if isinstance(of, str) else of.name}: read {page}", flush=True)
            if a.command == "evidence":
                from grok_utils.evidence.index import write_index

                write_index(a.results)
            return 0
        study = load_study(a.study, a.precision)
        if a.command == "plan":
            require(a.seeds_per_run >= 1, "seeds-per-run", a.seeds_per_run, "a whole number from 1 on")
            here = (lambda run: run) if a.elsewhere else on_this_machine
            for arm in study.arms:
                here(make_run(study, arm.name, study.seeds[: a.seeds_per_run], a.results, a.device, a.threads))
            runs = plan.planned_runs(study, a.results, a.seeds_per_run, a.device)
            if runs:
                print(f"-j{plan.side_by_side(runs, a.threads)}")
            for run in runs:
                print(f"run/{run.arm.name}/{','.join(map(str, run.seeds))}")
        elif a.command == "run":
            from grok_utils.pipeline import execution

            seeds = check_seeds(seeds_from(a.seeds))
            run = make_run(study, a.schedule, seeds, a.results, a.device, a.threads)
            execution.execute_run(on_this_machine(run), a.study)
        elif a.command == "verify":
            from grok_utils.pipeline.verify import verify

            for line in verify(study, a.results, a.record):
                print(line, flush=True)
        else:
            print("\n".join(status.status_lines(study, a.results, a.study)))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except (Damaged, Failed, OSError) as error:
        print(with_remedy(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
