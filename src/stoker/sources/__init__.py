"""WHERE examples come from: one file a kind of source.

map_style   `__len__` and `__getitem__`, the whole source within reach
"""

from stoker.sources.map_style import MapSource

__all__ = ["MapSource"]
