import math

import pytest
import torch

from hpresil.base.errors import ConfigError
from hpresil.recipes.llama.config import LlamaConfig
from hpresil.recipes.llama.model import Llama, RMSNorm, rotary_table, rotate

SMALL = LlamaConfig(dim=32, layers=2, heads=2, hidden=48, max_seq_len=16)


def build(config: LlamaConfig = SMALL, seed: int = 0) -> Llama:
    torch.manual_seed(seed)
    return Llama(config)


def some_tokens(batch: int = 2, length: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 257, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_logits_have_one_row_of_the_vocabulary_per_position():
    logits = build()(some_tokens(3, 7))
    assert logits.shape == (3, 7, 257)
    assert logits.dtype == torch.float32


def test_a_sequence_longer_than_the_rotary_table_is_refused():
    with pytest.raises(ValueError, match="17 tokens; the model takes 16"):
        build()(some_tokens(1, 17))


def test_a_position_does_not_see_later_tokens():
    model = build().eval()
    tokens = some_tokens(1)
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 257
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-6)
    assert (before[:, 9] - after[:, 9]).abs().max() > 1e-3


def test_the_first_token_is_seen_by_the_last_position():
    model = build().eval()
    tokens = some_tokens(1)
    changed = tokens.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 257
    assert not torch.equal(model(tokens)[:, -1], model(changed)[:, -1])


def test_rotary_products_depend_on_the_distance_only():
    generator = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, 8, generator=generator, dtype=torch.float32)
    table = rotary_table(64, 8, 10_000.0)
    queries = rotate(query.expand(1, 1, 64, 8), table)[0, 0]
    keys = rotate(key.expand(1, 1, 64, 8), table)[0, 0]
    products = queries @ keys.T
    for distance in (0, 1, 5, 31):
        diagonal = products.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)


def test_rotary_keeps_lengths_and_leaves_position_zero_alone():
    x = torch.randn(1, 1, 16, 8, generator=torch.Generator().manual_seed(4))
    turned = rotate(x, rotary_table(16, 8, 10_000.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[..., 0, :], x[..., 0, :])


def test_rms_norm_gives_a_mean_square_of_one():
    x = 7 * torch.randn(5, 32, generator=torch.Generator().manual_seed(5))
    mean_square = RMSNorm(32, 1e-5)(x).square().mean(-1)
    torch.testing.assert_close(mean_square, torch.ones(5), rtol=1e-4, atol=1e-4)


def test_the_default_size_is_between_three_and_ten_million_parameters():
    config = LlamaConfig()
    count = sum(p.numel() for p in build(config).parameters())
    block = 4 * config.dim**2 + 3 * config.dim * config.hidden + 2 * config.dim
    assert count == config.vocabulary * config.dim + config.layers * block + config.dim
    assert 3_000_000 <= count <= 10_000_000


def test_the_output_layer_is_the_embedding():
    model = build()
    assert model.output.weight is model.embedding.weight
    assert {"output.weight", "embedding.weight"} <= set(model.state_dict())
    assert sum(p is model.embedding.weight for p in model.parameters()) == 1


def test_every_parameter_gets_a_gradient():
    model = build()
    model(some_tokens()).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_weights_follow_the_seed():
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_branches_into_the_residual_stream_start_smaller():
    block = build(LlamaConfig()).blocks[0]
    narrow = 0.02 / math.sqrt(8)
    assert block.attention.out.weight.std().item() == pytest.approx(narrow, rel=0.05)
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


def gradient(model: Llama, seed: int) -> torch.Tensor:
    model.zero_grad()
    torch.manual_seed(seed)
    logits = model(some_tokens())
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), some_tokens(seed=2).flatten()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_dropout_follows_the_default_generator():
    model = build()
    assert torch.equal(gradient(model, 11), gradient(model, 11))
    assert not torch.equal(gradient(model, 11), gradient(model, 12))


def test_dropout_is_off_in_evaluation():
    model = build().eval()
    assert torch.equal(gradient(model, 11), gradient(model, 12))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 30, "heads": 4}, "dim 30 must be an even multiple of heads 4"),
        ({"dim": 12, "heads": 4}, "dim 12 must be an even multiple of heads 4"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        LlamaConfig(**sizes)
