"""Towards the trainer.

    tensorflow   a Loader as a `tf.data.Dataset`
    iterators    what TensorFlow calls to get the batches
    padded       batches that are filled up, as Keras can count with them
    arrays       a batch as NumPy gives it
    keras        a callback: training that goes on where it stopped
    checkpoint   the file that it keeps
    trackable    the place in the data, within a `tf.train.Checkpoint`

Only this folder imports TensorFlow, inside functions; `keras` is loaded when it is asked for.
"""
