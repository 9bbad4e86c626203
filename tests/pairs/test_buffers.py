from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from golden_noise.pairs.buffers import Buffers


def addresses(*tensors: torch.Tensor) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors}


def test_memory_that_nobody_uses_is_given_out_again():
    buffers = Buffers(4)
    first, second = buffers.take(4, (3, 5)), buffers.take(2, (3, 5))
    assert (first.shape, second.shape, first.dtype) == ((4, 3, 5), (2, 3, 5), torch.float16)
    used = addresses(first, second)
    assert len(used) == 2
    del first, second
    again = [buffers.take(3, (3, 5)) for _ in range(3)]
    assert used < addresses(*again) and len(addresses(*again)) == 3


@pytest.mark.parametrize(
    "share",
    [
        lambda tensor: tensor[1:],
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.numpy()[1:][:1],
        lambda tensor: tensor.to(torch.float16).view(torch.int16),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: memoryview(tensor.numpy()),
        lambda tensor: torch.nn.Parameter(tensor),
    ],
)
def test_a_view_keeps_its_memory(share):
    buffers = Buffers(2)
    tensor = buffers.take(2, (8,)).fill_(1)
    address = tensor.data_ptr()
    view = share(tensor)
    del tensor
    assert buffers.take(2, (8,)).data_ptr() != address
    del view
    held = [buffers.take(2, (8,)) for _ in range(2)]
    assert address in addresses(*held)


def test_more_rows_than_usual_get_memory_of_their_own():
    buffers = Buffers(2)
    kept = [buffers.take(rows, (4,)).fill_(rows) for rows in (2, 3, 2)]
    assert [tensor.tolist() for tensor in kept] == [[4 * [float(rows)]] * rows for rows in (2, 3, 2)]


def test_threads_never_share_memory():
    buffers = Buffers(1)

    def work(number: int) -> bool:
        held = [buffers.take(1, (64,)).fill_(number) for _ in range(3)]
        return all(bool((tensor == number).all()) for tensor in held)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(400)))
    assert sum(map(len, buffers._free.values())) <= 12
