"""Make the tables beside this file: an invented log of who played whom, its artists, and a knowledge graph.

`python examples/own_data/make.py` writes the same files again. Everybody has two favourite genres, and plays
little else.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).resolve().parent
GENRES = {
    "polka noir": [
        "Brass Umbrella",
        "The Midnight Accordions",
        "Oompah Fatale",
        "Cabbage Detective",
        "Slow Tuba",
        "Madame Oktober",
    ],
    "cloud disco": [
        "Fog Lamp Sisters",
        "Stratus Quo",
        "Cumulonimble",
        "The Silver Linings",
        "Drizzle Machine",
        "Vapour Plus",
    ],
    "moss folk": [
        "The Velvet Otters",
        "Fern & Daughters",
        "Lichen Hill",
        "Old Wet Stone",
        "Hedgehog Parade",
        "Toadstool Choir",
    ],
    "bakery techno": [
        "DJ Sourdough",
        "Kneadle Drop",
        "Proof Overnight",
        "Crumb Theory",
        "4 a.m. Oven",
        "Rolling Pin",
    ],
    "harbour jazz": [
        "The Tidy Anchors",
        "Gull Quartet",
        "Low Tide Five",
        "Captain Minor",
        "Rope & Tar",
        "Blue Buoy",
    ],
    "library metal": [
        "Overdue",
        "Silence Please",
        "The Card Index",
        "Dewey's Wrath",
        "Stack Collapse",
        "Late Fee",
    ],
    "garden punk": [
        "Angry Rhubarb",
        "The Compost",
        "Slug Patrol",
        "Wheelbarrow Riot",
        "Nettle Soup",
        "No Mow May",
    ],
    "tea-room soul": [
        "Miss Darjeeling",
        "The Saucers",
        "Second Cup",
        "Sugar Tongs",
        "Lady Crumpet",
        "Biscuit Weather",
    ],
}
COUNTRIES = ["Wales", "Estonia", "Portugal", "Belgium", "Slovenia", "Iceland"]
LABELS = ["Biscuit Tin Records", "Wet Wool", "Ninth Floor", "Small Hours", "Kettle & Sons", "Paper Boat"]
PRODUCERS = ["Agnes Quill", "Bo Lindqvist", "Tomaz Zupan", "Ines Farol"]
NAMES = [
    "giulia",
    "ben",
    "caro",
    "dmitri",
    "elif",
    "femi",
    "greta",
    "hana",
    "ivo",
    "jonas",
    "kofi",
    "lena",
    "mirko",
    "nadia",
    "otto",
]


def main() -> None:
    generator = np.random.default_rng(7)
    genre = np.repeat(list(GENRES), 6)
    artists = pd.DataFrame(
        {
            "artist": np.arange(101, 149),
            "name": list(chain(*GENRES.values())),
            "genre": genre,
            "country": generator.choice(COUNTRIES, 48),
        }
    )
    artists.to_csv(FOLDER / "artists.csv", index=False)

    # A label and a producer care for two or three genres each.
    number = np.repeat(np.arange(8), 6)
    triples = {
        "signed to": np.where(generator.random(48) < 0.8, number % 6, generator.integers(6, size=48)),
        "produced by": np.where(generator.random(48) < 0.8, number % 4, generator.integers(4, size=48)),
        "influenced by": number * 6 + generator.integers(6, size=48),
    }
    tails = {"signed to": LABELS, "produced by": PRODUCERS, "influenced by": artists["artist"]}
    rows = [
        (head, relation, tails[relation][tail])
        for relation, chosen in triples.items()
        for head, tail in zip(artists["artist"], chosen, strict=True)
        if tails[relation][tail] != head
    ]
    pd.DataFrame(rows, columns=["head", "relation", "tail"]).to_csv(
        FOLDER / "triples.tsv", sep="\t", index=False
    )

    known = generator.dirichlet(np.full(6, 2.0), 8).ravel()  # Some of a genre are better known.
    plays = []
    for user in (f"{name}.{suffix}" for name in NAMES for suffix in range(1, 5)):
        weight = known * 0.05
        weight[np.isin(number, generator.choice(8, 2, replace=False))] *= 25
        chosen = generator.choice(48, generator.integers(9, 14), replace=False, p=weight / weight.sum())
        times = pd.Timestamp("2025-01-01") + pd.to_timedelta(
            np.sort(generator.integers(0, 500, len(chosen))), "D"
        )
        count = 1 + generator.poisson(200 * weight[chosen])
        plays += zip(
            [user] * len(chosen), artists["artist"][chosen], count, times.strftime("%Y-%m-%d"), strict=True
        )
    table = pd.DataFrame(plays, columns=["user", "artist", "plays", "when"])
    table.sort_values("when", kind="stable").to_csv(FOLDER / "plays.csv", index=False)


if __name__ == "__main__":
    main()
