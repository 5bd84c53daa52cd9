"""The form of examples and batches: nested structure, leaves, shapes and dtypes. Pure.

forms         the three canonical forms of values: dense, ragged, sparse
values        any value that a leaf may have, converted to one of these
lists         which lists are arrays, and which are containers
foreign       PyTorch tensors and JAX sparse arrays as NumPy arrays
casting       checked conversion of numbers from one dtype to another
nesting       nested structure <-> flat leaves
leaf          the shape and dtype of one leaf
spec          the nesting and the leaves of an example or a batch
merging       one spec from the specs of several examples or batches
collation     how examples become a batch: stack, pad, ragged
signature     the form of batches, as declared by `output_signature`
tensorproto   arrays encoded as TensorFlow's `TensorProto`
"""
