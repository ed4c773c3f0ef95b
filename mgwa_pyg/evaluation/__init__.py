"""How good predictions are: metrics, heuristics to beat, tests of significance, tables."""

from mgwa_pyg.evaluation.blend import blend, blend_clicks
from mgwa_pyg.evaluation.heuristics import (
    EASE,
    HEURISTICS,
    Blend,
    Heuristic,
    ItemKNN,
    LogisticStack,
    Popularity,
    SharedTails,
    fit_heuristics,
    predict_heuristics,
)
from mgwa_pyg.evaluation.link_prediction import filtered_ranks, link_prediction_metrics
from mgwa_pyg.evaluation.metrics import best_threshold, click_metrics, click_report, user_auc, user_aucs
from mgwa_pyg.evaluation.ranking import TopItems, full_ranking, ranking_metrics, top_items
from mgwa_pyg.evaluation.report import PAPER, results_table, summarize
from mgwa_pyg.evaluation.significance import corrected_t_test, holm, paired_test

__all__ = [
    "EASE",
    "HEURISTICS",
    "PAPER",
    "Blend",
    "Heuristic",
    "ItemKNN",
    "LogisticStack",
    "Popularity",
    "SharedTails",
    "TopItems",
    "best_threshold",
    "blend",
    "blend_clicks",
    "click_metrics",
    "click_report",
    "corrected_t_test",
    "filtered_ranks",
    "fit_heuristics",
    "full_ranking",
    "holm",
    "link_prediction_metrics",
    "paired_test",
    "predict_heuristics",
    "ranking_metrics",
    "results_table",
    "summarize",
    "top_items",
    "user_auc",
    "user_aucs",
]
