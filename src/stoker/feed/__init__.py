"""Towards the trainer.

    tensorflow       a Loader as a `tf.data.Dataset`
    iterators        what TensorFlow calls to get the batches
    padded           batches that are filled up, as Keras can count with them
    numpy            a batch as NumPy gives it
    resumable_data   a Keras callback: training that goes on where it stopped
    resume_file      the file that it keeps
    trackable        the place in the data, within a `tf.train.Checkpoint`

Only this folder imports TensorFlow, inside functions; `resumable_data` is loaded when it is asked for.
"""
