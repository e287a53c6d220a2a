"""Evaluation: agreement of any Scorer with human scores. What is served is what is measured."""

from training.evaluation.measure import agreement, evaluate, to_accuracy
from training.evaluation.results import Agreement, DataSet, Evaluation, Mapped, Row, ViewsRow

__all__ = [
    "Agreement",
    "DataSet",
    "Evaluation",
    "Mapped",
    "Row",
    "ViewsRow",
    "agreement",
    "evaluate",
    "to_accuracy",
]
