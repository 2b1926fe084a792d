"""oneDNN while decoding; tests/inference/test_generation.py has the attributes of modules."""

from __future__ import annotations

import torch

from modgpt.kernels.decoding import modules_as_attributes, without_onednn


def test_onednn_is_left_out_of_fp32_alone_and_comes_back() -> None:
    enabled = torch.backends.mkldnn.enabled
    with without_onednn(torch.float32):
        assert not torch.backends.mkldnn.enabled
    with without_onednn(torch.bfloat16):
        assert torch.backends.mkldnn.enabled == enabled
    with torch.autocast("cpu", torch.bfloat16), without_onednn(torch.float32):
        assert torch.backends.mkldnn.enabled == enabled
    assert torch.backends.mkldnn.enabled == enabled


def test_modules_as_attributes_changes_no_output_and_comes_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU())
    before, x = [set(vars(module)) for module in model.modules()], torch.randn(2, 3)
    wanted = model(x)
    with modules_as_attributes(model):
        assert {"weight", "bias"} <= set(vars(model[0]))
        assert torch.equal(model(x), wanted)
    assert [set(vars(module)) for module in model.modules()] == before
