"""What is wrong with data, in a module of its own: who exports a model catches it, and has neither h5py nor pandas to read them."""

from __future__ import annotations


class DataError(Exception):
    """A data set that cannot be used: names the file, the trace where it is one, and what is wrong."""
