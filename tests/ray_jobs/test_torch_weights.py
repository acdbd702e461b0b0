"""Reading torch's old file format: what a tensor may say of its memory, and what is refused."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from gitops.errors import TrainingError
from ray_jobs.torch_weights import read_torch_weights


def test_a_tensors_strides_and_offset_are_honoured(tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)
    file = write_checkpoint(tmp_path / "w.pth", shape=(2, 3), strides=(1, 2), offset=4, values=values)
    weights = read_torch_weights(file)
    assert weights["w"].tolist() == [[4, 6, 8], [5, 7, 9]]


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "w.pth", shape=(2, 3), strides=(3, 2), offset=4, values=np.zeros(10, np.float32))
    with pytest.raises(TrainingError, match="reaches outside its 10 values"):
        read_torch_weights(file)


def test_a_checkpoint_that_names_anything_but_tensors_runs_nothing(tmp_path: Path) -> None:
    trap, file = tmp_path / "sprung", tmp_path / "w.pth"
    payload = b"cos\nsystem\n(Vtouch " + str(trap).encode() + b"\ntR."
    file.write_bytes(header() + payload)
    with pytest.raises(TrainingError, match=r"names os\.system"):
        read_torch_weights(file)
    assert not trap.exists()


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "w.pth", shape=(10,), strides=(1,), offset=0, values=np.zeros(10, np.float32))
    data = whole.read_bytes()
    for length in (0, 5, len(header()), len(data) - 4):
        whole.write_bytes(data[:length])
        with pytest.raises(TrainingError, match=r"w\.pth is not a checkpoint"):
            read_torch_weights(whole)


def header() -> bytes:
    return b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def write_checkpoint(
    path: Path, *, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, values: np.ndarray
) -> Path:
    """One tensor named w. Written opcode by opcode, as torch itself is not installed."""

    def integers(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"K" + bytes([number]) for number in numbers) + b"t"

    reference = b"(Vstorage\nctorch\nFloatStorage\nV7\nVcpu\n" + b"K" + bytes([len(values)]) + b"NtQ"
    arguments = b"(" + reference + b"K" + bytes([offset]) + integers(shape) + integers(strides)
    arguments += b"I00\n" + b"ccollections\nOrderedDict\n)R" + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    state = b"\x80\x02ccollections\nOrderedDict\n)R(Vw\n" + tensor + b"u."
    keys = pickle.dumps(["7"], protocol=2)
    path.write_bytes(header() + state + keys + struct.pack("<q", len(values)) + values.tobytes())
    return path
