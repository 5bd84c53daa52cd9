"""The form of examples and batches: nested structure, leaves, shapes and dtypes. Pure.

values        the values of leaves, in one of three canonical forms
lists         which lists are arrays, and which are containers
foreign       PyTorch tensors and JAX sparse arrays as NumPy arrays
casting       checked conversion of numbers from one dtype to another
spec          nested structure <-> flat leaves; shapes and dtypes
merging       one spec from the specs of several examples or batches
collation     how examples become a batch: stack, pad, ragged
signature     the form of batches, as declared by `output_signature`
tensorproto   arrays encoded as TensorFlow's `TensorProto`
"""
