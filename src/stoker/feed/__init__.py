"""Towards the trainer.

    tensorflow       a Loader as a `tf.data.Dataset`
    iterators        what TensorFlow calls to get the batches
    padded           batches that are filled up, as Keras can count with them
    batch_iterator   one iteration, batch after batch
    numpy            a batch as NumPy gives it
    resume_file      the file that `stoker.keras.ResumableData` keeps
    trackable        the place in the data, within a `tf.train.Checkpoint`

Only this folder imports TensorFlow, inside functions. It knows producers of batches, and no Loader.
"""
