"""WHERE examples come from: one module for each kind of source, and the markers that a transform may return.

source          the protocol of all sources
sharded         the protocol of sources whose shards workers open
map_style       sources with `__len__` and `__getitem__`, random access
arrays          arrays, read by rows
columns         tables, lists and sparse matrices as arrays
stored_arrays   arrays in HDF5 and zarr files
generator       a generator function over shards
iterable        an iterable, pulled in the trainer item by item
recognise       which of these an object given to a Loader becomes
classes         objects of other libraries, told by the names of their classes
keras_dataset   Keras datasets, whose elements are already batches
hugging_face    Hugging Face datasets, by index or by their own shards
grain_dataset   Grain datasets that are read by index
tfds_source     data sources of TensorFlow Datasets
tf_dataset      a tf.data.Dataset, pulled in the trainer
chosen          the choice of columns from examples that are dicts
torch_dataset   PyTorch's map-style datasets
torch_iterable  PyTorch's `IterableDataset`, each shard as one of PyTorch's workers
torch_loader    PyTorch's `DataLoader`, whose options become arguments of the Loader
torch_worker    what the user's PyTorch code sees in a worker: `get_worker_info()`
copies          copies of a dataset in one process, which share its large arrays
mistaken        objects that are not map-style sources, and which function takes them
samplers        samplers of PyTorch and others, as the order of a source with an index
hooks           methods of a source that are called between epochs
first_step      a source's own step on each element, before the transform
markers         SKIP and Many: no example, or several, in place of one
"""
