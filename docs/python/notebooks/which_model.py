# %% [markdown]
# # Which model suits these data?
#
# Made-up film watchers with tastes of their own, every model beside what is merely popular, and a look at who is served badly.
# Run it as a script (`python which_model.py OUT` leaves two pictures in OUT) or cell by cell as a notebook.

# %%
from __future__ import annotations

import pathlib
import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

import recmill
from recmill.evaluation import ranking_metrics_at_k, train_test_split

out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# %% [markdown]
# A thousand users with two tastes each out of twelve, four hundred films, a long tail of popularity.

# %%
rng = np.random.default_rng(0)
n_users, n_films, n_tastes = 1000, 400, 12
film_taste = rng.integers(0, n_tastes, n_films)
popularity = 1.0 / np.arange(1, n_films + 1) ** 0.7
user_tastes = rng.random((n_users, n_tastes)).argsort(axis=1)[:, :2]
liking = 0.08 + 1.6 * (film_taste[None, :, None] == user_tastes[:, None, :]).any(axis=2)
watched = rng.random((n_users, n_films)) < np.minimum(liking * popularity, 0.9)
likes = sp.csr_matrix(watched.astype(np.float32))
train, test = train_test_split(likes, 0.8, random_state=0)
print(f"{likes.nnz} pairs, {likes.nnz / n_users:.0f} a user")

# %% [markdown]
# Every model with a setting that suits a set of this size.

# %%
cpu: dict[str, Any] = {"device": "cpu", "random_state": 0}
models: dict[str, recmill.Recommender] = {
    "popular": recmill.MostPopular(**cpu),
    "cosine": recmill.CosineRecommender(K=50),
    "ease": recmill.Ease(**cpu),
    "bpr": recmill.BayesianPersonalizedRanking(factors=16, iterations=100, learning_rate=0.05, **cpu),
    "als": recmill.AlternatingLeastSquares(factors=16, unobserved_weight=0.2, regularization=0.02, **cpu),
}
ndcg = {}
for name, model in models.items():
    model.fit(train, show_progress=False)
    ndcg[name] = ranking_metrics_at_k(model, train, test, K=10, show_progress=False)["ndcg"]
    print(f"{name:8} ndcg@10 {ndcg[name]:.3f}")

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.barh(list(ndcg), list(ndcg.values()), color=["0.7"] + ["tab:blue"] * (len(ndcg) - 1))
axes.set_xlabel("ndcg@10 of what was held out")
figure.savefig(out / "which_model.png", dpi=100)

# %% [markdown]
# A mean hides people. The users by how much they had watched: who is served badly?

# %%
had = np.diff(train.indptr)
edges = np.quantile(had, [0, 0.25, 0.5, 0.75, 1.0])
groups = [np.flatnonzero((had >= low) & (had <= high)) for low, high in zip(edges[:-1], edges[1:])]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name in ("popular", "als"):
    means = []
    for users in groups:
        keep = np.zeros(n_users, dtype=np.float32)
        keep[users] = 1
        some = sp.csr_matrix(sp.diags(keep) @ test)
        some.eliminate_zeros()
        means.append(ranking_metrics_at_k(models[name], train, some, K=10, show_progress=False)["ndcg"])
    axes.plot(range(1, 5), means, marker="o", label=name)
axes.set_xticks(range(1, 5), ["least", "", "", "most"])
axes.set_xlabel("how much they had watched")
axes.set_ylabel("ndcg@10")
axes.legend()
figure.savefig(out / "who_is_served.png", dpi=100)
