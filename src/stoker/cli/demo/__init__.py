"""`stoker demo`: the same small training run, fed by one process and by many.

The files:

    story.py     what happens, in order
    digits.py    the data and its augmentation, as a user writes them
    model.py     the network
    feeds.py     the contenders: the same code into `fit` in two ways
    race.py      trains a contender and measures it
    screen.py    progress while it works, and the table
    picture.py   demo.png
"""
