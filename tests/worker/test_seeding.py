from __future__ import annotations

import random
import subprocess
import sys

import numpy as np

from stoker.worker.user_code.seeding import LazyRandom, Seeder


def draws(generator: random.Random) -> list[object]:
    items = list(range(20))
    generator.shuffle(items)
    return [
        generator.random(),
        generator.randint(0, 99),
        generator.gauss(0, 1),
        generator.sample(range(50), 5),
        generator.choices("abc", k=4),
        generator.uniform(0, 1),
        generator.getrandbits(70),
        generator.randbytes(5),
        generator.betavariate(1, 2),
        generator.normalvariate(0, 1),
        items,
    ]


def test_a_lazily_seeded_random_draws_what_a_seeded_one_draws() -> None:
    lazy = LazyRandom(0)
    for seed in (1, 2**63, 7):
        lazy.gauss(0, 1)  # leaves a second number behind, which must not be drawn after the next seed
        lazy.pending = seed
        assert draws(lazy) == draws(random.Random(seed))
        lazy.pending = seed
        assert lazy.getstate() == random.Random(seed).getstate()
        lazy.pending = seed
        lazy.seed(3)
        assert lazy.random() == random.Random(3).random()


def test_all_functions_of_the_module_draw_lazily_in_a_worker() -> None:
    code = (
        "import random; from stoker.worker.user_code.seeding import install_lazy_random; lazy = install_lazy_random()\n"
        "names = [n for n in random.__all__ if hasattr(getattr(random, n), '__self__')]\n"
        "assert len(names) > 15 and all(getattr(random, n).__self__ is lazy for n in names), names"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_generator_depends_on_the_seed_alone_and_seeds_differ() -> None:
    seeder = Seeder(5, None)
    seeds = [
        *seeder.seeds(0, np.arange(1000)),
        *seeder.seeds(1, np.arange(1000)),
        *Seeder(6, None).seeds(0, np.arange(1000)),
    ]
    assert len(set(seeds)) == 3000
    first = seeder.rng(seeds[0]).random(3)
    assert not np.array_equal(seeder.rng(seeds[1]).random(3), first)
    assert np.array_equal(seeder.rng(seeds[0]).random(3), first)


def test_numbers_of_neighbouring_examples_and_epochs_are_uncorrelated() -> None:
    seeder = Seeder(0, None)
    numbers = np.array(
        [[seeder.rng(seed).random() for seed in seeder.seeds(epoch, np.arange(4000))] for epoch in (0, 1)]
    )
    for one, other in ((numbers[0, :-1], numbers[0, 1:]), (numbers[0], numbers[1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / np.sqrt(len(one))
    assert abs(numbers.mean() - 0.5) < 0.02
