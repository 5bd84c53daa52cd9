"""Texts and their tokens, of varying lengths: padded, then ragged.

The reviews consist of good, bad and plain words; one with more good words than bad ones is positive. A tokeniser in
plain Python (yours may be any library) runs in the workers. `collate` says how the tokens of a batch are joined: "pad"
fills shorter ones with zeros, and "ragged" makes a `tf.RaggedTensor`.

The script prints a padded and a ragged batch, checks that they hold the same tokens, and prints the accuracy of a model
trained with each.

    python examples/text.py
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import stoker

GOOD = "great lovely moving clever funny brilliant charming superb".split()
BAD = "dull awful boring clumsy silly bland tedious poor".split()
PLAIN = "the a film plot actor scene music was and but with of it very quite rather".split()
VOCABULARY = {word: number for number, word in enumerate(GOOD + BAD + PLAIN, 1)}  # 0 is reserved for padding


def write_reviews(count: int) -> list[tuple[str, bool]]:
    """Make reviews of 5 to 40 words, and whether each is positive."""
    rng = np.random.default_rng(4)
    reviews = []
    for _ in range(count):
        good, bad = rng.choice(6, 2, replace=False)  # never the same number of both
        plain = rng.integers(4, 31)
        words = [*rng.choice(GOOD, good), *rng.choice(BAD, bad), *rng.choice(PLAIN, plain)]
        reviews.append((" ".join(rng.permutation(words)), bool(good > bad)))
    return reviews


def tokenise(review: tuple[str, bool]) -> Any:
    """Return the text, its tokens as a list of numbers, and the label. A transform, which runs in the workers."""
    text, positive = review
    return {"text": text, "tokens": [VOCABULARY[word] for word in text.split()]}, positive


def loader(reviews: list[tuple[str, bool]], tokens: str, shuffle: bool = False) -> stoker.Loader:
    """Return a Loader of batches of 32, with tokens joined in the given way; texts and labels are stacked."""
    collate = {(0, "tokens"): tokens}  # their path in the example: the first of the pair, key "tokens"
    return stoker.Loader(reviews, batch_size=32, shuffle=shuffle, seed=4, transform=tokenise, collate=collate)


class MeanOfWords(keras.layers.Layer):
    """The mean of a text's word embeddings, for padded batches (0 is no word) and ragged ones."""

    def __init__(self, words: int, size: int) -> None:
        super().__init__()
        self.embedding = keras.layers.Embedding(words, size)

    def call(self, tokens: Any) -> Any:
        """Map tokens of shape (batch, None) to (batch, size)."""
        if isinstance(tokens, tf.RaggedTensor):
            return tf.reduce_mean(tf.ragged.map_flat_values(self.embedding, tokens), axis=1)
        is_word = tf.cast(tokens != 0, tf.float32)[..., None]
        return tf.reduce_sum(self.embedding(tokens) * is_word, axis=1) / tf.reduce_sum(is_word, axis=1)


def only_tokens(features: dict[str, tf.Tensor], positive: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what the model is trained on."""
    return features["tokens"], positive


def accuracy(tokens: str, train: list[Any], held_out: list[Any]) -> float:
    """Train a classifier on tokens joined in the given way, and return its accuracy on new reviews."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential([MeanOfWords(1 + len(VOCABULARY), 8), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    with loader(train, tokens, shuffle=True) as training, loader(held_out, tokens) as testing:
        model.fit(training.to_tf().map(only_tokens), epochs=3, verbose=2)
        _, share = model.evaluate(testing.to_tf().map(only_tokens), verbose=0)
    print(f"accuracy with {tokens} tokens, on new reviews: {share:.1%}")
    return float(share)


def main() -> None:
    """Show a batch of each kind and train with each."""
    reviews = write_reviews(3000)
    with loader(reviews, "pad") as padding, loader(reviews, "ragged") as ragging:
        (padded, _), (ragged, _) = next(iter(padding.to_tf())), next(iter(ragging.to_tf()))
    print(f"text:   {padded['text'][0].numpy().decode()}")
    print(f"padded: {padded['tokens'].shape}, the first: {padded['tokens'][0].numpy()}")
    print(f"ragged: {ragged['tokens'].shape}, the first: {ragged['tokens'][0].numpy()}")
    assert np.array_equal(ragged["tokens"].to_tensor(), padded["tokens"])
    assert np.array_equal(ragged["text"], padded["text"])

    for tokens in ("pad", "ragged"):
        assert accuracy(tokens, reviews[:2500], reviews[2500:]) > 0.9, "the model did not learn"


if __name__ == "__main__":
    main()
