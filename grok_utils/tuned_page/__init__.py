"""The page of the tuned answer: the records of its stages come in; its tables, figures and words go out.

Read `reading`, then `answer`, then the sections in the order in which the page has them.
"""
