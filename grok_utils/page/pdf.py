"""A page as PDF, by headless Chromium's own print."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from grok_utils.errors import BadInput
from grok_utils.store.files import written_whole

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
# No first-run page, and no address asked on the browser's own account.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
SECONDS = 120  # until a print that hangs is ended
OTHERWISE = "try another one by CHROMIUM=/path/to/it, or open the page in any browser and print it there"


class NoPrint(Exception):
    """One line that says why there is no PDF."""


def find_chromium() -> str:
    """The path of Chromium or a relative of it: CHROMIUM of the environment, or the first found. Raises BadInput."""
    asked = os.environ.get("CHROMIUM")
    for name in [asked] if asked else [*NAMES, ON_MACOS]:
        if found := shutil.which(name):
            return found
    what = f"CHROMIUM: {asked!r} is no program" if asked else "Chromium was not found"
    raise BadInput(f"{what}: install it (Debian: apt-get install chromium) or give CHROMIUM=/path/to/chrome")


def print_pdf(html: Path, pdf: Path) -> None:
    """Print the page `html` to `pdf`, whole or not at all. Raises BadInput without Chromium, NoPrint if it fails."""
    chromium = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, written_whole(pdf) as temporary:
        command = [chromium, "--headless", *FLAGS, f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        command.append("--generate-pdf-document-outline")  # the contents are not printed; a viewer lists the headings
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium's sandbox refuses root
            command.append("--no-sandbox")
        command += [f"--print-to-pdf={temporary.resolve()}", html.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise NoPrint(f"{chromium} did not print {html} within {SECONDS} seconds: {OTHERWISE}") from None
        except OSError as error:  # a program of another machine, say
            raise NoPrint(f"{chromium} cannot be started ({error.strerror}): {OTHERWISE}") from None
        if done.returncode or not temporary.is_file():
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise NoPrint(f"{chromium} did not print {html} ({said[-1][:300]}): {OTHERWISE}")
