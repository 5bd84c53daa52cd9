"""What an example and a batch look like: nested structure, leaves, shapes and dtypes. Pure.

values        what may stand at a leaf, in one of three forms
lists         which lists are arrays, and which are containers
foreign       tensors of PyTorch and sparse arrays of JAX as NumPy arrays
casting       numbers of one dtype as numbers of another
spec          nested structure <-> flat leaves; shapes and dtypes
merging       one spec of the specs of several examples or batches
collation     how examples become a batch: stack, pad, ragged
signature     what batches look like, where `output_signature` says so
tensorproto   arrays as the bytes of TensorFlow's `TensorProto`
"""
