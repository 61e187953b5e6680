"""The front page of a folder of results, README.md as code hosts show it, from the tables and the page beside it.

No number in it is written by hand: the words are those of `answer`, the captions those of evidence/report.html.
"""

from html import escape
from pathlib import Path

import pandas as pd
from bs4 import BeautifulSoup

from grok_utils.evidence import answer
from grok_utils.evidence.members import STUDIES
from grok_utils.page.prose import sample_sizes
from grok_utils.pipeline import study_files
from grok_utils.schedules import BLOCK
from grok_utils.store.records import records_there
from grok_utils.tasks import written

SHOWN = ("dose-response", "order")  # figures of the page of the claims
TUNED_SHOWN = ("answer", "frontier")  # of that of the tuned answer
NOT_KEPT = "quick"  # for trying the pipeline; .gitignore leaves it out
TUNED = "tuned/report.html"
MARKS = {"strong": "**", "em": "*", "code": "`"}


def index(results: Path) -> str:
    """README.md of `results`, in which `make evidence` has built its pages: the tuned answer where there is one, the
    answer at the original's rate and decay, figures, verdicts and studies."""
    tables = results / "evidence" / "tables"
    verdicts = pd.read_csv(tables / "verdicts.csv", keep_default_na=False)
    names = ("contrasts", "dose-response-table", "interactions-table")
    contrasts, dose, interactions = (pd.read_csv(tables / f"{name}.csv") for name in names)
    told = answer.answer(contrasts, verdicts.set_index("claim")["verdict"], dose)
    claims = verdicts[["claim", "text", "verdict", "n"]].rename(columns={"claim": "no.", "text": "claim"})
    tuned = (results / TUNED).exists()
    if tuned:
        second = pd.read_csv(results / "tuned" / "tables" / "claims.csv", keep_default_na=False)
        claims = claims.rename(columns={"verdict": "at the original's rate and decay"})
        claims = claims.assign(tuned=second["tuned"], survives=second["survives"])
    pages = "[the claims](evidence/report.html) at the original's rate and decay, with methods, intervals and limits"
    pages = f"[the tuned answer]({TUNED}), and of {pages}" if tuned else pages
    parts = [
        "# Does growing the batch make a transformer grok sooner? The results",
        tuned_answer(results) if tuned else "",
        f"A page is one file to download and open in a browser: that of {pages}.",
        "The rules were written before the records, in `ANALYSIS_PLAN.md`.",
        "## At the original's rate and decay",
        told.replace("[Table](#verdicts)", "[below](#the-claims-and-their-verdicts)"),
        untuned(interactions),
        figures(results, "evidence", SHOWN),
        "## The claims and their verdicts",
        markdown(claims),
        "## The studies",
        f"`<study>/records/<arm>-seed<k>.parquet` are the measurements, a row every {BLOCK} updates. "
        "`notebooks/studies/<study>.yaml` says what was asked for.",
        markdown(studies(results)),
        "Written by `make evidence`.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def tuned_answer(results: Path) -> str:
    """What the tuned answer's page says first, with its figure and its numbers."""
    page = BeautifulSoup((results / TUNED).read_text(encoding="utf-8"), "html.parser")
    said = page.select("#section-the-answer ~ p:has(strong)")[0]
    for tag in said.find_all(True):
        if tag.name == "a":
            tag.replace_with(f"[{tag.get_text()}]({TUNED}{tag['href']})")
        elif tag.name in MARKS:
            tag.replace_with(f"{MARKS[tag.name]}{tag.get_text()}{MARKS[tag.name]}")
    numbers = pd.read_csv(results / "tuned" / "tables" / "answer-table.csv", keep_default_na=False)
    return f"{said.get_text()}\n\n{figures(results, 'tuned', TUNED_SHOWN)}\n\n{markdown(numbers)}"


def untuned(interactions: pd.DataFrame) -> str:
    """What the answer's rate and decay are worth: words, and the constant batch at others."""
    told, table = answer.protocol_alone(interactions), answer.by_rate_and_decay(interactions)
    headings = {name: written(name).replace("_", " ") for name in table}
    numbers = markdown(table.rename(columns=headings).map(lambda of: of if isinstance(of, str) else f"{of:,.0f}"))
    caption = "Updates to 99 % (RMST, the mean restricted at the run's end) of the constant batch of 512,"
    return f"{told.replace(', [Table](#untuned)', '')}\n\n{caption} {sample_sizes(interactions)} seeds.\n\n{numbers}"


def figures(results: Path, of: str, shown: tuple[str, ...]) -> str:
    """These figures of a page of `results`, several side by side, for light and for dark ground, and their captions."""
    page = BeautifulSoup((results / of / "report.html").read_text(encoding="utf-8"), "html.parser")
    there = [figure for name in shown if (figure := page.select_one(f"figure.picture#{name}"))]
    width, pictures = "100%" if len(there) == 1 else "49%", []
    for figure in there:
        file, alt = f"{of}/figures/{figure['id']}", escape(str(figure.select("svg")[0]["aria-label"]))
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{file}-dark.svg">'
        pictures.append(f'<picture>{dark}<img alt="{alt}" src="{file}.svg" width="{width}"></picture>')
    # Without their numbers on that page.
    captions = [figure.select("figcaption")[0].get_text().partition(". ")[2] for figure in there]
    told = [f"{i}. {caption}" for i, caption in enumerate(captions, start=1)] if len(captions) > 1 else captions
    return "\n".join(pictures) + "\n\n" + "\n".join(told)


def studies(results: Path) -> pd.DataFrame:
    """The studies, those of the evidence first: study, what it is, arms, seeds, records (of which how many), page."""
    rows = []
    for name in [*STUDIES, *sorted({p.stem for p in study_files.STUDIES.glob("*.yaml")} - {*STUDIES, NOT_KEPT})]:
        study = study_files.load_study(name)
        there = records_there(study, results)
        n = f"{sum(there):,}" if all(there) else f"{sum(there):,} of {len(there):,}"
        page = f"[report]({name}/report.html)" if (results / name / "report.html").exists() else ""
        row = {"study": f"`{name}`", "what it is": study.title, "arms": len(study.arms), "seeds": len(study.seeds)}
        rows.append(row | {"records": n, "page": page})
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown; the texts of this project's studies and claims hold no `|`."""
    rows = [list(table), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
