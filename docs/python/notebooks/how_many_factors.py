# %% [markdown]
# # How many factors, how much regularization?
#
# scikit-learn's grid search over a recmill model, and how the loss falls while it learns.
# Run it as a script (`python how_many_factors.py OUT` leaves two pictures in OUT) or cell by cell as a notebook.

# %%
from __future__ import annotations

import pathlib
import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from sklearn.model_selection import GridSearchCV

import recmill

out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# %% [markdown]
# Users and items have eight hidden traits; who meets whom follows from them.

# %%
rng = np.random.default_rng(1)
users, items = rng.normal(size=(600, 8)), rng.normal(size=(300, 8))
chance = 1.0 / (1.0 + np.exp(3.2 - users @ items.T))
likes = sp.csr_matrix((rng.random(chance.shape) < chance).astype(np.float32))
print(f"{likes.shape[0]} users, {likes.shape[1]} items, {likes.nnz} pairs")

# %% [markdown]
# `score` hides a third of what each user of a fold had and looks for it from the rest: these users were not seen in training.

# %%
model = recmill.AlternatingLeastSquares(unobserved_weight=0.3, iterations=8, random_state=0, device="cpu")
grid: dict[str, Any] = {"factors": [2, 4, 8, 16, 32], "regularization": [0.01, 0.1, 1.0]}
search = GridSearchCV(model, grid, cv=3, refit=True)
search.fit(likes, show_progress=False)
print("best:", search.best_params_, f"ndcg@10 {search.best_score_:.3f}")

# %%
table = search.cv_results_
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for regularization in grid["regularization"]:
    chosen = [at for at, params in enumerate(table["params"]) if params["regularization"] == regularization]
    scores = [table["mean_test_score"][at] for at in chosen]
    axes.plot(grid["factors"], scores, marker="o", label=f"regularization {regularization:g}")
axes.set_xscale("log", base=2)
axes.set_xlabel("factors")
axes.set_ylabel("ndcg@10 of new users")
axes.legend()
figure.savefig(out / "how_many_factors.png", dpi=100)

# %% [markdown]
# The loss of each iteration: where the curve is flat, more iterations only cost time.

# %%
best = recmill.AlternatingLeastSquares(
    unobserved_weight=0.3,
    iterations=15,
    random_state=0,
    device="cpu",
    calculate_training_loss=True,
    **search.best_params_,
)
best.fit(likes, show_progress=False)
losses = [loss for loss in best.loss_curve_ if loss is not None]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(range(1, len(losses) + 1), losses, marker="o")
axes.set_xlabel("iteration")
axes.set_ylabel("loss")
figure.savefig(out / "loss.png", dpi=100)
