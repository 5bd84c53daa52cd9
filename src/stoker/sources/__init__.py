"""WHERE examples come from: one file a kind of source, and what a transform may say about them.

map_style       `__len__` and `__getitem__`, the whole source within reach
arrays          arrays, read by rows
columns         tables, lists and sparse matrices as such arrays
stored_arrays   arrays in HDF5 and zarr files
generator       a generator function over shards
iterable        pulled in the trainer, one item after the other
keras_dataset   Keras datasets, whose elements are batches already
mistaken        what is no source, or another kind: which function takes it
hooks           methods of a source that are called between epochs
markers         SKIP and Many: no example, or several, in the place of one
"""
