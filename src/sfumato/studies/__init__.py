"""Studies: questions that one command answers with a table, a picture and the numbers behind both.

One file is one study: a function of the file's name that measures, writes to a folder and returns the page it wrote.
"""
