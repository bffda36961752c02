"""Families of foreign checkpoints: one file recognises one family and says which recipe its weights belong to.

The file ``NAME.py`` holds a function ``NAME(found: Foreign) -> Imported | None``; it returns None for what is not its
own and raises `ForeignError` for its own that we cannot represent. Nothing is registered.
"""
