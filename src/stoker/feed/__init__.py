"""Towards the trainer.

    tensorflow   a Loader as a `tf.data.Dataset`
    arrays       a batch as NumPy gives it

Only this folder imports TensorFlow, inside functions.
"""
