"""From tables of one's own to a recommendation, and to a service."""

import pytest

from mgwa_pyg.recommend import Recommender
from tests.examples.run import EXAMPLES, run_example
from tests.machine import skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run that the example leaves, and what it prints."""
    folder = tmp_path_factory.mktemp("own") / "run"
    status, out, _ = run_example("own_data", "--out", folder)
    assert status == 0
    return folder, out


def test_it_recommends_what_somebody_likes(run):
    folder, out = run
    recommender = Recommender.load(folder)
    table = recommender.recommend("giulia.2", 5)
    assert all(name in out for name in table["name"])
    assert str(recommender.explain("giulia.2", table["item"][0])) in out
    # Her log is of polka noir and garden punk.
    genres = {}
    for line in (EXAMPLES / "own_data" / "artists.csv").read_text().splitlines()[1:]:
        number, _, genre, _ = line.split(",")
        genres[int(number)] = genre
    assert [genres[item] in ("polka noir", "garden punk") for item in table["item"]].count(True) >= 4
    recalls = {line.split()[0]: float(line.split()[1]) for line in out.splitlines()[-5:]}
    assert recalls["collaborative"] > max(recalls["popularity"], recalls["item-knn"])


def test_a_service_answers_as_the_recommender_does(run, monkeypatch):
    try:
        from fastapi.testclient import TestClient
    except ImportError:
        skip("fastapi or httpx is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    from serve import make_app

    folder, _ = run
    recommender, client = Recommender.load(folder), TestClient(make_app(folder))

    def got(path, **params):
        answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    some = ["Gull Quartet", "Kneadle Drop", "Slow Tuba"]
    known = recommender.recommend("ben.1", 2, candidates=some, exclude=some[:1])
    asked = got("/recommend/ben.1", k=2, candidates=some, exclude=some[:1])
    assert asked == known.to_dict("records")
    known = recommender.recommend_for(["Gull Quartet", 101], 3)
    assert got("/newcomer", items=["Gull Quartet", "101"], k=3) == known.to_dict("records")
    assert got("/similar/101", k=3) == recommender.similar_items(101, 3).to_dict("records")
    why = recommender.explain("ben.1", 101)
    answer = {"item": 101, "name": "Brass Umbrella", "score": why.score, "sentence": str(why)}
    assert got("/explain/ben.1/101") == answer
    refused = client.get("/recommend/nobody")
    assert refused.status_code == 404
    assert refused.json()["detail"].startswith("no user has the id 'nobody'")
