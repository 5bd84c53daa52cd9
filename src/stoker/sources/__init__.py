"""WHERE examples come from: one module for each kind of source, and the markers that a transform may return.

source          the protocol of all sources
sharded         the protocol of sources whose shards workers open
map_style       sources with `__len__` and `__getitem__`, random access
arrays          arrays, read by rows
columns         tables, lists and sparse matrices as arrays
stored_arrays   arrays in HDF5 and zarr files
generator       a generator function over shards
iterable        an iterable, pulled in the trainer item by item
keras_dataset   Keras datasets, whose elements are already batches
mistaken        objects that are not map-style sources, and which function takes them
samplers        samplers of PyTorch and others, as the order of a source with an index
hooks           methods of a source that are called between epochs
markers         SKIP and Many: no example, or several, in place of one
"""
