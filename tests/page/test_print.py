"""The printed report, with a stand-in for Chromium: tests/browser prints with the real one."""

import sys
from pathlib import Path

import pytest
from support.studies import write_study

from grok_utils.__main__ import main
from grok_utils.errors import BadInput, Failed
from grok_utils.page import export


def stand_in(folder: Path, body: str) -> str:
    """A program that does what `body` says; `out` is where the PDF is asked for."""
    path = folder / "chromium"
    head = "import sys\nout = next(a.split('=')[1] for a in sys.argv if a.startswith('--print-to-pdf'))\n"
    path.write_text(f"#!{sys.executable}\n{head}{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_page_is_printed_by_what_chromium_names(tmp_path, monkeypatch):
    body = "assert sys.argv[-1].endswith('/a%20page.html')\nopen(out, 'w').write('%PDF')"
    monkeypatch.setenv("CHROMIUM", stand_in(tmp_path, body))
    export.print_pdf(tmp_path / "a page.html", tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_text() == "%PDF"
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("body", ["sys.exit('no memory')", "open(out, 'w').write('%PDF')\nsys.exit('no memory')"])
def test_a_failed_print_is_told_in_one_line_and_keeps_the_last_pdf(tmp_path, monkeypatch, body):
    (tmp_path / "page.pdf").write_text("before")
    monkeypatch.setenv("CHROMIUM", stand_in(tmp_path, body))
    with pytest.raises(Failed, match=r"did not print .*page.html \(no memory\): try another one by CHROMIUM="):
        export.print_pdf(tmp_path / "page.html", tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_text() == "before"


def test_a_print_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("CHROMIUM", stand_in(tmp_path, "import time; time.sleep(60)"))
    monkeypatch.setattr(export, "SECONDS", 0.5)
    with pytest.raises(Failed, match=r"within 0\.5 seconds: try another one by CHROMIUM="):
        export.print_pdf(tmp_path / "page.html", tmp_path / "page.pdf")


def test_a_program_that_cannot_be_started_is_told(tmp_path, monkeypatch):
    path = tmp_path / "chromium"
    path.write_text("neither a script nor a program")
    path.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(path))
    with pytest.raises(Failed, match=r"cannot be started \(Exec format error\): try another one by CHROMIUM="):
        export.print_pdf(tmp_path / "page.html", tmp_path / "page.pdf")


def test_without_chromium_there_is_one_line_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(export, "ON_MACOS", "nowhere")
    assert main(["pdf", write_study(tmp_path), "--results", str(tmp_path / "results")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("Chromium was not found: install it (Debian: apt-get install chromium)")
    monkeypatch.setenv("CHROMIUM", "nowhere")
    with pytest.raises(BadInput, match="CHROMIUM: 'nowhere' is no program"):
        export.find_chromium()


@pytest.mark.parametrize("page", ["tiny", "evidence"])
def test_a_page_that_is_there_is_printed_as_it_is(tmp_path, monkeypatch, capsys, page):
    monkeypatch.setenv("CHROMIUM", stand_in(tmp_path, "open(out, 'w').write('%PDF')"))
    (tmp_path / "results" / page).mkdir(parents=True)
    (tmp_path / "results" / page / "report.html").write_text("as it is")
    study = page if page == "evidence" else write_study(tmp_path)
    assert main(["pdf", study, "--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out.endswith(f"read {tmp_path}/results/{page}/report.pdf\n")
    assert (tmp_path / "results" / page / "report.pdf").read_text() == "%PDF"
    assert (tmp_path / "results" / page / "report.html").read_text() == "as it is"
