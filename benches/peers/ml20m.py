"""The synthetic matrix that the comparisons share, and how it lies in files.

Of the shape of MovieLens-20M: 138,493 x 26,744, about 18.2 million non-zeros, long-tailed users and items.
"""

import numpy
import scipy.sparse

N_USERS, N_ITEMS, DRAWS = 138_493, 26_744, 21_700_000


def interactions(seed=0):
    """Users draw from a long-tailed catalogue; repeats fall away. Both tails follow MovieLens-20M's quantiles."""
    random = numpy.random.default_rng(seed)
    degree = 20 + random.lognormal(3.87, 1.38, N_USERS)
    degree = numpy.minimum(degree * (DRAWS / degree.sum()), 9254).astype(numpy.int64)
    ranks = [1, 100, 1000, 3000, 5000, 10_000, 13_400, 20_000, N_ITEMS]
    counts = [67_000, 30_000, 5200, 1150, 400, 50, 18, 4, 1]
    popularity = numpy.exp(numpy.interp(numpy.arange(1, N_ITEMS + 1), ranks, numpy.log(counts)))
    cumulative = numpy.cumsum(popularity / popularity.sum())
    users = numpy.repeat(numpy.arange(N_USERS), degree)
    items = numpy.searchsorted(cumulative, random.random(len(users)))
    items = random.permutation(N_ITEMS)[numpy.minimum(items, N_ITEMS - 1)]
    pairs = numpy.unique(users * N_ITEMS + items)
    values = random.integers(1, 6, len(pairs)).astype(numpy.float32)
    return scipy.sparse.csr_matrix((values, (pairs // N_ITEMS, pairs % N_ITEMS)), shape=(N_USERS, N_ITEMS))


def npz(work):
    """Where `load` keeps it for scipy."""
    return work / "ml20m-shape.npz"


def binary(work):
    """Where `load` keeps it for benches/examples, as `write` does."""
    return work / "ml20m-shape.bin"


def write(path, matrix):
    """Sizes u64, row pointers u64, columns u32, values f32."""
    with open(path, "wb") as file:
        numpy.array([*matrix.shape, matrix.nnz], dtype="<u8").tofile(file)
        matrix.indptr.astype("<u8").tofile(file)
        matrix.indices.astype("<u4").tofile(file)
        matrix.data.astype("<f4").tofile(file)


def load(work):
    """Returns the matrix by user, made on the first call and kept in both files under `work`."""
    if not npz(work).exists():
        work.mkdir(parents=True, exist_ok=True)
        scipy.sparse.save_npz(npz(work), interactions(), compressed=False)
    matrix = scipy.sparse.load_npz(npz(work))
    if not binary(work).exists():
        write(binary(work), matrix)
    return matrix
