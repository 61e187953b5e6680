"""The page's heading and its shorter sections in words. Every number in a sentence is computed here."""

from grok_utils.page.prose import commits, days
from grok_utils.store.records import makings
from grok_utils.tuned_page.reading import Tuned


def heading(t: Tuned) -> str:
    """The page's title, and how many records of how many studies it stands on."""
    s, made = t.studies, makings(t.metadata)
    trained = f"; trained {days(made)}, commit {commits(made)}" if made else ""
    return (
        "# Does changing the batch size make a transformer grok sooner, once rate and decay are tuned for each?\n\n"
        f"{s['records'].sum():,} of {s['planned'].sum():,} planned records, of {len(s)} studies{trained}. "
        "The original's claims at its own learning rate and weight decay are judged on "
        "[the page of the claims](../evidence/report.html), in the folder beside this one."
    )
