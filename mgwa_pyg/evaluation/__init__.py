"""How good predictions are: click metrics, the heuristics beside every model, tables of both."""

from mgwa_pyg.evaluation.heuristics import Popularity
from mgwa_pyg.evaluation.metrics import click_metrics
from mgwa_pyg.evaluation.report import PAPER, results_table, summarize

__all__ = ["PAPER", "Popularity", "click_metrics", "results_table", "summarize"]
