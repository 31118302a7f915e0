"""Where the packages of `pip install recmill[cuda]` are found; what they compile is tested where there are kernels."""

from __future__ import annotations

import os

from recmill import _cuda


def test_packages_are_found_without_any_variable(tmp_path, monkeypatch):
    (tmp_path / "nvidia" / "cu13" / "include").mkdir(parents=True)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    _cuda.point_to_packages()
    assert os.environ["CUDA_PATH"] == str(tmp_path / "nvidia" / "cu13")


def test_a_variable_that_is_set_goes_first(tmp_path, monkeypatch):
    (tmp_path / "nvidia" / "cu13" / "include").mkdir(parents=True)
    monkeypatch.setenv("CUDA_PATH", "/opt/cuda")
    monkeypatch.syspath_prepend(str(tmp_path))
    _cuda.point_to_packages()
    assert os.environ["CUDA_PATH"] == "/opt/cuda"


def test_a_folder_without_headers_is_none(tmp_path):
    (tmp_path / "nvidia" / "cu13").mkdir(parents=True)
    assert _cuda.folder([str(tmp_path)]) is None
