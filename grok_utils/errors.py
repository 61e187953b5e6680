"""What goes wrong, in one line that names it and says what to do about it."""

import errno
import re
import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200

REMEDIES = {  # what to do, by the numbers of what the system refuses
    "free some space, then run it again": (errno.ENOSPC, errno.EDQUOT),
    "change its owner or its rights, or choose another folder of results (RESULTS=)": (errno.EACCES, errno.EPERM),
    "choose a folder of results that can be written to (RESULTS=)": (errno.EROFS,),
    "a file is in a folder's place: move it, or choose another folder (RESULTS=)": (errno.ENOTDIR, errno.EEXIST),
    "a folder is in a file's place: move it": (errno.EISDIR,),
    "see that it is there, or choose a folder of results that can be made (RESULTS=)": (errno.ENOENT,),
    "choose a folder of results with a shorter name (RESULTS=)": (errno.ENAMETOOLONG,),
    "see to the disk or its server, then run it again": (errno.EIO, errno.ESTALE),
    "allow more open files (ulimit -n), or run fewer at a time (-j)": (errno.EMFILE, errno.ENFILE),
    "choose a folder of results (RESULTS=) whose file system has locks": (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP),
}


class BadInput(ValueError):
    """One line that names the field, the value and what is allowed."""


class Damaged(Exception):
    """One line that names the file and says how to mend it."""


class Failed(Exception):
    """One line that says what failed and where to look."""


def require(allowed: bool, field_name: str, value: Any, what: str) -> None:
    """Raise BadInput unless `allowed`; `what` completes the sentence `field: value is not …`."""
    if not allowed:
        try:
            shown = _short.repr(value)
        except ValueError:  # Python refuses to print whole numbers of more than 4,300 digits
            shown = "a huge number"
        raise BadInput(one_line(f"{field_name}: {shown} is not {what}"))


def one_line(text: object) -> str:
    """`text` without line breaks."""
    return " ".join(str(text).split())


def with_remedy(error: object) -> str:
    """What an error says, in one line, with what to do about it where it holds a number of the system's."""
    text = one_line(error)
    number = re.search(r"\[Errno (\d+)\] | \(os error (\d+)\)", text)  # Python's and Rust's way to tell it
    if number is None:
        return text
    known = (remedy for remedy, numbers in REMEDIES.items() if int(number[1] or number[2]) in numbers)
    return f"{text.replace(number[0], '')}: {next(known, 'mend that, then run it again')}"
