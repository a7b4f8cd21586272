"""inside.torch.GRU beside torch.nn.GRU: the same numbers, gradients, draws, state and manners."""

import copy
import doctest
import pickle
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import gru_jax as gj
from gru_jax import inside
from gru_jax.inside import torch_run
from gru_jax.scans import passes
from gru_jax.scans.engines import registry

torch = pytest.importorskip("torch")
nn, ours = torch.nn, inside.torch
pack_padded_sequence, pad_packed_sequence = nn.utils.rnn.pack_padded_sequence, nn.utils.rnn.pad_packed_sequence

T, B, I, H = 17, 3, 2, 4
LENGTHS = [4, 17, 2]

MADE: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-bias": {"bias": False},
    "two-ways": {"bidirectional": True},
    "two-layers": {"num_layers": 2},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.4},
    "all-dropped": {"num_layers": 2, "dropout": 1.0},
}
CALLS = ("zeros", "states", "one", "one-states", "sorted", "unsorted", "packed-states")
QUICK = {("all", "states"), ("all", "packed-states"), ("no-bias", "one-states"), ("two-ways", "unsorted")}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which programs were run, in order; every test may compile as many as it wants."""
    seen: list[str] = []
    monkeypatch.setattr(ours, "_programs", set())

    def noting(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (seen.append(name), run(*args))[1]

    for name in ("alone", "forward", "backward"):
        monkeypatch.setattr(torch_run, name, noting(name, getattr(torch_run, name)))
    return seen


def pair(**options: Any) -> tuple[Any, Any]:
    """Ours and torch's with the same parameters."""
    torch.manual_seed(0)
    mine = inside.torch.GRU(I, H, **options)
    stock = nn.GRU(I, H, **options)
    stock.load_state_dict(mine.state_dict())
    return mine, stock


def close(ours: Any, theirs: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(1.0, float(b.detach().abs().max())))


def outcome(module: Any, x: Any, hx: Any, lengths: list[int] | None, sort: bool = False) -> list[Any]:
    """The outputs of a call, and the gradients of all that went into it."""
    torch.manual_seed(1)
    x, hx = x.clone().requires_grad_(), None if hx is None else hx.clone().requires_grad_()
    module.zero_grad()
    given = x
    if lengths is not None:
        given = pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=sort)
    y, h = module(given, hx)
    y = y if lengths is None else pad_packed_sequence(y, batch_first=module.batch_first)[0]
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    ((y * weights).sum() + h.cos().sum()).backward()
    return [y, h, x.grad, *([] if hx is None else [hx.grad]), *(p.grad for p in module.parameters())]


