"""Tasks: how a picture was damaged, as an operator. One file is one task, found by its name.

An entry is called as ``NAME(shape, **options)`` with the shape of one clean picture and returns a `core.task.Task`.
Every task takes `noise`, the standard deviation of what is added to the measurement. The laws of operators (the
transpose, the pseudo-inverse, shapes, dtypes) are tested over the whole axis.
"""
