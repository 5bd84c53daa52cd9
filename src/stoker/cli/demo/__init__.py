"""`stoker demo`: the same small training run, fed by one process and by many.

The files:

    story        what happens, in order
    digits       the data and its augmentation, as a user writes them
    model        the network
    feeds        the contenders: the same code into `fit` in two ways
    race         trains a contender and measures it
    screen       progress while it works, and the table
    picture      demo.png
"""
