"""Delivers batches to the trainer.

    tensorflow       a Loader as a `tf.data.Dataset`
    iterators        the iterators that TensorFlow calls for batches
    padded           filled-up batches, in the form that Keras computes with correctly
    batch_iterator   one iteration, batch after batch
    numpy            a batch in NumPy's form
    resume_file      the file that `stoker.keras.ResumableData` keeps
    trackable        the position in the data, within a `tf.train.Checkpoint`

Beside `stoker.keras` and the demo, only this folder imports TensorFlow, inside functions. It
depends on producers of batches, not on the Loader.
"""
