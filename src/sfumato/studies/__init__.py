"""Studies: questions that one command answers with a table, a picture and the numbers behind both.

One file is one study: a function of the file's name. One that takes a scale returns a `Study`, a table of recipes that
``sfumato study NAME`` trains, judges and writes; any other measures by itself and returns the page it wrote.
"""
