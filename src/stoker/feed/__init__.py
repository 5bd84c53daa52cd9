"""Towards the trainer.

    tensorflow   a Loader as a `tf.data.Dataset`

Only this folder imports TensorFlow, inside functions. NumPy iteration needs no feed: it is `Loader.__iter__`.
"""
