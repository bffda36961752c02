"""Pictures of a run: one file = one picture, found by its name, `sfumato picture NAME RUN` or one call in Python.

An entry takes a run and returns a PIL image or a matplotlib figure; `report.save` writes either. How images are laid
out and labelled is `report`'s matter; here it is decided which images of a run are shown.
"""
