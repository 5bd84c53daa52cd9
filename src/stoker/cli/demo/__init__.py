"""`stoker demo`: the same small training run, fed by one process and by many.

The files:

    story        what happens, in order
    digits       the data and its augmentation, as a user would write them
    model        the network
    feeds        the contenders: two ways to feed the same code into `fit`
    race         trains a contender and measures it
    screen       the progress display and the table of results
    picture      demo.png
"""
