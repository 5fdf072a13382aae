"""Trains the scikit-learn model of both servers and writes it to the folder of the first argument."""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, species = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=1000).fit(features, species)
joblib.dump(model, Path(sys.argv[1]) / "model.joblib")
