"""Delivers batches to the trainer.

    tensorflow        a Loader as a `tf.data.Dataset`
    generator_op      batches as a dataset, on the op beneath `Dataset.from_generator`
    iterators         the iterators that TensorFlow calls for batches
    tensor_specs      the specs, dtypes and order of a batch's arrays in TensorFlow
    unbatched         single examples, with the shapes that they had
    dataset_classes   datasets and iterators that count, refuse, or adapt to Keras' loops
    iterators_ahead   the iterator of the next epoch of `fit`, created while this one is read
    padded            filled-up batches, in the form that Keras computes with correctly
    keras_data        a Loader as the data that Keras takes on its backend
    keras_classes     that data on JAX and PyTorch, as subclasses of Keras' own classes
    keras_iterations  the iterations that Keras makes of it, and its looks ahead
    keras_frames      what Keras is doing when it asks for data
    keras_batches     the arrays of a batch as the batch that Keras gets
    jax_arrays        batches for JAX
    torch_tensors     batches as PyTorch tensors
    densify           ragged and sparse values as plain arrays
    class_weights     weights of examples by the classes of their targets
    batch_iterator    one iteration, batch after batch
    numpy             a batch in NumPy's form
    resume_file       the file that `stoker.keras.ResumableData` keeps
    trackable         the position in the data, within a `tf.train.Checkpoint`
    lazy_tensorflow   the import of TensorFlow

Beside `stoker.keras` and the demo, only this folder imports TensorFlow, Keras, JAX and PyTorch,
inside functions. It depends on producers of batches, not on the Loader.
"""