@pytest.mark.parametrize(
    ("made", "call"),
    [
        pytest.param(made, call, marks=() if (made, call) in QUICK else pytest.mark.slow)
        for made in MADE
        for call in CALLS
    ],
)
def test_values_and_all_gradients_are_torch_s(made: str, call: str, runs: list[str]) -> None:
    mine, stock = pair(**MADE[made])
    batch = () if call.startswith("one") else (B,)
    x = torch.randn(*((*batch, T) if mine.batch_first else (T, *batch)), I)
    rows = mine.num_layers * (1 + mine.bidirectional)
    hx = torch.randn(rows, *batch, H) if "states" in call else None
    lengths = LENGTHS if "packed" in call or "sorted" in call else None
    if call == "sorted":
        lengths = sorted(LENGTHS, reverse=True)
    close(*(outcome(module, x, hx, lengths, call == "sorted") for module in (mine, stock)))
    assert runs == ["forward", "backward"]
    with torch.no_grad():
        close(mine.eval()(x, hx), stock.eval()(x, hx))
    assert runs[2:] == ["alone"]


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["gates", "states"])
def test_the_numbers_of_machine_code(keep: str, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # With the many devices of these tests "auto" leaves it to XLA, which splits a batch over them.
    method = gj.Sequential(kernel="llvm", keep=keep, cores=1)
    monkeypatch.setattr(passes, "_engine", lambda *_: (registry.engine("llvm"), method.how))
    jax.clear_caches()
    for layout in ({}, {"batch_first": True}):
        torch.manual_seed(0)
        options = {"bidirectional": True, "dropout": 0.3, **layout}
        mine, stock = (made(16, 32, 2, **options) for made in (inside.torch.GRU, nn.GRU))
        stock.load_state_dict(mine.state_dict())
        x = torch.randn(5, 40, 16) if layout else torch.randn(40, 5, 16)
        for lengths in (None, [40, 3, 17, 39, 1]):
            close(*(outcome(module, x, None, lengths) for module in (mine, stock)))
    assert runs == ["forward", "backward"] * 4
    jax.clear_caches()


def test_a_training_loop_ends_where_torch_s_does(runs: list[str]) -> None:
    mine, stock = pair(num_layers=2)
    x, target = torch.randn(T, B, I), torch.randn(B, 1)
    ends = []
    for rnn in (mine, stock):
        torch.manual_seed(2)
        model = nn.ModuleDict({"rnn": rnn, "out": nn.Linear(H, 1)})
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        for _ in range(20):
            optimizer.zero_grad()
            y, _ = model["rnn"](x)
            loss = ((model["out"](nn.functional.relu(y[-1], inplace=False)) - target) ** 2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        ends.append([loss.detach(), *(p.detach() for p in model.parameters())])
    close(*ends)
    assert runs == ["forward", "backward"] * 20


def test_what_is_torch_s_stays_torch_s() -> None:
    mine, stock = pair()
    x = torch.randn(T, B, I)
    assert isinstance(mine, nn.GRU) and repr(mine) == repr(stock)
    mine.load_state_dict(stock.state_dict())
    for twin in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert type(twin) is inside.torch.GRU
        torch.testing.assert_close(twin(x)[0], mine(x)[0], rtol=0, atol=0)
    seen: list[str] = []
    mine.register_forward_hook(lambda *_: seen.append("forward"))
    mine.register_full_backward_hook(lambda *_: seen.append("backward"))
    mine(x.requires_grad_())[0].sum().backward()
    assert seen == ["forward", "backward"]


def test_tensors_are_not_copied_and_stay_torch_s_to_change(runs: list[str]) -> None:
    mine, stock = pair()
    x = torch.randn(T, B, I)
    assert ours._to_jax(x).unsafe_buffer_pointer() == x.data_ptr()
    expected = outcome(stock, x, None, None)
    for change in (lambda y: y.relu_(), lambda y: y.zero_()):
        y, h = mine(x)
        change(y)
        z, k = stock(x)
        change(z)
        mine.zero_grad(), stock.zero_grad()
        (y.sum() + h.sum()).backward()
        (z.sum() + k.sum()).backward()
        close((p.grad for p in mine.parameters()), (p.grad for p in stock.parameters()))
    close(outcome(mine, x, None, None), expected)
    with torch.no_grad():
        y, _ = mine(x)
        kept = y.clone()
        x.zero_()  # the next batch, in the same memory
        torch.testing.assert_close(y, kept, rtol=0, atol=0)


def test_what_is_saved_is_torch_s_to_keep(runs: list[str]) -> None:
    mine, stock = pair(num_layers=2)
    x = torch.randn(T, B, I, requires_grad=True)
    moved: list[Any] = []

    def away(tensor: Any) -> Any:
        moved.append(tensor.shape)
        return tensor.clone()

    made = []
    for module in (mine, stock):
        with torch.autograd.graph.saved_tensors_hooks(away, lambda tensor: tensor):
            y, _ = module(x)
        y = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)[0] + y
        made.append(torch.autograd.grad((y**2).sum(), [x, *module.parameters()]))
    close(*made)
    assert moved and sorted(runs) == ["backward"] * 2 + ["forward"] * 3


def test_what_torch_refuses_between_the_passes_is_refused() -> None:
    mine, _ = pair()
    x = torch.randn(T, B, I)
    y, _ = mine(x)
    with torch.no_grad():
        mine.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y, _ = mine(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()
    y, _ = mine(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()


@pytest.mark.parametrize(
    ("x", "hx"),
    [((T, B, I + 1), None), ((T, B, I, 1), None), ((T, B, I), (1, B, H + 1)), ((T, B, I), (B, H)), ((0, B, I), None)],
)
def test_wrong_shapes_are_torch_s_errors(x: tuple[int, ...], hx: tuple[int, ...] | None) -> None:
    messages = []
    for module in pair():
        with pytest.raises((RuntimeError, ValueError)) as raised:
            module(torch.randn(x), None if hx is None else torch.randn(hx))
        messages.append((raised.type, str(raised.value)))
    assert messages[0] == messages[1]


def test_a_gradient_of_gradients_is_torch_s(runs: list[str]) -> None:
    for lengths, masks in ((None, 0.0), (LENGTHS, 0.4)):
        made = []
        for module in pair(num_layers=2, bidirectional=True, dropout=masks):
            torch.manual_seed(1)
            x = torch.linspace(-1, 1, T * B * I).reshape(T, B, I).requires_grad_()
            given = x if lengths is None else pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, h = module(given)
            whole = ((y if lengths is None else y.data) ** 2).sum() + h.sum()
            (slope,) = torch.autograd.grad(whole, x, create_graph=True)
            (slope**2).sum().backward()
            made.append([slope, x.grad, *(p.grad for p in module.parameters())])
        close(*made)
    # What the gradient depends on through y goes back by our program; what it is, by torch.
    assert runs == ["forward", "backward"] * 2


def test_many_gradients_at_once_are_torch_s(runs: list[str]) -> None:
    made = []
    for module in pair():
        x = torch.linspace(-1, 1, T * I).reshape(T, I).requires_grad_()
        _, h = module(x)
        made.append(torch.autograd.grad(h, x, torch.eye(H).reshape(H, 1, H), is_grads_batched=True))
    close(*made)
    assert runs == ["forward"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_what_runs_in_torch_s_way(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, stock = pair()
    x = torch.randn(T, B, I)
    named = dict(mine.named_parameters())

    def loss(module: Any) -> Any:
        return lambda p: torch.func.functional_call(module, p, (x,))[0].sum()

    for module in (mine, stock):
        module(x[:5])
        torch.jit.trace(module, (x,), check_trace=False)
        torch.func.grad(loss(module))({name: p.detach() for name, p in named.items()})
        copy.deepcopy(module).to("meta")(x.to("meta"))
        copy.deepcopy(module).double()(x.double())  # JAX has no float64 here
        copy.deepcopy(module).bfloat16()(x.bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(x)
    # TorchScript reads code, and is given that of torch.
    scripted = torch.jit.script(nn.Sequential(mine))
    torch.testing.assert_close(scripted(x)[0], stock(x)[0])
    # A process that was forked has no threads of JAX's.
    with monkeypatch.context() as patch:
        patch.setattr(ours, "PROCESS", -1)
        mine(x)
    assert not runs
    # Parameters that only a call has are seen.
    moved = {name: p * 2 for name, p in named.items()}
    close(*(torch.func.functional_call(module, moved, (x,)) for module in (mine, stock)))
    assert runs == ["forward"]


def test_shapes_have_an_end(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "MOST_PROGRAMS", 1)
    mine, stock = pair()
    with torch.no_grad():
        for steps in (17, 18, 17):
            x = torch.ones(steps, B, I)
            close(mine(x), stock(x))
    assert runs == ["alone", "alone"]


def test_packed_sequences_share_programs() -> None:
    assert [ours._rounded(steps) for steps in (1, 8, 15, 16, 17, 100, 129, 1000)] == [1, 8, 15, 16, 18, 104, 144, 1024]
    found = {ours._rounded(steps) for steps in range(128, 257)}
    assert len(found) == 9


def test_float64_and_other_threads(x64: None, runs: list[str]) -> None:
    mine, stock = (module.double() for module in pair())
    x = torch.randn(T, B, I, dtype=torch.float64)
    y, h = mine(x)
    (y.sum() + h.sum()).requires_grad_()
    # A thread of its own, as autograd has them, knows nothing of a setting that this one made.
    thread = threading.Thread(target=(y.sum() + h.sum()).backward)
    thread.start()
    thread.join()
    z, k = stock(x)
    (z.sum() + k.sum()).backward()
    for p, q in zip(mine.parameters(), stock.parameters(), strict=True):
        assert p.grad.dtype == torch.float64
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-12)
    assert runs == ["forward", "backward"]


def test_a_model_of_someone_else_is_accelerated_in_place(runs: list[str]) -> None:
    model = nn.Sequential(nn.GRU(I, H), nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(T, B, I)
    expected = model(x)
    assert inside.torch.accelerate(model) is model
    close(model(x), expected)
    assert runs == ["forward"]
    assert optimizer.param_groups[0]["params"][0] is model[0].weight_ih_l0
    np.testing.assert_equal(list(before), list(model.state_dict()))


def test_the_examples_run() -> None:
    found = doctest.testmod(ours)
    assert found.attempted and not found.failed


class Numbers(torch.utils.data.Dataset):
    """A data set that the workers of a loader can make."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.full((T, I), float(index))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_the_workers_of_a_loader_work_beside_it(way: str, runs: list[str]) -> None:
    mine, stock = pair(batch_first=True)
    mine(torch.zeros(2, T, I))  # JAX has its threads from here on
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=2, num_workers=2, multiprocessing_context=way)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == 2
        for x in batches:
            close(mine(x), stock(x))
    assert runs == ["forward"] * 5


def forked_call(mine: Any, x: Any, found: Any) -> None:
    found.put(mine(x)[0].detach().numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_forked_process_computes_in_torch_s_way() -> None:
    mine, _ = pair()
    x = torch.randn(T, B, I)
    expected = mine(x)[0].detach()
    context = torch.multiprocessing.get_context("fork")
    found = context.Queue()
    torch.set_num_threads(1)  # torch's own threads do not outlive a fork either
    process = context.Process(target=forked_call, args=(mine, x, found))
    process.start()
    np.testing.assert_allclose(found.get(timeout=60), expected, atol=1e-6)
    process.join()
    assert jax.default_backend() == "cpu"
