"""Studies: questions that one command answers with a table, a picture and the numbers behind both.

One file is one question: a function ``NAME(scale) -> Study``, a table of recipes that ``sfumato study NAME`` trains,
judges and writes. What does that is `sfumato.experiments`; here stands only what varies and what is held equal.
"""
