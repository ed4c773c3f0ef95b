"""Serve a run over HTTP: `python examples/serve.py runs/mine`, then http://localhost:8000/docs.

It needs `pip install fastapi uvicorn`.
"""

import argparse
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse

from mgwa_pyg.recommend import Recommender

Items = Annotated[list[str] | None, Query()]


def make_app(run: Path | str) -> FastAPI:
    """Return an application that answers from a run folder."""
    recommender = Recommender.load(run)
    app = FastAPI(title="Recommendations")

    @app.get("/recommend/{user}")
    def recommend(
        user: str, k: int = 10, candidates: Items = None, exclude: Items = None
    ) -> list[dict[str, Any]]:
        table = recommender.recommend(user, k, candidates=candidates, exclude=exclude)
        return table.to_dict("records")

    @app.get("/newcomer")
    def newcomer(items: Annotated[list[str], Query()], k: int = 10) -> list[dict[str, Any]]:
        return recommender.recommend_for(items, k).to_dict("records")

    @app.get("/similar/{item}")
    def similar(item: str, k: int = 10) -> list[dict[str, Any]]:
        return recommender.similar_items(item, k).to_dict("records")

    @app.get("/explain/{user}/{item}")
    def explain(user: str, item: str) -> dict[str, Any]:
        why = recommender.explain(user, item)
        return {"item": why.item, "name": why.name, "score": why.score, "sentence": why.sentence()}

    @app.exception_handler(IndexError)
    @app.exception_handler(ValueError)
    def refused(request: Request, error: Exception) -> JSONResponse:
        """Say what is wrong with a question, such as a user that is not there."""
        return JSONResponse({"detail": str(error)}, status_code=404)

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("run", type=Path, help="a run folder, as `mgwa-pyg fit` leaves it")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    import uvicorn

    uvicorn.run(make_app(args.run), port=args.port)
